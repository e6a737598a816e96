"""The Merlin driver against the simulated detector, and against ports that are no detector."""

import asyncio
import math
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from cameras.drivers import merlin
from cameras.drivers.merlin import MerlinCamera
from cameras.errors import CameraError, CameraLost, FramingLost
from cameras.merlin_wire import RefusedCommand
from cameras.open_port import open_port
from cameras.options import ArmedBy, CameraOptions
from cameras.records import Frame, FrameFault, StampClock, StampKind
from mocks.camera import is_dropped
from mocks.merlin import CLOCK_ZERO_NS, MerlinServer, Misbehaviour, serve
from mocks.merlin_wire import framed, mib_header
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

SETTINGS = "SET", "CMD"
STALE = framed(
    mib_header(3, height=1, width=1, code="U08", depth=6, stamp_ns=0, exposure_ns=1)[:99]
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(merlin, "QUIET_S", 0.05)
    monkeypatch.setattr(merlin, "DRAIN_QUIET_S", 0.005)


@asynccontextmanager
async def simulated(wrong=None, *, dropped_ratio=0.0, **how):
    scenario = load("lco_lipon_li", height=48, frame_rate_Hz=1000.0, dropped_ratio=dropped_ratio)
    world = World(scenario, seed=1, start_ns=0)
    pace = LockstepPace(world, lambda _: None)
    async with serve(MerlinServer(world, pace, wrong=wrong, **how), pace) as server:
        yield server, world, pace


def camera_of(server, world, **how):
    options = {"frame_rate_Hz": 1000.0, "timeout_s": 5.0, **how}
    return MerlinCamera(
        "127.0.0.1",
        now_ns=lambda: world.now_ns,
        control_port=server.control_port,
        data_port=server.data_port,
        **options,
    )


async def passing(pace, until):
    while not until():
        await pace.take(1_000_000)
        await asyncio.sleep(0)


async def film(camera, server, pace, count, *, start=None):
    """Let time pass for ``count`` frames, then stop; return all that came."""
    await camera.start()
    if start is not None:
        start()
    found, came = [], asyncio.Event()

    async def listen():
        async for item in camera.frames():
            found.append(item)
            came.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        await passing(pace, lambda: server._counter >= count)
        if start is not None:  # a microscope's own series ends at once, with what has come
            await came.wait()
        await camera.stop()
    return found


def frames_in(items):
    return [item for item in items if isinstance(item, Frame)]


def reasons(items):
    return [item.reason for item in items if isinstance(item, FrameFault)]


def indices(items):
    return [item.info.index for item in frames_in(items)]


# --- frames ------------------------------------------------------------------------------------


async def test_it_films_what_the_world_shows_with_its_gaps_and_its_stamps():
    async with simulated(dropped_ratio=0.3) as (server, world, pace):
        async with camera_of(server, world) as camera:
            items = await film(camera, server, pace, 12)
            info = camera.info
        truth = world.truth()["frames/camera"]
        scene, settings = server._scene, world.scenario.camera
        # What the driver said, against what the detector did.
        assert indices(items) == truth["index"].tolist()
        wanted = [n + 1 for n in range(12) if not is_dropped(settings, 1, n)]
        assert indices(items)[: len(wanted)] == wanted
        for each, start_ns in zip(frames_in(items), truth["t_start_ns"], strict=True):
            index = each.info.index
            assert each.info.device_start_ns == server.stamp_ns(index, int(start_ns))
            assert each.info.header.stamp_text.startswith("2026-01-01T00:00:04.2")
            end_ns = int(start_ns) + each.info.exposure_ns
            front_m = world.mean("front", int(start_ns), end_ns)
            drift_px = world.drift_px(int(start_ns), end_ns)
            counts = scene.frame(index - 1, front_m, drift_px)
            np.testing.assert_array_equal(each.pixels, np.minimum(counts, 63))
            # Here the world waits for nobody: it may be long past the end when it is read.
            assert each.info.arrival_ns >= end_ns
        gaps = [each.info.dropped_before for each in frames_in(items)]
        assert gaps == [0, *(np.diff(indices(items)) - 1)]
    assert reasons(items) == []
    assert (info.height, info.width, info.dtype) == (48, 400, "uint8")
    assert (info.stamp, info.clock) == (StampKind.UNKNOWN, StampClock.CAMERA)
    assert info.model == "Quantum Detectors Merlin, software 1.6.1"
    assert info.frame_rate_Hz == 1000.0


@pytest.mark.parametrize(
    ("left", "asked", "dtype", "most"),
    [
        (1, None, "uint8", 1),
        (6, None, "uint8", 63),
        (12, None, "uint16", 255),
        (24, None, "uint16", 255),  # cannot be read without a pause
        (12, 6, "uint8", 63),
    ],
)
async def test_each_counter_depth_has_its_pixels(left, asked, dtype, most):
    async with simulated(depth=left, chips=4) as (server, world, pace):
        async with camera_of(server, world, counter_depth=asked) as camera:
            items = await film(camera, server, pace, 2)
            assert camera.info.dtype == dtype
        scene = server._scene
        counts = scene.frame(0, *seen(world, frames_in(items)[0]))
    first = frames_in(items)[0]
    assert first.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(first.pixels, np.minimum(counts, most))


def seen(world, frame):
    start_ns = world.truth()["frames/camera"]["t_start_ns"][0]
    end_ns = int(start_ns) + frame.info.exposure_ns
    return world.mean("front", int(start_ns), end_ns), world.drift_px(int(start_ns), end_ns)


async def test_armed_by_us_everything_is_set_before_the_first_frame():
    async with simulated() as (server, world, pace):
        camera = camera_of(server, world, frame_rate_Hz=400.0, exposure_s=2e-3)
        async with camera:
            assert camera.info.frame_rate_Hz == 400.0
            items = await film(camera, server, pace, 2)
    assert {each.info.exposure_ns for each in frames_in(items)} == {1_999_900}  # on its clock
    for wanted in (
        *("SET,CONTINUOUSRW,1", "SET,COUNTERDEPTH,6", "SET,ACQUISITIONTIME,2"),
        *("SET,ACQUISITIONPERIOD,2.5", "SET,TRIGGERSTART,5", "SET,FILEENABLE,0"),
        *("SET,FILEFORMAT,0", "SET,NUMFRAMESTOACQUIRE,999999"),
    ):
        assert wanted in server.heard
    commands = [heard for heard in server.heard if heard.startswith("CMD")]
    assert commands == [
        "CMD,STARTACQUISITION,0",
        "CMD,SOFTTRIGGER,0",
        "CMD,STOPACQUISITION,0",
    ]


async def test_without_a_rate_its_own_is_left():
    async with simulated() as (server, world, pace):
        nan = math.nan
        async with camera_of(server, world, frame_rate_Hz=nan, pixel_size_m=2e-9) as camera:
            assert camera.info.frame_rate_Hz == 1000.0
            assert camera.info.pixel_size_m == 2e-9
            assert len(frames_in(await film(camera, server, pace, 2))) == 2
    assert not any("ACQUISITIONPERIOD" in heard for heard in server.heard if "SET" in heard)


async def test_armed_by_the_microscope_nothing_is_set_and_nothing_commanded():
    async with simulated() as (server, world, pace):
        server.variables["NUMFRAMESTOACQUIRE"] = "100"
        async with camera_of(server, world, armed_by=ArmedBy.MICROSCOPE) as camera:
            items = await film(camera, server, pace, 5, start=server.arm)
        assert server._filming  # as it was
    assert indices(items)[:1] == [1]
    assert reasons(items) == []
    assert server.heard
    assert not [heard for heard in server.heard if heard.startswith(SETTINGS)]


async def test_two_acquisitions_of_the_microscope_are_one_recording():
    async with simulated() as (server, world, pace):
        server.variables["NUMFRAMESTOACQUIRE"] = "3"
        async with camera_of(server, world, armed_by=ArmedBy.MICROSCOPE) as camera:
            await camera.start()
            frames = camera.frames()
            found = []
            for _ in range(2):
                server.arm()  # TRIGGERSTART 0: it exposes at once
                await passing(pace, lambda: not server._filming)
                found += [await anext(frames) for _ in range(3 if not found else 4)]
            await camera.stop()
            assert [item async for item in frames] == []
    assert indices(found) == [1, 2, 3, 4, 5, 6]
    assert "new acquisition began after frame 3" in reasons(found)[0]


# --- what may be wrong ---------------------------------------------------------------------------


async def test_each_misbehaviour_is_told_and_the_recording_goes_on():
    wrong = Misbehaviour(
        lost=frozenset({3}),
        repeated=frozenset({5}),
        late=frozenset({7}),
        other_shape=frozenset({9}),
        unreadable=frozenset({10}),
        clock_steps_s={12: -1.0},
        jitter_s=5e-4,
    )
    async with simulated(wrong) as (server, world, pace), camera_of(server, world) as camera:
        items = await film(camera, server, pace, 40)
    found = indices(items)
    cut = found.index(14)
    assert found[:cut] == [1, 2, 4, 5, 5, 6, 8, 7, 11, 12, 13]
    gaps = {each.info.index: each.info.dropped_before for each in frames_in(items)}
    assert {index: gap for index, gap in gaps.items() if gap} == {4: 1, 8: 1, 11: 2}
    told = reasons(items)
    assert len(told) == 3
    assert "24 x 400 uint8 where the detector announced 48 x 400" in told[0]
    assert "cannot be read" in told[1]
    assert "the stamp of frame 12" in told[2]
    truth = world.truth()["frames/camera"]["index"]
    assert sorted(found) == sorted(truth.tolist())[: len(found)]


async def test_lost_framing_costs_frames_that_are_counted_and_no_more():
    wrong = Misbehaviour(garbage_before=frozenset({4}))
    async with simulated(wrong) as (server, world, pace), camera_of(server, world) as camera:
        await camera.start()
        frames = camera.frames()
        found = []
        async with asyncio.TaskGroup() as group:

            async def listen():
                async for item in frames:
                    found.append(item)
                    if len(frames_in(found)) == 6:
                        await camera.stop()

            group.create_task(listen())
            await passing(pace, lambda: len(frames_in(found)) >= 6)
        assert server.connections == 2
    index = indices(found)
    assert index[:3] == [1, 2, 3]
    after = frames_in(found)[3]
    assert after.info.dropped_before == after.info.index - 4 > 0
    assert "connecting again" in reasons(found)[0]


async def test_a_cut_connection_is_a_lost_camera_where_we_arm():
    wrong = Misbehaviour(cut_in=frozenset({3}))
    async with simulated(wrong) as (server, world, pace), camera_of(server, world) as camera:
        await camera.start()
        frames = camera.frames()
        await passing(pace, lambda: server._counter >= 3)
        assert [(await anext(frames)).info.index for _ in range(2)] == [1, 2]
        with pytest.raises(CameraLost, match="ended in a message after frame 2"):
            await anext(frames)


async def test_a_cut_connection_is_made_again_where_the_microscope_arms():
    wrong = Misbehaviour(cut_in=frozenset({3}))
    async with simulated(wrong) as (server, world, pace):
        server.variables["NUMFRAMESTOACQUIRE"] = "100000"
        async with camera_of(server, world, armed_by=ArmedBy.MICROSCOPE) as camera:
            await camera.start()
            server.arm()
            frames = camera.frames()
            found = []
            async with asyncio.TaskGroup() as group:

                async def listen():
                    async for item in frames:
                        found.append(item)
                        if len(frames_in(found)) == 5:
                            await camera.stop()

                group.create_task(listen())
                await passing(pace, lambda: len(frames_in(found)) >= 5)
    assert indices(found)[:2] == [1, 2]
    assert frames_in(found)[2].info.dropped_before >= 1
    assert "ended in a message after frame 2" in reasons(found)[0]


@pytest.mark.parametrize(
    ("refuses", "why"),
    [
        ({"COUNTERDEPTH": 3}, "out of range to GET COUNTERDEPTH"),
        ({"TRIGGERSTART": 2}, "does not know SET TRIGGERSTART 5"),
        ({"ACQUISITIONTIME": 1}, "is busy SET ACQUISITIONTIME 1"),
        ({"NUMFRAMESTOACQUIRE": 1}, "is busy SET NUMFRAMESTOACQUIRE 100000000"),
        ({"NUMFRAMESTOACQUIRE": 3}, "out of range to SET NUMFRAMESTOACQUIRE 999999"),
        ({"IMAGEX": 2}, "does not know GET IMAGEX"),
    ],
)
async def test_a_setting_that_is_refused_is_named_with_its_value(refuses, why):
    async with simulated(Misbehaviour(refuses=refuses)) as (server, world, _):
        with pytest.raises(RefusedCommand, match=why):
            async with camera_of(server, world):
                pytest.fail("connected")


async def test_an_acquisition_that_runs_already_is_not_ended():
    async with simulated() as (server, world, _):
        server.variables["TRIGGERSTART"] = "5"
        async with camera_of(server, world) as camera:
            server.arm()
            with pytest.raises(RefusedCommand, match="is busy CMD STARTACQUISITION"):
                await camera.start()
        assert server._armed
    assert "CMD,STOPACQUISITION,0" not in server.heard


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.75.4.84", ["is version 0.75.4.84; 1.6.1 or later is advised"]),
        ("1.6", ["is version 1.6;"]),
        ("1.10.0", []),
        ("beta", ["is not known ('beta')"]),
    ],
)
async def test_old_software_is_told(version, told):
    async with simulated(version=version) as (server, world, pace), camera_of(server, world) as it:
        items = await film(it, server, pace, 1)
    assert len(reasons(items)) == len(told)
    for reason, wanted in zip(reasons(items), told, strict=True):
        assert wanted in reason


