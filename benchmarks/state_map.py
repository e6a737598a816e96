"""State of charge by particle: error over the bound and over claimed sigma.

    pip install -e ".[bench]"
    python benchmarks/state_map.py

The simulated mosaic of LiFePO4. Printed: errors of each particle's state over the bound of
its counts (a known pristine and converted brightness, all of the particle's pixels), and of
all columns beside claimed sigmas; fractions are counts of whole particles, so that the ratio
of the root-mean-square values says more than the pull. Beside ours, for the fraction that
has converted: Otsu's threshold on pixels of the particles (scikit-image), and 2-means on
the particles' means (scipy), both of which have no class between.
"""

import numpy as np
from scene_movies import Pulls, errors, heading, movie
from scipy.cluster.vq import kmeans2
from skimage.filters import threshold_otsu

from correlate.trackers.state_map import StateMapTracker
from mocks.particles import ParticlesScene

SEEDS, FRAMES, FRONT_M = 8, 60, 90e-9


def main() -> None:
    """Print the table."""
    pulls, over_bound = Pulls(), []
    peers: dict[str, list[float]] = {"ours": [], "Otsu": [], "2-means": []}
    for seed in range(SEEDS):
        seen = movie("lfp_state_map", seed, FRAMES, front_m=FRONT_M)
        scene = seen.scene
        assert isinstance(scene, ParticlesScene)
        track = StateMapTracker(seen.settings).track(lambda seen=seen: seen.frames)
        count = int(track.attributes["particles"])
        for column in ("mean_state", "active_fraction", "converted_fraction", "spread"):
            pulls.add(column, *errors(track, column, seen.truth[column]))
        for k in range(1, count + 1):
            x, y = (track.attributes[f"{axis}_px_{k}"] for axis in "xy")
            nearest = int(np.argmin(np.hypot(scene.x_px - x, scene.y_px - y))) + 1
            truth = seen.truth[f"state_{nearest}"]
            error, sigma = errors(track, f"state_{k}", truth)
            pulls.add("state of a particle", error, sigma)
            level = (0.45 + 0.18 * truth) * scene.dose_e_px
            bound = np.sqrt(level / track.attributes[f"area_px_{k}"]) / (0.18 * scene.dose_e_px)
            over_bound.append(error / bound)
        means = np.array([track.columns[f"state_{k}"] for k in range(1, count + 1)])
        first = np.mean(np.stack(seen.frames[:10]), axis=0)
        inside = first > threshold_otsu(first)
        # What each would say of a frame when it has seen the whole recording.
        bright = threshold_otsu(np.stack(seen.frames)[:, inside])
        centres = np.sort(kmeans2(means.ravel(), np.array([0.0, 1.0]))[0])
        for i, frame in enumerate(seen.frames):
            truth_i = seen.truth["converted_fraction"][i]
            peers["ours"].append(track.columns["converted_fraction"][i] - truth_i)
            peers["Otsu"].append(float(np.mean(frame[inside] > bright)) - truth_i)
            peers["2-means"].append(float(np.mean(means[:, i] > centres.mean())) - truth_i)
    heading()
    pulls.show("lfp_state_map")
    ratio = np.sqrt(np.mean(np.concatenate(over_bound) ** 2))
    print(f"state of a particle over its bound: {ratio:.2f}")
    for name, found in peers.items():
        print(f"converted fraction, {name}: rms error {np.sqrt(np.mean(np.square(found))):.4f}")


if __name__ == "__main__":
    main()
