"""The header in front of each frame of a Merlin (Medipix) detector, in its files and on its wire.

It is comma text of a fixed length: 384 bytes for one chip, 768 for four. What stands at its
front is followed by the settings of each chip, and those by a tail, ``MQ1A``, with the time to
the nanosecond. Which moment of the exposure that time marks, its maker does not say.
"""

import functools
from dataclasses import dataclass
from datetime import date

import numpy as np

from cameras.errors import FramingLost
from cameras.files.times import seconds_to_ns

PIXEL_TYPES = {"U08": "uint8", "U16": "uint16", "U32": "uint32"}
"""Pixels, big-endian; ``R64`` is the packed raw format, which is not read here."""

DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_FRONT = 11  # fields before those of the chips
_TAIL = ",MQ1A,"
_LEAST_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MibHeader:
    """What is said of a frame.

    Parameters
    ----------
    sequence, sequence_digits
        The counter, from 1, and how many digits it was written with.
    header_bytes
        Length of this header, before the pixels.
    pixel_code
        Such as ``"U08"``; see `PIXEL_TYPES`.
    layout
        How the chips are put together, such as ``"1x1"``, ``"2x2"``, ``"2x2G"``.
    stamp_text, stamp_ns
        As written, and in ns since 1970.
    stamp_is_utc
        False where there is no tail: the stamp is then the local time of the detector's PC,
        whose zone nobody knows.
    exposure_ns
        Length of the exposure.
    counter_depth
        Bits of the counters; None where there is no tail.
    """

    sequence: int
    sequence_digits: int
    header_bytes: int
    chips: int
    width: int
    height: int
    pixel_code: str
    layout: str
    stamp_text: str
    stamp_ns: int
    stamp_is_utc: bool
    exposure_ns: int
    counter_depth: int | None

    @property
    def dtype(self) -> str | None:
        """NumPy name of the pixel type; None where it is none that is read."""
        return PIXEL_TYPES.get(self.pixel_code)

    @property
    def pixel_bytes(self) -> int | None:
        """Size of the pixels; None where their type is none that is read."""
        dtype = self.dtype
        return None if dtype is None else self.width * self.height * np.dtype(dtype).itemsize


def parse_mib_header(data: bytes | bytearray | memoryview) -> MibHeader:
    """Read a header; what follows it in ``data`` is left alone.

    Raises
    ------
    FramingLost
        It is no such header; the message says what is wrong.
    """
    start = bytes(data[:40])
    if not start.startswith(b"MQ1,"):
        raise FramingLost(f"{start[:16]!r} is not the beginning of a Merlin frame")
    try:
        header_bytes = int(start.split(b",", 3)[2])
        if header_bytes < _LEAST_BYTES:
            raise ValueError(f"a header of {header_bytes} bytes cannot be")  # noqa: TRY301
        text = bytes(data[:header_bytes]).decode("ascii")
        if len(text) < header_bytes:
            raise ValueError(f"{len(text)} of {header_bytes} bytes")  # noqa: TRY301
        return _parsed(text, header_bytes)
    except (ValueError, IndexError, OverflowError) as error:
        raise FramingLost(f"a Merlin frame's header cannot be read: {error}") from error


def _parsed(text: str, header_bytes: int) -> MibHeader:
    front = text.split(",", _FRONT)
    found = text.rfind(_TAIL)
    if found >= 0:
        tail = text[found + len(_TAIL) :].split(",", 3)
        stamp_text, exposure_text, depth = tail[0], tail[1], int(tail[2].rstrip("\0 \r\n"))
        exposure_ns = _whole_ns(exposure_text)
    else:
        stamp_text, depth = front[9], None
        exposure_ns = seconds_to_ns(front[10])
    if not front[1].isdecimal():
        raise ValueError(f"the counter is {front[1]!r}")
    width, height = int(front[4]), int(front[5])
    if width <= 0 or height <= 0:
        raise ValueError(f"{height} x {width} pixels cannot be")
    if exposure_ns < 0:
        raise ValueError(f"an exposure of {exposure_ns} ns cannot be")
    return MibHeader(
        sequence=int(front[1]),
        sequence_digits=len(front[1]),
        header_bytes=header_bytes,
        chips=int(front[3]),
        width=width,
        height=height,
        pixel_code=front[6],
        layout=front[7].strip(),
        stamp_text=stamp_text,
        stamp_ns=stamp_ns(stamp_text),
        stamp_is_utc=found >= 0,
        exposure_ns=exposure_ns,
        counter_depth=depth,
    )


def _whole_ns(text: str) -> int:
    if not text.endswith("ns"):
        raise ValueError(f"an exposure of {text!r} has no unit that is known")
    return int(text[:-2])


def stamp_ns(text: str) -> int:
    """Return ns since 1970 of a stamp such as ``2020-05-18T14:51:49.971626178Z``.

    Integers all the way: a float of seconds would cost 0.2 us.

    Raises
    ------
    ValueError
        It is no such stamp.
    """
    day, clock, fraction = text[:10], text[11:19], text[20:].removesuffix("Z")
    if text[10:11] not in ("T", " ") or clock[2:6:3] != "::" or text[19:20] not in (".", ""):
        raise ValueError(f"{text!r} is no time")
    hour, minute, second = int(clock[:2]), int(clock[3:5]), int(clock[6:])
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 60 and len(fraction) <= 9):
        raise ValueError(f"{text!r} is no time")
    if fraction and not fraction.isdecimal():
        raise ValueError(f"{text!r} is no time")
    part_ns = int(fraction.ljust(9, "0"))
    return (_day_s(day) + hour * 3600 + minute * 60 + second) * 1_000_000_000 + part_ns


@functools.lru_cache(maxsize=8)
def _day_s(day: str) -> int:
    return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * DAY_S
