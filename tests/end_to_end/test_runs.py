"""Short runs that end in every way a run can end, through all processes."""

import asyncio
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cameras.errors import CameraError
from mocks.bench import Bench
from mocks.pace import RealPace
from mocks.scenario import load
from mocks.world import World
from runner.cell import InstrumentUnavailable
from runner.clock import real_now_ns
from runner.conduct import run
from runner.contact import render_contact
from runner.control import Control, Wish
from runner.errors import exit_code_of
from runner.experiment import Experiment
from runner.lab import LabError
from runner.outputs import OutputRefused
from runner.plan import ExitCode
from runner.preparing import contact
from runner.problems import ExperimentError
from runner.unattended import Unattended
from session import Session
from session.calibration_file import write_calibration
from session.errors import RecorderLost
from session.provenance import hash_file
from session.truth import read_truth
from session.validate import validate

pytestmark = pytest.mark.timeout(600)

PLAN = """
title = "a short run"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "mock"
frame_rate = "5 Hz"
pixel_size = "4 nm"
dose_rate = "2 e/angstrom^2/s"
height = 96
width = 200
[mock]
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[track]]
name = "front"
tracker = "front"
[[step]]
ocv = { for = "2 s" }
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 6 s"]
[[step]]
ocv = { for = "2 s" }
"""


@pytest.fixture
def plan(tmp_path):
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "a test"}
    write_calibration(tmp_path / "holder.h5", attributes, {"voltage": np.zeros(3)})

    def make(*changes):
        text = PLAN
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        return Experiment.loads(text, folder=tmp_path)

    return make


def kinds(path):
    with Session.open(path) as session:
        return [event.kind for event in session.events()]


async def test_a_run_completes_and_says_so(plan, tmp_path):
    seen = []
    summary = await run(
        plan(),
        output=tmp_path / "a.h5",
        report=tmp_path / "a.html",
        speed=math.inf,
        watcher=lambda state: seen.append(state.samples),
    )
    assert summary.exit_code == ExitCode.DONE
    assert summary.exit_reason == "completed"
    assert summary.left_in == "S1"
    assert seen == sorted(seen)
    assert seen[-1] == summary.samples > 150
    assert (tmp_path / "a.html").stat().st_size > 50_000
    assert kinds(tmp_path / "a.h5")[-1] in ("cell_left", "not_tracked")
    # The file of this calibration does not say when the holder was measured.
    assert "calibration_doubted" in kinds(tmp_path / "a.h5")
    with Session.open(tmp_path / "a.h5") as session:
        assert session.attributes("provenance/files")["calibration"] == hash_file(
            tmp_path / "holder.h5"
        )
    with pytest.raises(OutputRefused):
        await run(plan(), output=tmp_path / "a.h5", speed=math.inf)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
async def test_the_same_seed_gives_the_same_session(plan, tmp_path):
    for name in ("a", "b"):
        await run(plan(), output=tmp_path / f"{name}.h5", speed=math.inf)
    with Session.open(tmp_path / "a.h5") as a, Session.open(tmp_path / "b.h5") as b:
        one, two = a.sample_columns(), b.sample_columns()
        for name in ("t_ns", "read_start_ns", "read_end_ns"):  # the host clock has its own origin
            assert np.array_equal(np.diff(one.pop(name)), np.diff(two.pop(name))), name
        for name in one:
            assert np.array_equal(one[name], two[name]), name
        assert np.array_equal(a.frames("camera")[5], b.frames("camera")[5])


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (('charge = "8 nC"', 'charge = "50 pC"'), "charge"),
        (('voltage = ["2.5 V", "4.3 V"]', 'voltage = ["2.5 V", "4.21 V"]'), None),
        (('charge = "8 nC"', 'charge = "8 nC"\ndose = "8 e/angstrom^2"'), "dose"),
    ],
)
async def test_a_limit_that_was_not_foreseen_ends_the_run_safely(plan, tmp_path, limit, says):
    summary = await run(plan(limit), output=tmp_path / "a.h5", speed=math.inf)
    if says is None:  # a window that is never left
        assert summary.exit_code == ExitCode.DONE
        return
    assert summary.exit_code == ExitCode.LIMIT
    assert says in summary.exit_reason
    assert summary.left_in == "S1"
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    assert abs(source["level"][-1]) < 1e-13
    assert source["output_on"][-1] == 1


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.ABORT, Wish.HALT])
async def test_the_operator_ends_a_run(plan, tmp_path, wish):
    control = Control()

    def watcher(state):
        if state.step == 1 and state.step_elapsed_s > 1:
            control.ask(wish)

    summary = await run(
        plan(), output=tmp_path / "a.h5", speed=math.inf, control=control, watcher=watcher
    )
    assert summary.exit_code == ExitCode.INTERRUPTED
    assert summary.left_in == "S1"
    played = [step.index for step in summary.steps]
    assert played == ([0, 1, 2] if wish is Wish.STOP else [0, 1])
    assert summary.steps[1].kind == "command"
    assert summary.steps[1].duration_s < 3


