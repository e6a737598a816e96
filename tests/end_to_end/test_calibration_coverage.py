"""Open-holder calibrations of many holders: what is stated covers the truth as often as stated.

Driver and simulated instrument speak without a socket here, for speed; other tests put
one between them.
"""

import math

import numpy as np
import pytest

from correlate.ledger import Accuracy, Holder, charge_ledger
from mocks.scenario import load
from mocks.world import World
from potentiostat.drivers.keithley6430 import Keithley6430
from tests.end_to_end.direct import RANGE_A, SPEC, DirectLink, calibrate, charge

# Mostly arithmetic, which other tests cover: traced it would take four times as long.
pytestmark = [pytest.mark.timeout(600), pytest.mark.no_cover]

CASES = 50
GAIN_SIGMA = SPEC.gain_ratio / math.sqrt(3)


def play(number):
    """Calibrate one holder, then charge a cell in it; return the pulls and the charge."""
    rng = np.random.default_rng([20, number])
    leak_ohm, stray_F = 10 ** rng.uniform(11, 15), rng.uniform(30e-12, 300e-12)
    scenario = load(
        "lco_lipon_li",
        leak_ohm=leak_ohm,
        stray_F=stray_F,
        dielectric_F=0.02 * stray_F * rng.uniform(0, 1.5),
        dielectric_tau_s=rng.uniform(5, 40),
    )
    world = World(scenario, seed=int(rng.integers(10**6)), start_ns=0)
    link = DirectLink(world)
    smu = Keithley6430(link, now_ns=link.now_ns)
    found = calibrate(world, link, smu)
    errors = link.instrument._terminals.errors
    offset_A = errors._measure[RANGE_A][1] * SPEC.offset_A
    # The zero of the voltmeter, 1.5 mV at most, leaks through the holder into that of the ammeter.
    offset_A -= errors._volt[1] * 1.5e-3 / leak_ohm

    def pull(value, sigma, true):
        return (value - true) / math.hypot(sigma, GAIN_SIGMA * value)

    pulls = (
        pull(found.capacitance_F, found.capacitance_sigma_F, stray_F),
        pull(found.conductance_S, found.conductance_sigma_S, 1 / leak_ohm),
        (found.offset_A - offset_A) / found.offset_sigma_A,
    )
    return pulls, charge_error(world, link, smu, found)


def charge_error(world, link, smu, found):
    """Charge the cell in the holder; return how far the ledger's ionic charge is off."""
    t_ns, samples = charge(world, link, smu)
    book = charge_ledger(
        t_ns,
        samples["current_A"],
        samples["voltage_V"],
        current_sigma_A=samples["current_sigma_A"],
        voltage_sigma_V=samples["voltage_sigma_V"],
        accuracy=Accuracy(gain_ratio=SPEC.gain_ratio, offset_A=SPEC.offset_A),
        holder=Holder(**{name: getattr(found, name) for name in Holder.__dataclass_fields__}),
    )
    ledger = world.truth()["ledger"]
    true_C = np.diff(np.interp(t_ns[[0, -1]], ledger["t_ns"], ledger["ionic"]))[0]
    return book.columns["ionic"][-1] / true_C - 1


def test_stated_intervals_cover_the_truth_and_the_ionic_charge_is_true():
    pulls, errors = zip(*(play(number) for number in range(CASES)), strict=True)
    covered = np.mean(np.abs(np.array(pulls)) < 1.96, axis=0)
    assert np.all(covered >= 0.9), dict(zip(("C", "G", "offset"), covered, strict=True))
    assert np.abs(errors).max() < 0.01
