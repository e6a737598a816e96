"""A holder that changes during the run: honest with a calibration after it, not without."""

import numpy as np
import pytest

from correlate.holder_change import holder_between
from correlate.ledger import Accuracy, Holder, charge_ledger
from mocks.scenario import load
from mocks.world import World
from potentiostat.drivers.keithley6430 import Keithley6430
from tests.end_to_end.direct import SPEC, DirectLink, calibrate, charge

# Mostly arithmetic, which other tests cover: traced it would take four times as long.
pytestmark = [pytest.mark.timeout(600), pytest.mark.no_cover]

CASES = 24
CALIBRATION_S = 75.5
RUN_S = 60.0


def as_holder(found):
    return Holder(**{name: getattr(found, name) for name in Holder.__dataclass_fields__})


def play(number):
    """Calibrate, charge while the holder changes, calibrate; return pulls with and without."""
    rng = np.random.default_rng([31, number])
    scenario = load(
        "lco_lipon_li",
        change_at_s=CALIBRATION_S + rng.uniform(0, RUN_S),
        leak_change_S=rng.uniform(-4e-13, 4e-13),
        stray_change_F=rng.uniform(-1e-12, 1e-12),
        offset_change_A=rng.uniform(-2e-14, 2e-14),
    )
    world = World(scenario, seed=number, start_ns=0)
    link = DirectLink(world)
    smu = Keithley6430(link, now_ns=link.now_ns)
    before = as_holder(calibrate(world, link, smu))
    t_ns, samples = charge(world, link, smu, duration_s=RUN_S)
    ledger = world.truth()["ledger"]
    true_C = np.diff(np.interp(t_ns[[0, -1]], ledger["t_ns"], ledger["ionic"]))[0]
    total = sum(ledger[term][-1] for term in ("ionic", "capacitive", "leak", "dielectric"))
    assert total == pytest.approx(ledger["instrument"][-1], rel=1e-9)
    smu.ensure_safe()
    after = as_holder(calibrate(world, link, smu))
    change = holder_between(before, after)

    def pull(holder, changed_F):
        book = charge_ledger(
            t_ns,
            samples["current_A"],
            samples["voltage_V"],
            current_sigma_A=samples["current_sigma_A"],
            voltage_sigma_V=samples["voltage_sigma_V"],
            accuracy=Accuracy(gain_ratio=SPEC.gain_ratio, offset_A=SPEC.offset_A),
            holder=holder,
            changed_F=changed_F,
        ).columns
        return (book["ionic"][-1] - true_C) / book["ionic_sigma"][-1]

    p = scenario.cell
    found = {c.name: c for c in change.changes}
    for name, true in (
        ("leakage", p.leak_change_S),
        ("stray capacitance", p.stray_change_F),
        ("zero of the current range", scenario.smu.offset_change_A),
    ):
        one = found[name]
        # The gain of the range is in the difference as it is in both values.
        assert abs(one.difference - true) < 5 * one.sigma + 2e-3 * abs(true), name
    return pull(change.holder, change.capacitance_F), pull(before, 0.0)


def test_a_calibration_after_the_run_makes_the_ionic_charge_honest():
    both, alone = np.array([play(number) for number in range(CASES)]).T
    assert 0.8 < np.sqrt(np.mean(both**2)) < 1.3, both
    assert np.abs(both).max() < 3.0
    assert np.sqrt(np.mean(alone**2)) > 1.5, alone
