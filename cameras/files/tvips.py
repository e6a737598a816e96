"""TVIPS ``.tvips``: a series header, then frames, each with counter and time before it.

Version 1 has 12 bytes before each frame; version 2 says how many. The first three words
are alike: counter, seconds and milliseconds since 1970, which is UTC. What follows them in
version 2 is told differently by those who have written of it, and is not read. Further
files of a series, ``_001`` and so on, have no header of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cameras.files.parts import FilePart, join_parts
from cameras.files.raw import RawPixels, find_records, frame_in, read_start
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.records import StampKind

SERIES = np.dtype(
    [
        ("size", "<u4"),
        ("version", "<u4"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("bits", "<u4"),
        ("not_used", "<u4", 7),
        ("header_bytes", "<u4"),
    ]
)
FRAME = np.dtype([("counter", "<u4"), ("s", "<u4"), ("ms", "<u4")])
SERIES_BYTES = 256
MAX_SIDE = 2**16
PIXELS = {8: "<u1", 16: "<u2"}
CLOCK = "recording computer UTC"


@dataclass(frozen=True, slots=True)
class _Series:
    width: int
    height: int
    stored: np.dtype[np.generic]
    header_bytes: int


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read one series, with the further files that lie beside its first.

    Raises
    ------
    FrameFileError
        One is no such file, or one of the series is missing.
    """
    files = _files(paths)
    series = _series(files[0])
    parts = [
        _part(path, series, SERIES_BYTES if number == 0 else 0) for number, path in enumerate(files)
    ]
    return join_parts(parts, model="TVIPS")


def _files(paths: Sequence[Path]) -> list[Path]:
    ordered = sorted(paths, key=lambda path: path.name)
    numbers = [path.stem[-3:] for path in ordered]
    if len(ordered) == 1 and not numbers[0].isdecimal():
        return ordered
    wanted = [f"{i:03}" for i in range(len(ordered))]
    if numbers != wanted or len({path.stem[:-3] for path in ordered}) > 1:
        raise FrameFileError(
            f"{ordered[0]}: files of one series end in {', '.join(wanted)}; given are "
            f"{', '.join(path.name for path in ordered)}"
        )
    if len(ordered) == 1:
        first = ordered[0]
        while (following := _sibling(first, len(ordered))).exists():
            ordered.append(following)
    return ordered


def _sibling(first: Path, number: int) -> Path:
    return first.with_name(f"{first.stem[:-3]}{number:03}{first.suffix}")


def _series(path: Path) -> _Series:
    content = read_start(path, SERIES_BYTES)
    if len(content) < SERIES_BYTES:
        raise FrameFileError(f"{path}: is no .tvips file: it has {len(content)} bytes")
    head = np.frombuffer(content, SERIES, 1)[0]
    size, version, bits = int(head["size"]), int(head["version"]), int(head["bits"])
    if size != SERIES_BYTES or version not in (1, 2):
        raise FrameFileError(
            f"{path}: is no .tvips file of version 1 or 2: it says version {version}, with a "
            f"header of {size} bytes"
        )
    if bits not in PIXELS:
        raise FrameFileError(f"{path}: has {bits} bits a pixel, and 8 or 16 are known")
    header_bytes = FRAME.itemsize if version == 1 else int(head["header_bytes"])
    width, height = int(head["width"]), int(head["height"])
    if not FRAME.itemsize <= header_bytes <= MAX_SIDE:
        raise FrameFileError(f"{path}: a header of {header_bytes} bytes before each frame")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise FrameFileError(f"{path}: frames of {width} x {height} pixels cannot be")
    return _Series(width, height, np.dtype(PIXELS[bits]), header_bytes)


def _part(path: Path, series: _Series, start: int) -> FilePart:
    stride = series.header_bytes + series.width * series.height * series.stored.itemsize
    records = find_records(path, start, stride)
    heads = records.fields(FRAME)
    s, ms = heads["s"].astype(np.int64), heads["ms"].astype(np.int64)
    odd = np.flatnonzero(ms > 999)
    if len(odd):
        raise FrameFileError(
            f"{frame_in(path, int(odd[0]))}: is stamped with {ms[odd[0]]} milliseconds of a "
            "second: its header is damaged, or the headers have another length"
        )
    stamps = None
    if np.any(s):
        stamps = FrameStamps(
            raw=np.column_stack([s, ms]),
            device_ns=s * 10**9 + ms * 10**6,
            exposure_ns=None,
            kind=StampKind.UNKNOWN,
            clock=CLOCK,
            resolution_ns=10**6,
        )
    return FilePart(
        path=path,
        count=records.count,
        height=series.height,
        width=series.width,
        dtype=series.stored.newbyteorder("=").name,
        load=RawPixels(
            path=path,
            offsets=records.offsets + series.header_bytes,
            height=series.height,
            width=series.width,
            stored=series.stored,
        ),
        stamps=stamps,
        counter=heads["counter"].astype(np.int64),
        assumptions=records.assumptions,
    )
