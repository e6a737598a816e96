"""From a plan that asks for the temperature to its session, over a heated simulated holder."""

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from potentiostat.drivers.keysight_b298x import KeysightB298x
from potentiostat.keysight_thermometer import THERMOCOUPLE
from potentiostat.limits import Condition
from potentiostat.protocol import SafeState
from potentiostat.technique import chronopotentiometry
from runner.clock import ClockSpec
from runner.conduct import run
from runner.experiment import Experiment
from runner.guardian import Guardian
from runner.messages import Block, EndKind, Finish, GuardianSettings, StartStep, Tripped
from runner.outbox import Outgoing
from runner.plan import ExitCode
from runner.report_data import gather
from runner.summary_text import render_summary
from session import Session
from session.calibration_file import write_calibration
from session.truth import read_truth
from session.validate import validate
from tests.potentiostat.test_keysight_b298x import ENVELOPE, DirectLink

pytestmark = pytest.mark.timeout(600)

UNTIL = Condition(quantity="t", relation=">", value=100.0, text="t > 100 s")
PLAN = """
title = "a heated cell"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keysight_b298x"
resource = "mock"
calibration = "holder.h5"
thermocouple = true
nplc = 5
[mock]
seed = 3
overrides = { heating_K_s = 4.0, heating_after_s = 3, MORE }
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "90 pA"
charge = "8 nC"
temperature = ["250 K", "60 degC"]
[[step]]
ocv = { for = "2 s" }
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 60 s", "T > 40 degC, 2 times"]
[[step]]
ocv = { for = "60 s" }
"""


@pytest.fixture
def plan(tmp_path):
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 2e-10, "source": "a test"}
    write_calibration(tmp_path / "holder.h5", attributes, {"voltage": np.zeros(3)})
    return lambda more: Experiment.loads(PLAN.replace("MORE", more), folder=tmp_path)


async def test_a_rule_ends_its_step_and_a_limit_the_run(plan, tmp_path):
    summary = await run(plan("holder_K = 300"), output=tmp_path / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.LIMIT
    assert summary.left_in == "S2"
    assert [step.ended for step in summary.steps[:2]] == ["t > 2 s", "T > 40 degC, 2 times"]
    assert summary.exit_reason.startswith("temperature 33")
    assert summary.exit_reason.endswith(" K is above 333.15 K")
    assert validate(tmp_path / "a.h5") == []

    truth = read_truth(tmp_path / "a.truth.h5")["temperature"]
    with Session.open(tmp_path / "a.h5") as session:
        table, events = session.table("temperature"), session.events()
        about = session.attributes("instrument/potentiostat")
        samples = session.sample_columns()
    assert about["thermometer"] == "type K thermocouple"
    assert table.units["temperature"] == "K"
    assert np.all(np.diff(table["t_ns"]) < 1.3e9)
    true_K = np.interp(table["t_ns"], truth["t_ns"], truth["temperature"])
    off_K = table["temperature"] - true_K
    assert np.all(np.abs(off_K) < THERMOCOUPLE.error_K + 0.3)
    assert np.all(table["temperature_sigma"] == THERMOCOUPLE.sigma_K)
    assert table["temperature"][-1] > 333.15 > table["temperature"][-2]
    ended = next(e for e in events if e.kind == "step_ended" and e.data["step"] == 1)
    seen_K = table["temperature"][table["t_ns"] <= ended.t_ns]
    assert np.all(seen_K[-2:] > 313.15)
    assert np.all(seen_K[:-2] < 313.15)
    told = [e for e in events if e.kind == "temperature"]
    assert [e.data["state"] for e in told] == ["known", "beyond"]
    assert told[-1].data["temperature_K"] == table["temperature"][-1]
    # Beside the readings: none comes much later than the others.
    assert np.max(np.diff(samples["read_start_ns"])) < 0.5e9

    shown = summary.temperature
    assert (shown.highest_K, shown.unknown) == (table["temperature"][-1], 0)
    console = Console(width=200, record=True, file=None, quiet=False)
    console.print(render_summary(summary))
    assert "K (1 sigma, common to all)" in console.export_text()
    gathered = await asyncio.to_thread(gather, tmp_path / "a.h5", frames_budget_bytes=0)
    facts = gathered.content["facts"]
    assert "temperature" in [fact["name"] for fact in facts]


class Runner(Outgoing):
    """Begins a step at once, and is content for a while; hears everything."""

    def __init__(self, now_ns, *, for_s):
        self._now_ns, self._until_ns = now_ns, now_ns() + round(for_s * 1e9)
        step = chronopotentiometry(3e-11, (UNTIL,))
        self._said = [StartStep(index=0, step=step, range_A=2e-10)]
        self.heard = []

    def poll(self, _timeout_s):
        if self._now_ns() >= self._until_ns:
            self._said.append(Finish(reason="done"))
        return bool(self._said)

    def recv(self):
        return self._said.pop(0)

    def put(self, message):
        self.heard.append(message)

    def close(self):
        pass


@pytest.mark.parametrize("limited", [True, False])
def test_a_thermocouple_that_comes_off_ends_the_run_where_a_limit_hangs_on_it(limited):
    link = DirectLink(holder_K=290.0, thermocouple_opens_s=6.0)
    hottest_K = 330.0 if limited else math.inf
    envelope = replace(ENVELOPE, temperature_max_K=hottest_K)
    smu = KeysightB298x(link, now_ns=link.now_ns, nplc=5)
    smu.connect(envelope)
    runner = Runner(link.now_ns, for_s=12.0)
    settings = GuardianSettings(
        driver="keysight_b298x",
        resource="direct",
        clock=ClockSpec(origin_ns=0),
        envelope=envelope,
        asks_temperature=True,
    )
    Guardian(smu, runner, runner, settings, now_ns=link.now_ns, lease_now_ns=lambda: 0).run()
    trips = [m for m in runner.heard if isinstance(m, Tripped)]
    told = [t for m in runner.heard if isinstance(m, Block) for t in m.temperatures]
    assert any(t.fault for t in told)
    assert not all(t.fault for t in told)
    if not limited:
        assert trips == []
        assert link.now > 12e9
        return
    (trip,) = trips
    assert trip.kind is EndKind.FAULT
    assert trip.state is SafeState.S1
    assert trip.reason.startswith("the temperature is unknown for 3.")
    assert "the thermocouple is open or beyond its range" in trip.reason
    assert 8e9 < trip.t_ns < 10.5e9
    assert link.world.source.mode == "open"
    assert np.ptp(link.world.truth()["cell"]["voltage"]) < 0.3
