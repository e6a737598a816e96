"""Which frame of a recording each header of a Merlin detector belongs to, and what is wrong."""

from dataclasses import dataclass

from cameras.mib_header import MibHeader
from cameras.records import FrameInfo

WRAP = 1_000_000  # of a counter that is written with six digits
ADVANCE = 1.5  # of the last period: a counter that wrapped to 1 has lost nothing before that

_State = tuple[int, int | None, int, int | None, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MerlinFrameInfo(FrameInfo):
    """A frame's stamps, with the header that they were read from."""

    header: MibHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a frame belongs.

    Parameters
    ----------
    problems
        What is wrong with its header.
    usable
        False where its pixels are not those of this recording.
    """

    index: int
    dropped_before: int
    problems: tuple[str, ...]
    usable: bool


class FrameCount:
    """Numbers the frames of a recording by the detector's counter.

    The counter begins at 1 with each acquisition, and has six digits. A repeated frame and
    one that comes late keep their own number, and nothing is lost before them.

    Parameters
    ----------
    height, width, dtype
        Of a frame of this recording.
    """

    def __init__(self, *, height: int, width: int, dtype: str) -> None:
        self._wanted = (height, width, dtype)
        self._base = 0  # what is added to the counter
        self._base_before: int | None = None  # the same before the last wrap
        self._counter = 0  # of the frame with the largest index
        self._index: int | None = None
        self._stamp_ns = self._period_ns = 0
        self._local_time_told = False
        self._before = self._state()

    @property
    def index(self) -> int | None:
        """The largest index so far."""
        return self._index

    def _state(self) -> _State:
        place = (self._base, self._base_before, self._counter)
        return (*place, self._index, self._stamp_ns, self._period_ns)

    def take_back(self) -> None:
        """Forget the last frame that was placed: it is left out, or has not come whole.

        The next one then counts it among what is missing before it.
        """
        (self._base, self._base_before, self._counter) = self._before[:3]
        (self._index, self._stamp_ns, self._period_ns) = self._before[3:]

    def begin_acquisition(self) -> str | None:
        """Note that the counter begins anew; return what there is to tell."""
        told = None
        if not self._index:
            self._index = 0  # the counter runs from 1: what lacks before is lost
        else:
            self._base, self._base_before = self._index, None
            told = (
                f"a new acquisition began after frame {self._index}; its counter begins at 1 and "
                "is counted on from there. What was exposed between them is not known"
            )
        self._counter, self._period_ns = 0, 0
        return told

    def place(self, header: MibHeader) -> Place:
        """Return where a frame belongs."""
        self._before = self._state()
        problems = [] if (wrong := self._wrong_pixels(header)) is None else [wrong]
        usable = not problems
        if not header.stamp_is_utc and not self._local_time_told:
            self._local_time_told = True
            problems.append(
                "frame headers have no UTC time; the local time of the detector's PC is taken, "
                "which jumps when its clock is set"
            )
        index = self._unwrapped(header)
        last = self._index
        if last is None or index > last:
            dropped = 0 if last is None else index - last - 1
            problems += self._backward(header, index)
            self._period_ns = header.stamp_ns - self._stamp_ns if last else 0
            self._stamp_ns = header.stamp_ns
            self._index, self._counter = index, header.sequence
        else:
            dropped = 0
        if not usable:
            self.take_back()
        return Place(index=index, dropped_before=dropped, problems=tuple(problems), usable=usable)

    def _unwrapped(self, header: MibHeader) -> int:
        counter, leap = header.sequence, header.sequence - self._counter
        if header.sequence_digits <= 6 and leap < -WRAP // 2:
            # Whether 0 or 1 follows 999999 is not documented: the stamp tells.
            step_ns = header.stamp_ns - self._stamp_ns
            is_next = (self._counter, counter) == (WRAP - 1, 1)
            to_one = is_next and 0 < step_ns < ADVANCE * self._period_ns
            self._base_before = self._base
            self._base += WRAP - 1 if to_one else WRAP
        elif leap > WRAP // 2 and self._base_before is not None:
            return counter + self._base_before  # came late, from before the wrap
        return counter + self._base

    def _backward(self, header: MibHeader, index: int) -> list[str]:
        back_ns = self._stamp_ns - header.stamp_ns
        if self._index in (None, 0) or back_ns < 0:
            return []
        return [
            f"the stamp of frame {index} ({header.stamp_text}) is {back_ns} ns before that of "
            f"frame {self._index}: the detector's clock was set back, or stands; the frame is kept"
        ]

    def _wrong_pixels(self, header: MibHeader) -> str | None:
        found = (header.height, header.width, header.dtype or header.pixel_code)
        if found == self._wanted:
            return None
        (height, width, dtype), (its_height, its_width, its_dtype) = self._wanted, found
        return (
            f"a frame of {its_height} x {its_width} {its_dtype} where the detector announced "
            f"{height} x {width} {dtype}; it is left out"
        )