async def test_software_that_tells_no_version_is_told():
    wrong = Misbehaviour(refuses={"SOFTWAREVERSION": 2})
    async with simulated(wrong) as (server, world, pace), camera_of(server, world) as camera:
        assert camera.info.model == "Quantum Detectors Merlin"
        items = await film(camera, server, pace, 1)
    assert "not known" in reasons(items)[0]


async def test_another_rate_than_asked_is_told():
    async with simulated() as (server, world, _):
        server._obey = lambda *_: 0  # says yes to all, and stays as it is
        async with camera_of(server, world, frame_rate_Hz=400.0) as camera:
            assert camera.info.frame_rate_Hz == 1000.0
            assert "takes 1000 frames a second where 400 were asked" in camera._notes[0].reason


async def test_a_period_that_is_not_told_leaves_the_asked_rate():
    async with simulated(Misbehaviour(refuses={"ACQUISITIONPERIOD": 2})) as (server, world, _):
        camera = camera_of(server, world, armed_by=ArmedBy.MICROSCOPE, frame_rate_Hz=7.0)
        async with camera:
            assert camera.info.frame_rate_Hz == 7.0
    async with simulated() as (server, world, _):
        server.variables["ACQUISITIONPERIOD"] = "0"
        camera = camera_of(server, world, armed_by=ArmedBy.MICROSCOPE, frame_rate_Hz=7.0)
        async with camera:
            assert camera.info.frame_rate_Hz == 7.0


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("IMAGEX", "wide", "says IMAGEX is 'wide', no number"),
        ("IMAGEX", "inf", "no number"),
        ("IMAGEX", "0", "48 x 0 pixels, which cannot be"),
        ("IMAGEY", "1000000", "1000000 x 400 pixels"),
        ("COUNTERDEPTH", "5", "a counter depth of 5; known are 1, 6, 12, 24"),
    ],
)
async def test_what_it_says_of_its_frames_must_be_possible(name, value, why):
    async with simulated() as (server, world, _):
        (server.variables if name in server.variables else server._told)[name] = value
        with pytest.raises(FramingLost, match=why):
            async with camera_of(server, world, armed_by=ArmedBy.MICROSCOPE):
                pytest.fail("connected")


