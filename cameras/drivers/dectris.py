"""A DECTRIS detector: commands over its SIMPLON interface, frames from its stream v2.

Stamps are exposure starts on the detector's clock, counted from the date of the series,
as the maker documents. That clock cannot be asked: frames are tied to the host by their
arrival. Written after the maker's public pages; what is marked unconfirmed was not seen
on a detector.
"""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import ClassVar, Self

from cameras.dectris_rest import Refused, Simplon, check_firmware
from cameras.errors import CameraError, CameraLost, UnknownCamera
from cameras.options import ArmedBy, CameraOptions
from cameras.protocol import ClockExchange, FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault, StampClock, StampKind

try:
    from cameras.dectris_series import SeriesReader
    from cameras.dectris_stream import Film, StreamLink
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("cbor2", "dectris", "zmq"):
        raise
    # Of a kind that is reported as a mistake in the experiment, beside its line.
    raise UnknownCamera(
        f"the camera driver 'dectris' needs the package {error.name}, which is not "
        'installed; pip install "lamella[dectris]"'
    ) from error

REST_PORT = 80
STREAM_PORT = 31001
DTYPES = {8: "uint8", 16: "uint16", 32: "uint32"}
MAX_PIXELS = 64 * 1024 * 1024
MAX_IMAGES = 1_000_000_000  # a series without end, where the detector states no other limit
ARM_TIMEOUT_S = 120.0  # detectors may take a minute to arm (unconfirmed)
SETTING_TOLERANCE = 0.01  # the detector rounds times to its own ticks
LOOK_S = 0.02


