"""The thread that receives a Merlin's frames: what it does with each thing that may come."""

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager

import numpy as np
import pytest

from cameras import merlin_receiver
from cameras.errors import CameraError, CameraLost, FramingLost
from cameras.merlin_frames import FrameCount
from cameras.merlin_receiver import AHEAD, TRIES, MerlinReceiver, OwnBuffers
from cameras.records import CameraInfo, Frame, FrameFault
from mocks.merlin_wire import framed, mib_header

SHAPE = (6, 8)
ACQUISITION = framed(b"HDR,\r\nFrames in Acquisition (Number):\t9\r\nEnd\t")
CODES = {"uint8": ("U08", ">u1", 6), "uint16": ("U16", ">u2", 12), "uint32": ("U32", ">u4", 24)}
GARBAGE = b"??" * 40


def pixels_of(counter, dtype="uint8"):
    top = np.iinfo(dtype).max
    return (np.arange(48).reshape(SHAPE) * 50_331 + counter).astype("u8") % top


def frame(counter, dtype="uint8", *, chips=1, shape=SHAPE, extra=b""):
    code, wire, depth = CODES[dtype]
    header = mib_header(
        counter,
        height=shape[0],
        width=shape[1],
        code=code,
        depth=depth,
        stamp_ns=10**18 + counter * 1000,
        exposure_ns=900,
        chips=chips,
    )
    pixels = np.resize(pixels_of(counter, dtype), shape).astype(wire)
    return framed(header + pixels.tobytes() + extra)


class Bench:
    """A receiver and the other end of its connections, one prepared for each."""

    def __init__(self, streams, *, dtype, reconnects, buffers, ends):
        self.connections = 0
        self._streams = iter(streams)
        self._ends = ends
        self._theirs = []
        ticks = itertools.count(1)
        info = CameraInfo(
            model="", height=6, width=8, dtype=dtype, frame_rate_Hz=1.0, pixel_size_m=1.0
        )
        self.count = FrameCount(height=6, width=8, dtype=dtype)
        self.receiver = MerlinReceiver(
            "the Merlin",
            info,
            connected=self.connect(),
            connect=self.connect,
            reconnects=reconnects,
            count=self.count,
            buffers=buffers,
            now_ns=lambda: next(ticks),
        )

    def connect(self):
        stream = next(self._streams, None)
        if stream is None:
            raise ConnectionRefusedError
        self.connections += 1
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        assert theirs.send(stream) == len(stream)
        self._theirs.append(theirs)
        if self._ends:
            theirs.close()
        return ours

    def close(self):
        for each in self._theirs:
            each.close()

    async def all(self):
        """Take everything until the end; the error that ended it comes last."""
        found = []
        try:
            while (item := await self.receiver.next()) is not None:
                found.append(item)
        except (CameraError, IndexError) as error:
            found.append(error)
        return found


@asynccontextmanager
async def received(*streams, dtype="uint8", reconnects=False, buffers=None, ends=True):
    bench = Bench(streams, dtype=dtype, reconnects=reconnects, buffers=buffers, ends=ends)
    bench.receiver.start()
    try:
        yield bench
    finally:
        await bench.receiver.close()
        bench.close()
        assert not bench.receiver._thread.is_alive()


async def found_in(*streams, **how):
    async with received(*streams, **how) as bench:
        return await bench.all()


def indices(items):
    return [(f.info.index, f.info.dropped_before) for f in items if isinstance(f, Frame)]


def reasons(items):
    return [f.reason for f in items if isinstance(f, FrameFault)]


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(merlin_receiver, "RETRY_S", 0.0)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("chips", [1, 4])
async def test_frames_come_whole_in_the_hosts_byte_order(dtype, chips):
    stream = ACQUISITION + b"".join(frame(n, dtype, chips=chips) for n in (1, 2, 5))
    *frames, error = await found_in(stream, dtype=dtype)
    assert indices(frames) == [(1, 0), (2, 0), (5, 2)]
    for each in frames:
        assert each.pixels.dtype == np.dtype(dtype)
        assert each.pixels.dtype.isnative
        np.testing.assert_array_equal(each.pixels, pixels_of(each.info.index, dtype))
        assert each.info.device_start_ns == 10**18 + each.info.index * 1000
        assert each.info.exposure_ns == 900
        assert each.info.header.stamp_text.endswith("Z")
        assert each.info.header.chips == chips
    arrivals = [each.info.arrival_ns for each in frames]
    assert arrivals == sorted(set(arrivals))
    assert isinstance(error, CameraLost)
    assert "between messages after frame 5" in str(error)
    assert "All frames until then are recorded" in str(error)


class Ring:
    """Buffers in their order, as a ring gives them; never more than it has."""

    def __init__(self, count):
        self.all = [np.zeros(SHAPE, np.uint8) for _ in range(count)]
        self.taken = 0

    def take(self):
        self.taken += 1
        return self.all[self.taken - 1]


