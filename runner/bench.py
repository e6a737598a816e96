"""The simulated bench's own process: a world behind real sockets.

The mocks are loaded by name, only here, and only when an experiment asks for them.
"""

import asyncio
import importlib
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.clock import ClockSpec, SharedTime
from session.truth import write_truth

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """What the simulated bench needs.

    Parameters
    ----------
    scenario, seed, overrides
        Which world, and what an experiment changes in it.
    driver
        Name of the potentiostat's driver, for the instrument to stand in.
    truth_path
        Where the hidden truth goes when the bench ends; None for nowhere.
    holder_open
        True when no cell is in the holder yet.
    """

    scenario: str
    seed: int
    overrides: tuple[tuple[str, float], ...]
    driver: str
    clock: ClockSpec
    truth_path: str | None
    holder_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReady:
    """Where the simulated instruments listen."""

    potentiostat_resource: str
    camera_port: int
    microscope_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFailed:
    """The bench could not be set up."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MateCell:
    """Put the cell into the holder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopBench:
    """End, and write the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The last request was carried out."""


def bench_main(connection: "Connection[Any, Any]", settings: BenchSettings) -> None:
    """Serve the simulated bench: the entry point of its process."""
    with suppress(ValueError):  # in a thread there is no signal to ignore
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(connection, settings))


async def _serve(connection: "Connection[Any, Any]", settings: BenchSettings) -> None:
    mocks_bench: Any = importlib.import_module("mocks.bench")
    scenario: Any = importlib.import_module("mocks.scenario")
    instruments: Any = importlib.import_module("mocks.instruments")
    pace_module: Any = importlib.import_module("mocks.pace")
    world_module: Any = importlib.import_module("mocks.world")
    now_ns = settings.clock.reader()
    try:
        chosen = scenario.load(settings.scenario, **dict(settings.overrides))
        instruments.refuse_unknown(settings.driver)
        world = world_module.World(chosen, seed=settings.seed, start_ns=now_ns())
        if settings.clock.path is not None:
            shared = SharedTime(Path(settings.clock.path))
            pace = pace_module.LockstepPace(world, shared.publish)
        else:
            pace = pace_module.RealPace(world, now_ns, settings.clock.speed)
        made = mocks_bench.Bench(world, pace, driver=settings.driver)
    except ValueError as error:
        connection.send(BenchFailed(error=str(error)))
        return
    async with made as bench:
        if settings.holder_open:
            await bench.open_holder()
        connection.send(
            BenchReady(
                potentiostat_resource=bench.smu_resource,
                camera_port=bench.camera_port,
                microscope_port=bench.microscope.port,
            )
        )
        await _obey(connection, bench)
    if settings.truth_path is not None:
        write_truth(Path(settings.truth_path), world.truth())
    with suppress(OSError):
        connection.send(Done())


async def _obey(connection: "Connection[Any, Any]", bench: Any) -> None:
    """Do as told until told to stop; outlive a runner that died, as hardware does."""
    while True:
        try:
            message = await asyncio.to_thread(connection.recv)
        except (EOFError, OSError):
            await bench.wait_until_unattended(timeout_s=10.0)
            return
        match message:
            case MateCell():
                await bench.mate_cell()
                connection.send(Done())
            case StopBench():
                return
            case _:
                raise TypeError(f"the bench does not know {message!r}")
