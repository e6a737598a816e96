"""A DECTRIS detector on loopback: armed by us or by others, and everything that can go wrong."""

import asyncio
import json
import math
import sys
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest
import zmq

from cameras.dectris_stream import DEPTH
from cameras.drivers.dectris import REST_PORT, STREAM_PORT, DectrisCamera
from cameras.errors import CameraError, CameraLost, UnknownCamera
from cameras.open_port import open_port
from cameras.options import ArmedBy, CameraOptions
from cameras.records import Frame, FrameFault, StampClock, StampKind
from cameras.registry import camera_class
from mocks.dectris import DectrisServer, Fault
from mocks.dectris_rest import Parameter, Refusal
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from runner.experiment import Experiment
from runner.problems import ExperimentError

RATE_HZ = 100.0
PERIOD_NS = 10_000_000


class Bench:
    """A simulated detector in virtual time, and what filmed it."""

    def __init__(self, **settings):
        self.now_ns = 1_000_000_000
        channels = settings.pop("channels", ("threshold_1",))
        bits = settings.pop("bits", 16)
        scenario = load(
            "lco_lipon_li",
            **{
                "height": 48,
                "width": 200,
                "pixel_size_m": 4e-9,
                "frame_rate_Hz": RATE_HZ,
                "dropped_ratio": 0,
                **settings,
            },
        )
        self.world = World(scenario, seed=5, start_ns=self.now_ns)
        self.pace = LockstepPace(self.world, lambda t_ns: setattr(self, "now_ns", t_ns))
        self.server = DectrisServer(self.world, self.pace, channels=channels, bits=bits)

    def camera(self, *, timeout_s=5.0, **options):
        asked = {
            "port": self.server.port,
            "data_port": self.server.data_port,
            "frame_rate_Hz": RATE_HZ,
            "pixel_size_m": 4e-9,
            **options,
        }
        return DectrisCamera(
            CameraOptions(**asked), now_ns=lambda: self.now_ns, timeout_s=timeout_s
        )

    async def expose(self, images):
        await self.pace.take(images * PERIOD_NS)

    def film_quickly(self):
        """Show a black field, which is drawn and packed in no time."""
        self.server._scene.frame = lambda *_: np.zeros((48, 200), np.uint8)

    def parameter(self, name):
        return self.server.simplon.parameters[name]

    def config(self, name):
        return self.parameter(f"detector/config/{name}").value


@asynccontextmanager
async def bench(**settings):
    here = Bench(**settings)
    async with here.server:
        yield here


async def collect(camera, buffers=None):
    items = [item async for item in camera.frames(buffers)]
    return (
        [item for item in items if isinstance(item, Frame)],
        [item for item in items if isinstance(item, FrameFault)],
    )


async def film(here, images=10, **options):
    """Start, let it expose, stop, and return frames and faults."""
    async with here.camera(**options) as camera:
        await camera.start()
        await here.expose(images)
        await camera.stop()
        return await collect(camera)


# --- frames -----------------------------------------------------------------------------------


async def test_frames_are_what_the_world_showed_when_it_showed_it():
    async with bench(clock_rate_ratio=200e-6) as here:
        frames, faults = await film(here, 12)
        truth = here.world.truth()["frames/camera"]
        assert not faults
        assert [frame.info.index for frame in frames] == truth["index"].tolist()
        assert len(frames) >= 11
        true_ns = truth["t_start_ns"] - truth["t_start_ns"][0]
        stamps = np.array([frame.info.device_start_ns for frame in frames])
        # The detector's clock runs faster by its error, and counts whole ticks.
        np.testing.assert_allclose(stamps - stamps[0], true_ns * (1 + 200e-6), atol=25, rtol=0)
        exposures = [frame.info.exposure_ns for frame in frames]
        np.testing.assert_allclose(exposures, truth["exposure_ns"] * (1 + 200e-6), atol=25, rtol=0)
        for frame, start_ns, exposure_ns in zip(
            frames, truth["t_start_ns"], truth["exposure_ns"], strict=True
        ):
            window = (int(start_ns), int(start_ns + exposure_ns))
            shown = here.server._scene.frame(
                frame.info.index, here.world.mean("front", *window), here.world.drift_px(*window)
            )
            np.testing.assert_array_equal(frame.pixels, shown)
            assert frame.pixels.dtype == np.uint16
            assert frame.info.arrival_ns >= window[1]


