"""Whether a file that another program writes is whole, by what its own header says.

A length that fits is needed, and not always enough: a writer can reserve the whole length
first and fill it afterwards, and some formats end wherever they end. Who asks also waits
for the file to be closed, or to rest.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

MAX_PAGES = 1_000_000
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MRC_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 101: 4}
_MIB_BYTES = {b"U08": 1, b"U16": 2, b"U32": 4}
_SER_BYTES = {1: 1, 2: 2, 3: 4, 4: 1, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 16}
_TIFF_SIZES = {3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8)}
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips and of tiles


class Whole(StrEnum):
    """How much a file's own header vouches for."""

    YES = "yes"  # all that it announces is there
    SO_FAR = "so far"  # whole frames, and nothing says whether more are to come
    NO = "no"


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a file found; ``reason`` says what is missing."""

    whole: Whole
    reason: str = ""


class _Short(Exception):
    """Something is missing; says what."""


def look(path: Path) -> Look:
    """Tell whether a file holds all that its header announces.

    Raises
    ------
    OSError
        It cannot be opened.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            return Look(Whole.NO, "is empty")
        check = _CHECKS.get(path.suffix.lower())
        if check is None:
            return Look(Whole.SO_FAR)
        try:
            return Look(check(file, size))
        except _Short as short:
            return Look(Whole.NO, str(short))


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if at + count > size:  # a damaged header may ask for more than memory or disks hold
        raise _Short(f"ends within its header, at {size} bytes")
    file.seek(at)
    found = file.read(count)
    if len(found) < count:
        raise _Short(f"ends within its header, at {at + len(found)} bytes")
    return found


def _reach(size: int, wanted: int) -> None:
    if size < wanted:
        raise _Short(f"has {size} of the {wanted} bytes that its header announces")


def _frames_of(size: int, header: int, frame: int) -> Whole:
    """Judge a file that is whole frames after its header, as many as there are."""
    over = (size - header) % frame
    if size < header + frame or over:
        missing = header + frame - size if size < header + frame else frame - over
        raise _Short(f"lacks {missing} bytes of a frame of {frame}")
    return Whole.SO_FAR


# --- one for each format ---------------------------------------------------------------------


def _tiff(file: BinaryIO, size: int) -> Whole:
    start = _read(file, 0, 8)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack(f"{order}H", start[2:4])[0] if order else 0
    if order is None or version not in (42, 43):
        raise _Short("does not begin as a TIFF file does")
    big = version == 43
    at = int(struct.unpack(f"{order}Q", _read(file, 8, 8))[0]) if big else 0
    if not big:
        at = int(struct.unpack(f"{order}I", start[4:])[0])
    if at == 0:
        raise _Short("has no directory yet")
    verdict, seen = Whole.YES, set[int]()
    while at and at not in seen and len(seen) < MAX_PAGES:
        seen.add(at)
        ends, at = _tiff_page(file, size, at, order, big=big)
        if ends is None:
            verdict = Whole.SO_FAR
        else:
            _reach(size, ends)
    return verdict


def _tiff_page(
    file: BinaryIO, size: int, at: int, order: str, *, big: bool
) -> tuple[int | None, int]:
    """Return where a page's pixels end, None if it does not say, and where the next page is."""
    count_size, entry_size, pointer = (8, 20, "Q") if big else (2, 12, "I")
    count = int(struct.unpack(order + "HQ"[big], _read(file, at, count_size))[0])
    _reach(size, at + count_size + count * entry_size + struct.calcsize(pointer))
    entries = _read(file, at + count_size, count * entry_size)
    following = struct.unpack(
        order + pointer, _read(file, at + count_size + len(entries), struct.calcsize(pointer))
    )
    values: dict[int, list[int]] = {}
    for entry in range(0, len(entries), entry_size):
        tag, kind = struct.unpack(f"{order}HH", entries[entry : entry + 4])
        if tag in _OFFSETS + _COUNTS and kind in _TIFF_SIZES:
            values[tag] = _tiff_values(
                file, entries[entry + 4 : entry + entry_size], order, kind, big=big
            )
    ends = [
        start + length
        for a, b in zip(_OFFSETS, _COUNTS, strict=True)
        for start, length in zip(values.get(a, ()), values.get(b, ()), strict=False)
    ]
    if any(0 in values.get(tag, ()) for tag in _OFFSETS):
        raise _Short("does not say yet where its pixels are")
    return (max(ends) if ends else None), int(following[0])