# --- the beginning -------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_left_of_an_earlier_acquisition_is_thrown_away(late):
    async with simulated(Misbehaviour(stale=STALE * 3)) as (server, world, pace):
        if late:  # it comes just before the acquisition header: nothing has been drained
            stale, server.wrong = server.wrong.stale, Misbehaviour()
            arm = server.arm
            server.arm = lambda: (server._send(stale), arm())
        async with camera_of(server, world) as camera:
            items = await film(camera, server, pace, 3)
    assert indices(items)[:3] == [1, 2, 3]
    thrown = 3 * (len(STALE) - (15 if late else 0))
    assert f"{thrown} bytes of an earlier acquisition were thrown away" in reasons(items)[0]


@pytest.mark.parametrize("left", [b"half a frame" * 9, framed(b"ABC,what?")])
async def test_what_makes_no_sense_before_the_header_is_left_behind_on_its_connection(left):
    async with simulated() as (server, world, pace):
        arm, times = server.arm, iter((True, False))

        def begin():
            if next(times):
                server._send(left)
            arm()

        server.arm = begin
        async with camera_of(server, world) as camera:
            items = await film(camera, server, pace, 3)
        assert server.connections == 2
    assert indices(items)[:3] == [1, 2, 3]
    assert reasons(items) == []