HOLD = ('"t > 6 s"', '"t > 6 s", "t > 2 s, then hold"')


async def test_a_rule_may_hold_the_plan_until_the_operator_says_so(plan, tmp_path):
    control, held = Control(), []
    control.go_on()  # said too early: it is not meant

    def watcher(state):
        if state.held:
            held.append(state.elapsed_s)
            if held[-1] - held[0] > 3:
                control.go_on()

    summary = await run(
        plan(HOLD), output=tmp_path / "a.h5", speed=math.inf, control=control, watcher=watcher
    )
    assert summary.exit_code == ExitCode.DONE
    assert [step.kind for step in summary.steps] == ["condition", "held", "condition"]
    assert held[-1] - held[0] > 3
    # It rests meanwhile: the third step began when it was let go on.
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    assert np.sum(np.abs(source["level"]) > 2e-11) == 1


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.ABORT])
async def test_the_operator_may_end_a_plan_that_is_held(plan, tmp_path, wish):
    control = Control()
    summary = await run(
        plan(HOLD),
        output=tmp_path / "a.h5",
        speed=math.inf,
        control=control,
        watcher=lambda state: control.ask(wish) if state.held else None,
    )
    assert summary.exit_code == ExitCode.INTERRUPTED
    assert [s.index for s in summary.steps] == ([0, 1, 2] if wish is Wish.STOP else [0, 1])
    assert summary.left_in == "S1"


async def test_a_plan_that_is_held_where_nobody_can_come_ends_and_says_why(plan, tmp_path):
    control = Control()
    summary = await run(
        plan(HOLD),
        output=tmp_path / "a.h5",
        speed=math.inf,
        control=control,
        watcher=Unattended(control, lambda _state: None),
    )
    assert summary.exit_code == ExitCode.INTERRUPTED
    assert summary.exit_reason.startswith("held by t > 2 s, then hold; ")
    assert "nobody can let it go on" in summary.exit_reason
    assert [s.index for s in summary.steps] == [0, 1, 2]  # with the plan's ending
    assert 14 < summary.duration_s < 30


