"""What the guardian says: in order, never waiting, and all of it as long as that can be."""

import multiprocessing
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.protocol import ClockExchange, SafeState
from potentiostat.records import SAMPLE_DTYPE
from potentiostat.thermometer import TemperatureReading
from runner.messages import Block, EndKind, Finished, Tripped
from runner.outbox import Outbox, gathered

EXCHANGE = ClockExchange(sent_ns=1, device_time_s=0.5, received_ns=2)
TRIPPED = Tripped(kind=EndKind.LEASE, reason="silent", state=SafeState.S1, t_ns=5)
FINISHED = Finished(state=SafeState.S1, reason="done", t_ns=6)


WARM = TemperatureReading(read_start_ns=1, read_end_ns=2, temperature_K=300.0, sigma_K=1.0)


def block(sequence, step=0, rows=1, exchanges=(), temperatures=()):
    samples = np.zeros(rows, SAMPLE_DTYPE)
    samples["voltage_V"] = sequence
    return Block(
        sequence=sequence,
        first=sequence,
        samples=samples,
        step=step,
        charge_C=np.full(rows, float(sequence)),
        exchanges=exchanges,
        temperatures=temperatures,
    )


def test_what_a_thermometer_said_is_gathered_with_the_readings():
    colder = replace(WARM, temperature_K=290.0)
    (one,) = gathered([block(1, temperatures=(WARM,)), block(2), block(3, temperatures=(colder,))])
    assert one.temperatures == (WARM, colder)


@pytest.fixture
def pipe():
    ours, theirs = multiprocessing.Pipe()
    yield ours, theirs
    ours.close()
    theirs.close()


def heard_from(connection, last=Finished):
    heard = []
    while not heard or not isinstance(heard[-1], last):
        heard.append(connection.recv())
    return heard


def test_nobody_waits_for_a_runner_that_does_not_listen(pipe):
    ours, theirs = pipe
    outbox = Outbox(theirs, gather_s=0.0)
    for i in range(1, 5001):  # many times what a pipe holds
        outbox.put(block(i, rows=20))
    outbox.put(TRIPPED)
    outbox.put(FINISHED)
    heard = heard_from(ours)
    outbox.close()
    assert heard[-2:] == [TRIPPED, FINISHED]
    voltages = np.concatenate([b.samples["voltage_V"] for b in heard[:-2]])
    assert voltages.tolist() == np.repeat(np.arange(1, 5001), 20).tolist()
    assert all(b.first == a.sequence + 1 for a, b in pairwise(heard[:-2]))


def test_what_nobody_took_for_too_long_is_given_up_and_can_be_missed(pipe, monkeypatch):
    monkeypatch.setattr("runner.outbox.MOST_BLOCKS", 10)
    ours, theirs = pipe
    held = threading.Event()

    class Held:
        def send(self, message):
            held.wait()
            theirs.send(message)

    outbox = Outbox(Held(), gather_s=0.0)
    outbox.put(block(1))
    outbox.put(TRIPPED)
    for i in range(2, 40):
        outbox.put(block(i))
    outbox.put(FINISHED)
    held.set()
    heard = heard_from(ours)
    outbox.close()
    assert TRIPPED in heard
    blocks = [m for m in heard if isinstance(m, Block)]
    assert blocks[-1].sequence == 39
    kept = sum(b.sequence - b.first + 1 for b in blocks)
    assert kept < 20
    assert sum(len(b.samples) for b in blocks) == kept


def test_a_runner_that_is_gone_is_told_no_more(pipe):
    ours, theirs = pipe
    outbox = Outbox(theirs)
    ours.close()
    for i in range(1, 100):
        outbox.put(block(i))
    outbox.close()
    outbox.put(FINISHED)


def test_nobody_waits_for_ever_for_the_last_words():
    held = threading.Event()

    class Held:
        def send(self, message):
            held.wait()

    outbox = Outbox(Held())
    outbox.put(FINISHED)
    outbox.close(timeout_s=0.0)
    held.set()
    outbox.close()


def test_readings_gather_and_nothing_else_waits_for_that(pipe):
    ours, theirs = pipe
    outbox = Outbox(theirs, gather_s=1e9)
    outbox.put(block(1))
    assert ours.recv().sequence == 1
    for i in range(2, 100):
        outbox.put(block(i))
    assert not ours.poll(0)
    outbox.put(TRIPPED)
    heard = heard_from(ours, Tripped)
    assert [m.first for m in heard[:-1]] == [2]
    assert heard[0].sequence == 99
    outbox.put(block(100))
    outbox.close()  # it waits for nothing either
    assert ours.recv().sequence == 100


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3), st.booleans(), st.booleans()), max_size=30
    )
)
def test_gathering_changes_nothing_but_the_number_of_messages(plan):
    said = []
    for i, (step, rows, asked, other) in enumerate(plan, 1):
        said.append(block(i, step, rows, (EXCHANGE,) if asked else ()))
        if other:
            said.append(TRIPPED)
    together = gathered(said)
    assert len(together) <= len(said)

    def flat(messages):
        rows = []
        for m in messages:
            if isinstance(m, Block):
                assert len(m.samples) == len(m.charge_C)
                rows += [(m.step, c) for c in m.charge_C.tolist()]
            else:
                rows.append(m)
        return rows

    assert flat(together) == flat(said)
    asked = sum(len(m.exchanges) for m in together if isinstance(m, Block))
    assert asked == sum(a for _, _, a, _ in plan)
    numbers = [n for m in together if isinstance(m, Block) for n in (m.first, m.sequence)]
    assert numbers == sorted(numbers)
