"""What all simulated cameras share: their scene, their clock, the frames that they lose."""

from typing import TYPE_CHECKING

import numpy as np

from mocks.layers import LayersScene
from mocks.scenario import CameraSettings, Scenario
from mocks.scene_parameters import (
    FringesParameters,
    GrowthParameters,
    ParticlesParameters,
    ProfilesParameters,
)

if TYPE_CHECKING:
    from mocks.scene import Scene


def new_scene(scenario: Scenario, seed: int) -> "Scene":
    """Return the scene that a scenario's parameters describe; no other's maths is loaded."""
    match scenario.scene:
        case FringesParameters() as fringes:
            from mocks.fringes import FringesScene  # noqa: PLC0415

            return FringesScene(scenario, fringes, seed)
        case GrowthParameters() as growth:
            from mocks.growths import GrowthScene  # noqa: PLC0415

            return GrowthScene(scenario, growth, seed)
        case ParticlesParameters() as mosaic:
            from mocks.particles import ParticlesScene  # noqa: PLC0415

            return ParticlesScene(scenario, mosaic, seed)
        case ProfilesParameters() as profiles:
            from mocks.profiles import ProfilesScene  # noqa: PLC0415

            return ProfilesScene(scenario, profiles, seed)
        case _:
            return LayersScene(scenario, seed)


def camera_time_ns(camera: CameraSettings, start_ns: int, host_ns: int) -> int:
    """Return what the camera's clock shows at a host time."""
    elapsed = host_ns - start_ns
    return round(camera.clock_offset_s * 1e9) + elapsed + round(elapsed * camera.clock_rate_ratio)


def is_dropped(camera: CameraSettings, seed: int, index: int) -> bool:
    """Tell whether a frame is lost before it is sent; the very first is not."""
    chance = float(np.random.default_rng([seed, 6, index]).random())
    return index > 0 and chance < camera.dropped_ratio
