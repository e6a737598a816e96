"""What is opened for a run beside its cell: camera, microscope, tracking and bus."""

import asyncio
from contextlib import AsyncExitStack

from cameras.microscope import Microscope, microscope_class
from cameras.protocol import FrameSource
from runner.bus_address import BusAddress
from runner.bus_commands import Command
from runner.bus_feed import BusFeed
from runner.control import Control
from runner.devices import open_camera
from runner.experiment import Experiment
from runner.lab import Lab
from runner.live_tracking import LiveTracking, scene_of
from runner.outputs import Outputs


async def enter_camera(lab: Lab, stack: AsyncExitStack) -> FrameSource | None:
    """Open the camera, if there is one on this computer."""
    if lab.camera is None:
        return None
    camera = await asyncio.to_thread(
        open_camera,
        lab.camera.driver,
        lab.camera.options,
        now_ns=lab.clock.now_ns,
    )
    return await stack.enter_async_context(camera)


async def enter_microscope(lab: Lab, stack: AsyncExitStack) -> Microscope | None:
    """Connect to the microscope; a run that cannot have it does not begin."""
    if (address := lab.microscope) is None:
        return None
    driver = await asyncio.to_thread(microscope_class, address.driver)
    microscope: Microscope = driver.at(address.host, address.port, now_ns=lab.clock.now_ns)
    return await stack.enter_async_context(microscope)


async def enter_tracking(
    experiment: Experiment, lab: Lab, camera: FrameSource | None, stack: AsyncExitStack
) -> LiveTracking | None:
    """Start to track what rules on images ask for; without such rules, nothing is."""
    asked = {rule.track for rules in experiment.image_rules for rule in rules}
    asked |= {rule.track for keep in experiment.keeps for rule in keep.rules}
    tracks = tuple(track for track in experiment.tracks if track.name in asked)
    if camera is None or experiment.camera is None or not tracks:
        return None
    shape = (camera.info.height, camera.info.width)
    return await stack.enter_async_context(
        LiveTracking(
            tracks,
            scene_of(experiment.camera, experiment.cell, shape),
            dtype=camera.info.dtype,
            frame_rate_Hz=camera.info.frame_rate_Hz,
            waits=lab.clock.spec.lockstep,
        )
    )


async def enter_bus(
    experiment: Experiment, outputs: Outputs, control: Control, stack: AsyncExitStack
) -> BusFeed | None:
    """Show the run over MQTT and obey what is signed, where the experiment names a broker."""
    if experiment.bus is None:
        return None

    def obey(command: Command) -> str | None:
        step = command.arguments.get("step")
        return control.order(
            command.word,
            source=f"bus {command.sender}",
            step=step if isinstance(step, int) else None,
            text=str(command.arguments.get("text", "")),
        )

    return await stack.enter_async_context(BusFeed(bus_address(experiment, outputs), obey=obey))


def bus_address(experiment: Experiment, outputs: Outputs) -> BusAddress:
    """Return where the run is shown, and where its camera node is."""
    if (bus := experiment.bus) is None:
        raise ValueError("the experiment names no broker")
    return BusAddress(
        host=bus.host,
        port=bus.port,
        lab=bus.lab,
        session=outputs.session.stem,
        security=bus.security,
        version=bus.version,
    )
