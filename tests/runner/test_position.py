"""Where a run died, and that what is left of its plan is what goes on: real guardian and files."""

import asyncio
import math
from collections import deque
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import Phase as Stage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from potentiostat.calibration import HolderCalibration
from potentiostat.limits import Condition
from potentiostat.protocol import ClockExchange, SafeState
from potentiostat.records import SAMPLE_DTYPE, TOGETHER, Identity, Status
from potentiostat.technique import (
    Level,
    after,
    chronoamperometry,
    chronopotentiometry,
    cyclic_voltammetry,
    galvanostatic_cycling,
    open_circuit,
    pulses,
)
from runner.acquisition import Acquisition
from runner.clock import ClockSpec
from runner.continuing import Continuation
from runner.control import Control
from runner.experiment import Experiment
from runner.guardian import Guardian
from runner.guardian_states import Phase
from runner.holder_record import HolderRecord
from runner.messages import Carried, EndKind, GuardianSettings, HolderTerms
from runner.outbox import Outgoing
from runner.plan import Plan
from runner.position import CannotContinue, find_position
from session.editor import SessionEditor
from session.reader import Session
from session.session_link import SessionLink
from session.writer import SessionWriter, event_json
from tests.runner.test_steps import HEAD
from tests.session.conftest import make_header

READ_NS = 50_000_000
READ_S = READ_NS / 1e9
CELL_F, CELL_OHM = 3e-9, 5e9  # with which no plan drawn below leaves the limits
RANGE_A = 1e-10
HOLDER = HolderTerms(capacitance_F=2e-14, conductance_S=2e-14, offset_A=1e-14)
EXPERIMENT = Experiment.loads(HEAD + '[[step]]\nocv = { for = "1 s" }')


class CellInstrument:
    """An instrument with a cell that keeps its charge: a capacitor behind a resistor."""

    ranges = ()
    apertures = TOGETHER
    off_states = (SafeState.S1,)

    def __init__(self):
        self.now_ns = 0
        self.charge_C = 0.0
        self.setpoint = None

    def clock(self):
        return self.now_ns

    def _state(self):
        cell_V = 3.6 + self.charge_C / CELL_F
        if self.setpoint is None:
            return cell_V, 0.0
        if self.setpoint.mode == "current":
            return cell_V + CELL_OHM * self.setpoint.level, self.setpoint.level
        return self.setpoint.level, (self.setpoint.level - cell_V) / CELL_OHM

    def apply(self, setpoint):
        self.setpoint = setpoint

    def read(self):
        row = np.zeros(1, SAMPLE_DTYPE)
        voltage_V, current_A = self._state()
        self.charge_C += current_A * READ_S
        row["read_start_ns"] = self.now_ns
        self.now_ns += READ_NS
        row["read_end_ns"] = self.now_ns
        row["voltage_V"], row["current_A"] = voltage_V, current_A
        row["device_time_s"] = self.now_ns / 1e9
        if self.setpoint is not None:
            row["setpoint"] = self.setpoint.level
            row["status"] = int(Status.POTENTIOSTATIC) * (self.setpoint.mode == "voltage")
        return row

    def exchange_clock(self):
        return ClockExchange(
            sent_ns=self.now_ns, device_time_s=self.now_ns / 1e9, received_ns=self.now_ns
        )

    def ensure_safe(self):
        self.setpoint = None
        return SafeState.S1

    rest_at_end = ensure_safe

    def close(self):
        pass


class Died(Exception):
    """The runner is killed here."""


