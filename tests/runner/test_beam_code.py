"""What codes tell of clocks and of the beam, from records whose truth is known."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from correlate.ledger import Accuracy, Beam, Holder, charge_ledger
from mocks.blanker import Blanker
from potentiostat.records import Status
from runner.beam_code import beam_of, code_events, code_table, played_codes, read_codes
from runner.frame_samples import INSTRUMENT
from runner.summary import CodeSummary, Measured
from runner.summary_text import _code_sentence
from sync.code import BlankingCode
from sync.code_wave import window_mean

S = 1_000_000_000
START_NS = 50 * S
CODE = BlankingCode(order=5, chip_ns=330_000_000)
LENGTH_NS = round(CODE.length_s * S)
TAU_S, BEAM_A, NOISE_A = 0.1, 2e-12, 1e-14
LINE_HZ, NPLC = 50.0, 1.0


@dataclass
class Truth:
    """A record to make, and what is wrong with it.

    Parameters
    ----------
    beams_A
        Of each code.
    """

    starts_ns: tuple[int, ...] = (START_NS + 15 * S,)
    beams_A: tuple[float, ...] = (BEAM_A,)
    length_s: float = 40.0
    camera_late_s: float = 0.004
    meter_late_s: float = 0.004
    row_time_s: float = 0.0
    held_voltage: bool = True
    lit: bool = True
    cameras: tuple[str, ...] = ("camera",)
    complete: bool = True
    extra_events: list = field(default_factory=list)
    fitted: bool = True
    in_turn: bool = False

    def edges_ns(self):
        return [CODE.edges_ns(start) for start in self.starts_ns]


class Stack:
    """Frames in memory, as a session hands them out."""

    def __init__(self, frames):
        self._frames = frames
        self.shape = frames.shape

    def __getitem__(self, index):
        return self._frames[index]


class Rows(dict):
    """A table with attributes."""

    def __init__(self, columns, attributes):
        super().__init__(columns)
        self.attributes = attributes


class Record:
    """A session in memory."""

    def __init__(self, truth, seed=3):
        self.truth = truth
        self.rng = np.random.default_rng(seed)
        self.cameras = truth.cameras
        self.clocks = ("potentiostat", "camera") if truth.fitted else ()
        self.columns = self._samples()
        self._table, self._stack = self._frames()

    def _edges_s(self, late_s):
        edges_ns = np.concatenate(self.truth.edges_ns())
        return (edges_ns - START_NS) / 1e9 + late_s

    def _samples(self):
        truth = self.truth
        aperture_s = 0.04 if truth.in_turn else 0.02
        t_s = np.arange(0.0, truth.length_s, 0.0473)
        begin_s = t_s - aperture_s / 2
        wave = window_mean(
            begin_s, begin_s + aperture_s, self._edges_s(truth.meter_late_s), tau_s=TAU_S
        )
        beam_A = np.full(len(t_s), truth.beams_A[0])
        for start_ns, value_A in zip(truth.starts_ns, truth.beams_A, strict=True):
            beam_A[t_s > (start_ns - START_NS) / 1e9 - 5] = value_A
        noise = self.rng.standard_normal(len(t_s))
        if truth.held_voltage:
            current = 3e-11 - beam_A * wave + NOISE_A * noise
            voltage, status = np.full(len(t_s), 3.9), int(Status.POTENTIOSTATIC)
        else:
            current, status = np.full(len(t_s), 3e-11), 0
            voltage = 3.9 + 2e-3 * wave + 1e-5 * noise
        return {
            "t_ns": START_NS + np.round(t_s * 1e9).astype(np.int64),
            "read_start_ns": START_NS + np.round(begin_s * 1e9).astype(np.int64),
            "read_end_ns": START_NS + np.round((begin_s + aperture_s) * 1e9).astype(np.int64),
            "aperture_s": np.full(len(t_s), aperture_s),
            "current": current,
            "voltage": voltage,
            "setpoint": np.full(len(t_s), 3.9),
            "range": np.full(len(t_s), 1e-10),
            "status": np.full(len(t_s), status, np.uint32),
        }

    def _frames(self):
        truth = self.truth
        start_s = np.arange(0.0, truth.length_s, 0.05)
        edges_s = self._edges_s(truth.camera_late_s)
        rows = [
            window_mean(start_s + later_s, start_s + later_s + 0.049, edges_s)
            for later_s in truth.row_time_s * np.arange(32)
        ]
        bright = 100 * np.stack(rows, 1)[:, :, None] * np.ones(4)
        frames = bright * truth.lit + self.rng.standard_normal(bright.shape)
        table = Rows(
            {
                "t_start_ns": START_NS + np.round(start_s * 1e9).astype(np.int64),
                "t_sigma_ns": np.full(len(start_s), 1e4),
                "exposure_ns": np.full(len(start_s), 49_000_000),
            },
            {"row_time": truth.row_time_s * 1e9},
        )
        return table, Stack(frames)

    def events(self):
        played = [
            SimpleNamespace(
                kind="beam",
                source="blanker",
                data={
                    "sent_ns": (edges_ns - 1_000_000).tolist(),
                    "done_ns": (edges_ns + 1_000_000).tolist(),
                    "complete": self.truth.complete,
                },
            )
            for edges_ns in reversed(self.truth.edges_ns())
        ]
        return (*played, *self.truth.extra_events)

    def frame_table(self, _):
        return self._table

    def frames(self, _):
        return self._stack

    def sample_columns(self):
        return self.columns

    def clock_fits(self, _):
        return (SimpleNamespace(offset_sigma_ns=1e4, bound_ns=2e5),)

    def has(self, path):
        return path == INSTRUMENT

    def attributes(self, _):
        return {"nplc": NPLC, "line_frequency_Hz": LINE_HZ}


def read(**truth):
    record = Record(Truth(**truth))
    return record, read_codes(record, record.columns)


def said(seconds, blanked):
    stamp_ns = START_NS + round(seconds * 1e9)
    data = {"read_start_ns": stamp_ns, "read_end_ns": stamp_ns, "beam_blanked": blanked}
    return SimpleNamespace(kind="microscope", source="microscope", data=data)


def test_edges_stand_in_the_middle_of_their_commands_and_codes_in_order():
    truth = Truth(starts_ns=(START_NS + S, START_NS + 30 * S), beams_A=(BEAM_A, BEAM_A))
    first, second = played_codes(Record(truth))
    assert np.array_equal(first.edges_ns, truth.edges_ns()[0])
    assert np.array_equal(second.edges_ns, truth.edges_ns()[1])


def test_events_that_hold_no_edges_and_those_of_others_are_no_codes():
    record = Record(Truth())
    record.truth.extra_events = [
        SimpleNamespace(kind="beam", source="blanker", data={}),
        SimpleNamespace(kind="beam", source="somebody", data={"sent_ns": [1], "done_ns": [2]}),
    ]
    assert len(played_codes(record)) == 1


def test_both_delays_and_the_beam_are_found():
    _, (code,) = read()
    assert abs(code.camera.delay_s - 0.004) < 4 * code.camera.delay_sigma_s
    assert abs(code.current.delay_s - 0.004) < 4 * code.current.delay_sigma_s
    beam_A, sigma_A = code.beam
    assert abs(beam_A - BEAM_A) < 4 * sigma_A < 0.1 * BEAM_A
    assert code.doubts == ()
    ((t_ns, kind, text, data),) = code_events([code])
    assert kind == "blanking"
    assert t_ns == code.played.edges_ns[-1]
    assert "agree" in text
    assert data["beam_current"] == beam_A


def test_a_delay_beyond_what_clocks_permit_is_a_disagreement():
    _, (code,) = read(camera_late_s=0.054)
    ((_, kind, text, data),) = code_events([code])
    assert kind == "clock_disagreement"
    assert data["difference"] == pytest.approx(0.05, abs=0.005)
    assert "disagree by" in text


@pytest.mark.parametrize(("in_turn", "kind"), [(True, "blanking"), (False, "clock_disagreement")])
def test_where_the_current_stands_in_a_reading_of_two_is_not_a_clocks(in_turn, kind):
    _, (code,) = read(camera_late_s=0.013, in_turn=in_turn)
    assert code_events([code])[0][1] == kind


def test_without_fits_the_stamps_about_a_reading_are_the_bound():
    record, (code,) = read(fitted=False)
    assert code.agreement.bound_s == pytest.approx(0, abs=1e-8)  # stamps as long as the aperture
    record.columns["read_end_ns"] = record.columns["read_end_ns"] + 30_000_000
    (code,) = read_codes(record, record.columns)
    assert code.agreement.bound_s == pytest.approx(0.015, rel=1e-3)


def test_a_rolling_shutter_is_read_by_its_rows():
    _, (code,) = read(row_time_s=1e-3)
    assert abs(code.camera.delay_s - 0.004) < 4 * code.camera.delay_sigma_s
    assert code.camera.delay_sigma_s < 1e-3


def test_at_a_held_current_the_voltage_tells_the_delay_and_nothing_the_beam():
    record, (code,) = read(held_voltage=False)
    assert abs(code.current.delay_s - 0.004) < 4 * code.current.delay_sigma_s
    assert math.isnan(code.beam[0])
    assert "a current was held" in code.doubts[0]
    assert beam_of(record, [code], record.columns["t_ns"]) is None
    columns, units = code_table([code])
    assert math.isnan(columns["beam_current"][0])
    assert units["beam_current"] == "A"
    assert units["difference"] == "s"
    assert "sigmas" not in units


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ({"cameras": ()}, "camera: the session has no frames"),
        ({"lit": False}, "camera: "),
        ({"beams_A": (0.0,)}, "current: "),
        ({"complete": False}, "not played to its end"),
    ],
)
def test_what_does_not_show_the_code_is_said(truth, says):
    _, (code,) = read(**truth)
    assert any(text.startswith(says) or says in text for text in code.doubts)
    assert code.agreement is None
    ((_, kind, text, data),) = code_events([code])
    assert kind == "blanking"
    assert says in text
    assert data["difference"] is None


def test_frames_that_were_not_taken_about_the_code_are_missed():
    record = Record(Truth())
    record._table["t_start_ns"] = record._table["t_start_ns"] - 1000 * S
    (code,) = read_codes(record, record.columns)
    assert code.camera is None
    assert "no frames were taken" in code.doubts[0]


def test_no_code_is_no_beam():
    record = Record(Truth())
    assert beam_of(record, [], record.columns["t_ns"]) is None
    assert code_table([]) == ({}, {"start_ns": "ns"})


def test_the_charge_of_the_beam_counts_how_long_it_was_on():
    record, codes = read()
    t_ns = record.columns["t_ns"]
    beam = beam_of(record, codes, t_ns)
    off_s = np.sum(np.diff(record.truth.edges_ns()[0])[::2]) / 1e9
    true_C = BEAM_A * ((t_ns[-1] - t_ns[0]) / 1e9 - off_s)
    assert abs(beam.charge_C[-1] - true_C) < 4 * beam.sigma_C[-1]
    assert beam.sigma_C[-1] < 0.02 * true_C
    assert beam.status == "measured by 1 code, taken as constant"


def test_codes_that_differ_widen_the_sigma():
    starts_ns = (START_NS + 15 * S, START_NS + 35 * S)
    alike, codes = read(starts_ns=starts_ns, beams_A=(BEAM_A, BEAM_A), length_s=60.0)
    sure = beam_of(alike, codes, alike.columns["t_ns"])
    other, codes = read(starts_ns=starts_ns, beams_A=(BEAM_A, 1.5 * BEAM_A), length_s=60.0)
    spread = beam_of(other, codes, other.columns["t_ns"])
    assert sure.status.startswith("measured by 2 codes")
    seconds = alike.columns["t_ns"][-1] / 1e9 - START_NS / 1e9
    assert sure.sigma_C[-1] < 0.02 * BEAM_A * seconds
    assert spread.sigma_C[-1] > 0.1 * BEAM_A * seconds


@pytest.mark.parametrize(
    ("events", "off_s"),
    [
        ([said(0, False), said(5, True), said(8, False)], 3.0),
        ([said(0, True), said(4, False)], 4.0),
        ([said(0, False), said(36, True)], 4.0),
        ([said(0, False)], 0.0),
    ],
)
def test_when_others_blank_the_beam_it_adds_nothing(events, off_s):
    record, codes = read()
    t_ns = record.columns["t_ns"]
    lit = beam_of(record, codes, t_ns)
    record.truth.extra_events = events
    dark = beam_of(record, codes, t_ns)
    missing_s = (lit.charge_C[-1] - dark.charge_C[-1]) / BEAM_A
    assert missing_s == pytest.approx(off_s, abs=0.15)
    assert ("others" in dark.status) is (off_s > 0)


# --- the ledger, the blanker, and what a person reads -----------------------------------------


def test_the_beam_goes_through_the_cell_beside_the_instruments_charge():
    n = 101
    t_ns = np.arange(n, dtype=np.int64) * S
    holder = Holder(
        capacitance_F=1e-10,
        capacitance_sigma_F=0.0,
        conductance_S=0.0,
        conductance_sigma_S=0.0,
        dielectric_F=0.0,
        dielectric_sigma_F=0.0,
        dielectric_tau_s=10.0,
        offset_A=0.0,
        offset_sigma_A=0.0,
    )
    beam = Beam(charge_C=5e-12 + 2e-12 * np.arange(n), sigma_C=1e-13 * np.arange(n), status="told")

    def ledger(found, gain_ratio):
        return charge_ledger(
            t_ns,
            np.full(n, 1e-11),
            np.full(n, 3.9),
            current_sigma_A=np.zeros(n),
            voltage_sigma_V=np.zeros(n),
            accuracy=Accuracy(gain_ratio=gain_ratio, offset_A=0.0),
            holder=holder,
            beam=found,
        )

    with_beam, without = ledger(beam, 0.0), ledger(None, 0.0)
    assert with_beam.beam_status == "told"
    assert without.columns["ionic"][-1] == pytest.approx(1e-9)
    assert with_beam.columns["ionic"][-1] == pytest.approx(1.2e-9)
    assert with_beam.columns["beam"][[0, -1]] == pytest.approx([0.0, 2e-10])
    assert with_beam.columns["instrument"][-1] == pytest.approx(1e-9)
    for name in ("beam_sigma", "ionic_sigma"):
        assert with_beam.columns[name][-1] == pytest.approx(1e-11)
    # The same range has measured both: its gain's error is that of the sum.
    wrong = ledger(beam, math.sqrt(3) * 0.1).columns
    assert wrong["ionic_sigma"][-1] == pytest.approx(math.hypot(1.2e-10, 1e-11))
    assert wrong["beam_sigma"][-1] == pytest.approx(math.hypot(2e-11, 1e-11))


def test_the_simulated_blanker_obeys_commands_one_by_one_and_late():
    blanker = Blanker(1)
    blanker.switch(S, blanked=False)  # it is on already
    assert blanker.edges_ns == []
    blanker.switch(S, blanked=True, latency_s=0.01)
    assert blanker.blanked
    blanker.switch(S + 1, blanked=True, latency_s=0.01)
    assert blanker.edges_ns == [S + 10_000_000]
    assert blanker.mean(2 * S, 3 * S) == 0.0
    blanker.switch(S + 5_000_000, blanked=False)  # it cannot overtake the one before it
    assert blanker.edges_ns[1] == blanker.edges_ns[0] + 1
    assert blanker.commanded_ns == [S, S + 5_000_000]
    for i in range(50):  # nothing happens before it is asked for
        blanker.switch((3 + i) * S, blanked=not blanker.blanked, jitter_s=0.1)
    assert min(np.subtract(blanker.edges_ns, blanker.commanded_ns)) >= 0


def test_one_line_tells_what_a_code_said():
    code = CodeSummary(
        camera_delay_s=Measured(value=4e-3, sigma=2e-4),
        meter_delay_s=Measured(value=-6e-3, sigma=2e-4),
        difference_s=Measured(value=1e-2, sigma=3e-4),
        bound_s=0.03,
        beam_current_A=Measured(value=2e-12, sigma=1e-14),
        verdict="they agree",
    )
    text = _code_sentence(code).plain
    assert "frames 4.00 ± 0.20 ms" in text
    assert "beam current 2.000 ± 0.010 pA; they agree" in text