@pytest.mark.parametrize(("bits", "dtype"), [(8, "uint8"), (16, "uint16"), (32, "uint32")])
async def test_every_bit_depth_comes_through(bits, dtype):
    async with bench(bits=bits) as here:
        async with here.camera() as camera:
            assert camera.info.dtype == dtype
        frames, faults = await film(here, 3)
    assert not faults
    assert {frame.pixels.dtype.name for frame in frames} == {dtype}


async def test_it_describes_itself_on_connecting():
    async with bench() as here, here.camera() as camera:
        info = camera.info
    assert (info.height, info.width, info.dtype) == (48, 200, "uint16")
    assert info.model == "DECTRIS ARINA Si (simulated)"
    assert info.frame_rate_Hz == pytest.approx(RATE_HZ)
    assert (info.stamp, info.clock) == (StampKind.EXPOSURE_START, StampClock.CAMERA)
    assert (info.pixel_size_m, info.row_time_ns) == (4e-9, 0.0)


async def test_losses_are_counted_and_the_sum_closes():
    async with bench(dropped_ratio=0.2) as here:
        frames, faults = await film(here, 60)
        produced = here.server.produced
    assert not faults
    first, last = frames[0].info.index, frames[-1].info.index
    lost = sum(frame.info.dropped_before for frame in frames)
    assert lost > 3
    assert len(frames) + lost == last + 1 - first
    assert last < produced


async def test_nothing_is_lost_when_nobody_takes_frames_for_a_while():
    async with bench() as here:
        here.film_quickly()
        many = 3 * DEPTH + 10
        frames, faults = await film(here, many)
    assert not faults
    assert [frame.info.index for frame in frames] == list(range(len(frames)))
    assert len(frames) >= many - 1


async def test_pixels_are_unpacked_into_buffers_on_a_thread():
    taken = []

    class Buffers:
        def take(self):
            taken.append(threading.current_thread().name)
            return np.zeros((48, 200), np.uint16)

    async with bench() as here, here.camera() as camera:
        await camera.start()
        await here.expose(4)
        await camera.stop()
        frames, _ = await collect(camera, Buffers())
    assert taken == ["dectris.decode"] * len(frames)
    assert all(frame.pixels.flags.writeable and frame.pixels.any() for frame in frames)


async def test_a_buffer_that_cannot_be_had_ends_the_film_with_its_error():
    class Buffers:
        def take(self):
            raise MemoryError("the ring is gone")

    async with bench() as here, here.camera() as camera:
        await camera.start()
        await here.expose(2)
        with pytest.raises(MemoryError, match="the ring is gone"):
            await collect(camera, Buffers())


async def test_a_film_may_be_left_in_the_middle_and_begun_anew():
    async with bench() as here, here.camera() as camera:
        here.film_quickly()
        await camera.start()
        await here.expose(3 * DEPTH)
        frames = camera.frames()
        assert (await anext(frames)).info.index == 0
        await frames.aclose()
        assert not [t for t in threading.enumerate() if t.name == "dectris.decode"]
        await camera.stop()
        await camera.start()
        await here.expose(5)
        await camera.stop()
        found, faults = await collect(camera)
    assert [frame.info.index for frame in found] == list(range(len(found)))
    assert [fault.reason.split(" were")[0] for fault in faults] == ["messages of series 1"]


async def test_a_series_that_ends_by_itself_ends_the_film():
    async with bench() as here:
        here.parameter("detector/config/nimages").highest = 4
        async with here.camera() as camera:
            assert here.config("nimages") == 4
            await camera.start()
            await here.expose(10)
            frames, faults = await collect(camera)
        assert here.server.state == "idle"
    assert (len(frames), faults) == (4, [])


