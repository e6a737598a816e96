"""From files that land to frames: what the thread of the folder camera does.

A `FolderReader` is turned by whoever has time for it, and says when it wants to be turned
again. Events may come from another thread; all else is for one thread only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import FrameFileError, FrameRecording
from cameras.landed_files import matcher, pixels_of, read_landed, stamps_of
from cameras.landing import Landed, Landing, Sighting, Trouble
from cameras.numbering import Count, Misplaced, Order, Place
from cameras.protocol import FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault, FrameInfo, StampClock
from cameras.watching import Sightings, Watch

LOOK_SHARE = 10  # a look around that takes long is made the more rarely


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the folder camera waits for what.

    Parameters
    ----------
    poll_s
        Between two looks around, which find what events did not tell.
    quiet_s
        A file must rest that is whole by its header and was not seen to be closed.
    open_end_s
        The same where the header does not tell where the file ends.
    hold_s
        A file is held at most while a lower number is missing.
    patience_s
        A file that is not whole may stay as it is until that is told.
    first_s
        For the first file, which tells what frames look like.
    """

    poll_s: float = 0.25
    quiet_s: float = 0.2
    open_end_s: float = 2.0
    hold_s: float = 0.25
    patience_s: float = 10.0
    first_s: float = 10.0


class MakeWatch(Protocol):
    """Makes what tells of events; `cameras.watching.Watch` in all but tests."""

    def __call__(
        self,
        folder: Path,
        *,
        deep: bool,
        now_ns: Callable[[], int],
        notice: Callable[[Sighting], None],
    ) -> Watch:
        """Return one that is not started."""
        ...


