"""How a contact test ends that does not go as it should, over a guardian that is scripted."""

from types import SimpleNamespace

import numpy as np
import pytest

import runner.contact
from potentiostat.drivers.keithley6430 import RANGES
from potentiostat.limits import Envelope
from potentiostat.protocol import SafeState
from potentiostat.records import SAMPLE_DTYPE
from runner.cell import InstrumentUnavailable
from runner.clock import ClockSpec
from runner.contact import find_contact
from runner.messages import Block, EndKind, Finished, GuardianSettings, Tripped

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)
SETTINGS = GuardianSettings(
    driver="none", resource="none", clock=ClockSpec(origin_ns=0), envelope=ENVELOPE
)
EXPERIMENT = SimpleNamespace(range_A=lambda _: 1e-10, contact=None)


async def at_once():
    pass


LAB = SimpleNamespace(clock=SimpleNamespace(settle=at_once))


def block(count, voltage_V):
    rows = np.zeros(count, SAMPLE_DTYPE)
    rows["read_start_ns"] = np.arange(count) * 50_000_000
    rows["read_end_ns"] = rows["read_start_ns"] + 47_000_000
    rows["voltage_V"], rows["voltage_sigma_V"] = voltage_V, 6e-5
    return Block(sequence=1, first=1, samples=rows, step=0, charge_C=np.zeros(count), exchanges=())


def trip(kind):
    return Tripped(kind=kind, reason="told so", state=SafeState.S1, t_ns=0)


@pytest.fixture
def scripted(monkeypatch):
    def script(*messages):
        class Cell:
            reason = ""

            def __init__(self, settings):
                # What rests below the window is a finding, and no limit of its own.
                assert settings.envelope.voltage_min_V == -4.3
                assert not settings.stop_on_short
                self.left = list(messages)

            async def __aenter__(self):
                return self

            async def __aexit__(self, *_):
                pass

            def get_connected(self):
                return SimpleNamespace(ranges=RANGES)

            def start(self, step):
                pass

            def renew(self, sequence):
                pass

            async def receive(self):
                return self.left.pop(0)

        monkeypatch.setattr(runner.contact, "GuardedCell", Cell)
        return find_contact(EXPERIMENT, LAB, SETTINGS)

    return script


async def test_a_limit_at_the_clamp_is_an_open_contact(scripted):
    record = await scripted(block(80, 4.31), trip(EndKind.LIMIT))
    assert record.verdict.contact == "open"
    assert not record.is_cell


async def test_a_limit_before_the_current_was_reversed_tells_nothing(scripted):
    with pytest.raises(InstrumentUnavailable, match="tells nothing: the current was never"):
        await scripted(block(80, 3.9), trip(EndKind.LIMIT))


@pytest.mark.parametrize(
    "end",
    [trip(EndKind.FAULT), Finished(state=None, reason="told so", t_ns=0)],
)
async def test_a_fault_ends_the_test(scripted, end):
    with pytest.raises(InstrumentUnavailable, match="cut short: told so"):
        await scripted(block(80, 3.9), end)