# --- faults of the detector -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault.GARBAGE, "no CBOR"),
        (Fault.SHAPE, "has shape 24 x 200 instead of 48 x 200"),
        (Fault.PIXEL_TYPE, "pixels of type uint32 instead of uint16"),
        (Fault.COMPRESSION, "compressed with 'bszstd'"),
        (Fault.REPEATED, "image 3 came again"),
        (Fault.RESET, "counter fell from 2 to 0"),
        (Fault.NEW_SERIES, "series 2 began while series 1 was recorded"),
    ],
)
async def test_each_misbehaviour_is_told_and_the_rest_goes_on(fault, why):
    async with bench() as here:
        here.server.misbehaviour.at = {3: fault}
        frames, faults = await film(here, 9)
    (told,) = faults
    assert why in told.reason
    index = [frame.info.index for frame in frames]
    kept = fault in (Fault.REPEATED, Fault.RESET, Fault.NEW_SERIES)
    assert index == [i for i in range(index[-1] + 1) if kept or i != 3]
    assert sum(frame.info.dropped_before for frame in frames) == (0 if kept else 1)
    stamps = [frame.info.device_start_ns for frame in frames]
    # A date is known to 1 ms only, and so are the stamps of a second series.
    np.testing.assert_allclose(np.diff(stamps), PERIOD_NS * np.diff(index), atol=1_000_000, rtol=0)


async def test_a_second_listener_steals_and_is_told():
    async with bench() as here:
        context = zmq.Context()
        thief = context.socket(zmq.PULL)
        try:
            async with here.camera() as camera:
                thief.connect(f"tcp://127.0.0.1:{here.server.data_port}")
                await asyncio.to_thread(_until_connected, thief, here.server)
                await camera.start()
                await here.expose(40)
                await camera.stop()
                # The end may have gone to the other, too.
                camera._film._stop = None
                camera._film.stop(0.1)
                frames, faults = await collect(camera)
        finally:
            context.destroy(linger=0)
    assert len(frames) <= 21
    assert [f.reason for f in faults if "another listener is connected" in f.reason]
    assert {frame.info.dropped_before for frame in frames[1:]} == {1}


def _until_connected(thief, server):
    """Wait until messages are dealt to both: the first one shows it."""
    while not thief.poll(1):
        server._outbox._loop.call_soon_threadsafe(server._outbox.put_nowait, b"knock")


async def test_a_pretended_listener_is_told_too():
    async with bench() as here:
        here.server.misbehaviour.listeners = 3
        frames, faults = await film(here, 30)
    (told,) = faults
    assert "only one image in 3 arrives" in told.reason
    assert [frame.info.index for frame in frames] == [*range(0, 3 * len(frames), 3)]


async def test_several_channels_are_mentioned_and_the_first_is_recorded():
    async with bench(channels=("threshold_1", "threshold_2")) as here:
        frames, faults = await film(here, 4)
        (told,) = faults
        assert "threshold_1 is recorded; threshold_2 come too" in told.reason
        truth = here.world.truth()["frames/camera"]
        window = (
            int(truth["t_start_ns"][0]),
            int(truth["t_start_ns"][0] + truth["exposure_ns"][0]),
        )
        shown = here.server._scene.frame(
            0, here.world.mean("front", *window), here.world.drift_px(*window)
        )
        np.testing.assert_array_equal(frames[0].pixels, shown)


async def test_an_end_that_does_not_come_is_not_waited_for():
    async with bench() as here:
        here.server.misbehaviour.silent_end = True
        async with here.camera() as camera:
            await camera.start()
            await here.expose(4)
            camera._film.stop(0.2)  # a shorter patience; the first word counts
            await camera.stop()
            frames, faults = await collect(camera)
    assert len(frames) >= 3
    (told,) = faults
    assert "did not come within 0.2 s after the stop" in told.reason


async def test_a_connection_that_is_cut_is_told_and_made_again():
    async with bench() as here, here.camera() as camera:
        await camera.start()
        await here.expose(3)
        frames = camera.frames()
        assert [(await anext(frames)).info.index for _ in range(2)] == [0, 1]
        here.server._push.close(0)
        here.server._push = here.server._context.socket(zmq.PUSH)
        while True:
            try:
                here.server._push.bind(f"tcp://127.0.0.1:{here.server.data_port}")
                break
            except zmq.ZMQError:
                await asyncio.sleep(0.001)
        seen = []
        async for item in frames:
            seen.append(item)
            if isinstance(item, FrameFault) and "is gone; connecting again" in item.reason:
                break
        await here.expose(3)
        while not isinstance(item := await anext(frames), Frame):
            pass
        assert item.info.index >= 2
        await frames.aclose()


# --- armed by us ------------------------------------------------------------------------------


