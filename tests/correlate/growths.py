"""Movies of simulated lithium that grows, with the truth of each frame."""

from dataclasses import dataclass

import numpy as np

from correlate.trackers.protocol import SceneSettings
from mocks.camera import new_scene
from mocks.growths import LITHIUM_M3_MOL
from mocks.scenario import load

PIXEL_M = 4e-9
FARADAY = 96_485.33212


@dataclass(frozen=True, kw_only=True)
class Film:
    """Frames, their truth in SI units, the charge, and what drift brings them back."""

    frames: list
    truth: dict
    charge_C: np.ndarray
    drift_px: np.ndarray
    settings: SceneSettings
    scene: object


def film(name, seed, charge_C, *, options=None, wander_px=0.15, **overrides):
    """Film a scenario at given charges."""
    overrides = {"pixel_size_m": PIXEL_M, **overrides}
    scenario = load(name, **overrides)
    scene = new_scene(scenario, seed)
    rng = np.random.default_rng([seed, 77])
    drift_px = np.cumsum(wander_px * rng.standard_normal((len(charge_C), 2)), axis=0)
    drift_px -= drift_px[0]
    frames, rows = [], []
    for i, (charge, drift) in enumerate(zip(charge_C, drift_px, strict=True)):
        front_m = scenario.cell.front_start_m + charge / scenario.cell.charge_per_m_C
        frames.append(scene.frame(i, front_m, tuple(drift)))
        rows.append(next(iter(scene.truth(front_m).values())))
    settings = SceneSettings(
        shape=scene.shape, pixel_size_m=PIXEL_M, depth_m=2e-6, options=options or {}
    )
    truth = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return Film(
        frames=frames,
        truth=truth,
        charge_C=np.asarray(charge_C),
        drift_px=drift_px,
        settings=settings,
        scene=scene,
    )


def charge_for(length_m, diameter_m):
    """Return the charge of so much of a whisker."""
    return np.pi / 4 * diameter_m**2 * length_m * FARADAY / LITHIUM_M3_MOL
