"""The frame stream: whole frames, and every way in which a stream can be wrong."""

import asyncio
import json
import math
import struct
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from cameras.clock_wire import WARM, ClockClient
from cameras.drivers.stream import MAX_LINE, StreamCamera
from cameras.errors import CameraLost, FramingLost
from cameras.open_port import LOOPBACK, open_port
from mocks.bench import Bench
from mocks.camera import is_dropped
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

GREETING = {
    "lamella_frames": 1,
    "model": "test camera",
    "height": 3,
    "width": 4,
    "dtype": "uint16",
    "frame_rate_Hz": 5.0,
    "pixel_size_m": 2e-9,
}
PIXELS = np.arange(12, dtype="<u2").reshape(3, 4) * 1000
END = {"type": "end", "produced": 1, "sent": 1}


def line(message):
    return json.dumps(message).encode() + b"\n"


STARTED = line({"type": "started"})


def frame(index=0, pixels=PIXELS, **changes):
    header = {
        "type": "frame",
        "index": index,
        "start_ns": 4_217_000_000 + (index if index in range(99) else 0) * 200_000_000,
        "exposure_ns": 196_000_000,
        "blanked": False,
        "bytes": pixels.nbytes,
        **changes,
    }
    return line({k: v for k, v in header.items() if v is not ...}) + pixels.tobytes()


