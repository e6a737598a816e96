"""What a node makes of odd cameras: faults, strange pixels, ends by itself, and failures."""

import asyncio
import json
import math

import numpy as np
import pytest

from cameras.errors import CameraError, CameraLost
from cameras.open_port import open_port
from cameras.records import CameraInfo, Frame, FrameFault, FrameInfo, StampKind
from correlate.trackers.protocol import SceneSettings
from runner.config_node import NodeSettings, NodeTrack
from runner.node_keep import Keeper
from runner.node_stream import FrameServer
from runner.node_tracks import LiveTracks
from session.reader import Session
from tests.runner.brokers import until


class Scripted:
    """A camera that gives what a test says, and then ends, waits or fails."""

    has_clock = False

    def __init__(self, *script, dtype="uint16", stamp=StampKind.EXPOSURE_END, then="end"):
        self.info = CameraInfo(
            model="scripted",
            height=2,
            width=3,
            dtype=dtype,
            frame_rate_Hz=10.0,
            pixel_size_m=math.nan,
            stamp=stamp,
            row_time_ns=math.nan,
        )
        self.script, self.then = script, then
        self.stopped = asyncio.Event()
        self.starts = 0

    async def start(self):
        self.starts += 1
        self.stopped.clear()
        if self.then == "no start":
            raise CameraLost("scripted: does not start")

    async def stop(self):
        self.stopped.set()

    async def frames(self, buffers=None):
        for item in self.script:
            yield item
        if self.then == "fail":
            raise CameraLost("scripted: gone")
        if self.then == "wait":
            await self.stopped.wait()


def frame(index, *, dtype="uint16", arrival_ns=None):
    info = FrameInfo(
        index=index, device_start_ns=1000 * index, exposure_ns=400, arrival_ns=arrival_ns
    )
    return Frame(info, (np.arange(6).reshape(2, 3) + index).astype(dtype))


FAULT = FrameFault(index=1, reason="half a frame; it was left out", arrival_ns=5)


async def served(camera, *words):
    """Serve a camera to one client that says some words; return server and what came."""
    server = FrameServer(camera, clock_port=7, now_ns=lambda: 10_000)
    async with open_port(server.serve) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for word in words:
            writer.write(word)
        came = b""
        while b'"end"' not in came and (data := await reader.read(65536)):
            came += data
        writer.close()
        await server.hang_up()
    return server, came


async def test_faults_are_left_out_and_big_endian_pixels_are_turned():
    camera = Scripted(frame(0, dtype=">u2", arrival_ns=9_000), FAULT, frame(2))
    async with asyncio.timeout(30):
        server, came = await served(camera, b"START\nSTART\nNONSENSE\n")
    greeting, started, rest = came.split(b"\n", 2)
    greeting = json.loads(greeting)
    assert greeting["stamp"] == "exposure_start"  # it is moved there
    assert greeting["pixel_size_m"] is None
    assert greeting["row_time_ns"] is None
    assert json.loads(started) == {"type": "started"}
    header, rest = rest.split(b"\n", 1)
    header = json.loads(header)
    assert (header["index"], header["sigma_ns"]) == (0, None)
    assert np.frombuffer(rest[:12], "<u2").tolist() == [0, 1, 2, 3, 4, 5]
    # Stamp and arrival are of the same frame: it ended at 0 on the camera, 9000 here at most.
    assert header["start_ns"] == 9_000 - 400
    assert json.loads(came[came.rindex(b"{") :]) == {"type": "end", "produced": 3, "sent": 2}
    assert (server.counters.faults, camera.starts) == (1, 1)


async def test_a_stop_ends_the_stream_in_order():
    camera = Scripted(frame(0), then="wait")
    async with asyncio.timeout(30):
        server, came = await served(camera, b"START\n", b"STOP\n")
    assert json.loads(came[came.rindex(b"{") :])["sent"] == 1
    assert server.is_free


