"""Messages of DECTRIS' stream v2 as a detector writes them: CBOR tags and compression.

The compressors are plain and slow, and write what the maker's own library unpacks:
bitshuffle and LZ4 blocks in the framing of their HDF5 filters.
"""

import struct
from datetime import datetime
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 8192
SELF_DESCRIBED = 55799
TAGS = {"uint8": 64, "uint16": 69, "uint32": 70, "float32": 85}
MIN_RUN = 8  # equal bytes that are worth a match
LAST_LITERALS = 12  # of a block: no match may begin there


def lz4_block(raw: bytes) -> bytes:
    """Return an LZ4 block; the only matches that it finds are runs of one byte."""
    data = np.frombuffer(raw, np.uint8)
    edges = np.flatnonzero(np.diff(data)) + 1
    starts = np.concatenate([[0], edges])
    stops = np.minimum(np.concatenate([edges, [len(data)]]), len(raw) - LAST_LITERALS)
    long = stops - starts >= MIN_RUN
    out = bytearray()
    done = 0
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        # The first of the run is written, the others repeat the byte before.
        _sequence(out, raw[done : start + 1], stop - start - 1)
        done = stop
    _sequence(out, raw[done:], None)
    return bytes(out)


def _sequence(out: bytearray, literals: bytes, match: int | None) -> None:
    more = 0 if match is None else match - 4
    out.append(min(len(literals), 15) << 4 | min(more, 15))
    _length(out, len(literals))
    out += literals
    if match is not None:
        out += struct.pack("<H", 1)
        _length(out, more)


def _length(out: bytearray, value: int) -> None:
    value -= 15
    while value >= 255:
        out.append(255)
        value -= 255
    if value >= 0:
        out.append(value)


def compress_lz4(raw: bytes) -> bytes:
    """Return bytes in the framing of the LZ4 filter of HDF5."""
    out = bytearray(struct.pack(">QI", len(raw), BLOCK_BYTES))
    for start in range(0, len(raw), BLOCK_BYTES):
        block = raw[start : start + BLOCK_BYTES]
        packed = lz4_block(block)
        if len(packed) >= len(block):
            packed = block  # the filter stores what does not shrink
        out += struct.pack(">I", len(packed)) + packed
    return bytes(out)


def compress_bslz4(raw: bytes, element_bytes: int) -> bytes:
    """Return bytes in the framing of the bitshuffle filter of HDF5, with LZ4."""
    out = bytearray(struct.pack(">QI", len(raw), BLOCK_BYTES))
    group = 8 * element_bytes  # shuffled are whole groups of eight elements
    whole = len(raw) - len(raw) % group
    for start in range(0, whole, BLOCK_BYTES):
        packed = lz4_block(_bit_shuffled(raw[start : min(start + BLOCK_BYTES, whole)], group // 8))
        out += struct.pack(">I", len(packed)) + packed
    return bytes(out) + raw[whole:]


def _bit_shuffled(raw: bytes, element_bytes: int) -> bytes:
    elements = np.frombuffer(raw, np.uint8).reshape(-1, element_bytes)
    bits = np.unpackbits(elements, axis=1, bitorder="little")
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()


def array_item(pixels: NDArray[Any], compression: str) -> cbor2.CBORTag:
    """Return an image as tag 40 around a typed array, little-endian."""
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    raw = little.tobytes()
    size = pixels.dtype.itemsize
    content: Any = raw
    if compression == "bslz4":
        content = cbor2.CBORTag(56500, ["bslz4", size, compress_bslz4(raw, size)])
    elif compression == "lz4":
        content = cbor2.CBORTag(56500, ["lz4", 0, compress_lz4(raw)])
    elif compression != "none":  # some other algorithm: only its name matters
        content = cbor2.CBORTag(56500, [compression, size, raw])
    typed = cbor2.CBORTag(TAGS[pixels.dtype.name], content)
    return cbor2.CBORTag(40, [list(pixels.shape), typed])


def message(kind: str, series_id: int, **fields: Any) -> bytes:
    """Return a message; like the detector's it begins with the tag of CBOR itself."""
    whole = {
        "type": kind,
        "series_id": series_id,
        "series_unique_id": f"SIMULATED{series_id:017d}",
        **fields,
    }
    return cbor2.dumps(cbor2.CBORTag(SELF_DESCRIBED, whole))


def image_message(
    series_id: int,
    image_id: int,
    ticks: tuple[int, int],
    data: dict[str, Any],
    *,
    base_Hz: int,
    series_date: datetime,
) -> bytes:
    """Return an image message.

    Parameters
    ----------
    ticks
        Begin and end of the exposure, since the date of the series.
    data
        What `array_item` gives, by channel.
    """
    start, stop = ticks
    return message(
        "image",
        series_id,
        image_id=image_id,
        series_date=cbor2.CBORTag(0, series_date.isoformat(timespec="milliseconds")),
        start_time=[start, base_Hz],
        stop_time=[stop, base_Hz],
        real_time=[stop - start, base_Hz],
        data=data,
    )