async def test_nonsense_three_times_is_given_up_and_the_detector_stopped():
    async with simulated() as (server, world, _):
        arm = server.arm
        server.arm = lambda: (server._send(b"nonsense" * 9), arm())
        async with camera_of(server, world) as camera:
            with pytest.raises(FramingLost, match="instead of the acquisition header, 3 times"):
                await camera.start()
        assert not server._armed
    assert server.heard.count("CMD,STARTACQUISITION,0") == 3


async def test_a_header_that_does_not_come_is_told():
    async with simulated() as (server, world, _):
        server.arm = lambda: None
        async with camera_of(server, world, timeout_s=0.2) as camera:
            with pytest.raises(CameraLost, match="no acquisition header within 0.2 s"):
                await camera.start()
    assert server.heard[-1] == "CMD,STOPACQUISITION,0"


async def test_a_data_connection_that_ended_before_the_start_is_made_again():
    async with simulated() as (server, world, pace), camera_of(server, world) as camera:
        while server._writer is None:
            await asyncio.sleep(0)
        server._writer.close()
        items = await film(camera, server, pace, 2)
        assert server.connections == 2
    assert indices(items)[:2] == [1, 2]


async def test_a_stream_that_runs_without_our_doing_is_refused(monkeypatch):
    monkeypatch.setattr(merlin, "DRAIN_LONGEST_S", 0.0)
    async with simulated() as (server, world, _), camera_of(server, world) as camera:
        with pytest.raises(CameraError, match="Merlin at .* an acquisition runs already"):
            await camera.start()
    assert "CMD,STARTACQUISITION,0" not in server.heard