async def test_it_is_set_up_armed_triggered_and_disarmed_in_that_order():
    async with bench() as here:
        async with here.camera(exposure_s=0.004) as camera:
            assert here.server.state == "idle"
            await camera.start()
            assert here.server.state == "acquire"
            await camera.stop()
            assert here.server.state == "idle"
        assert here.server.simplon.asked == [
            *("mode", "format", "header_detail", "compression", "trigger_mode", "ntrigger"),
            *("nimages", "count_time", "frame_time", "arm", "trigger", "cancel", "disarm"),
        ]
        assert (here.config("count_time"), here.config("frame_time")) == (0.004, 0.01)
        assert here.config("trigger_mode") == "ints"
        assert here.config("compression") == "bslz4"
        assert here.config("nimages") == 1_000_000_000
        assert here.parameter("stream/config/mode").value == "enabled"
        assert here.parameter("stream/config/format").value == "cbor"


async def test_without_an_exposure_the_readout_alone_is_dark():
    async with bench() as here, here.camera():
        assert here.config("count_time") == pytest.approx(0.01 - 100e-9)


async def test_without_a_rate_the_times_stay_as_they_are():
    async with bench() as here, here.camera(frame_rate_Hz=math.nan):
        assert "count_time" not in here.server.simplon.asked
        assert "frame_time" not in here.server.simplon.asked


async def test_leaving_it_ends_the_exposures():
    async with bench() as here:
        async with here.camera() as camera:
            await camera.start()
            await here.expose(2)
        assert here.server.state == "idle"
        assert here.server.simplon.asked[-2:] == ["cancel", "disarm"]


async def test_a_trigger_that_answers_at_once_is_no_end():
    async with bench() as here:
        here.server.misbehaviour.trigger_returns = True
        frames, faults = await film(here, 6)
    assert len(frames) >= 5
    assert not faults


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("count_time", r"refuses detector count_time = 0\.004: HTTP 400, '\"out of range\"'"),
        ("frame_time", r"refuses detector frame_time = 0\.01: HTTP 400"),
        ("compression", "refuses detector compression = 'bslz4'"),
        ("mode", "refuses stream mode = 'enabled'"),
        ("nimages", "refuses detector/config/nimages"),
        ("x_pixels_in_detector", "refuses detector/config/x_pixels_in_detector"),
    ],
)
async def test_a_setting_that_is_refused_is_named_with_the_answer(name, why):
    async with bench() as here:
        here.server.simplon.refused = {name: "out of range"}
        with pytest.raises(CameraError, match=why):
            async with here.camera(exposure_s=0.004):
                pytest.fail("connected")


async def test_a_time_that_the_detector_changes_is_refused():
    async with bench() as here:
        # The frame time follows an exposure that it cannot hold.
        with pytest.raises(CameraError, match=r"frame_time = 0\.01 s and set 0\.02"):
            async with here.camera(exposure_s=0.02, frame_rate_Hz=RATE_HZ):
                pytest.fail("connected")


@pytest.mark.parametrize("value", [0.02, "long", -1.0, None])
async def test_a_readout_that_leaves_nothing_is_told(value):
    async with bench() as here:
        here.parameter("detector/config/detector_readout_time").value = value
        with pytest.raises(CameraError, match="leaves nothing to expose at 100 Hz"):
            async with here.camera():
                pytest.fail("connected")


@pytest.mark.parametrize(
    ("state", "would_do"),
    [
        ("na", "initialise it"),
        ("error", "look at it"),
        ("ready", "disarm it"),
        ("acquire", "disarm it, or let armed_by be microscope"),
    ],
)
async def test_a_detector_that_others_use_is_left_alone(state, would_do):
    async with bench() as here:
        here.server.state = state
        with pytest.raises(CameraError, match=f"is in state '{state}'.*{would_do}"):
            async with here.camera():
                pytest.fail("connected")
        assert here.server.simplon.asked == []
        assert here.server.state == state


async def test_a_detector_that_is_armed_between_is_left_alone():
    async with bench() as here:
        async with here.camera() as camera:
            await here.server.film.__self__.arm()
            with pytest.raises(CameraError, match="is in state 'ready'"):
                await camera.start()
        assert here.server.state == "ready"


