"""The messages of DECTRIS' stream v2: CBOR in, plain records out, pixels unpacked on demand.

A message is one CBOR map. Arrays are tag 40 (dimensions, typed array), typed arrays are
tags 64 to 87 of RFC 8746, and tag 56500 stands for compressed bytes anywhere.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import cbor2
import numpy as np
from dectris.compression import decompress  # type: ignore[import-untyped]
from numpy.typing import NDArray

ARRAY_TAG = 40
COMPRESSED_TAG = 56500
ALGORITHMS = ("bslz4", "lz4")
MAX_TICKS = 2**62  # of nanoseconds, too: 146 years
NS = 10**9
_TOO_MUCH = (OverflowError, MemoryError, RecursionError)

# 76 is reserved; 83 and 87 are numbers of 128 bits, which NumPy does not have everywhere.
_TYPED_ARRAYS = {
    tag: np.dtype(name)
    for tag, name in (
        *((64, "u1"), (65, ">u2"), (66, ">u4"), (67, ">u8")),
        *((68, "u1"), (69, "<u2"), (70, "<u4"), (71, "<u8")),
        *((72, "i1"), (73, ">i2"), (74, ">i4"), (75, ">i8")),
        *((77, "<i2"), (78, "<i4"), (79, "<i8")),
        *((80, ">f2"), (81, ">f4"), (82, ">f8"), (84, "<f2"), (85, "<f4"), (86, "<f8")),
    )
}


class BadMessage(Exception):
    """A message makes no sense.

    Parameters
    ----------
    image_id
        The detector's counter; None where it could not be read.
    """

    def __init__(self, reason: str, image_id: int | None = None) -> None:
        super().__init__(reason)
        self.image_id = image_id


@dataclass(frozen=True, slots=True)
class Ticks:
    """A time as the detector gives it: a whole number of ticks of its time base."""

    count: int
    base_Hz: int

    @property
    def ns(self) -> int:
        """The nearest whole nanosecond, half up; exact where a tick is a whole number."""
        return (2 * self.count * NS + self.base_Hz) // (2 * self.base_Hz)

    def since(self, other: "Ticks") -> "Ticks":
        """Return the time that has passed since another of the same base."""
        return Ticks(self.count - other.count, self.base_Hz)


@dataclass(frozen=True, slots=True)
class Compressed:
    """Tag 56500: bytes that are still compressed."""

    algorithm: Any
    element_bytes: Any
    content: Any


@dataclass(frozen=True, slots=True)
class TypedArray:
    """Numbers of one type, perhaps compressed."""

    dtype: np.dtype[Any]
    content: Any


@dataclass(frozen=True, slots=True)
class PackedArray:
    """Tag 40: an array in row-major order whose numbers are not unpacked yet."""

    shape: Any
    content: Any


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """Which series a message belongs to."""

    series_id: int
    unique_id: str


@dataclass(frozen=True, slots=True)
class StartMessage:
    """A series was armed."""

    series: SeriesKey
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageMessage:
    """One exposure; times count from ``series_date``."""

    series: SeriesKey
    image_id: int
    start: Ticks
    stop: Ticks
    series_date: datetime | None
    data: dict[str, Any]

    @property
    def exposure_ns(self) -> int:
        """Length of the exposure, rounded once."""
        return self.stop.since(self.start).ns


@dataclass(frozen=True, slots=True)
class EndMessage:
    """A series has ended."""

    series: SeriesKey


Message = StartMessage | ImageMessage | EndMessage


def decode(raw: bytes) -> Message:
    """Return what a message says; pixels stay packed.

    Raises
    ------
    BadMessage
        It is no message of stream v2, or lacks something.
    """
    try:
        message = cbor2.loads(raw, tag_hook=_tag)
    except (cbor2.CBORDecodeError, ValueError, TypeError, *_TOO_MUCH) as error:
        raise BadMessage(f"is {len(raw)} bytes that are no CBOR ({error})") from error
    # Behind the tag of CBOR itself, cbor2 6 gives a frozen map.
    if not isinstance(message, Mapping):
        raise BadMessage(f"is a {type(message).__name__} instead of a map")
    match message.get("type"):
        case "image":
            return _image(message)
        case "start":
            channels = message.get("channels")
            names = channels if isinstance(channels, list | tuple) else ()
            return StartMessage(_series(message), tuple(map(str, names)))
        case "end":
            return EndMessage(_series(message))
        case kind:
            raise BadMessage(f"is a message of type {kind!r}; known are start, image and end")


def unpack(packed: Any, height: int, width: int, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Return an array's numbers; they must be what the recording is made of.

    Raises
    ------
    BadMessage
        Another shape or type, a compression that is not known, or one that fails.
    """
    if not isinstance(packed, PackedArray) or not isinstance(packed.content, TypedArray):
        raise BadMessage("its data are no typed array of two dimensions")
    shape, array = packed.shape, packed.content
    if not isinstance(shape, list | tuple) or list(shape) != [height, width]:
        raise BadMessage(f"has shape {_shape_text(shape)} instead of {height} x {width}")
    if array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise BadMessage(f"has pixels of type {array.dtype.name} instead of {dtype.name}")
    size = height * width * dtype.itemsize
    content = array.content
    if isinstance(content, Compressed):
        content = _decompressed(content, size)
    if not isinstance(content, bytes) or len(content) != size:
        held = len(content) if isinstance(content, bytes) else "no"
        raise BadMessage(f"has {held} bytes of pixels instead of {size}")
    pixels = np.frombuffer(content, array.dtype).reshape(height, width)
    return pixels if array.dtype.isnative else pixels.astype(dtype)