async def test_a_rule_may_take_the_cell_to_its_safe_state(plan, tmp_path):
    guarded = plan(('"t > 6 s"', '"t > 6 s", "t > 2 s, then safe state"'))
    summary = await run(guarded, output=tmp_path / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.LIMIT
    assert "then safe state" in summary.exit_reason
    assert [step.kind for step in summary.steps] == ["condition", "limit"]


async def test_an_experiment_that_is_unfit_opens_and_writes_nothing(plan, tmp_path):
    weak = plan(('current = "30 pA"', 'current = "30 fA"'))
    with pytest.raises(ExperimentError, match="against the zero of the range"):
        await run(weak, output=tmp_path / "a.h5", speed=math.inf)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["holder.h5"]


async def test_real_hardware_is_not_hurried(plan, tmp_path):
    real = plan(('resource = "mock"', 'resource = "TCPIP::127.0.0.1::1::SOCKET"'))
    with pytest.raises(LabError, match="leave it out"):
        await run(real, output=tmp_path / "a.h5", speed=10.0)


async def test_an_instrument_that_is_not_there_leaves_no_file(plan, tmp_path):
    gone = await asyncio.to_thread(
        plan,
        ('resource = "mock"', 'resource = "TCPIP::127.0.0.1::1::SOCKET"'),
        ('[camera]\ndriver = "mock"', '[camera]\ndriver = "stream"\nport = 1'),
    )
    with pytest.raises(InstrumentUnavailable, match="cannot be opened"):
        await run(gone, output=tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


async def test_a_film_that_does_not_fit_the_simulated_field_is_told(plan, tmp_path):
    odd = plan(('pixel_size = "4 nm"', 'pixel_size = "0.1 nm"'))
    with pytest.raises(LabError, match="does not fit into a field"):
        await run(odd, output=tmp_path / "a.h5", speed=math.inf)
    assert not (tmp_path / "a.h5").exists()


async def test_an_unknown_scenario_is_told(plan, tmp_path):
    odd = plan(("seed = 3", 'seed = 3\nscenario = "lco_lipon"'))
    with pytest.raises(LabError, match="did you mean lco_lipon_li"):
        await run(odd, output=tmp_path / "a.h5", speed=math.inf)
    assert not (tmp_path / "a.h5").exists()


async def test_a_guardian_that_dies_is_replaced_to_make_the_cell_safe(plan, tmp_path, monkeypatch):
    cells = []
    from runner import conduct

    class Watched(conduct.GuardedCell):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            cells.append(self)

    monkeypatch.setattr(conduct, "GuardedCell", Watched)

    def watcher(state):
        if state.step == 1 and state.step_elapsed_s > 1 and cells:
            os.kill(cells.pop().guardian_pid, signal.SIGTERM)

    with pytest.raises(ExceptionGroup) as failed:
        await run(plan(), output=tmp_path / "a.h5", speed=math.inf, watcher=watcher)
    assert exit_code_of(failed.value) is ExitCode.FAILED
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    assert abs(source["level"][-1]) < 1e-13
    assert source["output_on"][-1] == 1
    assert set(source["mode"][-3:]) == {"current"}
    with Session.open(tmp_path / "a.h5") as session:
        assert "InstrumentUnavailable" in session.exit_reason or session.exit_reason


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no SIGSTOP")
async def test_a_guardian_that_is_frozen_is_replaced_too(plan, tmp_path, monkeypatch):
    from runner import conduct

    cells, frozen_s = [], []

    class Watched(conduct.GuardedCell):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            cells.append(self)

    monkeypatch.setattr(conduct, "GuardedCell", Watched)
    monkeypatch.setattr("runner.cell.SILENCE_S", 0.5)

    def watcher(state):
        if state.step == 1 and state.step_elapsed_s > 1 and not frozen_s:
            frozen_s.append(real_now_ns() / 1e9)
            os.kill(cells[-1].guardian_pid, signal.SIGSTOP)

    with pytest.raises(ExceptionGroup) as failed:
        await run(plan(), output=tmp_path / "a.h5", watcher=watcher)
    assert exit_code_of(failed.value) is ExitCode.FAILED
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    safe = np.abs(source["level"]) < 1e-13
    after_s = source["t_ns"][np.flatnonzero(safe)[-1]] / 1e9 - frozen_s[0]
    assert 2.4 < after_s < 8
    assert safe[-1]
    assert source["output_on"][-1] == 1


async def test_a_recorder_that_dies_ends_the_run_with_the_cell_safe(plan, tmp_path, monkeypatch):
    recorders = []
    from runner import conduct

    class Watched(conduct.Recorder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            recorders.append(self)

    monkeypatch.setattr(conduct, "Recorder", Watched)

    def watcher(state):
        if state.step == 1 and recorders:
            os.kill(recorders.pop().pid, signal.SIGKILL)

    with pytest.raises((ExceptionGroup, RecorderLost)) as failed:
        await run(plan(), output=tmp_path / "a.h5", speed=math.inf, watcher=watcher)
    assert exit_code_of(failed.value) is ExitCode.FAILED
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    assert abs(source["level"][-1]) < 1e-13


class Laboratory:
    """A bench that nobody's runner owns: instruments in their own thread, in real time."""

    def __init__(self):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        scenario = load("lco_lipon_li", pixel_size_m=4e-9, height=96, width=200, frame_rate_Hz=10.0)
        self.world = World(scenario, seed=2, start_ns=real_now_ns())
        async with Bench(self.world, RealPace(self.world, real_now_ns, 1.0)) as self.bench:
            for line in (":SOUR:FUNC CURR", ":SENS:VOLT:PROT 4.3", ":OUTP ON"):
                await self.bench.smu.handle(line)  # as the last run has left it
            self._ready.set()
            await self._over.wait()

    def call(self, action):
        """Have something done on the bench's own thread."""
        self._loop.call_soon_threadsafe(action)

    def cut_camera(self):
        """Pull the camera's cable."""
        self._loop.call_soon_threadsafe(self.bench.camera._writer.transport.abort)


def real_plan(plan, laboratory):
    return plan(
        ('resource = "mock"', f'resource = "{laboratory.bench.smu_resource}"'),
        (
            '[camera]\ndriver = "mock"',
            f'[camera]\ndriver = "stream"\nport = {laboratory.bench.camera_port}',
        ),
        ("t > 6 s", "t > 2 s"),
        ("[mock]\nseed = 3\n", ""),
    )


async def test_the_same_plan_runs_on_a_visa_resource_in_real_time(plan, tmp_path):
    with Laboratory() as laboratory:
        real = await asyncio.to_thread(real_plan, plan, laboratory)
        began_ns = real_now_ns()
        summary = await run(real, output=tmp_path / "a.h5")
        elapsed_s = (real_now_ns() - began_ns) / 1e9
        assert laboratory.world.source.mode == "current"
        assert abs(laboratory.world.source.level) < 1e-13
    assert summary.exit_code == ExitCode.DONE
    assert not summary.simulated
    # In real time: what the plan asks for, and no longer than a clock beside it saw.
    assert 5.5 < summary.duration_s < elapsed_s
    assert summary.frames > 30
    assert not (tmp_path / "a.truth.h5").exists()
    with Session.open(tmp_path / "a.h5") as session:
        (fit,) = session.clock_fits("camera")
        assert fit.rate == pytest.approx(1, abs=1e-3)


async def test_a_camera_that_is_lost_ends_the_run_with_the_cell_safe(plan, tmp_path):
    with Laboratory() as laboratory:

        def watcher(state):
            if state.step == 1 and state.frames > 5:
                laboratory.cut_camera()

        with pytest.raises((ExceptionGroup, CameraError)) as failed:
            await run(
                await asyncio.to_thread(real_plan, plan, laboratory),
                output=tmp_path / "a.h5",
                watcher=watcher,
            )
        assert exit_code_of(failed.value) is ExitCode.FAILED
        assert abs(laboratory.world.source.level) < 1e-13
        assert laboratory.bench.smu.output_on


def once_in_the_charge(action):
    """Return a watcher that acts once, in the middle of the charge."""
    acted = []

    def watcher(state):
        if state.step == 1 and state.step_elapsed_s > 0.5 and not acted:
            acted.append(True)
            action()

    return watcher


async def test_a_power_cycle_ends_the_run_and_is_not_armed_again(plan, tmp_path):
    with Laboratory() as laboratory:
        watcher = once_in_the_charge(lambda: laboratory.call(laboratory.bench.smu.power_cycle))
        summary = await run(
            await asyncio.to_thread(real_plan, plan, laboratory),
            output=tmp_path / "a.h5",
            watcher=watcher,
        )
        assert summary.exit_code == ExitCode.FAILED
        assert [step.index for step in summary.steps] == [0, 1]
        # It was a short circuit until it was noticed; it rests at 0 A, clamped, now.
        assert laboratory.world.source.mode == "current"
        assert abs(laboratory.world.source.level) < 1e-13
        assert laboratory.world.source.clamp == pytest.approx(4.3)
        assert laboratory.bench.smu.output_on
    with Session.open(tmp_path / "a.h5") as session:
        assert "made_safe" in [e.kind for e in session.events()]


async def test_a_cut_cable_ends_the_run_and_a_new_link_makes_the_cell_safe(plan, tmp_path):
    with Laboratory() as laboratory:
        watcher = once_in_the_charge(lambda: laboratory.call(laboratory.bench.cut_smu))
        summary = await run(
            await asyncio.to_thread(real_plan, plan, laboratory),
            output=tmp_path / "a.h5",
            watcher=watcher,
        )
        assert summary.exit_code == ExitCode.FAILED
        assert abs(laboratory.world.source.level) < 1e-13
        assert laboratory.bench.smu.output_on
        assert summary.left_in == "S1"


async def test_an_instrument_with_another_identity_is_left_as_it_is(plan, tmp_path):
    with Laboratory() as laboratory:
        before = (laboratory.world.source.mode, laboratory.bench.smu.output_on)
        other = (await asyncio.to_thread(real_plan, plan, laboratory)).text.replace(
            "keithley6430", "keithley2400"
        )
        other = other.replace('"100 pA"', '"100 nA"').replace('"30 pA"', '"20 nA"')
        unlike = await asyncio.to_thread(
            Experiment.loads, other.replace('"8 nC"', '"8 uC"'), folder=tmp_path
        )
        with pytest.raises(InstrumentUnavailable, match="6430") as refused:
            await run(unlike, output=tmp_path / "a.h5", report=tmp_path / "a.html")
        assert exit_code_of(refused.value) is ExitCode.FAILED
        assert (laboratory.world.source.mode, laboratory.bench.smu.output_on) == before
        assert abs(laboratory.world.source.level) < 1e-13
    assert sorted(p.name for p in tmp_path.iterdir()) == ["holder.h5"]


# --- what is between the contacts ------------------------------------------------------------


def in_world(experiment, **overrides):
    return replace(experiment, mock=replace(experiment.mock, overrides=overrides))


async def test_a_run_tests_the_contact_first_where_it_is_asked_to(plan, tmp_path):
    experiment = plan(("[[track]]", '[contact]\ncurrent = "200 fA"\n[[track]]'))
    summary = await run(experiment, output=tmp_path / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.DONE
    with Session.open(tmp_path / "a.h5") as session:
        found = session.attributes("contact")
        assert found["contact"] == "cell"
        assert found["current_A"] == 200e-15
        assert len(session.table("contact")["voltage"]) > 500
        (event,) = [e for e in session.events() if e.kind == "contact"]
        assert "a cell: it rests at 3.89" in event.message
    assert validate(tmp_path / "a.h5") == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [({"open_contact": 1}, "open"), ({"short_ohm": 1e7}, "short")],
)
async def test_nothing_is_switched_on_where_there_is_no_cell(plan, tmp_path, overrides, says):
    experiment = in_world(plan(("[[track]]", "[contact]\n[[track]]")), **overrides)
    summary = await run(experiment, output=tmp_path / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.LIMIT
    assert says in summary.exit_reason
    assert summary.left_in == "S1"
    assert summary.steps == ()
    truth = read_truth(tmp_path / "a.truth.h5")["source"]
    attached = truth["t_ns"] > truth["t_ns"][0]
    assert np.abs(truth["level"][attached]).max() < 3e-13
    assert np.abs(read_truth(tmp_path / "a.truth.h5")["cell"]["voltage"]).max() < 4.3
    assert validate(tmp_path / "a.h5") == []


async def test_the_contact_alone(plan):
    record = await contact(plan(), speed=math.inf)
    assert record.is_cell
    console = Console(width=160, record=True)
    console.print(render_contact(record))
    assert "contact: cell" in console.export_text()


async def test_a_contact_that_has_run_to_the_clamp_is_open(plan):
    # The zero of the source alone has driven it there.
    experiment = in_world(plan(), open_contact=1, stray_F=1e-13, leak_ohm=1e16, dielectric_F=0)
    record = await contact(experiment, speed=math.inf)
    assert record.verdict.contact in ("open", "unclear")
    assert not record.is_cell


def test_a_contact_current_lies_within_the_limits(plan):
    with pytest.raises(ExperimentError, match=r"contact\.current.*within the limits"):
        plan(("[[track]]", '[contact]\ncurrent = "200 pA"\n[[track]]'))