class SteppedCell(Outgoing):
    """A real guardian that takes a turn whenever its runner waits, until the runner dies."""

    def __init__(self, instrument, carried, blocks):
        self._said, self._heard = deque(), deque()
        self._blocks = blocks
        self.guardian = Guardian(
            instrument,
            self,
            self,
            GuardianSettings(
                driver="none",
                resource="none",
                clock=ClockSpec(origin_ns=0),
                envelope=replace(EXPERIMENT.envelope, charge_max_C=8e-9),
                holder=HOLDER,
                carried=carried,
            ),
            now_ns=instrument.clock,
            lease_now_ns=lambda: 0,
        )

    # the guardian's ends of the pipe
    def poll(self, _timeout):
        return bool(self._said)

    def recv(self):
        return self._said.popleft()

    def put(self, message):
        self._heard.append(message)

    # the runner's
    def start(self, message):
        self._said.append(message)

    def renew(self, _sequence):
        pass

    async def receive(self):
        while not self._heard:
            if self._blocks == 0:
                raise Died
            self._blocks -= 1
            self.turn()
        return self._heard.popleft()

    def turn(self):
        self.guardian._listen()
        self.guardian._turn()


@dataclass
class Written:
    """A recorder that writes into a session at once."""

    writer: SessionWriter
    kinds: list = field(default_factory=list)

    async def samples(self, rows):
        self.writer.append_samples(rows)

    async def event(self, t_ns, kind, source, message, data=None):
        self.writer.append_event(t_ns, kind, source, message, event_json(data))

    async def exchanges(self, _clock, rows):
        pass

    async def attributes(self, path, attributes):
        self.writer.put_attributes(path, attributes)


class StillClock:
    """The instrument's time, which moves with its readings."""

    def __init__(self, instrument):
        self.now_ns = instrument.clock

    async def settle(self):
        pass


def continuation(path, position):
    return Continuation(
        link=SessionLink(path=str(path), sha256="ab", start_time="2025-03-01T10:00:00+00:00"),
        position=position,
        ionic_C=(math.nan, math.nan),
        last_reading=datetime.now(UTC),
        model="6430",
        serial="1",
        window_V=(2.0, 5.0),
        offset_A=1e-15,
        holder=None,
    )


def play(path, instrument, steps, *, blocks=-1, unseen=0, before=None):
    """Play what is left of a plan into a session; True when the runner lived to its end."""
    cell = SteppedCell(instrument, Carried() if before is None else before.carried, blocks)
    header = replace(make_header(), cameras=(), clocks=(), host_start_ns=instrument.now_ns)
    with SessionWriter(path, header) as writer:
        acquisition = Acquisition(
            EXPERIMENT,
            cell=cell,
            camera=None,
            recorder=Written(writer),
            plan=Plan(steps, range_A=RANGE_A),
            clock=StillClock(instrument),
            control=Control(),
            watcher=lambda _state: None,
            show=lambda _topic, _message: None,
            before=before,
        )
        try:
            asyncio.run(acquisition.run())
        except Died:
            for _ in range(unseen):  # which the guardian still takes before it hears of it
                cell.turn()
            cell.guardian._runner_is_gone()
            writer.finish("runner lost", "")
        else:
            writer.finish("completed", "")
        assert cell.guardian.phase in (Phase.RESTING, Phase.DONE)
    instrument.ensure_safe()
    return acquisition._plan.ending is not None


def told(path):
    """Return the ends of steps and segments, and the charge at the last reading."""
    with Session.open(path) as session:
        ends = [
            (e.kind, e.data["step"], e.data.get("segment"), e.data["reason"])
            for e in session.events()
            if e.kind in ("step_ended", "segment_ended") and e.data.get("kind") != "lease"
        ]
        return ends, float(session.sample_columns()["charge"][-1])


def play_with_cuts(folder, steps, cuts):
    """Play a plan whose runner is killed after some blocks, each time anew."""
    instrument, before, ends = CellInstrument(), None, []
    for number, (blocks, unseen) in enumerate((*cuts, (-1, 0))):
        path = folder / f"{number}.h5"
        lived = play(path, instrument, steps, blocks=blocks, unseen=unseen, before=before)
        found, charge_C = told(path)
        ends += found
        if lived:
            break
        instrument.now_ns += 3_600 * 10**9  # an hour at rest
        with Session.open(path) as session:
            before = continuation(path, find_position(session, steps, HOLDER))
    return ends, charge_C, instrument.charge_C, number


def rule(quantity, relation, value, **more):
    text = f"{quantity} {relation} {value:g}"
    return Condition(quantity=quantity, relation=relation, value=value, text=text, **more)