def _shape_text(shape: Any) -> str:
    return " x ".join(map(str, shape)) if isinstance(shape, list | tuple) else repr(shape)


def _decompressed(packed: Compressed, size: int) -> bytes:
    if packed.algorithm not in ALGORITHMS:
        raise BadMessage(
            f"is compressed with {packed.algorithm!r}; known are {' and '.join(ALGORITHMS)}"
        )
    content = packed.content
    # The length stands in front: what it claims is not allocated unseen.
    if not isinstance(content, bytes) or len(content) < 12:
        raise BadMessage(f"is no {packed.algorithm} data")
    (claimed,) = struct.unpack_from(">Q", content)
    if claimed != size:
        raise BadMessage(f"unpacks to {claimed} bytes instead of {size}")
    try:
        return bytes(decompress(content, packed.algorithm, elem_size=packed.element_bytes))
    except (RuntimeError, ValueError, TypeError, *_TOO_MUCH) as error:
        raise BadMessage(f"cannot be unpacked as {packed.algorithm} ({error})") from error


def _tag(first: Any, second: Any) -> Any:
    # Before cbor2 6.0 a hook is called with (decoder, tag), since then with (tag, immutable).
    tag = first if isinstance(first, cbor2.CBORTag) else second
    value = tag.value
    if (dtype := _TYPED_ARRAYS.get(tag.tag)) is not None:
        return TypedArray(dtype, value)
    if tag.tag == ARRAY_TAG and _is_row(value, 2):
        return PackedArray(*value)
    if tag.tag == COMPRESSED_TAG and _is_row(value, 3):
        return Compressed(*value)
    return tag


def _is_row(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _image(message: Mapping[Any, Any]) -> ImageMessage:
    image_id = _whole(message, "image_id", None)
    data = message.get("data")
    if not isinstance(data, Mapping) or not data:
        raise BadMessage("has no data", image_id)
    start = _ticks(message, "start_time", image_id)
    stop = _ticks(message, "stop_time", image_id)
    if start.base_Hz != stop.base_Hz:
        raise BadMessage(
            f"begins in ticks of {start.base_Hz} Hz and ends in ticks of {stop.base_Hz} Hz",
            image_id,
        )
    if stop.count <= start.count:
        raise BadMessage(f"has an exposure of {stop.count - start.count} ticks", image_id)
    date = message.get("series_date")
    return ImageMessage(
        series=_series(message, image_id),
        image_id=image_id,
        start=start,
        stop=stop,
        # A date without a zone could not be compared with one that has it.
        series_date=date if isinstance(date, datetime) and date.tzinfo is not None else None,
        data={str(name): packed for name, packed in data.items()},
    )


def _series(message: Mapping[Any, Any], image_id: int | None = None) -> SeriesKey:
    unique = message.get("series_unique_id")
    return SeriesKey(
        _whole(message, "series_id", image_id), unique if isinstance(unique, str) else ""
    )


def _whole(message: Mapping[Any, Any], name: str, image_id: int | None) -> int:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_TICKS:
        raise BadMessage(f"has {name} = {_brief(value)}, which is no counter", image_id)
    return value


def _ticks(message: Mapping[Any, Any], name: str, image_id: int) -> Ticks:
    value = message.get(name)
    if isinstance(value, list | tuple) and len(value) == 2:
        count, base_Hz = value
        whole = all(isinstance(part, int) and not isinstance(part, bool) for part in value)
        if whole and base_Hz > 0 and 0 <= count < MAX_TICKS and count * NS < base_Hz * MAX_TICKS:
            return Ticks(count, base_Hz)
    raise BadMessage(f"has {name} = {_brief(value)}, which is no time", image_id)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
