"""Serves simulated instruments alone, in real time, until they are interrupted."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from potentiostat.registry import potentiostat_class
from runner.clock import real_now_ns
from runner.lab import LabError


async def serve_mock(
    model: str,
    *,
    scenario: str,
    seed: int,
    potentiostat_port: int | None,
    camera_port: int | None,
    say: Callable[[str], None],
) -> None:
    """Serve a simulated instrument on loopback; never returns by itself.

    Parameters
    ----------
    model
        Driver name, or a part of it that is the end of just one; or a model.
    potentiostat_port, camera_port
        Where to listen; 0 for a free port, None for what nobody asked for.
    say
        Told where the instruments listen.

    Raises
    ------
    LabError
        There is no such model or scenario, or the port is taken.
    """
    instruments: Any = importlib.import_module("mocks.instruments")
    scenarios: Any = importlib.import_module("mocks.scenario")
    bench_module: Any = importlib.import_module("mocks.bench")
    pace_module: Any = importlib.import_module("mocks.pace")
    world_module: Any = importlib.import_module("mocks.world")
    simulated = instruments.simulated_models()
    driver = await asyncio.to_thread(_driver_of, model, simulated)
    try:
        chosen = scenarios.load(scenario)
    except ValueError as error:
        raise LabError(str(error)) from error
    world = world_module.World(chosen, seed=seed, start_ns=real_now_ns())
    pace = pace_module.RealPace(world, real_now_ns, 1.0)
    bench = bench_module.Bench(
        world, pace, driver=driver, ports=(potentiostat_port or 0, camera_port or 0)
    )
    try:
        await bench.__aenter__()
    except OSError as error:
        raise LabError(f"the port cannot be had ({error.strerror}); name another") from error
    try:
        if potentiostat_port is not None:
            say(f"simulated {driver} ({simulated[driver]}): {bench.smu_resource}")
        if camera_port is not None:
            say(f'simulated camera: driver = "stream", port = {bench.camera_port}')
        say("Ctrl-C ends it")
        await asyncio.Event().wait()
    finally:
        await bench.__aexit__(None, None, None)


async def serve_camera(
    model: str,
    *,
    scenario: str,
    seed: int,
    ports: tuple[int, int],
    say: Callable[[str], None],
) -> None:
    """Serve a simulated detector that speaks its maker's protocol; never returns by itself.

    Parameters
    ----------
    model
        ``"merlin"`` or ``"dectris"``.
    ports
        For commands and for frames; 0 for a free one.
    say
        Told what to write into an experiment file.

    Raises
    ------
    LabError
        There is no such scenario, or a port is taken.
    """
    scenarios: Any = importlib.import_module("mocks.scenario")
    pace_module: Any = importlib.import_module("mocks.pace")
    world_module: Any = importlib.import_module("mocks.world")
    try:
        chosen = scenarios.load(scenario)
    except ValueError as error:
        raise LabError(str(error)) from error
    world = world_module.World(chosen, seed=seed, start_ns=real_now_ns())
    pace = pace_module.RealPace(world, real_now_ns, 1.0)
    served = {"merlin": _merlin, "dectris": _dectris}[model](world, pace, ports)
    try:
        keys = await served.__aenter__()
    except OSError as error:
        raise LabError(f"the port cannot be had ({error.strerror}); name another") from error
    try:
        say(f'simulated camera: driver = "{model}", {keys}')
        say("Ctrl-C ends it")
        await asyncio.Event().wait()
    finally:
        await served.__aexit__(None, None, None)


@asynccontextmanager
async def _merlin(world: Any, pace: Any, ports: tuple[int, int]) -> AsyncIterator[str]:
    merlin: Any = importlib.import_module("mocks.merlin")
    async with merlin.serve(merlin.MerlinServer(world, pace), pace, ports=ports) as server:
        yield f"control_port = {server.control_port}, data_port = {server.data_port}"


@asynccontextmanager
async def _dectris(world: Any, pace: Any, ports: tuple[int, int]) -> AsyncIterator[str]:
    dectris: Any = importlib.import_module("mocks.dectris")
    async with dectris.DectrisServer(world, pace, ports=ports) as server:
        passing = asyncio.create_task(pace.run(), name="mocks.pace")
        try:
            yield f"port = {server.port}, data_port = {server.data_port}"
        finally:
            passing.cancel()


def _driver_of(model: str, simulated: Mapping[str, str]) -> str:
    """Return the driver whose simulated instrument is meant, by its name or its model."""
    asked = model.lower()
    wanted = asked.removesuffix("a").removesuffix("b")
    found = [
        name
        for name, own in simulated.items()
        if asked in (name, own.lower()) or (wanted and name.endswith(wanted))
    ]
    if len(found) == 1:
        return found[0]
    for name, own in simulated.items():
        if asked in (known.lower() for known in potentiostat_class(name).models):
            raise LabError(
                f"there is no simulated {model}; of its family there is {own}: --model "
                f'"{own}", with the driver {name}'
            )
    raise LabError(f"there is no simulated {model!r}; there is {', '.join(simulated)}")