CURRENTS = st.sampled_from([30e-12, -30e-12, 50e-12])
TIMES = st.floats(0.3, 2.0)


@st.composite
def plan_steps(draw):
    """Draw one step; the charge of it stays within the window."""
    current_A, time_s = draw(CURRENTS), draw(TIMES)
    kind = draw(st.sampled_from(["ocv", "t", "Q", "ionic", "V", "pulses", "ca", "gcpl", "cv"]))
    most = after(3.0)
    moved_C = abs(current_A) * time_s
    levels = tuple(Level(volts=v) for v in (3.6, 3.7, 3.5, 3.6))
    held = galvanostatic_cycling(current_A, 3.87, longest_s=time_s, hold_s=0.5, rest_s=0.2)
    return {
        "ocv": open_circuit(time_s),
        "t": chronopotentiometry(current_A, (after(time_s),)),
        "Q": chronopotentiometry(current_A, (rule("|Q|", ">", moved_C), most)),
        "ionic": chronopotentiometry(current_A, (rule("|Q_ionic|", ">", 0.9 * moved_C), most)),
        "V": chronopotentiometry(current_A, (rule("V", ">", 3.87), most)),
        "pulses": pulses(current_A, on_s=0.5 * time_s, off_s=0.2, count=2),
        "ca": chronoamperometry(Level(volts=0.05, versus="ocv"), time_s),
        "gcpl": held,
        "cv": cyclic_voltammetry(levels, 0.2, cycles=1, window_V=1.0),
    }[kind]


def labelled(steps):
    """Name the first step, and let the last one lead back to it once."""
    back = rule("t", ">", 0.4, goto="again", goto_most=1, action="goto")
    last = replace(steps[-1], until=(back, *steps[-1].until))
    return (replace(steps[0], label="again"), *steps[1:-1], last)


@settings(max_examples=8, phases=[Stage.explicit, Stage.generate])
@given(
    steps=st.lists(plan_steps(), min_size=2, max_size=3),
    loops=st.booleans(),
    cuts=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 2)), min_size=1, max_size=2),
)
@example(
    steps=[open_circuit(0.3), chronopotentiometry(3e-11, (rule("|Q|", ">", 6e-11),))],
    loops=True,
    cuts=[(20, 1), (20, 1)],
)
def test_charge_of_a_run_that_was_cut_is_that_of_one_that_was_not(steps, loops, cuts):
    steps = labelled(steps) if loops else tuple(steps)
    with TemporaryDirectory() as name:
        folder = Path(name)
        whole = CellInstrument()
        assert play(folder / "whole.h5", whole, steps)
        ends, charge_C = told(folder / "whole.h5")
        try:
            cut_ends, cut_charge_C, cut_true_C, died = play_with_cuts(folder, steps, cuts)
        except CannotContinue as error:
            # It died after a step had begun, and before it was told from what levels count.
            assert "does not tell from what the levels" in str(error)
            return
    assert cut_ends == ends
    # A rule is asked at each reading; a cut is known to one or two of them.
    tolerance_C = 60e-12 * READ_S * (1 + 3 * died)
    assert cut_true_C == pytest.approx(whole.charge_C, abs=tolerance_C)
    assert cut_charge_C == pytest.approx(charge_C, abs=tolerance_C)


# --- one by one ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """A run that was killed in its second step, in the first segment of two."""
    folder = tmp_path_factory.mktemp("died")
    steps = (open_circuit(0.3), *STEPS)
    instrument = CellInstrument()
    assert not play(folder / "a.h5", instrument, steps, blocks=20)
    return folder / "a.h5", steps


STEPS = (pulses(3e-11, on_s=1.0, off_s=0.5, count=2), open_circuit(0.5))


def find(path, steps, holder=HOLDER):
    with Session.open(path) as session:
        return find_position(session, steps, holder)


def spoiled(died, folder, change):
    """Return a copy of the session that died with something else in it."""
    path = folder / "spoiled.h5"
    path.write_bytes(died[0].read_bytes())
    with h5py.File(path, "r+") as file:
        change(file["entry"])
    return path


