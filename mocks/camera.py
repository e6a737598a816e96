"""What all simulated cameras share: their scene, their clock, the frames that they lose."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mocks.conversion import ConversionParameters, ConversionScene
from mocks.fringes import FringesParameters, FringesScene
from mocks.layers import LayersScene
from mocks.nanowire import NanowireParameters, NanowireScene
from mocks.particles import ParticlesParameters, ParticlesScene
from mocks.profiles import ProfilesParameters, ProfilesScene
from mocks.reacting_nanowire import ReactingNanowireParameters, ReactingNanowireScene
from mocks.scenario import CameraSettings, Scenario
from mocks.scene import Scene, SceneParameters

_SCENES: tuple[tuple[type[SceneParameters], Callable[[Scenario, Any, int], Scene]], ...] = (
    (ConversionParameters, ConversionScene),
    (FringesParameters, FringesScene),
    (NanowireParameters, NanowireScene),
    (ParticlesParameters, ParticlesScene),
    (ProfilesParameters, ProfilesScene),
    (ReactingNanowireParameters, ReactingNanowireScene),
)


def new_scene(scenario: Scenario, seed: int) -> Scene:
    """Return the scene that a scenario's parameters describe."""
    for parameters, scene in _SCENES:
        if isinstance(scenario.scene, parameters):
            return scene(scenario, scenario.scene, seed)
    return LayersScene(scenario, seed)


def camera_time_ns(camera: CameraSettings, start_ns: int, host_ns: int) -> int:
    """Return what the camera's clock shows at a host time."""
    elapsed = host_ns - start_ns
    return round(camera.clock_offset_s * 1e9) + elapsed + round(elapsed * camera.clock_rate_ratio)


def is_dropped(camera: CameraSettings, seed: int, index: int) -> bool:
    """Tell whether a frame is lost before it is sent; the very first is not."""
    chance = float(np.random.default_rng([seed, 6, index]).random())
    return index > 0 and chance < camera.dropped_ratio
