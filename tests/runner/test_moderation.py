"""Less current by what images show: over a cell whose object moves with its ionic charge."""

import math

import numpy as np
import pytest

from runner.image_judge import Patience
from runner.ionic_flow import IonicFlow
from runner.keep_rules import Keep, parse_keep_rule
from runner.messages import HolderTerms
from runner.moderation import Moderation
from runner.tracking import Found, Seen

FRAME_S = 0.1
PLAN_A = 5e-12
WAY_M_C = 16e-9 / 1e-12  # at 1 pA, 16 nm/s
VELOCITY = parse_keep_rule("whisker.velocity < 20 nm/s")
DENSITY = parse_keep_rule("density(whisker.diameter) < 10 mA/cm^2")
TIGHT = HolderTerms(capacitance_F=1e-15, conductance_S=0.0, offset_A=0.0)


class Growing:
    """A whisker that grows with the charge, and what moderates its current."""

    def __init__(self, *rules, plan_A=PLAN_A, least_share=0.1, holder=TIGHT, seed=1):
        self.now_ns, self.length_m, self.index = 0, 1e-7, 0
        self.plan_A, self.leak_S = plan_A, holder.conductance_S
        self.diameter_m, self.sigma_m = 1e-7, 1e-9
        self.way_m_C = WAY_M_C
        self.rng = np.random.default_rng(seed)
        flow = IonicFlow(holder)
        self.flow = flow
        self.moderation = Moderation(now_ns=lambda: self.now_ns, flow=flow, patience=Patience())
        keep = Keep(rules=rules, least_share=least_share)
        self.share = self.moderation.begin(keep, plan_A)
        self.changes = []
        self.speeds_m_s = []

    def live(self, seconds, *, films=True, sees=True):
        for _ in range(round(seconds / FRAME_S)):
            self.now_ns += round(FRAME_S * 1e9)
            source_A = self.share * self.plan_A
            ionic_A = source_A - self.leak_S * 3.9
            self.speeds_m_s.append(self.way_m_C * ionic_A)
            self.length_m += self.speeds_m_s[-1] * FRAME_S
            at = (np.array([self.now_ns]), np.array([3.9]), np.array([source_A]))
            self.flow.take(*at, rests=False)
            if films:
                self._film(sees)
            changed = self.moderation.look()
            if changed is not None:
                self.changes.append(changed)
                self.share = changed.share
        return self

    def _film(self, sees):
        self.index += 1
        values = {
            "length": self.length_m + self.sigma_m * self.rng.standard_normal(),
            "length_sigma": self.sigma_m,
            "diameter": self.diameter_m,
            "diameter_sigma": 1e-9,
        }
        found = Found(True, values) if sees else Found(False, reason="lost")
        self.moderation.seen(Seen(self.index, self.now_ns, {"whisker": found}, 0))


def test_a_step_without_rules_is_left_as_it_is():
    cell = Growing()
    assert (cell.share, cell.live(3.0).changes) == (1.0, [])


def test_a_velocity_begins_slow_rises_and_is_kept():
    cell = Growing(VELOCITY).live(20.0)
    assert cell.changes[0].share > 0.1  # it began with the least
    assert 17e-9 < cell.speeds_m_s[-1] <= 20.4e-9
    # One side of 95 %, asked ever again: beyond it at times, and by little.
    assert max(cell.speeds_m_s) < 22e-9
    told = cell.changes[-1]
    assert told.current_A == pytest.approx(told.share * PLAN_A)
    assert told.reason.startswith("1.")
    assert " of 5 pA: whisker.velocity < 20 nm/s: " in told.reason
    assert told.data() == {"share": told.share, "current_A": told.current_A, "frame": told.frame}


def test_a_discharge_is_kept_as_a_charge_is():
    cell = Growing(VELOCITY, plan_A=-PLAN_A).live(20.0)
    assert -20.4e-9 <= cell.speeds_m_s[-1] < -17e-9


def test_what_gets_faster_at_the_same_current_is_slowed_down():
    cell = Growing(VELOCITY).live(20.0)
    cell.way_m_C *= 2
    cell.live(12.0)
    assert 17e-9 < cell.speeds_m_s[-1] <= 20.6e-9


def test_the_source_gives_what_the_holder_leaks():
    leaks = HolderTerms(capacitance_F=1e-15, conductance_S=2e-13, offset_A=0.0)
    cell = Growing(VELOCITY, holder=leaks, least_share=0.2).live(25.0)
    assert 17e-9 < cell.speeds_m_s[-1] <= 20.6e-9


def test_a_leakage_that_discharges_too_fast_by_itself_leaves_the_least():
    leaks = HolderTerms(capacitance_F=1e-15, conductance_S=8e-13, offset_A=0.0)
    cell = Growing(VELOCITY, plan_A=-PLAN_A, holder=leaks).live(20.0)
    assert cell.share == 0.1  # 3.1 pA leak, and 1.25 pA are allowed


def test_the_plan_is_never_exceeded():
    slow = parse_keep_rule("whisker.velocity < 900 nm/s")
    cell = Growing(slow).live(20.0)
    assert cell.share == 1.0
    assert [c.share for c in cell.changes] == sorted(c.share for c in cell.changes)


def test_a_density_follows_the_area_at_its_lower_end():
    cell = Growing(DENSITY).live(10.0)
    least_m = cell.diameter_m - 1.645e-9
    assert cell.share * PLAN_A == pytest.approx(100 * math.pi / 4 * least_m**2, rel=0.1)
    cell.diameter_m /= 2
    cell.live(2.0)
    least_m = cell.diameter_m - 1.645e-9
    assert cell.share * PLAN_A == pytest.approx(max(100 * math.pi / 4 * least_m**2, 5e-13))


def test_of_two_rules_the_stricter_one_counts():
    both = Growing(VELOCITY, DENSITY).live(15.0)
    assert both.share == pytest.approx(Growing(DENSITY).live(15.0).share, rel=0.05)
    assert both.changes[-1].reason.count("density") == 1


@pytest.mark.parametrize("unseen", [{"films": False}, {"sees": False}])
def test_what_is_not_seen_any_more_gets_the_least(unseen):
    cell = Growing(VELOCITY).live(15.0)
    assert cell.live(1.0, **unseen).share == 0.1
    assert "not seen for 0." in cell.changes[-1].reason
    assert cell.live(15.0).share > 0.2  # and more when it is seen again


def test_without_a_frame_it_stays_at_the_least():
    assert Growing(VELOCITY).live(5.0, films=False).changes == []


def test_a_current_rises_by_no_more_than_twice_in_a_second():
    cell = Growing(DENSITY, plan_A=1e-12, least_share=0.01).live(6.0)
    shares = [0.01, *(c.share for c in cell.changes)]
    times_s = [0.0, *(c.t_ns / 1e9 for c in cell.changes)]
    assert len(shares) > 3
    for (was, then), (is_, now) in zip(
        zip(shares, times_s, strict=True), zip(shares[1:], times_s[1:], strict=True), strict=False
    ):
        assert is_ <= 2 * was
        assert now - then >= 1.0 - 1e-9


def test_the_end_of_a_step_ends_it():
    cell = Growing(VELOCITY).live(15.0)
    cell.moderation.end()
    assert cell.moderation.look() is None
    assert cell.moderation.share == 1.0
