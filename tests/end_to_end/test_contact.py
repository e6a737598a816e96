"""The contact test against what the simulation knows to be between the contacts."""

import numpy as np
import pytest

from mocks.scenario import load
from mocks.world import World
from potentiostat.contact import (
    LARGEST_CELL_OHM,
    PROBE_S,
    REST_S,
    Contact,
    judge_contact,
    probe_current_A,
    probe_step,
)
from potentiostat.drivers.keithley6430 import Keithley6430
from potentiostat.protocol import Setpoint
from runner.contact import probing_envelope, voltage_times_s
from tests.end_to_end.direct import ENVELOPE, RANGE_A, SPEC, DirectLink

pytestmark = pytest.mark.timeout(600)


def probe(number, kind, **changes):
    """Test one random world as the runner does; return the verdict and the scenario."""
    rng = np.random.default_rng([41, number])
    cell_ohm = 10 ** rng.uniform(8, 11)
    numbers = {
        "electrolyte_ohm": 0.9 * cell_ohm,
        "exchange_current_A": 0.0257 / (0.1 * cell_ohm),
        "stray_F": 10 ** rng.uniform(np.log10(30e-12), np.log10(300e-12)),
        "leak_ohm": 10 ** rng.uniform(12, 15),
    }
    if kind is Contact.SHORT:
        numbers["short_ohm"] = 10 ** rng.uniform(5, 8)
    if kind is Contact.OPEN:
        numbers["open_contact"] = 1
    scenario = load("lco_lipon_li", **numbers | changes)
    world = World(scenario, seed=number, start_ns=0)
    world.open_holder()
    link = DirectLink(world)
    smu = Keithley6430(link, now_ns=link.now_ns)
    smu.connect(ENVELOPE, cell_attached=False)  # its output-off would drain a cell
    world.mate_cell()
    if kind is Contact.OPEN:
        world.cell.voltage_V = world.cell.slow_V = rng.choice([0.0, rng.uniform(2.6, 4.1)])
    smu.connect(probing_envelope(ENVELOPE))
    rows = []

    def hold(level, longest_s, low_V=-9.0, high_V=9.0):
        smu.apply(Setpoint(mode="current", level=level, clamp=4.3, range_A=RANGE_A))
        end_ns = link.now + longest_s * 1e9
        while link.now < end_ns:
            rows.append(smu.read())
            if not low_V < rows[-1]["voltage_V"][0] < high_V:
                return

    hold(0.0, REST_S)
    rest_V = np.mean([r["voltage_V"] for r in rows])
    step = probe_step(probe_current_A(SPEC), rest_V, ENVELOPE)
    for segment in step.segments:
        high, low, _ = segment.until
        hold(segment.current_A, PROBE_S, low.value, high.value)
    samples = np.concatenate(rows)
    voltage = world.truth()["cell"]["voltage"]
    # Nothing was driven far from where it rested.
    assert np.ptp(voltage[100:]) < 1.2  # 100 steps of the model are a second
    assert -4.3 <= voltage.min() <= voltage.max() <= 4.3
    verdict = judge_contact(
        voltage_times_s(samples),
        samples["voltage_V"],
        samples["setpoint"],
        voltage_sigma_V=samples["voltage_sigma_V"],
        envelope=ENVELOPE,
    )
    return verdict, scenario, cell_ohm


@pytest.mark.no_cover  # mostly arithmetic, which other tests cover
@pytest.mark.parametrize("kind", [Contact.CELL, Contact.OPEN, Contact.SHORT])
def test_twenty_of_each_are_told_apart(kind):
    for number in range(20):
        verdict, scenario, cell_ohm = probe(number, kind)
        assert verdict.contact is kind, (number, scenario.cell, verdict)
        assert verdict.confidence >= 0.99
        if kind is Contact.CELL and cell_ohm > 3e9:
            assert verdict.ohm == pytest.approx(cell_ohm, rel=0.15)
            assert verdict.ohm_low < 1.2 * cell_ohm
            assert verdict.ohm_high > 0.8 * cell_ohm
        if kind is Contact.OPEN:
            assert verdict.ohm_low > LARGEST_CELL_OHM
            assert verdict.capacitance_F == pytest.approx(scenario.cell.stray_F, rel=0.15)