@pytest.mark.parametrize("answer", [{}, {"sequence id": "one"}])
async def test_an_arm_that_names_no_series_is_disarmed_again(answer):
    async with bench() as here:

        async def arm():
            here.server.state = "ready"
            return answer

        here.server.simplon.commands["arm"] = arm
        with pytest.raises(CameraError, match="named no sequence id"):
            async with here.camera() as camera:
                await camera.start()
        assert here.server.state == "idle"


async def test_an_answer_to_a_command_that_is_no_json_is_empty():
    async with answering(http(b"armed!")) as port:
        camera = DectrisCamera(CameraOptions(port=port), now_ns=int)
        found = await asyncio.to_thread(camera._simplon.command, "arm", timeout_s=5.0)
    assert found == {}


async def test_a_series_id_by_its_other_name_will_do():
    async with bench() as here:
        arm = here.server.arm

        async def other():
            return {"series id": (await arm())["sequence id"]}

        here.server.simplon.commands["arm"] = other
        frames, faults = await film(here, 3)
    assert frames
    assert not faults


async def test_a_trigger_that_is_refused_is_told_and_disarmed():
    async with bench() as here:
        here.server.simplon.refused = {"trigger": "high voltage is off"}
        with pytest.raises(CameraError, match="refuses the command trigger.*high voltage is off"):
            async with here.camera() as camera:
                await camera.start()
        assert here.server.state == "idle"


async def test_a_trigger_without_effect_is_told_and_disarmed():
    async with bench() as here:
        never = asyncio.Event()

        async def trigger():
            await never.wait()

        here.server.simplon.commands["trigger"] = trigger
        async with here.camera() as camera:
            camera._timeout_s = 0.2
            with pytest.raises(CameraLost, match=r"triggered and did not begin in 0\.2 s"):
                await camera.start()
            camera._timeout_s = 2.0
        assert here.server.state == "idle"


async def test_a_series_that_breaks_off_is_told_in_the_film():
    async with bench() as here:
        broken = asyncio.Event()

        async def trigger():
            here.server.state = "acquire"
            await broken.wait()
            raise Refusal(500, "lost a module")

        here.server.simplon.commands["trigger"] = trigger
        async with here.camera() as camera:
            await camera.start()
            broken.set()
            frames = camera.frames()
            fault = await anext(frames)
            await frames.aclose()
    assert "ended its series by itself" in fault.reason
    assert "HTTP 500" in fault.reason
    assert "lost a module" in fault.reason


async def test_what_does_not_cancel_is_aborted():
    async with bench() as here:
        for refused in ("cancel", "disarm"):
            here.server.simplon.asked.clear()
            here.server.simplon.refused = {refused: "no"}
            async with here.camera() as camera:
                await camera.start()
                await camera.stop()
            assert here.server.simplon.asked[-1] == "abort"
            assert here.server.state == "idle"


async def test_what_takes_no_command_to_end_is_told_as_exposing():
    async with bench() as here:
        here.server.simplon.refused = {"cancel": "no", "abort": "not now"}
        async with here.camera() as camera:
            await camera.start()
            with pytest.raises(CameraLost, match="not now.*may still be exposing"):
                await camera.stop()
            here.server.simplon.refused = {}
            await here.server.disarm()
            _, faults = await collect(camera)
        assert not faults


# --- armed by the microscope ------------------------------------------------------------------


def listening(here, **options):
    here.parameter("stream/config/mode").value = "enabled"
    here.parameter("stream/config/format").value = "cbor"
    here.parameter("detector/config/nimages").value = 1000
    return here.camera(armed_by=ArmedBy.MICROSCOPE, **options)


async def test_a_microscope_that_arms_is_listened_to_and_never_commanded():
    async with bench() as here, listening(here) as camera:
        await camera.start()
        filming = asyncio.create_task(here.server.film())
        while here.server.state != "acquire":
            await asyncio.sleep(0)
        await here.expose(8)
        await here.server.disarm()
        await filming
        frames, faults = await collect(camera)
        assert here.server.simplon.asked == []
    assert [frame.info.index for frame in frames] == list(range(len(frames)))
    assert len(frames) >= 7
    assert not faults