def says(reason):
    return lambda entry: entry["exit_reason"].__setitem__((), reason)


def with_event(kind, data, message="why"):
    """Return what puts an event where the first one was."""

    def change(entry):
        entry["exit_reason"][()] = "runner lost"
        for name, value in (("kind", kind), ("message", message), ("data", event_json(data))):
            entry[f"events/{name}"][-1] = value

    return change


def test_a_position_has_what_passed_and_what_flowed_unread(died):
    path, steps = died
    found = find(path, steps)
    with Session.open(path) as session:
        columns = session.sample_columns()
        (_, start) = (e for e in session.events() if e.kind == "step_started")
    assert [(e.index, e.kind) for e in found.ended] == [(0, EndKind.CONDITION)]
    assert (found.index, found.passed.segment) == (1, 0)
    last_ns = columns["t_ns"][-1]
    assert found.last_ns == last_ns
    # Two readings until the guardian has heard of it, evenly spread.
    assert found.cut_ns - last_ns == READ_NS
    assert found.flow_C == pytest.approx(3e-11 * READ_S)
    assert found.flow_sigma_C == pytest.approx(3e-11 * 2 * READ_S / math.sqrt(12))
    assert found.passed.elapsed_s == pytest.approx((found.cut_ns - start.t_ns) / 1e9)
    assert found.charge_C == pytest.approx(columns["charge"][-1] + found.flow_C)
    assert found.levels.control_A == 3e-11
    assert math.isnan(found.levels.control_V)
    assert found.is_guarded
    assert math.isnan(find(path, steps, None).charge_ionic_C)


def test_after_recover_nobody_says_when_the_cell_was_made_safe(died, tmp_path):
    path = spoiled(died, tmp_path, says("recorder lost"))
    found = find(path, died[1])
    assert not found.is_guarded
    assert (found.cut_ns - found.last_ns) / 1e9 == pytest.approx(1.5)
    assert found.flow_sigma_C == pytest.approx(3e-11 * 3 / math.sqrt(12))
    gap = continuation(path, found).gap(datetime.now(UTC), 3.7)
    assert gap.seconds >= 0
    assert math.isnan(gap.leak_C[0])


def test_a_lease_that_ran_out_tells_when_the_cell_was_made_safe(died, tmp_path):
    path = spoiled(died, tmp_path, says("the runner was silent for 2.0 s"))
    safe_ns = find(died[0], died[1]).last_ns + 1_700_000_000
    with SessionEditor.open(path) as editor:
        editor.add_event(safe_ns, "made_safe", "guardian", "silent", {"kind": "lease"})
    found = find(path, died[1])
    assert found.cut_ns == safe_ns
    assert found.flow_C == pytest.approx(3e-11 * 1.7)
    assert found.flow_sigma_C < 3e-11 * READ_S


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (says("completed"), r"ended in order \(completed\): only a run that died"),
        (says("aborted by the operator"), r"ended in order \(aborted by the operator\)"),
        (says("not finished"), r"`lamella recover .*spoiled\.h5` makes a whole session"),
        (with_event("made_safe", {"kind": "limit", "state": "S1"}), "ended for safety: why"),
        (
            with_event(
                "step_ended",
                {"step": 1, "kind": "command", "reason": "stopped by the operator"},
            ),
            "ended on purpose: stopped by the operator",
        ),
        (
            with_event("step_ended", {"step": 7, "kind": "condition", "reason": "t > 1 s"}),
            "is not of this plan: step 8 ended where the plan has step 2",
        ),
        (with_event("step_ended", {"step": 1}), "does not tell where its run was"),
        (with_event("continued", {"ended": 3}), "does not tell where its run was"),
        (with_event("step_started", {"step": 1, "passed": {"segment": 9}}), "does not tell where"),
        (lambda entry: entry["samples/voltage"].__setitem__(slice(None), math.nan), "no reading"),
    ],
)
def test_what_did_not_die_is_refused(died, tmp_path, change, why):
    with pytest.raises(CannotContinue, match=why):
        find(spoiled(died, tmp_path, change), died[1])


