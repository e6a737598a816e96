"""From the messages of a DECTRIS stream to frames, and to faults in plain words.

The counter of a recording is the detector's ``image_id`` for as long as one series lasts.
A new series, or a counter that begins anew, goes on counting after the highest count so
far; stamps of a new series are moved by the difference between the two series' dates,
which the detector gives to a millisecond, so that neither ever runs backwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cameras.dectris_messages import (
    BadMessage,
    EndMessage,
    ImageMessage,
    SeriesKey,
    StartMessage,
    decode,
    unpack,
)
from cameras.protocol import FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault, FrameInfo

DATE_NS = 1_000_000  # to which the difference of two dates is known
STRIDES_TOLD = 3  # equal strides in a row that are no accident


@dataclass(slots=True)
class _Series:
    """Where a series stands.

    Parameters
    ----------
    base
        What is added to its ``image_id`` for the recording's counter.
    shift_ns
        What is added to its stamps.
    """

    key: SeriesKey
    base: int
    channels: tuple[str, ...] = ()
    shift_ns: int = 0
    date: datetime | None = None
    time_base_Hz: int | None = None
    last_id: int | None = None
    last_start: int = -1


class SeriesReader:
    """Makes frames of messages, in the order in which they come.

    Parameters
    ----------
    info
        What the recording is made of.
    armed
        Number of the series that we armed; None where others arm, and any will do.

    Attributes
    ----------
    ended
        True once the end of the series has come.
    """

    def __init__(self, info: CameraInfo, armed: int | None) -> None:
        self._info = info
        self._dtype = np.dtype(info.dtype)
        self._armed = armed
        self._series: _Series | None = None
        self._stale: set[SeriesKey] = set()
        self._channel_name: str | None = None
        self._highest = -1
        self._last_kept = -1
        self._last_stop_ns = -1
        self._stride = _Stride()
        self.ended = False

    def read(
        self, raw: bytes, arrival_ns: int, buffers: FrameBuffers | None
    ) -> Iterator[Frame | FrameFault]:
        """Yield what a message gives: a frame, faults, both, or nothing."""
        try:
            message = decode(raw)
        except BadMessage as error:
            yield self._undecodable(error, arrival_ns)
            return
        if (stale := self._stale_reason(message.series)) is not None:
            if message.series not in self._stale:
                self._stale.add(message.series)
                yield FrameFault(index=None, reason=stale, arrival_ns=arrival_ns)
            return
        match message:
            case EndMessage():
                yield from self._end(message, arrival_ns)
            case StartMessage():
                yield from self._enter(message.series, arrival_ns)
                self._of(message.series).channels = message.channels
            case ImageMessage():
                yield from self._enter(message.series, arrival_ns)
                yield from self._image(message, arrival_ns, buffers)

    def _undecodable(self, error: BadMessage, arrival_ns: int) -> FrameFault:
        image_id, series = error.image_id, self._series
        if image_id is None:
            return FrameFault(
                index=None, reason=f"what came {error}; left out", arrival_ns=arrival_ns
            )
        if series is not None and image_id > (-1 if series.last_id is None else series.last_id):
            # It came, whatever it is worth: no step of the counter is missing.
            series.last_id = image_id
            self._highest = max(self._highest, series.base + image_id)
        return FrameFault(
            index=(0 if series is None else series.base) + image_id,
            reason=f"image {image_id} {error}; left out",
            arrival_ns=arrival_ns,
        )

    # --- series ------------------------------------------------------------------------------

    def _stale_reason(self, key: SeriesKey) -> str | None:
        if self._armed is None or self._series is not None or key.series_id == self._armed:
            return None
        return (
            f"messages of series {key.series_id} were still in the detector's queue; this "
            f"recording is series {self._armed}, so they are left out"
        )

    def _of(self, key: SeriesKey) -> _Series:
        if self._series is None or self._series.key != key:
            self._series = _Series(key, self._highest + 1)
            self._stride = _Stride()
        return self._series

    def _enter(self, key: SeriesKey, arrival_ns: int) -> Iterator[FrameFault]:
        """Note the series of a message, and say so where it is another one than before."""
        before = self._series
        series = self._of(key)
        if before is None or before is series:
            return
        series.date = before.date
        series.shift_ns = before.shift_ns
        series.channels = before.channels
        yield FrameFault(
            index=series.base,
            reason=f"series {key.series_id} began while series {before.key.series_id} was "
            f"recorded: somebody armed the detector anew. Its images count on from "
            f"{series.base}, and its stamps go on by the difference of the two series' dates, "
            "which are known to 1 ms",
            arrival_ns=arrival_ns,
        )

    def _end(self, message: EndMessage, arrival_ns: int) -> Iterator[FrameFault]:
        series = self._series
        if series is None and self._armed is None:
            yield FrameFault(
                index=None,
                reason=f"the end of series {message.series.series_id} came, of which nothing "
                "else was seen; waiting for the next series",
                arrival_ns=arrival_ns,
            )
        elif series is not None and series.key != message.series:
            yield FrameFault(
                index=None,
                reason=f"the end of series {message.series.series_id} came while series "
                f"{series.key.series_id} is recorded; the recording goes on",
                arrival_ns=arrival_ns,
            )
        else:
            self.ended = True

    # --- images ------------------------------------------------------------------------------

    def _image(
        self, message: ImageMessage, arrival_ns: int, buffers: FrameBuffers | None
    ) -> Iterator[Frame | FrameFault]:
        series = self._of(message.series)
        yield from self._count(series, message, arrival_ns)
        index = series.base + message.image_id
        if index <= self._highest:
            yield FrameFault(
                index=index,
                reason=f"image {message.image_id} came again, or late; left out",
                arrival_ns=arrival_ns,
            )
            return
        self._highest = index
        series.last_id, series.last_start = message.image_id, message.start.count
        yield from self._compare_times(series, message, arrival_ns)
        name = self._channel(series, message)
        yield from self._mention_channels(name, message, index, arrival_ns)
        start_ns = message.start.ns + series.shift_ns
        self._last_stop_ns = start_ns + message.exposure_ns
        try:
            pixels = self._pixels(message, name)
        except BadMessage as error:
            yield FrameFault(
                index=index,
                reason=f"image {message.image_id} {error}; left out",
                arrival_ns=arrival_ns,
            )
            return
        lost = index - self._last_kept - 1 if self._counts_from_start(series) else 0
        self._last_kept = index
        yield Frame(
            FrameInfo(
                index=index,
                device_start_ns=start_ns,
                exposure_ns=message.exposure_ns,
                dropped_before=lost,
                arrival_ns=arrival_ns,
            ),
            _kept(pixels, buffers),
        )

    def _counts_from_start(self, series: _Series) -> bool:
        """Tell whether images before the first one kept were ever ours to have."""
        return self._last_kept >= 0 or self._armed is not None or bool(series.channels)

    def _count(
        self, series: _Series, message: ImageMessage, arrival_ns: int
    ) -> Iterator[FrameFault]:
        """Compare a counter with the one before, and say what is wrong with it."""
        if series.last_id is None:
            return
        if message.image_id <= series.last_id:
            if message.start.count <= series.last_start:
                return
            # Later in time, earlier in count: the counter began anew.
            self._stride = _Stride()
            series.base = self._highest + 1
            yield FrameFault(
                index=series.base,
                reason=f"the detector's counter fell from {series.last_id} to "
                f"{message.image_id} while its time went on; images count on from {series.base}",
                arrival_ns=arrival_ns,
            )
            return
        step = self._stride.told(message.image_id - series.last_id)
        if step is not None:
            yield FrameFault(
                index=series.base + message.image_id,
                reason=f"only one image in {step} arrives (image_id strides by {step}): another "
                "listener is connected to the detector's stream port and takes the others, as "
                "messages are dealt out in turn. Disconnect it",
                arrival_ns=arrival_ns,
            )

    def _compare_times(
        self, series: _Series, message: ImageMessage, arrival_ns: int
    ) -> Iterator[FrameFault]:
        """Take over a series' time base and date, and say what does not fit."""
        base_Hz = message.start.base_Hz
        if series.time_base_Hz is None:
            yield from self._place(series, message, arrival_ns)
        elif series.time_base_Hz != base_Hz:
            yield FrameFault(
                index=self._highest,
                reason=f"from image {message.image_id} on, times count in ticks of {base_Hz} Hz "
                f"instead of {series.time_base_Hz} Hz; a series should have one time base",
                arrival_ns=arrival_ns,
            )
        series.time_base_Hz = base_Hz

    def _place(
        self, series: _Series, message: ImageMessage, arrival_ns: int
    ) -> Iterator[FrameFault]:
        """Move the stamps of a series behind those of the series before."""
        before, series.date = series.date, message.series_date
        if self._last_stop_ns < 0:
            return
        if before is not None and series.date is not None:
            series.shift_ns += (series.date - before) // timedelta(microseconds=1) * 1000
        late_ns = self._last_stop_ns - (message.start.ns + series.shift_ns)
        placed = before is not None and series.date is not None and late_ns <= DATE_NS
        if late_ns > 0 or not placed:
            series.shift_ns += late_ns
        if not placed:
            yield FrameFault(
                index=self._highest,
                reason=f"the dates of the two series ({before} and {series.date}) do not place "
                f"image {message.image_id} behind the last one; its stamp is where that ended",
                arrival_ns=arrival_ns,
            )

    def _channel(self, series: _Series, message: ImageMessage) -> str:
        """Return the channel that is recorded: the first that the detector names."""
        return next((name for name in series.channels if name in message.data), None) or next(
            iter(message.data)
        )

    def _mention_channels(
        self, name: str, message: ImageMessage, index: int, arrival_ns: int
    ) -> Iterator[FrameFault]:
        before, self._channel_name = self._channel_name, name
        if before == name:
            return
        others = [other for other in message.data if other != name]
        if before is not None:
            reason = f"from here on the channel {name} is recorded instead of {before}"
        elif others:
            reason = f"the channel {name} is recorded; {', '.join(others)} come too and are not"
        else:
            return
        yield FrameFault(index=index, reason=reason, arrival_ns=arrival_ns)

    def _pixels(self, message: ImageMessage, name: str) -> NDArray[np.generic]:
        return unpack(message.data[name], self._info.height, self._info.width, self._dtype)


def _kept(pixels: NDArray[np.generic], buffers: FrameBuffers | None) -> NDArray[np.generic]:
    if buffers is None:
        return pixels
    buffer = buffers.take()
    buffer[...] = pixels
    return buffer


class _Stride:
    """Watches for steps of the counter that are all the same, and more than one."""

    def __init__(self) -> None:
        self._step = 1
        self._times = 0

    def told(self, step: int) -> int | None:
        """Return the stride where it has just become certain, else None."""
        self._times = self._times + 1 if step == self._step else 1
        self._step = step
        return step if step > 1 and self._times == STRIDES_TOLD else None