async def test_a_stop_ends_the_listening_with_what_has_come_and_leaves_the_detector():
    async with bench() as here, listening(here) as camera:
        await camera.start()
        filming = asyncio.create_task(here.server.film())
        while here.server.state != "acquire":
            await asyncio.sleep(0)
        await here.expose(5)
        frames = camera.frames()
        seen = [await anext(frames) for _ in range(4)]
        await camera.stop()
        await here.expose(5)
        rest = [item async for item in frames]
        assert here.server.state == "acquire"
        assert here.server.simplon.asked == []
        await here.server.abort()
        await filming
    assert [frame.info.index for frame in seen + rest] == list(range(len(seen + rest)))
    assert len(rest) <= 2


@pytest.mark.parametrize(("mode", "form"), [("disabled", "cbor"), ("enabled", "legacy")])
async def test_a_stream_that_is_off_is_told_and_not_switched_on(mode, form):
    async with bench() as here:
        camera = listening(here)
        here.parameter("stream/config/mode").value = mode
        here.parameter("stream/config/format").value = form
        with pytest.raises(CameraError, match=f"mode '{mode}' and format '{form}'; set 'enabled'"):
            async with camera:
                pytest.fail("connected")
        assert here.server.simplon.asked == []


# --- versions and descriptions that cannot be ----------------------------------------------------


async def test_an_interface_that_is_too_old_is_refused():
    async with bench() as here:
        here.server.simplon.api = "1.6.0"
        with pytest.raises(CameraError, match=r"speaks version 1\.6\.0 of SIMPLON.*1\.8\.0"):
            async with here.camera():
                pytest.fail("connected")


@pytest.mark.parametrize("version", ["release-2021.4.0", "2020.2.1"])
async def test_software_that_is_too_old_is_refused(version):
    async with bench() as here:
        here.parameter("detector/config/eiger_fw_version").value = version
        with pytest.raises(CameraError, match=r"is release 202\d\.\d; stream v2 needs 2022\.1"):
            async with here.camera():
                pytest.fail("connected")


@pytest.mark.parametrize("version", ["release-2022.1.2rc2", "2024.10.0", "1.8.0", ""])
async def test_software_that_is_new_enough_or_says_nothing_passes(version):
    async with bench() as here:
        here.parameter("detector/config/eiger_fw_version").value = version
        async with here.camera():
            pass


async def test_what_not_every_model_has_may_be_missing():
    async with bench() as here:
        for name in ("eiger_fw_version", "description"):
            del here.server.simplon.parameters[f"detector/config/{name}"]
        here.parameter("detector/config/nimages").highest = None
        async with here.camera() as camera:
            assert camera.info.model == "DECTRIS detector"
            assert here.config("nimages") == 1_000_000_000


async def test_a_stream_without_a_choice_of_format_is_too_old():
    async with bench() as here:
        del here.server.simplon.parameters["stream/config/format"]
        with pytest.raises(CameraError, match=r"no format to choose.*2022\.1"):
            async with here.camera():
                pytest.fail("connected")


async def test_a_stream_that_knows_no_cbor_is_refused():
    async with bench() as here:
        here.parameter("stream/config/format").allowed = ["legacy"]
        with pytest.raises(CameraError, match=r"knows \['legacy'\] and no cbor"):
            async with here.camera():
                pytest.fail("connected")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("bit_depth_image", 12, "images of 12 bits; known are 8, 16, 32"),
        ("bit_depth_image", "16", "its bit_depth_image is '16', which is no number"),
        ("x_pixels_in_detector", True, "which is no number"),
        ("x_pixels_in_detector", 0, "its x_pixels_in_detector is 0, which cannot be"),
        ("y_pixels_in_detector", -3, "is -3, which cannot be"),
        ("y_pixels_in_detector", 10**9, "1000000000 x 200 pixels cannot be"),
    ],
)
async def test_a_description_that_cannot_be_is_refused(name, value, why):
    async with bench() as here:
        here.server.simplon.parameters[f"detector/config/{name}"] = Parameter(value=value)
        with pytest.raises(CameraError, match=why):
            async with here.camera():
                pytest.fail("connected")


# --- who is not there -----------------------------------------------------------------------------


@asynccontextmanager
async def answering(content):
    """Something that answers everything with the same bytes, or with silence."""
    gone = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if content is None:
            await gone.wait()
        else:
            writer.write(content)

    async with open_port(serve) as port:
        yield port
        gone.set()


def http(content):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


