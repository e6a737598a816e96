"""Merlin ``.mib``: frames that each begin with a header of comma text.

``MQ1``, the counter, the bytes of the header, chips, width, height, type of pixels, layout,
mask, the local time, the exposure in s, ... and, since their tail was added, ``MQ1A``, the
time in UTC, the exposure in ns, and the depth of the counter. Pixels are big-endian.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, Records, find_records, frame_in, read_start
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.files.times import date_to_ns, seconds_to_ns
from cameras.records import StampKind

PIXELS = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
TAIL = "MQ1A"
MAX_HEADER = 4096
COUNTER_DIGITS = 6
UTC, LOCAL = "camera UTC", "camera local time"


@dataclass(frozen=True, slots=True)
class _Head:
    counter: int
    digits: int
    alike: tuple[str, ...]  # what must not change from frame to frame
    stamp: str
    stamp_ns: int
    clock: str
    exposure_ns: int


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read files of a Merlin detector as one series.

    Raises
    ------
    FrameFileError
        One is no such file, is in the raw order of the chips, or a header is damaged.
    """
    digits: set[int] = set()

    def read_one(path: Path) -> FilePart:
        part, found = _part(path)
        digits.update(found)
        return part

    parts = read_parts(paths, read_one)
    # A field that has grown does not run over.
    modulus = 10**COUNTER_DIGITS if digits == {COUNTER_DIGITS} else None
    return join_parts(parts, model="Merlin", modulus=modulus)


def _part(path: Path) -> tuple[FilePart, set[int]]:
    width, height, stored, header_bytes = _shape(path)
    records = find_records(path, 0, header_bytes + height * width * stored.itemsize)
    heads = _heads(path, records, header_bytes)
    stamps_ns = np.array([head.stamp_ns for head in heads], np.int64)
    part = FilePart(
        path=path,
        count=records.count,
        height=height,
        width=width,
        dtype=stored.newbyteorder("=").name,
        load=RawPixels(
            path=path,
            offsets=records.offsets + header_bytes,
            height=height,
            width=width,
            stored=stored,
        ),
        stamps=FrameStamps(
            raw=np.array([head.stamp for head in heads]),
            device_ns=stamps_ns,
            exposure_ns=np.array([head.exposure_ns for head in heads], np.int64),
            kind=StampKind.UNKNOWN,
            clock=heads[0].clock,
            resolution_ns=_resolution_ns(heads),
        ),
        counter=np.array([head.counter for head in heads], np.int64),
        assumptions=(*_said(path, heads), *records.assumptions),
    )
    return part, {head.digits for head in heads}


def _shape(path: Path) -> tuple[int, int, np.dtype[np.generic], int]:
    fields = read_start(path, MAX_HEADER).partition(b"\0")[0].decode("latin-1").split(",")
    if fields[0] != "MQ1" or len(fields) < 11:
        raise FrameFileError(f"{path}: is no .mib file: it does not begin with an MQ1 header")
    if fields[6] == "R64":
        raise FrameFileError(
            f"{path}: holds R64, the raw order of the chips' bits; save it again as U08, U16 "
            "or U32 with Merlin's own software"
        )
    if fields[6] not in PIXELS:
        raise FrameFileError(
            f"{path}: pixels are {fields[6]!r}, and not one of {', '.join(PIXELS)}"
        )
    try:
        header_bytes, width, height = int(fields[2]), int(fields[4]), int(fields[5])
    except ValueError as error:
        raise FrameFileError(f"{path}: size of header or frame is no number: {error}") from error
    if min(width, height) < 1 or not 64 <= header_bytes <= MAX_HEADER:
        raise FrameFileError(
            f"{path}: a header of {header_bytes} bytes before {width} x {height} pixels cannot be"
        )
    return width, height, np.dtype(PIXELS[fields[6]]), header_bytes


def _heads(path: Path, records: Records, header_bytes: int) -> list[_Head]:
    texts = records.fields(np.dtype(f"S{header_bytes}"))
    heads: list[_Head] = []
    for i, text in enumerate(texts):
        fields = bytes(text).decode("latin-1").rstrip("\0 ").split(",")
        if fields[0] != "MQ1" or len(fields) < 11:
            raise FrameFileError(
                f"{frame_in(path, i)}: does not begin with MQ1: bytes are missing before it"
            )
        try:
            head = _head(fields)
        except ValueError as error:
            raise FrameFileError(f"{frame_in(path, i)}: its header is damaged: {error}") from error
        if heads and (head.alike, head.clock) != (heads[0].alike, heads[0].clock):
            raise FrameFileError(
                f"{frame_in(path, i)}: is {' '.join(head.alike)}, stamped in {head.clock}, and "
                f"frame 0 is {' '.join(heads[0].alike)} in {heads[0].clock}"
            )
        heads.append(head)
    return heads


def _head(fields: list[str]) -> _Head:
    if not fields[1].isdecimal():
        raise ValueError(f"the counter is {fields[1]!r}")
    stamp, clock, exposure_ns = fields[9], LOCAL, seconds_to_ns(fields[10])
    if TAIL in fields[11:]:
        tail = fields[fields.index(TAIL, 11) + 1 :]
        if len(tail) < 2 or not tail[1].endswith("ns") or not tail[1][:-2].isdecimal():
            raise ValueError(f"{TAIL} is followed by {','.join(tail[:2])!r}")
        stamp, clock, exposure_ns = tail[0], UTC, int(tail[1][:-2])
    return _Head(
        counter=int(fields[1]),
        digits=len(fields[1]),
        alike=(fields[4], fields[5], fields[6], fields[2]),
        stamp=stamp,
        stamp_ns=date_to_ns(stamp),
        clock=clock,
        exposure_ns=exposure_ns,
    )


def _resolution_ns(heads: list[_Head]) -> int:
    """Return the step of the last digit that is used."""
    decimals = max(len(head.stamp.rstrip("Z").partition(".")[2].rstrip("0")) for head in heads)
    # A single frame may end in zeros by chance.
    step: int = 10 ** (9 - min(max(decimals, 6), 9))
    return step


def _said(path: Path, heads: list[_Head]) -> tuple[str, ...]:
    if heads[0].clock == UTC:
        return ()
    return (
        f"{path.name}: headers have no {TAIL} tail: stamps are the computer's local time, "
        "whose zone is not in the file",
    )