async def test_a_stop_before_anybody_listens_loses_nothing():
    async with simulated() as (server, world, pace), camera_of(server, world) as camera:
        await camera.start()
        await passing(pace, lambda: server._counter >= 3)
        await camera.stop()
        found = [item async for item in camera.frames()]
    assert indices(found) == world.truth()["frames/camera"]["index"].tolist()
    assert len(found) >= 3


async def test_who_stops_listening_frees_the_thread():
    async with simulated() as (server, world, pace), camera_of(server, world) as camera:
        await camera.start()
        await passing(pace, lambda: server._counter >= 3)
        frames = camera.frames()
        assert (await anext(frames)).info.index == 1
        thread = camera._receiver._thread
        await frames.aclose()
        assert not thread.is_alive()


async def test_leaving_in_mid_film_stops_the_detector_and_the_thread():
    async with simulated() as (server, world, pace):
        async with camera_of(server, world) as camera:
            await camera.start()
            await passing(pace, lambda: server._counter >= 2)
            frames = camera.frames()
            await anext(frames)
            thread = camera._receiver._thread
        assert not thread.is_alive()
        assert not server._filming
        await frames.aclose()
    assert server.heard[-1] == "CMD,STOPACQUISITION,0"


# --- where nobody is -----------------------------------------------------------------------------