class DectrisCamera:
    """A detector with SIMPLON and stream v2 as a frame source.

    Parameters
    ----------
    options
        ``port`` is that of the REST interface, ``data_port`` that of the stream.
    now_ns
        Host clock; stamps every message on receipt.
    timeout_s
        For each answer, and for the end of a series after the stop. Frames are waited
        for without limit: a slow frame rate is no fault.
    """

    needs: ClassVar[tuple[str, ...]] = ("host",)
    has_clock: ClassVar[bool] = False

    def __init__(
        self, options: CameraOptions, *, now_ns: Callable[[], int], timeout_s: float = 5.0
    ) -> None:
        rest_port = options.port or REST_PORT
        self._name = f"DECTRIS detector at {options.host}:{rest_port}"
        self._options = options
        self._now_ns = now_ns
        self._timeout_s = timeout_s
        self._simplon = Simplon(self._name, options.host, rest_port, timeout_s=timeout_s)
        self._info: CameraInfo | None = None
        self._link: StreamLink | None = None
        self._film: Film | None = None
        self._armed = False
        self._trigger: _Trigger | None = None

    @classmethod
    def from_options(cls, options: CameraOptions, *, now_ns: Callable[[], int]) -> Self:
        """Make one; it connects when it is entered."""
        return cls(options, now_ns=now_ns)

    @property
    def _commands(self) -> bool:
        return self._options.armed_by is ArmedBy.LAMELLA

    async def __aenter__(self) -> Self:
        """Connect; where we arm it, set it up, too.

        Raises
        ------
        CameraLost
            No answer, or nothing listens at the stream's port.
        CameraError
            The detector is too old, busy, or refuses a setting.
        """
        link = StreamLink(
            self._name,
            self._options.host,
            self._options.data_port or STREAM_PORT,
            now_ns=self._now_ns,
        )
        self._info = await asyncio.to_thread(self._set_up)
        await asyncio.to_thread(link.connect, self._timeout_s)
        self._link = link
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and disconnect."""
        try:
            with suppress(CameraLost):
                await self.stop()
        finally:
            link, self._link = self._link, None
            if link is not None:
                await asyncio.to_thread(link.close)

    @property
    def info(self) -> CameraInfo:
        """What the camera said of itself on connecting."""
        if self._info is None:
            raise CameraLost(f"{self._name}: is not connected")
        return self._info

    # --- on connecting -------------------------------------------------------------------

    def _set_up(self) -> CameraInfo:
        simplon = self._simplon
        simplon.check_version()
        with suppress(Refused):  # not every model has it
            check_firmware(self._name, simplon.get("detector", "config", "eiger_fw_version"))
        self._check_stream()
        if self._commands:
            self._check_idle()
            self._configure()
        return self._describe()

    def _check_stream(self) -> None:
        """See that the stream can speak CBOR, and does so where we may not change it."""
        simplon = self._simplon
        try:
            form = simplon.limits("stream", "format")
        except Refused as error:
            raise CameraError(
                f"{self._name}: its stream has no format to choose, so it has no stream v2; "
                "release 2022.1 of its software is needed"
            ) from error
        known = form.get("allowed_values")
        if isinstance(known, list) and "cbor" not in known:
            raise CameraError(f"{self._name}: its stream knows {known} and no cbor")
        if self._commands:
            return
        mode = simplon.get("stream", "config", "mode")
        if mode != "enabled" or form["value"] != "cbor":
            raise CameraError(
                f"{self._name}: its stream has mode {mode!r} and format {form['value']!r}; set "
                "'enabled' and 'cbor' there, or let armed_by be lamella"
            )

    def _check_idle(self) -> None:
        state = self._simplon.get("detector", "status", "state")
        if state != "idle":
            would_do = {
                "na": "initialise it with the maker's software",
                "error": "look at it with the maker's software",
            }.get(str(state), "disarm it, or let armed_by be microscope")
            raise CameraError(
                f"{self._name}: is in state {state!r}, and is taken over in 'idle' only; {would_do}"
            )

    def _configure(self) -> None:
        simplon, options = self._simplon, self._options
        simplon.put("stream", "mode", "enabled")
        simplon.put("stream", "format", "cbor")
        simplon.put("stream", "header_detail", "basic")  # no flat fields in the start message
        simplon.put("detector", "compression", "bslz4")
        simplon.put("detector", "trigger_mode", "ints")
        simplon.put("detector", "ntrigger", 1)
        simplon.put("detector", "nimages", self._most_images())
        exposure_s, period_s = options.exposure_s, 1 / options.frame_rate_Hz
        if math.isnan(exposure_s) and not math.isnan(period_s):
            exposure_s = period_s - self._readout_s()
        # The frame time must hold the count time, so that comes first.
        for name, value in (("count_time", exposure_s), ("frame_time", period_s)):
            if not math.isnan(value):
                self._set_time(name, value)

    def _most_images(self) -> int:
        limit = self._simplon.limits("detector", "nimages").get("max")
        return min(limit, MAX_IMAGES) if isinstance(limit, int) and limit > 0 else MAX_IMAGES

    def _readout_s(self) -> float:
        value = self._simplon.get("detector", "config", "detector_readout_time")
        if isinstance(value, int | float) and 0 <= value < 1 / self._options.frame_rate_Hz:
            return float(value)
        raise CameraError(
            f"{self._name}: its readout takes {value!r} s, which leaves nothing to expose at "
            f"{self._options.frame_rate_Hz:g} Hz; take a lower frame_rate"
        )

    def _set_time(self, name: str, value_s: float) -> None:
        self._simplon.put("detector", name, value_s)
        found_s = self._simplon.get_number(name)
        if abs(found_s - value_s) > SETTING_TOLERANCE * value_s:
            raise CameraError(
                f"{self._name}: was asked for {name} = {value_s:g} s and set {found_s:g} s; ask "
                "for a frame_rate and an exposure that it can do"
            )

    def _describe(self) -> CameraInfo:
        number = self._simplon.get_number
        width, height = (int(number(f"{axis}_pixels_in_detector")) for axis in "xy")
        if width > MAX_PIXELS // height:
            raise CameraError(f"{self._name}: {height} x {width} pixels cannot be")
        bits = number("bit_depth_image")
        if bits not in DTYPES:
            raise CameraError(
                f"{self._name}: images of {bits} bits; known are {', '.join(map(str, DTYPES))}"
            )
        model = "DECTRIS detector"
        with suppress(Refused):
            model = str(self._simplon.get("detector", "config", "description"))
        return CameraInfo(
            model=model,
            height=height,
            width=width,
            dtype=DTYPES[int(bits)],
            frame_rate_Hz=1 / number("frame_time"),
            pixel_size_m=self._options.pixel_size_m,
            stamp=StampKind.EXPOSURE_START,
            clock=StampClock.CAMERA,
        )

    # --- frames --------------------------------------------------------------------------

    async def start(self) -> None:
        """Arm and trigger, or only listen; returns when the detector exposes or may.

        Raises
        ------
        CameraLost, CameraError
            The detector does not answer, is busy, or refuses to.
        """
        if self._link is None:
            raise CameraLost(f"{self._name}: is not connected")
        self._link.start()
        series: int | None = None
        if self._commands:
            series = await asyncio.to_thread(self._arm)
        film = Film(self._link, SeriesReader(self.info, series), now_ns=self._now_ns)
        self._film = film
        if self._commands:
            self._trigger = _Trigger(self._simplon, film)
            await self._until_exposing(self._trigger)

    def _arm(self) -> int:
        self._check_idle()
        self._armed = True  # perhaps it is even where the answer is lost
        answer = self._simplon.command("arm", timeout_s=ARM_TIMEOUT_S)
        series = answer.get("sequence id", answer.get("series id"))
        if not isinstance(series, int):
            raise CameraError(f"{self._name}: armed, and named no sequence id but {answer!r}")
        return series

    async def _until_exposing(self, trigger: "_Trigger") -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                while not trigger.done.is_set():
                    state = await asyncio.to_thread(
                        self._simplon.get, "detector", "status", "state"
                    )
                    if state == "acquire":
                        break
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise CameraLost(
                f"{self._name}: was triggered and did not begin in {self._timeout_s:g} s"
            ) from error
        trigger.began = True
        if trigger.error is not None:
            raise trigger.error

    async def stop(self) -> None:
        """End after the present frame; `frames` then ends by itself.

        Raises
        ------
        CameraLost
            The detector takes no command to end: it may still be exposing.
        """
        if self._armed:
            self._armed = False
            if self._trigger is not None:
                self._trigger.began = False  # that it ends now is no news
            try:
                await asyncio.to_thread(self._disarm)
            finally:
                if self._film is not None:
                    self._film.stop(self._timeout_s)
        elif self._film is not None:
            self._film.stop(0 if not self._commands else self._timeout_s)

    def _disarm(self) -> None:
        """Let the present image end, and then the series; where that fails, abort."""
        simplon = self._simplon
        try:
            # The maker's advice for a series that runs: cancel before disarm.
            simplon.command("cancel", timeout_s=self._timeout_s + self._period_s())
            simplon.command("disarm", timeout_s=self._timeout_s)
        except CameraError as first:
            try:
                simplon.command("abort", timeout_s=self._timeout_s)
            except CameraError as error:
                raise CameraLost(
                    f"{self._name}: takes neither cancel and disarm ({first}) nor abort "
                    f"({error}); it may still be exposing, so end it by hand"
                ) from error

    def _period_s(self) -> float:
        return 0.0 if self._info is None else 1 / self._info.frame_rate_Hz

    async def frames(
        self, buffers: FrameBuffers | None = None
    ) -> AsyncIterator[Frame | FrameFault]:
        """Yield each frame and each fault in the order of arrival, until the series ends.

        Pixels are unpacked on a thread, into ``buffers`` where there are some.

        Raises
        ------
        CameraLost
            It was not started.
        """
        if self._film is None:
            raise CameraLost(f"{self._name}: is not started, or is not connected")
        async with aclosing(self._film.frames(buffers)) as items:
            async for item in items:
                yield item

    async def exchange_clock(self) -> ClockExchange:
        """Say that its clock cannot be asked.

        Raises
        ------
        CameraLost
            Always.
        """
        raise CameraLost(f"{self._name}: has no clock that can be asked")


class _Trigger:
    """The trigger command, which answers when the series is over (unconfirmed for all models).

    Attributes
    ----------
    done, error
        Set once it is answered, and how it failed.
    began
        True while the series should run: a failure is then told in the film.
    """

    def __init__(self, simplon: Simplon, film: Film) -> None:
        self._simplon = simplon
        self._film = film
        self.done = threading.Event()
        self.error: CameraError | None = None
        self.began = False
        threading.Thread(target=self._give, name="dectris.trigger", daemon=True).start()

    def _give(self) -> None:
        try:
            self._simplon.command("trigger", timeout_s=None)
        except CameraError as error:
            self.error = error
            if self.began:
                self._film.note(f"the detector ended its series by itself: {error}")
        finally:
            self.done.set()