def test_a_plan_that_was_played_to_its_end_has_nothing_left(died, tmp_path):
    path = spoiled(
        died, tmp_path, with_event("step_ended", {"step": 1, "kind": "condition", "reason": "t"})
    )
    with pytest.raises(CannotContinue, match="played its whole plan"):
        find(path, died[1][:2])


def test_levels_that_nobody_told_are_refused(tmp_path):
    steps = (chronoamperometry(Level(volts=0.05, versus="ocv"), 2.0),)
    play(tmp_path / "a.h5", CellInstrument(), steps, blocks=20)
    assert find(tmp_path / "a.h5", steps).passed.known.ocv_V == pytest.approx(3.6)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        kinds = file["entry/events/kind"].asstr()[:].tolist()
        file["entry/events/kind"][kinds.index("levels_known")] = "note"
    with pytest.raises(CannotContinue, match=r"levels of step ca count \(ocv_V\)"):
        find(tmp_path / "a.h5", steps)


def test_the_holder_takes_what_its_conductance_says_and_no_more_is_claimed(died):
    position = find(*died)
    before = continuation(died[0], position)
    known = HolderCalibration(
        **dict.fromkeys((f.name for f in fields(HolderCalibration) if f.default is MISSING), 0.0)
    )
    known = replace(known, conductance_S=1e-15, conductance_sigma_S=1e-16)
    before = replace(
        before,
        holder=HolderRecord(calibration=known, columns={}, source="a test"),
        last_reading=datetime(2025, 3, 1, 10, tzinfo=UTC),
    )
    now = datetime(2025, 3, 1, 11, tzinfo=UTC)
    gap = before.gap(now, position.voltage_V)
    assert gap.seconds == 3600
    assert gap.leak_C[0] == pytest.approx(1e-15 * position.voltage_V * 3600)
    rest_A = 1e-15 / math.sqrt(3)
    assert gap.leak_C[1] == pytest.approx(
        3600 * math.hypot(1e-16 * position.voltage_V, rest_A), rel=1e-6
    )
    # A cell that relaxed has had some voltage between: which one is not known.
    assert before.gap(now, position.voltage_V - 0.5).leak_C[1] > gap.leak_C[1]
    back = before.gap(datetime(2025, 3, 1, 9, tzinfo=UTC), position.voltage_V)
    assert math.isnan(back.seconds)
    assert math.isnan(back.leak_C[0])


def test_another_instrument_and_another_cell_are_refused(died, tmp_path):
    path, steps = died
    before = continuation(path, find(path, steps))
    with pytest.raises(CannotContinue, match="measured with 6430 1, and here is 6430 2"):
        before.refuse_other_instrument(
            Identity(maker="Keithley", model="6430", serial="2", firmware="", raw="")
        )
    before = replace(before, window_V=(3.0, 3.9))
    assert before.unfit_voltage(3.5) is None
    instrument = CellInstrument()
    instrument.charge_C = 0.6 * CELL_F  # 4.2 V
    play(tmp_path / "b.h5", instrument, steps, before=before)
    with Session.open(tmp_path / "b.h5") as session:
        assert np.all(session.sample_columns()["step"] == -1)
        assert not [e for e in session.events() if e.kind == "step_started"]
    assert before.unfit_voltage(4.2).startswith("the cell rests at 4.2000 V, outside 3 to")


def test_dose_of_the_run_before_counts_against_the_limit(died):
    position = replace(find(*died), dose_e_m2=1.5e21)
    acquisition = Acquisition(
        replace(EXPERIMENT, dose_limit_e_m2=2e21),
        cell=None,
        camera=None,
        recorder=None,
        plan=Plan(died[1], range_A=RANGE_A),
        clock=StillClock(CellInstrument()),
        control=Control(),
        watcher=lambda _state: None,
        show=lambda _topic, _message: None,
        before=continuation(died[0], position),
    )
    acquisition._count_dose(0.4e21)
    assert acquisition._plan.ending is None
    acquisition._count_dose(0.6e21)
    assert "dose beyond the limit" in acquisition._plan.ending.reason
