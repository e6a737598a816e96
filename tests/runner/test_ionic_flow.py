"""The ionic current behind a stray capacitance, against a cell that is solved finely."""

import math

import numpy as np
import pytest

from runner.ionic_flow import IonicFlow
from runner.messages import HolderTerms

S = 10**9
READ_S, SOLVE_S = 0.05, 0.001
REST_V, OHM = 3.9, 23e9


def holder(capacitance_F=100e-12, conductance_S=0.0, offset_A=0.0):
    return HolderTerms(capacitance_F=capacitance_F, conductance_S=conductance_S, offset_A=offset_A)


class Cell:
    """A resistance behind a stray capacitance and a leakage."""

    def __init__(self, terms):
        self.terms = terms
        self.t_s, self.ionic_C = 0.0, 0.0
        self.volts = REST_V / (1 + terms.conductance_S * OHM)  # at rest for long

    @property
    def ionic_A(self):
        return (self.volts - REST_V) / OHM

    def pass_on(self, seconds, amperes):
        """Return the readings of a time at a current: times in ns, V and A."""
        rows = []
        for k in range(round(seconds / SOLVE_S)):
            if k % round(READ_S / SOLVE_S) == 0:
                rows.append((round(self.t_s * S), self.volts, amperes + self.terms.offset_A))
            leaks_A = self.terms.conductance_S * self.volts
            charging_A = amperes - self.ionic_A - leaks_A
            self.ionic_C += self.ionic_A * SOLVE_S
            self.volts += charging_A * SOLVE_S / self.terms.capacitance_F
            self.t_s += SOLVE_S
        t_ns, volts, amps = zip(*rows, strict=True)
        return np.array(t_ns, np.int64), np.array(volts), np.array(amps)


def charged(terms, seconds, amperes=5e-12, *, known=True):
    cell, flow = Cell(terms), IonicFlow(terms if known else None)
    flow.take(*cell.pass_on(6.0, 0.0), rests=True)
    flow.begin()
    flow.take(*cell.pass_on(seconds, amperes), rests=False)
    return cell, flow


@pytest.mark.parametrize("capacitance_F", [30e-12, 100e-12, 300e-12])
@pytest.mark.parametrize("conductance_S", [0.0, 1e-14, 1e-13])
@pytest.mark.parametrize("seconds", [4.0, 12.0])
def test_what_flows_after_a_stop_is_foreseen(capacitance_F, conductance_S, seconds):
    cell, flow = charged(holder(capacitance_F, conductance_S, 3e-14), seconds)
    ionic_A, before_C = cell.ionic_A, cell.ionic_C
    assert flow.current_A == pytest.approx(ionic_A, rel=0.03)
    foreseen_s = flow.after_flow_s
    most_C = before_C
    for _ in range(400):
        cell.pass_on(0.1, 0.0)
        most_C = max(most_C, cell.ionic_C)
    assert foreseen_s == pytest.approx((most_C - before_C) / ionic_A, rel=0.04, abs=0.03)


def test_a_discharge_flows_on_as_a_charge_does():
    _, charge = charged(holder(), 12.0)
    _, discharge = charged(holder(), 12.0, amperes=-5e-12)
    assert discharge.after_flow_s == pytest.approx(charge.after_flow_s, rel=1e-3)
    assert charge.after_flow_s == pytest.approx(100e-12 * OHM, rel=0.02)  # R C


def test_nothing_is_foreseen_before_a_step_and_at_rest():
    flow = IonicFlow(holder())
    assert flow.after_flow_s == 0.0
    assert math.isnan(flow.current_A)
    cell = Cell(holder())
    flow.take(*cell.pass_on(1.0, 5e-12), rests=False)
    assert flow.after_flow_s == 0.0  # its voltage at rest is not known
    _, rested = charged(holder(), 1.0, amperes=0.0)
    assert rested.after_flow_s == 0.0


def test_a_holder_that_was_not_measured_lets_more_flow_than_a_real_one():
    _, known = charged(holder(150e-12), 12.0)
    _, unknown = charged(holder(150e-12), 12.0, known=False)
    assert unknown.after_flow_s > 1.5 * known.after_flow_s


def test_the_clock_goes_by_the_charge():
    """What moves with the charge moves evenly by it, while the current still grows."""
    cell, flow = charged(holder(300e-12), 3.0)
    shown = []
    for _ in range(40):
        flow.take(*cell.pass_on(READ_S, 5e-12), rests=False)
        shown.append((round(cell.t_s * S), cell.ionic_C))
    t_ns, moved_C = np.array(shown)[:, 0].astype(np.int64), np.array(shown)[:, 1]
    slope_A = np.polyfit(flow.seconds(t_ns), moved_C, 1)[0]
    assert slope_A == pytest.approx(cell.ionic_A, rel=0.01)
    by_time_A = np.polyfit(t_ns / S, moved_C, 1)[0]
    assert by_time_A < 0.9 * cell.ionic_A  # plain seconds are behind


def test_the_clock_is_plain_where_the_ionic_current_is_not_known():
    t_ns = np.array([1, 3], np.int64) * S
    assert np.diff(IonicFlow(holder()).seconds(t_ns)) == pytest.approx([2.0])
    _, rested = charged(holder(), 1.0, amperes=0.0)
    assert np.diff(rested.seconds(t_ns)) == pytest.approx([2.0])
    _, beginning = charged(holder(300e-12), 0.2)
    assert np.diff(beginning.seconds(t_ns)) == pytest.approx([2.0])


def test_the_clock_runs_on_after_the_last_reading():
    _, flow = charged(holder(), 12.0)
    t_ns = np.array([18, 19, 20], np.int64) * S
    assert np.diff(flow.seconds(t_ns)) == pytest.approx([1.0, 1.0], rel=0.02)


def test_readings_that_are_no_numbers_change_nothing():
    cell, flow = charged(holder(), 12.0)
    before = flow.after_flow_s, flow.current_A
    bad = np.array([math.nan])
    flow.take(np.array([round(cell.t_s * S)]), bad, np.array([5e-12]), rests=False)
    flow.take(np.array([round(cell.t_s * S)]), np.array([4.0]), bad, rests=True)
    assert (flow.after_flow_s, flow.current_A) == before