async def test_pixels_go_into_the_buffers_in_the_order_in_which_they_were_taken(soon):
    ring = Ring(4)
    stream = frame(1) + frame(2, shape=(3, 8)) + frame(3) + frame(4)[:-7]
    items = await found_in(stream, frame(5), frame(6), reconnects=True, buffers=ring)
    frames = [item for item in items if isinstance(item, Frame)]
    assert indices(items) == [(1, 0), (3, 1), (5, 1), (6, 0)]
    # Neither the frame of another shape nor the one that was cut has taken a buffer away.
    assert ring.taken == 4
    for each, buffer in zip(frames, ring.all, strict=True):
        assert each.pixels is buffer
        np.testing.assert_array_equal(buffer, pixels_of(each.info.index))


async def test_what_cannot_be_a_frame_is_told_and_the_rest_goes_on():
    unreadable = frame(3).replace(b"MQ1A", b"MQ1B").replace(b"2001-", b"????-")
    assert unreadable != frame(3)
    short = framed(frame(4)[15:][:390])
    stream = (
        frame(1)
        + frame(2, shape=(3, 8))
        + unreadable
        + short
        + frame(5, extra=b"more")
        + framed(b"MQ1,000006,00100,01")
        + framed(b"MQ1,000007,01000," + b"x" * 400)
        + framed(b"MQ1,000008")
        + frame(9)
    )
    items = await found_in(ACQUISITION + stream)
    told = reasons(items)
    # All of them lack in the counter; the faults say what became of them.
    assert indices(items) == [(1, 0), (9, 7)]
    assert "3 x 8 uint8 where the detector announced 6 x 8 uint8" in told[0]
    assert "cannot be read is left out" in told[1]
    assert "frame 4 has 6 bytes of pixels where its header says 48" in told[2]
    assert "frame 5 has 52 bytes of pixels" in told[3]
    assert "a header of 100 bytes" in told[4]
    assert "a header of 1000 bytes in a message of 417" in told[5]
    assert "cannot be read" in told[6]
    assert [f.index for f in items if isinstance(f, FrameFault)] == [2, None, 4, 5, *[None] * 3]
    assert len(told) == 7


async def test_a_stamp_that_runs_back_is_told_before_its_frame_is_kept():
    early = frame(2).replace(b"00.000002000Z", b"00.000000001Z")
    items = await found_in(ACQUISITION + frame(1) + early.replace(b"40.000002000", b"39.000002000"))
    assert [type(item) for item in items] == [Frame, FrameFault, Frame, CameraLost]
    assert items[1].index == 2
    assert indices(items) == [(1, 0), (2, 0)]


async def test_a_second_acquisition_is_told():
    items = await found_in(ACQUISITION + frame(1) + frame(2) + ACQUISITION + frame(2))
    assert indices(items) == [(1, 0), (2, 0), (4, 1)]
    assert "new acquisition began after frame 2" in reasons(items)[0]


@pytest.mark.parametrize(
    "nonsense", [GARBAGE, b"MPX,0000000001,", b"MPX,9999999999,", framed(b"ABC,hello")]
)
async def test_lost_framing_is_counted_and_a_new_connection_tried(nonsense):
    async with received(frame(1) + nonsense + frame(2), frame(4)) as bench:
        items = await bench.all()
    assert indices(items) == [(1, 0), (4, 2)]  # nothing is guessed: what came after it is lost
    assert "after frame 1; connecting again" in reasons(items)[0]
    assert bench.receiver.framing_lost == 1
    assert bench.connections == 2


async def test_framing_that_is_lost_again_and_again_ends_it():
    async with received(frame(1), *[GARBAGE] * (TRIES + 2), reconnects=True) as bench:
        items = await bench.all()
    assert indices(items) == [(1, 0)]
    assert isinstance(items[-1], FramingLost)
    assert f"{TRIES} connections in a row" in str(items[-1])
    assert bench.connections == 1 + TRIES  # the cut one counts among them


async def test_a_message_that_is_whole_makes_up_for_lost_framing(soon):
    streams = [frame(n) + GARBAGE for n in range(1, TRIES + 4)]
    async with received(*streams, frame(99), reconnects=True) as bench:
        items = await bench.all()
    assert indices(items)[-1][0] == 99


async def test_a_connection_that_is_cut_is_made_again_where_the_microscope_arms(soon):
    async with received(frame(1) + frame(2)[:99], frame(3), reconnects=True) as bench:
        items = await bench.all()
    assert indices(items) == [(1, 0), (3, 1)]
    assert "ended in a message after frame 1; connecting again" in reasons(items)[0]
    assert "cannot be reached any more" in str(items[-1])
    assert bench.connections == 2


async def test_a_connection_that_ends_without_any_message_is_not_made_for_ever(soon):
    items = await found_in(*[b""] * 20, reconnects=True)
    assert isinstance(items[-1], CameraLost)
    assert f"{TRIES} connections in a row" in str(items[-1])


async def test_a_buffer_that_cannot_be_had_ends_it():
    ring = Ring(1)
    items = await found_in(frame(1) + frame(2), buffers=ring)
    assert indices(items) == [(1, 0)]
    assert isinstance(items[-1], IndexError)


