"""The ring of frames in shared memory."""

import shutil
import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from session.ring import FrameRing, choose_slots


@pytest.fixture
def ring():
    made = FrameRing.create(slots=4, height=2, width=3, dtype="uint16")
    yield made
    made.close()
    made.unlink()


def test_the_other_side_sees_what_was_put(ring):
    other = FrameRing.attach(ring.spec)
    try:
        for number in range(3):
            slot = ring.put(np.full((2, 3), number, "uint16"))
            assert other.slot_pixels(slot).copy().tolist() == [[number] * 3] * 2
    finally:
        other.close()


def test_a_full_ring_refuses_until_a_slot_is_released(ring):
    slots = [ring.put(np.full((2, 3), number, "uint16")) for number in range(4)]
    assert slots == [0, 1, 2, 3]
    assert ring.is_full
    with pytest.raises(BufferError, match="all 4 slots"):
        ring.put(np.zeros((2, 3), "uint16"))
    ring.release(1)
    assert ring.put(np.full((2, 3), 9, "uint16")) == 0
    assert ring.slot_pixels(1).copy().tolist() == [[1] * 3] * 2


def test_counters_tell_the_highest_use(ring):
    for _ in range(2):
        ring.put(np.zeros((2, 3), "uint16"))
    ring.release(2)
    ring.put(np.zeros((2, 3), "uint16"))
    ring.count_wait()
    counters = ring.counters
    assert (counters.slots, counters.written) == (4, 3)
    assert (counters.high_water, counters.waits) == (2, 1)


def test_a_closed_ring_says_so():
    ring = FrameRing.create(slots=4, height=2, width=3, dtype="uint8")
    ring.close()
    ring.unlink()
    ring.unlink()
    with pytest.raises(ValueError, match="is closed"):
        ring.slot_pixels(0)
    with pytest.raises(FileNotFoundError):
        SharedMemory(name=ring.spec.name)


def test_slots_are_bounded_by_memory():
    assert choose_slots(1_000, memory_bytes=10**9) == 64
    assert choose_slots(1_000, memory_bytes=10_000) == 10
    with pytest.raises(MemoryError, match="no room for 4 frames"):
        choose_slots(1_000, memory_bytes=3_999)
    assert choose_slots(1) == 64


@pytest.mark.parametrize(("cameras", "frames"), [(1, 512), (2, 384), (3, 256)])
def test_cameras_share_the_memory_so_that_the_recorder_stays_below_a_gibibyte(
    monkeypatch, cameras, frames
):
    monkeypatch.setattr("session.ring._free_shared_memory", lambda: 2**40)
    assert choose_slots(2**20, frame_rate_Hz=4_000.0, cameras=cameras) == frames
    held = choose_slots(2**20, frame_rate_Hz=4_000.0, cameras=cameras, held=200)
    assert cameras * held <= 768


def test_free_shared_memory_bounds_the_slots(monkeypatch):
    usage = type("Usage", (), {"free": 16_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr("session.ring._SHARED_MEMORY_PATH", Path())
    assert choose_slots(1_000) == 8
    monkeypatch.setattr("session.ring._SHARED_MEMORY_PATH", Path("/no/such"))
    assert choose_slots(1_000) == 64


def test_nothing_is_left_to_complain_about_at_exit():
    program = (
        "import numpy as np\n"
        "from session.ring import FrameRing\n"
        "ring = FrameRing.create(slots=4, height=2, width=3, dtype='uint8')\n"
        "other = FrameRing.attach(ring.spec)\n"
        "other.slot_pixels(ring.put(np.ones((2, 3), 'uint8'))).sum()\n"
        "other.close(); ring.close(); ring.unlink()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
