"""Movies of simulated scenes with their truth, for the benchmarks of trackers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.trackers.protocol import SceneSettings, Track
from mocks.camera import new_scene
from mocks.scenario import load
from mocks.scene import Scene
from mocks.stage import Stage

Floats = NDArray[np.float64]
STILL = 20  # frames before anything changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Movie:
    """Frames of a scene, what a tracker is told of them, and what is true."""

    scene: Scene
    frames: list[NDArray[np.uint8]]
    settings: SceneSettings
    truth: dict[str, Floats]
    x_px: Floats


def movie(
    name: str,
    seed: int,
    count: int,
    *,
    front_m: float,
    options: dict[str, float | str] | None = None,
    frame_s: float = 0.2,
    shares: Floats | None = None,
    **overrides: float,
) -> Movie:
    """Film a scenario while its front moves by so much, after the first still frames.

    Parameters
    ----------
    shares
        Of ``front_m`` in each frame, instead; shape (count,).
    """
    scenario = load(name, **overrides)
    scene, camera = new_scene(scenario, seed), scenario.camera
    stage = Stage(seed, camera.drift_m_per_root_s)
    still = min(STILL, count // 3)
    gone = np.clip((np.arange(count) - still) / max(count - still - 3, 1), 0, 1)
    gone = gone if shares is None else shares
    frames, rows, x_px = [], [], []
    for i, share in enumerate(gone):
        front = scenario.cell.front_start_m + front_m * float(share)
        x_m, y_m = stage.position_m(frame_s * i)
        drift_px = x_m / camera.pixel_size_m, y_m / camera.pixel_size_m
        scene.dose_e_m2 = camera.dose_rate_e_m2_s * frame_s * i
        frames.append(scene.frame(i, front, drift_px))
        rows.append(next(iter(scene.truth(front).values())))
        x_px.append(drift_px[0])
    return Movie(
        scene=scene,
        frames=frames,
        settings=SceneSettings(
            shape=scene.shape, pixel_size_m=camera.pixel_size_m, options=options or {}
        ),
        truth={key: np.array([row[key] for row in rows]) for key in rows[0]},
        x_px=np.array(x_px),
    )


def errors(track: Track, column: str, truth: Floats) -> tuple[Floats, Floats]:
    """Return errors and claimed sigmas of the frames that are valid."""
    ok = track.valid & np.isfinite(track.columns[column])
    return (track.columns[column] - truth)[ok], track.columns[f"{column}_sigma"][ok]


class Pulls:
    """Gathers errors over claimed sigmas by column."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[Floats, Floats]]] = {}

    def add(self, column: str, error: Floats, sigma: Floats) -> None:
        """Add one recording."""
        self._found.setdefault(column, []).append((error, sigma))

    def show(self, title: str) -> None:
        """Print a row for each column."""
        for column, found in self._found.items():
            error, sigma = (np.concatenate(part) for part in zip(*found, strict=True))
            rms = float(np.sqrt(np.mean(error**2)))
            each = error[sigma > 0] / sigma[sigma > 0]
            print(
                f"{title:<34}{column:<21}{rms:12.4g}{np.sqrt(np.mean(sigma**2)):12.4g}"
                f"{rms / np.sqrt(np.mean(sigma**2)):8.2f}{np.sqrt(np.mean(each**2)):8.2f}"
            )


def heading() -> None:
    """Print the heading of such a table."""
    print(
        f"{'scenario':<34}{'column':<21}{'rms error':>12}{'rms sigma':>12}{'ratio':>8}{'pull':>8}"
    )
