"""Who holds a slot: whatever the order, none is used twice and none is lost."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from session.errors import RecorderLost, SessionError
from session.ring import FrameRing
from session.slots import Slots

SLOTS = 5


@pytest.fixture
def ring():
    made = FrameRing.create(slots=SLOTS, height=32, width=64, dtype="uint16")
    yield made
    made.close()
    made.unlink()


class TakeAndRecord(RuleBasedStateMachine):
    """A source that takes, fills, records, drops and looks on, in any order."""

    def __init__(self):
        super().__init__()
        self.ring = FrameRing.create(slots=SLOTS, height=32, width=64, dtype="uint16")
        self.taken = []  # with the source: pixels and their number
        self.seen = []  # recorded, and somebody still looks
        self.sent = []  # with the recorder, oldest first: slot and number
        self.number = 0
        self.recorded = 0
        self.unused = 0

    def teardown(self):
        self.taken.clear()
        self.seen.clear()
        self.ring.close()
        self.ring.unlink()

    def next_number(self):
        self.number += 1
        return self.number

    @rule()
    def take(self):
        slot = self.ring.slots.take()
        if slot is not None:
            pixels = self.ring.lend(slot)
            number = self.next_number()
            pixels[...] = number
            self.taken.append((pixels, number))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), look_on=st.booleans())
    def record(self, data, look_on):
        pixels, number = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        slot = self.ring.lent_slot(pixels)
        assert slot is not None
        self.ring.slots.send(slot)
        assert self.ring.lent_slot(pixels) is None  # once only
        self.sent.append((slot, number))
        self.recorded += 1
        if look_on:
            self.seen.append((pixels[1:], number))

    @precondition(lambda self: self.taken)
    @rule()
    def drop(self):
        self.taken.pop(0)
        self.unused += 1

    @precondition(lambda self: self.seen)
    @rule()
    def look_away(self):
        self.seen.pop(0)

    @precondition(lambda self: not self.ring.is_full)
    @rule()
    def copy(self):
        number = self.next_number()
        self.sent.append((self.ring.put(np.full((32, 64), number, np.uint16)), number))
        self.recorded += 1

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def release(self, data):
        count = data.draw(st.integers(1, len(self.sent)))
        self.ring.release(count)
        del self.sent[:count]

    @invariant()
    def nothing_is_overwritten(self):
        for pixels, number in self.taken + self.seen:
            assert (pixels == number).all()
        for slot, number in self.sent:
            assert (self.ring.slot_pixels(slot) == number).all()

    @invariant()
    def every_slot_is_accounted_for(self):
        held = {slot for slot, _ in self.sent}
        first = self.ring.slot_pixels(0).ctypes.data
        for pixels, _ in self.taken + self.seen:
            held.add((pixels.ctypes.data - first) // self.ring.spec.slot_bytes)
        assert self.ring.is_full == (len(held) == SLOTS)
        counters = self.ring.counters
        assert (counters.written, counters.unused) == (self.recorded, self.unused)
        assert len(held) <= counters.high_water <= SLOTS


TestTakeAndRecord = TakeAndRecord.TestCase
TestTakeAndRecord.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)


def test_lent_pixels_are_seen_by_the_other_side_without_a_copy(ring):
    other = FrameRing.attach(ring.spec)
    pixels = ring.lend(ring.slots.take())
    pixels[...] = 7
    assert (pixels.shape, pixels.dtype) == ((32, 64), np.uint16)
    assert pixels.ctypes.data % 4096 == 0
    slot = ring.lent_slot(pixels)
    assert (other.slot_pixels(slot) == 7).all()
    other.close()


def test_only_a_whole_slot_that_was_lent_is_taken_for_one(ring):
    pixels = ring.lend(ring.slots.take())
    assert ring.lent_slot(pixels) == 0
    assert ring.lent_slot(pixels.reshape(-1).reshape(32, 64)) == 0
    assert ring.lent_slot(pixels[1:]) is None
    assert ring.lent_slot(pixels.T) is None
    assert ring.lent_slot(np.zeros((32, 64), np.uint16)) is None
    assert ring.lent_slot(ring.slot_pixels(1)) is None


def test_any_part_of_the_pixels_holds_the_slot(ring):
    flat = memoryview(ring.lend(ring.slots.take()).reshape(-1).view("u1"))
    gc.collect()
    assert ring.counters.unused == 0
    flat.release()
    del flat
    assert ring.counters.unused == 1


def test_a_thread_that_waits_gets_the_slot_that_is_freed(ring):
    slots = [ring.slots.take() for _ in range(SLOTS)]
    got = []
    thread = threading.Thread(target=lambda: got.append(ring.slots.wait()))
    thread.start()
    ring.slots.let_go(slots[2])
    thread.join(10)
    assert got == [2]


def test_closing_ends_every_wait_now_and_later():
    slots = Slots(1)
    slots.take()
    errors = []

    def wait():
        try:
            slots.wait()
        except SessionError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    slots.close(RecorderLost("the disk is full"))
    slots.close(SessionError("too late"))
    for thread in threads:
        thread.join(10)
    wait()
    slots.let_go(0)
    wait()
    assert [type(error) for error in errors] == [RecorderLost] * 5
    assert {str(error) for error in errors} == {"the disk is full"}
    assert len({id(error) for error in errors}) == 5


def test_pixels_outlive_the_ring():
    ring = FrameRing.create(slots=2, height=32, width=64, dtype="uint16")
    pixels = ring.lend(ring.slots.take())
    pixels[...] = 9
    ring.close()
    ring.unlink()
    assert (pixels == 9).all()
    with pytest.raises(ValueError, match="is closed"):
        ring.lend(1)