@pytest.mark.parametrize(
    ("content", "error", "why"),
    [
        (http(b"<html>a printer</html>"), CameraError, "answers '<html>a printer</html>'"),
        (http(b'"1.8.0"'), CameraError, "when asked for its api version; a SIMPLON"),
        (http(b"[" * 100_000), CameraError, r"answers '\[{197}\.\.\.'"),
        (http(json.dumps({"value": "new"}).encode()), CameraError, "speaks version new"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", CameraLost, "no answer to its api version"),
        (b"", CameraLost, "no answer to its api version"),
        (None, CameraLost, "no answer to its api version .*timed out"),
    ],
)
async def test_what_is_no_detector_is_told(content, error, why):
    async with answering(content) as port:
        timeout_s = 0.3 if content is None else 5.0
        camera = DectrisCamera(CameraOptions(port=port), now_ns=int, timeout_s=timeout_s)
        with pytest.raises(error, match=why):
            async with camera:
                pytest.fail("connected")


async def test_an_address_where_nobody_listens_is_a_lost_camera():
    async with answering(b"") as port:
        pass
    with pytest.raises(CameraLost, match=f"127.0.0.1:{port}: no answer.*check the address"):
        async with DectrisCamera(CameraOptions(port=port), now_ns=int):
            pytest.fail("connected")


async def test_a_stream_port_where_nobody_listens_is_a_lost_camera():
    async with bench() as here, answering(b"") as port:
        camera = here.camera(data_port=port)
        camera._timeout_s = 0.3
        with pytest.raises(CameraLost, match=f"its stream at tcp://127.0.0.1:{port}.*data_port"):
            async with camera:
                pytest.fail("connected")


async def test_an_address_that_is_none_is_told():
    async with bench() as here:
        camera = here.camera()
        camera._options = CameraOptions(
            host="no address", port=here.server.port, data_port=1, frame_rate_Hz=RATE_HZ
        )
        with pytest.raises(CameraLost, match="tcp://no address:1 is no address"):
            async with camera:
                pytest.fail("connected")


async def test_a_camera_that_is_not_connected_or_not_started_says_so():
    async with bench() as here:
        camera = here.camera()
        with pytest.raises(CameraLost, match="is not connected"):
            _ = camera.info
        with pytest.raises(CameraLost, match="is not connected"):
            await camera.start()
        with pytest.raises(CameraLost, match="is not started"):
            await anext(camera.frames())
        await camera.stop()
        async with camera:
            with pytest.raises(CameraLost, match="is not started"):
                await anext(camera.frames())
            with pytest.raises(CameraLost, match="no clock that can be asked"):
                await camera.exchange_clock()


def test_the_makers_own_ports_are_taken_where_none_are_given():
    assert (REST_PORT, STREAM_PORT) == (80, 31001)
    camera = DectrisCamera.from_options(CameraOptions(host="10.1.2.3"), now_ns=int)
    assert camera._name == "DECTRIS detector at 10.1.2.3:80"


# --- without the extra -------------------------------------------------------------------------

PLAN = """
title = "a film"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
[camera]
driver = "dectris"
frame_rate = "100 Hz"
pixel_size = "4 nm"
dose_rate = "2 e/angstrom^2/s"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
ocv = { for = "2 s" }
"""


@pytest.mark.parametrize("missing", ["zmq", "cbor2", "dectris"])
def test_without_the_extra_the_driver_says_what_to_install(monkeypatch, tmp_path, missing):
    for name in [n for n in sys.modules if n.startswith(("cameras.dectris_", "dectris"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "cameras.drivers.dectris")
    for name in [n for n in sys.modules if n == missing or n.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UnknownCamera, match=rf'{missing}.*pip install "lamella\[dectris\]"'):
        camera_class("dectris")
    with pytest.raises(ExperimentError, match=r"lamella\[dectris\]"):
        Experiment.loads(PLAN, folder=tmp_path)


def test_with_the_extra_the_experiment_is_understood(tmp_path):
    camera = Experiment.loads(PLAN, folder=tmp_path).camera
    assert camera.driver == "dectris"


def test_another_missing_package_is_not_blamed_on_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "cameras.drivers.dectris")
    monkeypatch.setitem(sys.modules, "cameras.dectris_series", None)
    with pytest.raises(ModuleNotFoundError, match="dectris_series"):
        camera_class("dectris")
