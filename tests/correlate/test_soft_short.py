"""Steps of the voltage and self-discharge, against what made them."""

import numpy as np
import pytest

from correlate.soft_short import (
    FALSE_ALARMS_PER_HOUR,
    HOLD_OFF_S,
    STEP_READINGS,
    ShortWatch,
    find_steps,
    self_discharge,
)
from mocks.scenario import load
from mocks.world import World
from potentiostat.drivers.keithley6430 import Keithley6430
from potentiostat.protocol import Setpoint
from tests.end_to_end.direct import ENVELOPE, RANGE_A, DirectLink, record

STEP_S, SIGMA_V = 0.047, 6e-5


def clean(hours, seed=0, sigma_V=SIGMA_V):
    n = round(hours * 3600 / STEP_S)
    t = np.arange(n) * STEP_S
    noise = np.random.default_rng(seed).normal(0, sigma_V, n)
    return t, 3.9 + 0.05 * np.sin(t / 200) + noise


def steps(t, v):
    return find_steps(t, v, np.full(len(t), SIGMA_V), np.zeros(len(t), int))


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_clean_records_raise_no_more_alarms_than_stated():
    hours, sigma_V = 100, 4 * SIGMA_V  # no step is too small to count
    found = 0
    for seed in range(10):
        t, v = clean(hours / 10, seed, sigma_V)
        found += len(find_steps(t, v, np.full(len(t), sigma_V), np.zeros(len(t), int)))
    # One is expected at the stated rate; a threshold lower by one sigma would give hundreds.
    assert found <= 1 + 4 * FALSE_ALARMS_PER_HOUR * hours


@pytest.mark.parametrize("size_V", [-5e-4, -2e-3, 1e-3])
def test_a_step_is_found_once_with_its_size_and_time(size_V):
    t, v = clean(0.02)
    at_s = 40.0
    (found,) = steps(t, v + size_V * (t >= at_s))
    assert found.t_s == pytest.approx(at_s, abs=3 * STEP_S)
    assert abs(found.step_V - size_V) < 4 * found.sigma_V
    assert found.closes is (size_V < 0)
    assert found.significance > 5


def test_reading_by_reading_gives_the_same_steps_within_a_fraction_of_a_second():
    t, v = clean(0.02)
    v = v - 2e-3 * ((t >= 30) & (t < 45))
    watch, live = ShortWatch(), []
    for t_s, voltage_V in zip(t, v, strict=True):
        step = watch.take(t_s, voltage_V, SIGMA_V)
        if step is not None:
            live.append((t_s, step))
    assert [step.closes for _, step in live] == [True, False]
    for (seen_s, _), at_s in zip(live, (30, 45), strict=True):
        assert at_s < seen_s < at_s + (STEP_READINGS + 2) * STEP_S
    assert [s.closes for s in steps(t, v)] == [True, False]


def test_what_changes_by_itself_after_a_change_is_no_step():
    watch = ShortWatch()
    t, v = clean(0.01)
    jump = v - 0.04 * (t < 10)
    assert find_steps(t, jump, np.full(len(t), SIGMA_V), (t >= 10).astype(int)) == []
    assert find_steps(t, jump, np.full(len(t), SIGMA_V), np.full(len(t), -1)) == []
    for t_s, voltage_V in zip(t, jump, strict=True):
        if t_s == t[t >= 10][0]:
            watch.changed()
        assert watch.take(t_s, voltage_V, SIGMA_V) is None
    short = t < HOLD_OFF_S + 0.5
    assert steps(t[short], jump[short]) == []
    assert steps(t[:0], v[:0]) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("soft_ohm", [1e11, 1e12])
def test_a_telegraph_in_the_simulated_cell_is_found(soft_ohm):
    scenario = load("lco_lipon_li", soft_ohm=soft_ohm, soft_on_per_s=0.06, soft_off_per_s=0.1)
    world = World(scenario, seed=4, start_ns=0)
    world.open_holder()
    link = DirectLink(world)
    smu = Keithley6430(link, now_ns=link.now_ns)
    smu.connect(ENVELOPE, cell_attached=False)
    world.mate_cell()
    smu.connect(ENVELOPE)
    smu.apply(Setpoint(mode="current", level=3e-11, clamp=4.3, range_A=RANGE_A))
    samples = record(smu, link, 120.0)
    t = (samples["read_start_ns"] - samples["read_start_ns"][0]) / 1e9
    held = np.zeros(len(t), int)
    found = find_steps(t, samples["voltage_V"], samples["voltage_sigma_V"], held)
    truth = world.truth()["soft"]
    true_s = (truth["t_ns"] - samples["read_start_ns"][0]) / 1e9
    clear = np.diff(np.concatenate([[0], true_s, [120]])) > 4.0
    sought = [
        (s, bool(on))
        for k, (s, on) in enumerate(zip(true_s, truth["on"], strict=True))
        if clear[k] and clear[k + 1] and s > HOLD_OFF_S + 2
    ]
    assert len(sought) >= 3
    for at_s, on in sought:
        near = [s for s in found if abs(s.t_s - at_s) < 0.8]
        assert near, (at_s, on)
        assert near[0].closes is on
        if on:
            cell_ohm = 0.43e9 + 1e9
            # A charge transfer that is driven hard has less resistance than at rest.
            assert 0.7 < near[0].short_ohm(cell_ohm) / soft_ohm < 2.0
    total = world.truth()["ledger"]
    assert total["soft"][-1] > 0


def test_self_discharge_gives_the_resistance_with_an_honest_sigma():
    t = np.arange(600) * STEP_S
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        v = 3.9 * np.exp(-t / (1e12 * 6e-10)) + rng.normal(0, SIGMA_V, len(t))
        found = self_discharge(t, v, np.full(len(t), SIGMA_V), capacitance_F=6e-10)
        pulls.append((found.ohm - 1e12) / found.sigma_ohm)
        assert found.at_least_ohm < found.ohm
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.25


def test_a_cell_that_holds_its_voltage_has_a_least_resistance():
    t = np.arange(600) * STEP_S
    below = 0
    for seed in range(60):
        v = 3.9 * np.exp(-t / (1e18 * 6e-10)) + np.random.default_rng(seed).normal(0, SIGMA_V, 600)
        found = self_discharge(t, v, np.full(600, SIGMA_V), capacitance_F=6e-10)
        below += np.isnan(found.ohm)
        assert found.at_least_ohm > 1e14
    assert below > 50
    with pytest.raises(ValueError, match="nothing to discharge"):
        self_discharge(t, -v, np.full(600, SIGMA_V), capacitance_F=6e-10)