def _tiff_values(file: BinaryIO, rest: bytes, order: str, kind: int, *, big: bool) -> list[int]:
    letter, width = _TIFF_SIZES[kind]
    pointer = "Q" if big else "I"
    count_size = struct.calcsize(pointer)
    count = int(struct.unpack(order + pointer, rest[:count_size])[0])
    inline = rest[count_size:]
    if count * width > len(inline):
        file_at = int(struct.unpack(order + pointer, inline)[0])
        _reach(file.seek(0, 2), file_at + count * width)
        inline = _read(file, file_at, count * width)
    return list(struct.unpack(f"{order}{count}{letter}", inline[: count * width]))


def _png(file: BinaryIO, size: int) -> Whole:
    if _read(file, 0, 8) != _PNG_START:
        raise _Short("does not begin as a PNG file does")
    if size >= 20 and _read(file, size - 12, 12) == _PNG_END:
        return Whole.YES
    at = 8
    while at + 12 <= size:
        length, kind = struct.unpack(">I4s", _read(file, at, 8))
        at += length + 12
        if kind == b"IEND" and at <= size:
            return Whole.YES
    raise _Short("has no end mark")


def _mrc(file: BinaryIO, size: int) -> Whole:
    header = _read(file, 0, 1024)
    order = ">" if header[212:214] == b"\x11\x11" else "<"
    width, height, frames, mode = struct.unpack(f"{order}4i", header[:16])
    (extended,) = struct.unpack(f"{order}i", header[92:96])
    if min(width, height, frames) < 1 or extended < 0 or mode not in _MRC_BITS:
        raise _Short("has no MRC header yet")
    wanted = 1024 + extended + frames * height * ((width * _MRC_BITS[mode] + 7) // 8)
    _reach(size, wanted)
    return Whole.YES if size == wanted else Whole.SO_FAR


def _mib(file: BinaryIO, size: int) -> Whole:
    fields = _read(file, 0, min(size, 384)).split(b",")
    try:
        start, _, header, _, width, height, kind, _ = fields[:8]
        frame = int(header) + int(width) * int(height) * _MIB_BYTES.get(kind, 0)
    except ValueError as error:
        raise _Short("has no Merlin header yet") from error
    if start != b"MQ1" or frame <= 0:
        raise _Short("does not begin as a Merlin file does")
    _reach(size, int(header))
    if kind not in _MIB_BYTES:  # raw: how it is packed is for the reader to know
        return Whole.SO_FAR
    return _frames_of(size, 0, frame)


def _dm(file: BinaryIO, size: int) -> Whole:
    # Unconfirmed: found by others in files; the maker tells nothing of the format.
    (version,) = struct.unpack(">I", _read(file, 0, 4))
    if version not in (3, 4):
        raise _Short("does not begin as a DM3 or DM4 file does")
    letter, others = (">I", 16) if version == 3 else (">Q", 24)
    (length,) = struct.unpack(letter, _read(file, 4, struct.calcsize(letter)))
    if length == 0:
        raise _Short("does not say yet how long it is")
    _reach(size, length + others)
    return Whole.YES


def _ser(file: BinaryIO, size: int) -> Whole:
    order, series, version, _, _, total, valid = struct.unpack("<3H4I", _read(file, 0, 22))
    if (order, series) != (0x4949, 0x0197):
        raise _Short("does not begin as a SER file does")
    letter, width = ("I", 4) if version < 0x0220 else ("Q", 8)
    (table,) = struct.unpack(f"<{letter}", _read(file, 22, width))
    if not (0 < valid <= total and table):
        raise _Short("has no whole element yet")
    _reach(size, table + 2 * total * width)
    offsets = struct.unpack(f"<{valid}{letter}", _read(file, table, valid * width))
    for at in {offsets[0], max(offsets)}:
        kind, columns, rows = struct.unpack("<H2I", _read(file, at + 40, 10))
        _reach(size, at + 50 + columns * rows * _SER_BYTES.get(kind, 1))
    return Whole.YES if valid == total else Whole.SO_FAR


def _tvips(file: BinaryIO, size: int) -> Whole:
    header, version, width, height, bits = struct.unpack("<5i", _read(file, 0, 20))
    if header not in (0, 256):  # a later part of a series: the first one has the header
        return Whole.SO_FAR
    (extra,) = struct.unpack("<i", _read(file, 48, 4)) if version > 1 else (12,)
    if min(header, width, height, bits) < 1 or extra < 0:
        raise _Short("has no TVIPS header yet")
    return _frames_of(size, 256, extra + width * height * bits // 8)


_CHECKS: dict[str, Callable[[BinaryIO, int], Whole]] = {
    ".tif": _tiff,
    ".tiff": _tiff,
    ".png": _png,
    ".mrc": _mrc,
    ".mrcs": _mrc,
    ".mib": _mib,
    ".dm3": _dm,
    ".dm4": _dm,
    ".ser": _ser,
    ".tvips": _tvips,
}


def known_suffixes() -> Iterator[str]:
    """Yield the suffixes of the formats whose headers are understood."""
    yield from _CHECKS