class FolderReader:
    """Finds the files that land in a folder, and hands out their frames.

    Parameters
    ----------
    folder, pattern
        Where, and which names.
    info
        What every frame must be like.
    exposure_ns
        Of frames whose files do not tell.
    patience
        How long to wait for what.
    now_ns
        Host clock; called from several threads.
    put
        Takes each frame and fault; may block.
    wake
        Called from another thread when an event has come.
    """

    def __init__(  # noqa: PLR0913 - each is given once, by the driver
        self,
        folder: Path,
        pattern: str,
        *,
        info: CameraInfo,
        exposure_ns: int,
        patience: Patience,
        now_ns: Callable[[], int],
        put: Callable[[Frame | FrameFault], None],
        wake: Callable[[], None] = lambda: None,
        make_watch: MakeWatch = Watch,
    ) -> None:
        self._folder = folder
        self._info = info
        self._exposure_ns = exposure_ns
        self._patience = patience
        self._now_ns = now_ns
        self._put = put
        self._wake = wake
        self._make_watch = make_watch
        self._matches = matcher(pattern)
        self._deep = "/" in pattern
        self._landing = Landing(
            folder,
            self._matches,
            deep=self._deep,
            quiet_ns=round(patience.quiet_s * 1e9),
            open_end_ns=round(patience.open_end_s * 1e9),
            patience_ns=round(patience.patience_s * 1e9),
        )
        self._order = Order(hold_ns=round(patience.hold_s * 1e9))
        self._count = Count()
        self._sightings = Sightings()
        self._watch: Watch | None = None
        self._place: tuple[int, int] | None = None  # device and inode of the folder
        self._seen_ns = self._next_poll_ns = 0
        self._away = ""  # why the folder cannot be looked into
        self._told_no_events = False
        self._stop_asked = self._closed = False
        self._owed = 0  # frames missing before a fault, which the next frame tells of
        self._buffers: FrameBuffers | None = None

    # --- from other threads -------------------------------------------------------------------

    def notice(self, sighting: Sighting) -> None:
        """Take an event."""
        if sighting.source or self._matches(sighting.name):
            self._sightings.add(sighting)
            self._wake()

    def stop(self) -> None:
        """End after what has landed."""
        self._stop_asked = True

    def fill(self, buffers: FrameBuffers | None) -> None:
        """Put pixels into these from now on; None for memory of their own."""
        self._buffers = buffers

    # --- turns ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to watch; what lies there already is no part of this run.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        self._place = self._where()
        self._landing.ignore_present()
        self._seen_ns = self._next_poll_ns = self._now_ns()
        self._start_watch()

    def end(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.stop()

    def turn(self) -> int | None:
        """Do what is due; return for how many ns nothing will be, None when all is done."""
        now_ns = self._now_ns()
        closing = self._stop_asked and not self._closed
        for seen in self._sightings.take():
            self._landing.sighted(seen)
        if now_ns >= self._next_poll_ns or closing:
            self._poll(now_ns)
        if closing:
            self._closed = True
            self._landing.close(now_ns)
        if not self._away:
            for found in self._landing.ripe(now_ns):
                if isinstance(found, Trouble):
                    self._tell(found)
                else:
                    self._order.add(found, now_ns)
        ended = self._landing.is_done(now_ns)
        while (landed := self._order.next(now_ns, ended=ended)) is not None:
            self._take(landed)
        if ended and self._landing.is_done(now_ns):
            self._say_what_is_left(now_ns)
            return None
        return self._idle_ns(now_ns)

    def _idle_ns(self, now_ns: int) -> int:
        look_ns = None if self._away else self._landing.next_look_ns()
        due = (self._next_poll_ns, look_ns, self._order.next_due_ns())
        return max(min(each for each in due if each is not None) - now_ns, 0)

    def _say_what_is_left(self, now_ns: int) -> None:
        if self._away:
            self._fault(
                None,
                f"{self._folder} is away ({self._away}) at the end of the run; what landed in "
                "it since is not read",
                now_ns,
            )
        for trouble in self._landing.left_over(now_ns):
            self._tell(trouble)

    # --- the folder itself --------------------------------------------------------------------

    def _where(self) -> tuple[int, int]:
        stat = self._folder.stat()
        return stat.st_dev, stat.st_ino

    def _poll(self, now_ns: int) -> None:
        try:
            place = self._where()
            self._landing.look_around(now_ns)
        except OSError as error:
            self._away = error.strerror or str(error)
            self.end()
        else:
            if place != self._place:
                self._away = self._away or "another folder stands in its place"
            if self._away:
                self._come_back(now_ns)
            self._place, self._seen_ns = place, now_ns
        took_ns = self._now_ns() - now_ns
        pause_ns = max(round(self._patience.poll_s * 1e9), LOOK_SHARE * took_ns)
        self._next_poll_ns = now_ns + took_ns + pause_ns

    def _come_back(self, now_ns: int) -> None:
        self._fault(
            None,
            f"{self._folder} was away for up to {(now_ns - self._seen_ns) / 1e9:.3g} s "
            f"({self._away}) and is back; what landed in it meanwhile is read now",
            now_ns,
        )
        self._away = ""
        self._landing.begin_patience_anew(now_ns)
        self.end()
        self._start_watch()

    def _start_watch(self) -> None:
        watch = self._make_watch(
            self._folder, deep=self._deep, now_ns=self._now_ns, notice=self.notice
        )
        try:
            watch.start()
        except OSError as error:
            if not self._told_no_events:
                self._told_no_events = True
                self._fault(
                    None,
                    f"{self._folder}: the system tells nothing of what lands there ({error}); it "
                    f"is looked at each {self._patience.poll_s:g} s, and arrivals are no finer",
                    self._now_ns(),
                )
        else:
            self._watch = watch

    # --- files ---------------------------------------------------------------------------------

    def _take(self, landed: Landed) -> None:
        try:
            recording = read_landed(landed.path)
            self._check_alike(landed, recording)
            if len(recording) > 1 or self._count.stacked:
                self._take_stack(landed, recording)
            else:
                self._take_single(landed, recording)
        except FrameFileError as error:
            # A file that changed under our hands says nothing by being odd.
            if not self._landing.is_same(landed):
                self._put_back(landed)
            else:
                self._spoil(landed, str(error))

    def _take_single(self, landed: Landed, recording: FrameRecording) -> None:
        if landed.before:
            self._refuse_again(landed)
            return
        pixels = next(pixels_of(landed.path, recording))
        if not self._landing.is_same(landed):
            self._put_back(landed)
            return
        self._landing.took(landed, 1)
        try:
            place, odd = self._count.place(landed.name)
        except Misplaced as error:
            self._fault(None, f"{landed.path} {error}; it is left out", landed.arrival_ns)
            return
        if odd:
            self._fault(place.index, f"{landed.path}: {odd}", landed.arrival_ns)
        self._hand_out(landed, recording, 0, place, pixels)

    def _take_stack(self, landed: Landed, recording: FrameRecording) -> None:
        if len(recording) <= landed.before:
            self._refuse_again(landed)
            return
        places, odd = self._count.place_stack(landed.name, recording.index, landed.before)
        if odd:
            self._fault(None, f"{landed.path}: {odd}", landed.arrival_ns)
        # Said at once: what is written to it from here on is no part of this reading.
        self._landing.took(landed, len(recording))
        read = 0
        try:
            for pixels in pixels_of(landed.path, recording):
                if read >= landed.before:
                    self._hand_out(landed, recording, read, places[read - landed.before], pixels)
                read += 1
        except FrameFileError as error:
            self._fault(
                places[max(read - landed.before, 0)].index,
                f"{error}; frames {read + 1} to {len(recording)} of that file are left out",
                landed.arrival_ns,
            )

    def _hand_out(
        self,
        landed: Landed,
        recording: FrameRecording,
        at: int,
        place: Place,
        pixels: NDArray[np.generic],
    ) -> None:
        stamps = stamps_of(recording) if self._info.clock is StampClock.CAMERA else None
        device_ns, exposure_ns = landed.arrival_ns, 0
        if stamps is not None:
            device_ns = int(stamps.device_ns[at])
            exposure_ns = 0 if stamps.exposure_ns is None else int(stamps.exposure_ns[at])
        info = FrameInfo(
            index=place.index,
            device_start_ns=device_ns,
            exposure_ns=exposure_ns if exposure_ns > 0 else self._exposure_ns,
            dropped_before=place.dropped_before + self._owed,
            arrival_ns=landed.arrival_ns,
        )
        self._owed = 0
        if self._buffers is not None:
            buffer = self._buffers.take()
            np.copyto(buffer, pixels)
            pixels = buffer
        self._put(Frame(info, pixels))

    def _check_alike(self, landed: Landed, recording: FrameRecording) -> None:
        info, odd = self._info, ""
        if (recording.height, recording.width) != (info.height, info.width):
            odd = (
                f"is {recording.width} x {recording.height} pixels instead of "
                f"{info.width} x {info.height}"
            )
        elif recording.dtype != info.dtype:
            odd = f"is {recording.dtype} instead of {info.dtype}"
        elif info.clock is StampClock.CAMERA and stamps_of(recording) is None:
            odd = "has no stamp of its own, as the first file has"
        if odd:
            raise FrameFileError(f"{landed.path}: {odd}")

    def _put_back(self, landed: Landed) -> None:
        trouble = self._landing.put_back(
            landed, self._now_ns(), "changed while it was read, or could not be seen"
        )
        if trouble is not None:
            self._tell(trouble)

    def _refuse_again(self, landed: Landed) -> None:
        self._landing.took(landed, landed.before)
        self._fault(
            self._count.index_of(landed.name),
            f"{landed.path} was written again after it was taken; what it was at first stands",
            landed.arrival_ns,
        )

    def _spoil(self, landed: Landed, reason: str) -> None:
        """Tell of a file that cannot be read; if it is mended, it is a frame after all."""
        self._landing.took(landed, landed.before)
        index = None
        if not self._count.stacked:
            try:
                place, _ = self._count.place(landed.name)
            except Misplaced:
                pass
            else:
                index = place.index
                self._count.give_back(index)
                self._owed += place.dropped_before
        self._fault(index, reason, landed.arrival_ns)

    def _tell(self, trouble: Trouble) -> None:
        self._fault(
            self._count.index_of(trouble.name),
            f"{self._folder / trouble.name} {trouble.reason}",
            trouble.noticed_ns,
        )

    def _fault(self, index: int | None, reason: str, at_ns: int) -> None:
        self._put(FrameFault(index=index, reason=reason, arrival_ns=at_ns))
