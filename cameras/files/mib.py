"""Merlin ``.mib``: frames that each begin with a header of comma text; see `cameras.mib_header`.

Pixels are big-endian.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cameras.errors import FramingLost
from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, Records, find_records, frame_in, read_start
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.mib_header import PIXEL_TYPES, MibHeader, parse_mib_header
from cameras.records import StampKind

MAX_HEADER = 4096
COUNTER_DIGITS = 6
UTC, LOCAL = "camera UTC", "camera local time"


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
    first, stored = _first(path)
    height, width, header_bytes = first.height, first.width, first.header_bytes
    records = find_records(path, 0, header_bytes + height * width * stored.itemsize)
    heads = _heads(path, records, header_bytes)
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
            raw=np.array([head.stamp_text for head in heads]),
            device_ns=np.array([head.stamp_ns for head in heads], np.int64),
            exposure_ns=np.array([head.exposure_ns for head in heads], np.int64),
            kind=StampKind.UNKNOWN,
            clock=_clock(first),
            resolution_ns=_resolution_ns(heads),
        ),
        counter=np.array([head.sequence for head in heads], np.int64),
        assumptions=(*_said(path, first), *records.assumptions),
    )
    return part, {head.sequence_digits for head in heads}


def _first(path: Path) -> tuple[MibHeader, np.dtype[np.generic]]:
    """Return the header at the front of a file, and the type of its pixels."""
    try:
        head = parse_mib_header(read_start(path, MAX_HEADER))
    except FramingLost as error:
        raise FrameFileError(f"{path}: is no .mib file: {error}") from error
    if head.pixel_code == "R64":
        raise FrameFileError(
            f"{path}: holds R64, the raw order of the chips' bits; save it again as U08, U16 "
            "or U32 with Merlin's own software"
        )
    if head.dtype is None:
        raise FrameFileError(
            f"{path}: pixels are {head.pixel_code!r}, and not one of {', '.join(PIXEL_TYPES)}"
        )
    return head, np.dtype(head.dtype).newbyteorder(">")


def _heads(path: Path, records: Records, header_bytes: int) -> list[MibHeader]:
    heads: list[MibHeader] = []
    for i, text in enumerate(records.fields(np.dtype(f"V{header_bytes}"))):
        data = bytes(text)
        if not data.startswith(b"MQ1,"):
            raise FrameFileError(
                f"{frame_in(path, i)}: does not begin with MQ1: bytes are missing before it"
            )
        try:
            head = parse_mib_header(data)
        except FramingLost as error:
            raise FrameFileError(f"{frame_in(path, i)}: its header is damaged: {error}") from error
        if heads and _kind(head) != _kind(heads[0]):
            raise FrameFileError(
                f"{frame_in(path, i)}: is {_kind(head)}, and frame 0 is {_kind(heads[0])}"
            )
        heads.append(head)
    return heads


def _kind(head: MibHeader) -> str:
    """Say what must not change from frame to frame."""
    return (
        f"{head.width} x {head.height} {head.pixel_code} behind {head.header_bytes} bytes, "
        f"stamped in {_clock(head)}"
    )


def _clock(head: MibHeader) -> str:
    return UTC if head.stamp_is_utc else LOCAL


def _resolution_ns(heads: list[MibHeader]) -> int:
    """Return the step of the last digit that is used."""
    used = (len(h.stamp_text.rstrip("Z").partition(".")[2].rstrip("0")) for h in heads)
    # A single frame may end in zeros by chance.
    step: int = 10 ** (9 - min(max(*used, 6), 9))
    return step


def _said(path: Path, first: MibHeader) -> tuple[str, ...]:
    if first.stamp_is_utc:
        return ()
    return (
        f"{path.name}: headers have no MQ1A tail: stamps are the computer's local time, "
        "whose zone is not in the file",
    )