class Clock(asyncio.DatagramProtocol):
    """Answers as a test says: with any datagrams for a question, at once."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        if data == WARM:
            return
        self.asked.append(data)
        for answer in self.answers(data):
            self.transport.sendto(answer, addr)


def prompt(question):
    nonce, t0 = struct.unpack("<qq", question)
    yield struct.pack("<qqqq", nonce, t0, 5_000, 5_020)


class Server:
    """Says its greeting, then its stream on START; remembers what it was told."""

    def __init__(self, greeting, stream, clock, started):
        self.greeting, self.stream, self.clock = greeting, stream, clock
        self.started = started
        self.told = []
        self.gone = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            writer.write(self.greeting)
            if self.stream is None:
                return
            while command := await reader.readline():
                self.told.append(command)
                if command == b"START\n":
                    writer.write(self.started + self.stream)
                    if not self.stream.endswith(line(END)):
                        return
        except ConnectionError:
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.gone.set()


@asynccontextmanager
async def served(
    stream=b"", *, greeting=GREETING, clock=prompt, timeout_s=2.0, started=STARTED, **changes
):
    loop = asyncio.get_running_loop()
    transport, answering = await loop.create_datagram_endpoint(
        lambda: Clock(clock), local_addr=("127.0.0.1", 0)
    )
    if isinstance(greeting, dict):
        full = {"clock_port": transport.get_extra_info("sockname")[1], **greeting, **changes}
        greeting = line({k: v for k, v in full.items() if v is not ...})
    state = Server(greeting, stream, answering, started)
    ticks = iter(range(10_000, 10**9, 1000))
    try:
        async with open_port(state.serve) as port:
            yield (
                StreamCamera(LOOPBACK, port, now_ns=lambda: next(ticks), timeout_s=timeout_s),
                state,
            )
            async with asyncio.timeout(5):
                await state.gone.wait()
    finally:
        transport.close()


async def film(camera):
    await camera.start()
    return [each async for each in camera.frames()]


async def test_a_camera_that_does_not_start_says_so():
    async with served(line(END), started=b"", timeout_s=0.2) as (camera, _), camera:
        with pytest.raises(FramingLost, match="answered START with 'end'"):
            await camera.start()
    async with served(b"", started=line({"type": "frame"}), timeout_s=0.2) as (camera, _), camera:
        with pytest.raises(FramingLost, match="answered START with 'frame'"):
            await camera.start()


async def test_a_camera_that_stays_silent_at_the_start_is_lost():
    async with simulated() as (camera, _, _), camera:
        camera._timeout_s = 0.1
        await camera.start()
        with pytest.raises(CameraLost, match=r"did not start in 0\.1 s"):
            await camera.start()  # it films already, and says nothing


# --- frames ----------------------------------------------------------------------------------


async def test_frames_arrive_whole_and_in_order():
    other = (PIXELS + 7).astype("<u2")
    async with served(frame(0) + frame(1, other) + line(END)) as (camera, server), camera:
        frames = await film(camera)
    assert [f.info.index for f in frames] == [0, 1]
    np.testing.assert_array_equal(frames[0].pixels, PIXELS)
    np.testing.assert_array_equal(frames[1].pixels, other)
    assert frames[1].info.device_start_ns == 4_417_000_000
    assert frames[1].info.exposure_ns == 196_000_000
    assert not frames[1].info.blanked
    assert server.told == [b"START\n", b"STOP\n"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
async def test_every_pixel_type_comes_through(dtype):
    pixels = PIXELS.astype(np.dtype(dtype).newbyteorder("<"))
    async with served(frame(0, pixels) + line(END), dtype=dtype) as (camera, _), camera:
        (found,) = await film(camera)
    assert found.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.pixels, pixels)


async def test_a_jump_of_the_counter_is_a_loss():
    stream = b"".join(frame(i) for i in (3, 4, 8, 6, 9)) + line(END)
    async with served(stream) as (camera, _), camera:
        frames = await film(camera)
    assert [f.info.index for f in frames] == [3, 4, 8, 6, 9]
    assert [f.info.dropped_before for f in frames] == [0, 0, 3, 0, 0]


async def test_a_blanked_frame_says_so():
    async with served(frame(0, blanked=True) + line(END)) as (camera, _), camera:
        (found,) = await film(camera)
    assert found.info.blanked


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bytes": 23}, "a frame of 23 bytes instead of 24"),
        ({"bytes": ...}, "a frame of None bytes instead of 24"),
        ({"bytes": "24"}, "a frame of 24 bytes instead of 24"),
        ({"index": ...}, "lacks 'index'"),
        ({"index": "first"}, "a frame lacks"),
        ({"index": math.inf}, "a frame lacks"),
        ({"start_ns": None}, "a frame lacks"),
        ({"exposure_ns": 0}, "an exposure of 0 ns"),
        ({"exposure_ns": -5}, "an exposure of -5 ns"),
        ({"blanked": ...}, "lacks 'blanked'"),
        ({"type": "picture"}, "message 'picture' is unknown"),
        ({"type": ...}, "lacks 'type'"),
    ],
)
async def test_a_frame_header_that_makes_no_sense_ends_the_recording(changes, why):
    stream = frame(0) + frame(**{"index": 1, **changes}) + line(END)
    async with served(stream) as (camera, _), camera:
        await camera.start()
        frames = camera.frames()
        assert (await anext(frames)).info.index == 0
        with pytest.raises(FramingLost, match=why):
            await anext(frames)


@pytest.mark.parametrize("header", [b"hello\n", b"[1]\n", b"\xff\n", b"\n", b"[" * 60_000 + b"\n"])
async def test_a_line_that_is_no_header_is_never_guessed_at(header):
    async with served(header + line(END)) as (camera, _), camera:
        with pytest.raises(FramingLost, match="is no header"):
            await film(camera)


async def test_a_header_without_an_end_is_given_up():
    stream = b"x" * (2 * MAX_LINE) + b"\n" + line(END)
    async with served(stream) as (camera, _), camera:
        with pytest.raises(FramingLost, match="without an end"):
            await film(camera)


async def test_a_frame_cut_short_is_a_lost_camera():
    async with served(frame(0) + frame(1)[:-5]) as (camera, _), camera:
        await camera.start()
        frames = camera.frames()
        await anext(frames)
        with pytest.raises(CameraLost, match="ended in a frame"):
            await anext(frames)


async def test_a_server_that_vanishes_between_frames_is_a_lost_camera():
    async with served(frame(0)) as (camera, _), camera:
        await camera.start()
        frames = camera.frames()
        await anext(frames)
        with pytest.raises(CameraLost, match="the connection ended"):
            await anext(frames)


async def test_a_command_to_a_vanished_server_is_a_lost_camera(monkeypatch):
    async with served(line(END)) as (camera, _), camera:

        async def broken():
            raise ConnectionResetError

        with monkeypatch.context() as patch:
            patch.setattr(camera._writer, "drain", broken)
            with pytest.raises(CameraLost, match="connection is gone"):
                await camera.start()


async def test_a_camera_that_is_not_connected_says_so():
    camera = StreamCamera("127.0.0.1", 1, now_ns=lambda: 0)
    for use in (
        camera.start(),
        camera.stop(),
        camera.exchange_clock(),
        anext(camera.frames()),
        camera._exactly(1),
    ):
        with pytest.raises(CameraLost, match="is not connected"):
            await use
    with pytest.raises(CameraLost, match="is not connected"):
        _ = camera.info


# --- the greeting ------------------------------------------------------------------------------


async def test_the_greeting_becomes_the_cameras_description():
    async with served() as (camera, _), camera:
        info = camera.info
    assert (info.model, info.height, info.width, info.dtype) == ("test camera", 3, 4, "uint16")
    assert (info.frame_rate_Hz, info.pixel_size_m) == (5.0, 2e-9)


@pytest.mark.parametrize("size", [None, 0])
async def test_an_unknown_pixel_size_is_no_number(size):
    async with served(pixel_size_m=size) as (camera, _), camera:
        assert math.isnan(camera.info.pixel_size_m)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lamella_frames": 2}, "speaks version 2"),
        ({"lamella_frames": ...}, "lacks 'lamella_frames'"),
        ({"model": ...}, "lacks 'model'"),
        ({"height": "tall"}, "is no frame stream"),
        ({"height": math.inf}, "is no frame stream"),
        ({"width": None}, "is no frame stream"),
        ({"dtype": "float64"}, "pixel type 'float64'; known are uint8"),
        ({"dtype": "object"}, "pixel type 'object'"),
        ({"height": 0}, "0 x 4 pixels cannot be"),
        ({"width": -4}, "3 x -4 pixels cannot be"),
        ({"height": 100_000, "width": 100_000}, "pixels cannot be"),
        ({"height": 10**12}, "pixels cannot be"),
        ({"clock_port": 0}, "0 is no clock port"),
        ({"clock_port": 65536}, "65536 is no clock port"),
        ({"clock_port": ...}, "lacks 'clock_port'"),
    ],
)
async def test_a_greeting_that_cannot_be_is_refused(changes, why):
    async with served(**changes) as (camera, _):
        with pytest.raises(FramingLost, match=why):
            async with camera:
                pytest.fail("connected")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\n", b"\x00\x01\n", b"42\n"])
async def test_a_greeting_of_something_else_is_refused(greeting):
    async with served(greeting=greeting) as (camera, _):
        with pytest.raises(FramingLost, match="is no header"):
            async with camera:
                pytest.fail("connected")


async def test_a_server_that_hangs_up_instead_of_greeting_is_a_lost_camera():
    async with served(stream=None, greeting=b"") as (camera, _):
        with pytest.raises(CameraLost, match="connection ended"):
            async with camera:
                pytest.fail("connected")


async def test_a_server_that_says_nothing_is_not_waited_for():
    async with served(greeting=b"", timeout_s=0.1) as (camera, _):
        with pytest.raises(CameraLost, match="no greeting in time"):
            async with camera:
                pytest.fail("connected")


async def test_a_port_where_nobody_listens_is_a_lost_camera():
    async with open_port(lambda *_: None) as port:
        pass
    camera = StreamCamera("127.0.0.1", port, now_ns=lambda: 0)
    with pytest.raises(CameraLost, match="cannot be reached"):
        async with camera:
            pytest.fail("connected")


# --- its clock -----------------------------------------------------------------------------------


async def test_an_exchange_carries_four_stamps():
    async with served() as (camera, _), camera:
        found = await camera.exchange_clock()
        again = await camera.exchange_clock()
    assert (found.t1_ns, found.t2_ns) == (5_000, 5_020)
    assert found.t0_ns < found.t3_ns < again.t0_ns


async def test_a_silent_clock_is_asked_three_times_and_then_told():
    async with served(clock=lambda _: (), timeout_s=0.05) as (camera, server), camera:
        with pytest.raises(CameraLost, match="clock does not answer"):
            await camera.exchange_clock()
        nonces = [struct.unpack("<qq", q)[0] for q in server.clock.asked]
    assert len(set(nonces)) == 3


async def test_a_lost_question_is_asked_again():
    lost = iter([True])

    def answers(question):
        return () if next(lost, False) else prompt(question)

    async with served(clock=answers, timeout_s=0.05) as (camera, server), camera:
        assert (await camera.exchange_clock()).t1_ns == 5_000
        assert len(server.clock.asked) == 2


async def test_a_stale_answer_is_never_taken_for_the_next_one():
    kept = []

    def answers(question):
        nonce, t0 = struct.unpack("<qq", question)
        if not kept:
            kept.append(struct.pack("<qqqq", nonce, t0, 111, 112))
            return
        yield kept[0]
        yield struct.pack("<qqqq", nonce, t0, 222, 223)

    async with served(clock=answers, timeout_s=0.1) as (camera, _), camera:
        found = await camera.exchange_clock()
    assert (found.t1_ns, found.t2_ns) == (222, 223)


async def test_answers_of_another_kind_or_to_no_question_are_ignored():
    def answers(question):
        nonce, t0 = struct.unpack("<qq", question)
        yield b""
        yield b"hello"
        yield struct.pack("<qqqq", nonce + 99, t0, 1, 2)
        yield struct.pack("<qqqqq", nonce, t0, 1, 2, 3)
        for t1 in (333, 444):  # the second is a double of the first
            yield struct.pack("<qqqq", nonce, t0, t1, t1)

    async with served(clock=answers) as (camera, _), camera:
        assert (await camera.exchange_clock()).t1_ns == 333
        assert (await camera.exchange_clock()).t1_ns == 333


async def test_a_closed_clock_port_is_told_as_a_silent_one():
    async with served(timeout_s=0.05) as (camera, server), camera:
        server.clock.transport.close()
        with pytest.raises(CameraLost, match="clock does not answer"):
            await camera.exchange_clock()


async def test_a_clock_that_was_never_open_says_so():
    client = ClockClient(lambda: 0)
    with pytest.raises(CameraLost, match="clock port is closed"):
        await client.exchange()
    client.close()


# --- the simulated camera ------------------------------------------------------------------------


@asynccontextmanager
async def simulated(seed=1):
    scenario = load("lco_lipon_li", height=16, dropped_ratio=0.3)
    world = World(scenario, seed=seed, start_ns=0)
    now = [0]
    pace = LockstepPace(world, lambda t: now.__setitem__(0, t))
    async with Bench(world, pace) as bench:
        camera = StreamCamera("127.0.0.1", bench.camera_port, now_ns=lambda: now[0])
        yield camera, world, pace


async def test_the_simulated_camera_films_with_its_gaps():
    async with simulated() as (camera, world, pace), camera:
        await camera.start()
        wanted = [i for i in range(10) if not is_dropped(world.scenario.camera, 1, i)]
        found = []
        async with asyncio.TaskGroup() as group:

            async def pass_time():
                while len(found) < len(wanted):
                    await pace.take(50_000_000)
                    await asyncio.sleep(0)

            group.create_task(pass_time())
            async for each in camera.frames():
                found.append(each)
                if len(found) == len(wanted):
                    await camera.stop()
        assert (found[0].pixels.shape, found[0].pixels.dtype) == ((16, 400), np.dtype("uint8"))
    index = np.array([f.info.index for f in found[: len(wanted)]])
    assert index.tolist() == wanted
    gaps = [f.info.dropped_before for f in found[: len(wanted)]]
    assert gaps == [0, *(np.diff(index) - 1)]
    start = np.array([f.info.device_start_ns for f in found[: len(wanted)]])
    np.testing.assert_allclose(np.diff(start) / np.diff(index), 2e8, rtol=1e-6)


async def test_the_simulated_cameras_clock_is_between_the_hosts_stamps():
    async with simulated() as (camera, world, pace), camera:
        await pace.take(3_000_000_000)
        found = await camera.exchange_clock()
    offset = round(world.scenario.camera.clock_offset_s * 1e9)
    assert found.t0_ns + 100_000 < found.t3_ns
    lead = 3_000_000_000 * world.scenario.camera.clock_rate_ratio
    assert found.t0_ns < found.t1_ns - offset - lead + 1000
    assert found.t2_ns - offset - lead - 1000 < found.t3_ns
    assert found.t1_ns < found.t2_ns