async def closed_port():
    async with open_port(lambda *_: None) as port:
        return port


async def test_ports_where_nobody_listens_are_named():
    port = await closed_port()
    async with simulated() as (server, world, _):
        server.data_port, open_port = port, server.data_port
        with pytest.raises(CameraLost, match=f"data port {port} cannot be reached"):
            async with camera_of(server, world):
                pytest.fail("connected")
        server.data_port, server.control_port = open_port, port
        with pytest.raises(CameraLost, match=f"control port {port} cannot be reached"):
            async with camera_of(server, world):
                pytest.fail("connected")


async def test_a_camera_that_is_not_connected_says_so():
    camera = MerlinCamera("127.0.0.1", now_ns=lambda: 0)
    for use in (
        *(camera.start(), camera.stop(), anext(camera.frames()), camera._begin()),
        camera._control.command("SOFTTRIGGER"),
    ):
        with pytest.raises(CameraLost, match="is not connected"):
            await use
    with pytest.raises(CameraLost, match="is not connected"):
        _ = camera.info


async def test_its_clock_cannot_be_asked():
    with pytest.raises(CameraLost, match="has no clock that can be asked"):
        await MerlinCamera("127.0.0.1", now_ns=lambda: 0).exchange_clock()
    assert not MerlinCamera.has_clock
    assert "stamp marks" in MerlinCamera.unconfirmed


def test_options_name_the_ports_or_leave_them_to_the_driver():
    camera = MerlinCamera.from_options(CameraOptions(), now_ns=lambda: 0)
    assert (camera._control_port, camera._data_port) == (6341, 6342)
    options = CameraOptions(
        host="merlin", control_port=1, data_port=2, armed_by=ArmedBy.MICROSCOPE, exposure_s=0.5
    )
    camera = MerlinCamera.from_options(options, now_ns=lambda: 0)
    assert (camera._host, camera._control_port, camera._data_port) == ("merlin", 1, 2)
    assert (camera._ours, camera._asked_exposure_s) == (False, 0.5)


# --- the simulated detector itself ---------------------------------------------------------------


async def test_the_simulated_detector_answers_as_the_real_one_does():
    async with simulated() as (server, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.control_port)
        for body, reply in (
            (b"GET,IMAGEX,0", b"GET,IMAGEX,400,0"),
            (b"GET,COLOUR,0", b"GET,COLOUR,0,2"),
            (b"SET,COUNTERDEPTH,7", b"SET,COUNTERDEPTH,3"),
            (b"SET,COUNTERDEPTH,twelve", b"SET,COUNTERDEPTH,3"),
            (b"SET,COUNTERDEPTH,12", b"SET,COUNTERDEPTH,0"),
            (b"SET,IMAGEX,7", b"SET,IMAGEX,2"),
            (b"ASK,IMAGEX", b"ASK,IMAGEX,2"),
            (b"CMD,DANCE,0", b"CMD,DANCE,2"),
            (b"CMD,SOFTTRIGGER,0", b"CMD,SOFTTRIGGER,0"),  # nothing is armed
            (b"CMD,STARTACQUISITION,0", b"CMD,STARTACQUISITION,0"),
            (b"CMD,STARTACQUISITION,0", b"CMD,STARTACQUISITION,1"),
            (b"SET,COUNTERDEPTH,6", b"SET,COUNTERDEPTH,1"),
        ):
            writer.write(framed(body))
            assert await reader.readexactly(len(framed(reply))) == framed(reply)
        assert server._filming  # TRIGGERSTART 0 waits for nobody
        writer.write(b"nonsense that is no message")
        assert await reader.read() == b""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def test_its_clock_runs_on_its_own_calendar():
    world = World(load("lco_lipon_li"), seed=1, start_ns=5_000)
    server = MerlinServer(world, LockstepPace(world, lambda _: None))
    offset_ns = round(world.scenario.camera.clock_offset_s * 1e9)
    assert server.stamp_ns(1, 5_000) == CLOCK_ZERO_NS + offset_ns
    assert server.stamp_ns(1, 5_123) == CLOCK_ZERO_NS + offset_ns + 120  # steps of 10 ns
