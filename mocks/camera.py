"""What all simulated cameras share: their scene, their clock, the frames that they lose."""

from typing import TYPE_CHECKING

import numpy as np

from mocks.layers import LayersScene
from mocks.scenario import CameraSettings, Scenario
from mocks.scene_parameters import (
    ConversionParameters,
    FringesParameters,
    GrowthParameters,
    NanowireParameters,
    ParticlesParameters,
    ProfilesParameters,
    ReactingNanowireParameters,
)

if TYPE_CHECKING:
    from mocks.scene import Scene


def new_scene(scenario: Scenario, seed: int) -> "Scene":
    """Return the scene that a scenario's parameters describe; no other's maths is loaded."""
    scene: Scene
    match scenario.scene:
        case ConversionParameters() as converts:
            from mocks.conversion import ConversionScene  # noqa: PLC0415

            scene = ConversionScene(scenario, converts, seed)
        case FringesParameters() as fringes:
            from mocks.fringes import FringesScene  # noqa: PLC0415

            scene = FringesScene(scenario, fringes, seed)
        case GrowthParameters() as growth:
            from mocks.growths import GrowthScene  # noqa: PLC0415

            scene = GrowthScene(scenario, growth, seed)
        case NanowireParameters() as wire:
            from mocks.nanowire import NanowireScene  # noqa: PLC0415

            scene = NanowireScene(scenario, wire, seed)
        case ParticlesParameters() as mosaic:
            from mocks.particles import ParticlesScene  # noqa: PLC0415

            scene = ParticlesScene(scenario, mosaic, seed)
        case ProfilesParameters() as profiles:
            from mocks.profiles import ProfilesScene  # noqa: PLC0415

            scene = ProfilesScene(scenario, profiles, seed)
        case ReactingNanowireParameters() as reacting:
            from mocks.reacting_nanowire import ReactingNanowireScene  # noqa: PLC0415

            scene = ReactingNanowireScene(scenario, reacting, seed)
        case _:
            scene = LayersScene(scenario, seed)
    return scene


def camera_time_ns(camera: CameraSettings, start_ns: int, host_ns: int) -> int:
    """Return what the camera's clock shows at a host time."""
    elapsed = host_ns - start_ns
    return round(camera.clock_offset_s * 1e9) + elapsed + round(elapsed * camera.clock_rate_ratio)


def is_dropped(camera: CameraSettings, seed: int, index: int) -> bool:
    """Tell whether a frame is lost before it is sent; the very first is not."""
    chance = float(np.random.default_rng([seed, 6, index]).random())
    return index > 0 and chance < camera.dropped_ratio