@pytest.mark.parametrize("then", ["fail", "no start"])
async def test_a_camera_that_fails_ends_the_stream_without_an_end(then):
    async with asyncio.timeout(30):
        server, came = await served(Scripted(frame(0), then=then), b"START\n")
    assert b'"end"' not in came
    with pytest.raises(CameraLost, match="scripted"):
        server.failed.result()


async def test_pixels_that_the_stream_has_not_are_refused_before_anything():
    with pytest.raises(CameraError, match="int16 cannot be streamed"):
        FrameServer(Scripted(dtype="int16"), clock_port=7, now_ns=int)


# --- kept ---------------------------------------------------------------------------------


def settings(folder):
    return NodeSettings.loads(
        f'[camera]\ndriver = "stream"\nport = 1\n[node]\nname = "n"\nkeep = "{folder}"\n'
    )


async def recorded(tmp_path, camera):
    told = []
    keeper = Keeper(
        await asyncio.to_thread(settings, tmp_path),
        camera,
        now_ns=lambda: 10_000,
        put=lambda topic, message: told.append((topic, message)),
        in_process=True,
    )

    async def started():
        told.append(("started", {}))

    async def ended():
        pass

    try:
        await keeper.record(started=started, ended=ended)
    finally:
        keeper.told = told
    return keeper


async def test_a_recording_ends_with_the_camera_and_tells_its_faults(tmp_path):
    async with asyncio.timeout(60):
        keeper = await recorded(tmp_path, Scripted(frame(0, arrival_ns=9_000), FAULT, frame(2)))
    topics = [topic for topic, _ in keeper.told]
    assert topics == ["started", "faults", "frames"]
    headers = keeper.told[-1][1]
    assert headers["index"] == [0, 2]
    assert headers["t_sigma_ns"] == [None, None]
    assert headers["arrival_ns"] == [9_000, 10_000]
    assert headers["recording"] == keeper.path.name
    with Session.open(keeper.path) as kept:
        assert kept.exit_reason == "the camera ended"
        assert kept.frames("camera")[1].tolist() == [[2, 3, 4], [5, 6, 7]]
        assert [e.kind for e in kept.events()] == ["frame_fault"]


async def test_a_recording_without_a_frame_is_closed_too(tmp_path):
    async with asyncio.timeout(60):
        keeper = await recorded(tmp_path, Scripted())
    with Session.open(keeper.path) as kept:
        assert kept.exit_reason == "the camera ended"


async def test_an_error_of_another_kind_is_not_taken_for_the_cameras(tmp_path):
    async with asyncio.timeout(60):
        with pytest.raises(BaseExceptionGroup):
            await recorded(tmp_path, Scripted("no frame at all"))


async def test_a_node_that_streams_keeps_nothing():
    text = '[camera]\ndriver = "stream"\nport = 1\n[node]\nname = "n"\nkeep = "stream"\n'
    streaming = await asyncio.to_thread(NodeSettings.loads, text)
    with pytest.raises(ValueError, match="keeps no frames"):
        Keeper(streaming, Scripted(), now_ns=int, put=print)


async def test_chunks_that_come_too_quickly_are_left_out_and_counted():
    told = []
    tracks = LiveTracks(
        [NodeTrack(name="drift", tracker="drift")],
        SceneSettings(shape=(2, 3)),
        lambda topic, message: told.append((topic, message)),
        chunk_frames=2,
    )
    for n in range(6):  # nobody tracks yet: one chunk waits, two are left out
        tracks.see(n, n, frame(n).pixels)
    assert tracks.counters.left_out == 4
    running = asyncio.create_task(tracks.run())
    async with asyncio.timeout(30):
        await until(lambda: tracks.counters.tracked == 2)
    running.cancel()
    await asyncio.wait([running])
    topic, message = told[0]
    assert (topic, message["index"], message["provisional"]) == ("tracks/drift", [0, 1], True)
    assert "not_tracked" in message  # a frame of six pixels holds nothing
