"""The camera of a run: its frames are stamped, tracked, recorded, and shown if there is time."""

from collections.abc import Callable

from cameras.protocol import FrameSource
from cameras.records import Frame, FrameFault
from runner.frame_stamper import FrameStamper
from runner.header import CAMERA
from runner.live_tracking import LiveTracking
from runner.previews import Previews
from session.recorder import Recorder
from session.records import FrameHeader


class Filming:
    """Films from `begin` to `end`.

    Parameters
    ----------
    camera
        Entered but not started.
    tracking
        Entered; None where no rule is on a track.
    now_ns
        Host clock.
    show
        Given each frame that is shown; its pixels are lent.
    came
        Told of each frame that was recorded, and what share of the recorder's ring waits for
        the disk, 0 to 1.
    """

    def __init__(
        self,
        camera: FrameSource,
        stamper: FrameStamper,
        recorder: Recorder,
        *,
        tracking: LiveTracking | None,
        now_ns: Callable[[], int],
        show: Callable[[FrameHeader, Frame], None],
        came: Callable[[FrameHeader, Frame, float], None],
    ) -> None:
        self._camera = camera
        self._stamper = stamper
        self._recorder = recorder
        self._tracking = tracking
        self._now_ns = now_ns
        self._show = show
        self._came = came
        self.previews = Previews()

    @property
    def clock_sigma_ns(self) -> float:
        """Of the camera's clock now; NaN before it is known."""
        return self._stamper.sigma_ns

    @property
    def has_clock(self) -> bool:
        """True where the camera's clock can be asked."""
        return self._camera.has_clock

    async def begin(self) -> None:
        """Ask the camera's clock, and start it."""
        await self._stamper.ask_first()
        await self._camera.start()

    async def end(self) -> None:
        """Stop the camera: `film` returns once its last frame was recorded."""
        await self._camera.stop()

    async def keep_time(self) -> None:
        """Ask the camera's clock once a second, for ever."""
        await self._stamper.keep_time()

    async def film(self) -> None:
        """Take frames as they come, until the camera gives no more."""
        async for frame in self._camera.frames(self._recorder.buffers(CAMERA)):
            if isinstance(frame, FrameFault):
                await self._note_fault(frame)
                continue
            stamps = self._stamper.stamp(frame)
            if self._tracking is not None:
                await self._tracking.see(stamps, frame.pixels)
            await self._recorder.frame(CAMERA, stamps, frame.pixels)
            fill = self._recorder.ring_fill(CAMERA)
            await self._show_if_time(stamps, frame, fill)
            self._came(stamps, frame, fill)
            del frame  # its pixels hold a slot of the ring

    async def _show_if_time(self, stamps: FrameHeader, frame: Frame, fill: float) -> None:
        shown, news = self.previews.admit(fill)
        if news:
            await self._recorder.event(self._now_ns(), "disk", "recorder", news)
        if shown:
            self._show(stamps, frame)

    async def _note_fault(self, fault: FrameFault) -> None:
        await self._recorder.event(
            fault.arrival_ns, "frame_fault", CAMERA, fault.reason, {"index": fault.index}
        )
