"""A calibration on a range that settles slowly: how long it takes, what it leaves out."""

import math

import numpy as np
import pytest

from potentiostat.calibration import HOLD_S, HolderNotCalibrated
from potentiostat.records import SAMPLE_DTYPE, RangeSpec, Status
from runner.calibrate import SETTLINGS, _fit, hold_s

LAG_S = 0.6
READ_S = 0.03
STRAY_F, LEAK_OHM = 150e-12, 1e12


def spec(full_scale_A=2e-10, settling_s=1.4):
    return RangeSpec(
        full_scale_A=full_scale_A,
        gain_ratio=0.005,
        offset_A=5e-15,
        resolution_A=1e-16,
        settling_s=settling_s,
    )


def staircase(*, flagged=True, arrival=Status.SETTLING):
    """Readings of an open holder whose voltage is moved in steps, by a meter that lags.

    An instrument says by flags of its own when the voltage has arrived (it ramps), or only
    that the clamp of its current holds until then.
    """
    rng = np.random.default_rng(1)
    t_s = np.cumsum(READ_S * rng.uniform(0.9, 1.1, 2400))
    rows = np.zeros(len(t_s), SAMPLE_DTYPE)
    level_V = before_V = seen_A = 0.0
    settled_s = 0.0
    for k, t in enumerate(t_s):
        target_V = (0.0, 2.0, 4.0, 2.0, 0.0)[min(int(t / 15), 4)]
        began = k > 0 and int(t / 15) != int(t_s[k - 1] / 15)
        moved_V = level_V - before_V
        current_A = STRAY_F * moved_V / READ_S + level_V / LEAK_OHM
        seen_A += (current_A - seen_A) * -math.expm1(-READ_S / LAG_S)
        arrived = moved_V != 0 and level_V == target_V
        if began or (arrived and arrival is Status.SETTLING):
            settled_s = t + 1.4
        rows[k]["voltage_V"], rows[k]["current_A"] = level_V, seen_A + rng.normal(0, 1e-14)
        rows[k]["status"] = int(Status.SETTLING) * (flagged and t < settled_s)
        if moved_V != 0 and arrival is Status.COMPLIANCE:
            rows[k]["status"] |= int(Status.COMPLIANCE)
        before_V = level_V
        level_V += min(max(target_V - level_V, -9e-3), 9e-3)
    rows["device_time_s"] = t_s
    rows["read_start_ns"] = np.round((t_s - 0.002) * 1e9)
    rows["read_end_ns"] = np.round((t_s + READ_S - 0.004) * 1e9)
    rows["current_sigma_A"], rows["voltage_sigma_V"] = 1e-14, 2e-4
    return rows


def test_a_slow_meter_gives_the_holder_its_true_numbers():
    found = _fit(staircase(), spec())
    assert found.capacitance_F == pytest.approx(STRAY_F, rel=0.02)
    assert found.conductance_S == pytest.approx(1 / LEAK_OHM, rel=0.03)
    assert abs(found.dielectric_F) < 3e-12


def test_a_meter_settles_again_when_the_clamp_lets_go():
    found = _fit(staircase(arrival=Status.COMPLIANCE), spec())
    assert found.capacitance_F == pytest.approx(STRAY_F, rel=0.02)
    assert found.conductance_S == pytest.approx(1 / LEAK_OHM, rel=0.03)
    assert abs(found.dielectric_F) < 3e-12


def test_without_its_flags_the_lag_is_not_taken_for_the_holders():
    with pytest.raises(HolderNotCalibrated, match=r"off by \d+% of its largest value"):
        _fit(staircase(flagged=False), spec())


def test_levels_stand_until_the_holder_is_charged_and_the_meter_has_settled():
    assert hold_s(spec(1e-10, 0.05), 1e-10) == HOLD_S
    slow = hold_s(spec(2e-11, 1.4), 1e-9)
    assert slow == pytest.approx(300e-12 * 2.0 / (0.9 * 2e-11) + 2 * SETTLINGS * 1.4)
    assert hold_s(spec(2e-11, 1.4), 5e-12) > 3 * slow