async def test_a_slow_listener_loses_nothing():
    counters = range(1, 4 * AHEAD)
    stream = b"".join(map(frame, counters))
    async with received(stream[:100_000], stream[100_000:], ends=False) as bench:
        bench._theirs[0].setblocking(False)
        held = [await bench.receiver.next() for _ in range(AHEAD)]
        assert len(bench.receiver._ready) <= AHEAD
        rest = stream[100_000:]
        while rest:
            try:
                rest = rest[bench._theirs[0].send(rest) :]
            except BlockingIOError:
                held.append(await bench.receiver.next())
        while len(held) < len(counters):
            held.append(await bench.receiver.next())
    assert [f.info.index for f in held] == list(counters)
    for each in held:  # each in memory of its own, as long as somebody holds it
        np.testing.assert_array_equal(each.pixels, pixels_of(each.info.index))


def test_memory_that_nobody_holds_is_used_again_and_no_other():
    info = CameraInfo(model="", height=6, width=8, dtype="uint8", frame_rate_Hz=1, pixel_size_m=1)
    own = OwnBuffers(info)
    first = own.take()
    view = first[2:, ::2]
    place = first.__array_interface__["data"][0]
    del first
    others = [own.take() for _ in range(2 * AHEAD)]
    places = {each.__array_interface__["data"][0] for each in others}
    assert len(places) == 2 * AHEAD
    assert place not in places
    del view
    own = OwnBuffers(info)
    again = {own.take().__array_interface__["data"][0] for _ in range(5)}
    assert len(again) == 1
    assert len(own._used) == 1


# --- the end -------------------------------------------------------------------------------------


async def test_it_ends_between_two_messages_once_nothing_comes():
    async with received(frame(1) + frame(2), ends=False) as bench:
        bench.receiver.end(0.01, 60)
        items = await bench.all()
    assert indices(items) == [(1, 0), (2, 0)]
    assert reasons(items) == []


async def test_where_the_microscope_arms_it_ends_at_once():
    async with received(frame(1), ends=False) as bench:
        first = await bench.receiver.next()
        bench.receiver.end(0, 60)
        assert await bench.all() == []
    assert first.info.index == 1


async def test_a_connection_that_ends_after_the_stop_is_the_end():
    async with received(frame(1), ends=False) as bench:
        assert (await bench.receiver.next()).info.index == 1
        bench.receiver.end(60, 60)
        bench.close()
        assert await bench.all() == []


async def test_a_last_frame_that_is_cut_is_told():
    async with received(frame(1) + frame(2)[:99], ends=False) as bench:
        assert (await bench.receiver.next()).info.index == 1
        bench.receiver.end(60, 60)
        bench.close()
        (fault,) = await bench.all()
    assert "the last frame, after frame 1, was cut" in fault.reason


async def test_a_frame_that_stands_still_after_the_stop_is_given_up():
    async with received(frame(1) + frame(2)[:99], ends=False) as bench:
        assert (await bench.receiver.next()).info.index == 1
        bench.receiver.end(60, 0.01)
        (fault,) = await bench.all()
    assert "a frame stands still after it was stopped" in fault.reason


async def test_a_detector_that_goes_on_after_the_stop_is_given_up(monkeypatch):
    monkeypatch.setattr(merlin_receiver, "LOOKS", 0)
    async with received(frame(1), ends=False) as bench:
        bench.receiver.end(60, 0.01)
        items = await bench.all()
    assert indices(items) == [(1, 0)]
    assert "after it was stopped; it is given up" in reasons(items)[0]


async def test_an_end_that_takes_long_is_looked_at_again():
    async with received(frame(1), ends=False) as bench:
        bench.receiver.end(60, 0.001)
        bench.receiver._taking = True  # it waits for a buffer: no fault of the detector
        for _ in range(3):
            await asyncio.sleep(0.002)
        assert not bench.receiver._closed.is_set()
        bench.receiver._taking = False
        assert "stands still" in reasons(await bench.all())[0]


async def test_closing_wakes_a_thread_wherever_it_waits(soon):
    async with received(b"", ends=False):
        pass  # for a message
    async with received(frame(1)[:50], ends=False):
        pass  # in one
    async with received(b"".join(map(frame, range(1, AHEAD + 9))), ends=False) as bench:
        while len(bench.receiver._ready) < AHEAD:
            await asyncio.sleep(0)  # for room
    async with received(frame(1) + b"", ends=True, reconnects=True) as bench:
        bench.receiver.give_up()  # for a connection


async def test_nobody_is_told_once_the_loop_is_gone():
    async with received(b"", ends=False) as bench:
        receiver = bench.receiver

        class Closed:
            def call_soon_threadsafe(self, *_):
                raise RuntimeError("Event loop is closed")

        receiver._loop = Closed()
        receiver._put(None)
        receiver._loop = asyncio.get_running_loop()
        receiver._woken = False
