"""The equipment of one run: real instruments, or a simulated bench in their place."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cameras.options import CameraOptions
from runner.bench import (
    BenchFailed,
    BenchReady,
    BenchSettings,
    Done,
    MateCell,
    StopBench,
    bench_main,
)
from runner.clock import (
    ClockSpec,
    HostClock,
    LockstepClock,
    RunningClock,
    SharedTime,
    real_now_ns,
)
from runner.config import MOCK
from runner.experiment import Experiment
from runner.process import PipedProcess, ProcessLost

ANY_SIMULATED = "keithley6430"  # stands on a bench whose camera alone is asked for
SIMULATED_MICROSCOPE, LOOPBACK = "temscript", "127.0.0.1"
MAX_SPEED = math.inf
JOIN_TIMEOUT_S = 20.0


class LabError(Exception):
    """The equipment that the experiment asks for cannot be had."""


@dataclass(frozen=True, slots=True)
class CameraAddress:
    """Which frame source, and how it is reached."""

    driver: str
    options: CameraOptions


@dataclass(frozen=True, slots=True)
class MicroscopeAddress:
    """Which microscope, and where its server listens."""

    driver: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Lab:
    """Open equipment."""

    clock: HostClock
    potentiostat_resource: str
    camera: CameraAddress | None
    bench: PipedProcess | None
    microscope: MicroscopeAddress | None = None

    @property
    def simulated(self) -> bool:
        """True when anything here is a mock."""
        return self.bench is not None

    async def mate_cell(self) -> None:
        """Put the simulated cell into the holder."""
        if self.bench is None:
            raise LabError("only a simulated holder can be loaded from here")
        self.bench.send(MateCell())
        await self.bench.receive()


def uses_mock(experiment: Experiment) -> bool:
    """Tell whether anything in the experiment is simulated."""
    camera = experiment.camera
    return experiment.potentiostat.resource == MOCK or (
        camera is not None and camera.driver == MOCK
    )


def refuse_impossible_speed(experiment: Experiment, speed: float) -> None:
    """Raise LabError where real hardware is asked to hurry."""
    others = (experiment.camera, experiment.microscope)
    all_mock = experiment.potentiostat.resource == MOCK and all(
        other is None or other.driver == MOCK for other in others
    )
    if speed != 1.0 and not all_mock:
        raise LabError(
            "--speed is for simulated hardware only; "
            "this experiment names a real instrument, so leave it out"
        )


@asynccontextmanager
async def open_lab(
    experiment: Experiment,
    *,
    speed: float = 1.0,
    truth_path: Path | None = None,
    holder_open: bool = False,
) -> AsyncIterator[Lab]:
    """Provide the equipment of an experiment, and put it away afterwards.

    Parameters
    ----------
    speed
        1 for real time, N for N times as fast, ``math.inf`` for as fast as it can.
    truth_path
        Where a simulated bench writes its hidden truth when it ends.
    holder_open
        True when no cell is in the simulated holder yet.

    Raises
    ------
    LabError
        Real hardware was asked to hurry, or the simulated bench does not start.
    """
    refuse_impossible_speed(experiment, speed)
    if not uses_mock(experiment):
        real = RunningClock(ClockSpec(origin_ns=real_now_ns()))
        yield _with_bench(experiment, real, None, None)
        return
    async with _simulated_clock(speed) as clock:
        bench = PipedProcess(
            "bench",
            bench_main,
            _bench_settings(experiment, clock, truth_path, holder_open=holder_open),
        )
        await bench.start()
        try:
            yield _with_bench(experiment, clock, bench, await _ready(bench))
        finally:
            await _put_away(bench)


@asynccontextmanager
async def _simulated_clock(speed: float) -> AsyncIterator[HostClock]:
    start_ns = real_now_ns()
    if speed != MAX_SPEED:
        yield RunningClock(ClockSpec(origin_ns=start_ns, speed=speed))
        return
    shared, path = await asyncio.to_thread(SharedTime.create, start_ns)
    try:
        yield LockstepClock(ClockSpec(origin_ns=start_ns, path=str(path)), shared)
    finally:
        shared.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)


async def _ready(bench: PipedProcess) -> BenchReady:
    try:
        answer = await bench.receive()
    except ProcessLost as error:
        raise LabError("the simulated bench did not start") from error
    match answer:
        case BenchReady():
            return answer
        case BenchFailed(error=text):
            raise LabError(text)
        case _:
            raise LabError(f"the simulated bench answered {answer!r}")


async def _put_away(bench: PipedProcess) -> None:
    try:
        bench.send(StopBench())
        while not isinstance(await bench.receive(), Done):
            pass
    except ProcessLost:
        pass  # it has gone by itself
    await bench.join(JOIN_TIMEOUT_S)


def _bench_settings(
    experiment: Experiment,
    clock: HostClock,
    truth_path: Path | None,
    *,
    holder_open: bool,
) -> BenchSettings:
    overrides: dict[str, float] = dict(experiment.mock.overrides)
    # A real camera's settings say nothing of the simulated one, which nobody looks at then.
    if (camera := experiment.camera) is not None and camera.driver == MOCK:
        overrides |= {
            "frame_rate_Hz": camera.frame_rate_Hz,
            "pixel_size_m": camera.pixel_size_m,
            "dose_rate_e_m2_s": camera.dose_rate_e_m2_s,
            "height": camera.height,
            "width": camera.width,
        }
    if (line := experiment.potentiostat.lines.exposure_in) is not None:
        overrides["exposure_line"] = line  # what the plan says is wired, is
    return BenchSettings(
        scenario=experiment.mock.scenario,
        seed=experiment.mock.seed,
        driver=experiment.potentiostat.driver
        if experiment.potentiostat.resource == MOCK
        else ANY_SIMULATED,
        overrides=tuple(overrides.items()),
        clock=clock.spec,
        truth_path=None if truth_path is None else str(truth_path),
        holder_open=holder_open,
    )


def _with_bench(
    experiment: Experiment,
    clock: HostClock,
    bench: PipedProcess | None,
    ready: BenchReady | None,
) -> Lab:
    resource, camera = experiment.potentiostat.resource, None
    if resource == MOCK and ready is not None:
        resource = ready.potentiostat_resource
    if experiment.camera is not None:
        if experiment.camera.is_node:
            pass  # it is reached over the bus, by the run
        elif experiment.camera.driver == MOCK and ready is not None:
            camera = CameraAddress("stream", CameraOptions(port=ready.camera_port))
        else:
            camera = CameraAddress(experiment.camera.driver, experiment.camera.options)
    microscope = None
    if (named := experiment.microscope) is not None:
        microscope = MicroscopeAddress(named.driver, named.host, named.port)
        if named.driver == MOCK and ready is not None:
            microscope = MicroscopeAddress(SIMULATED_MICROSCOPE, LOOPBACK, ready.microscope_port)
    return Lab(clock, resource, camera, bench, microscope)
