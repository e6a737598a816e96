"""MRC: a header of 1024 bytes and frames, none of which has a time.

Where a text file of a Direct Electron camera lies beside it, that tells start and period.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cameras.files.direct_electron import find_info, read_info
from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, find_records, read_start, size_of
from cameras.files.recording import FrameFileError, FrameRecording

HEADER_BYTES = 1024
PIXELS = {0: "u1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
SIGNED = "i1"
MAX_SIDE = 2**17
IMOD = 1146047817
BIG_ENDIAN = b"\x11\x11"


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read MRC files as one series.

    Raises
    ------
    FrameFileError
        One is no such file, or has pixels that are no grey levels.
    """
    return join_parts(read_parts(paths, _part), model="MRC")


def _part(path: Path) -> FilePart:
    content = read_start(path, HEADER_BYTES)
    if len(content) < HEADER_BYTES:
        raise FrameFileError(f"{path}: is no .mrc file: it has {len(content)} bytes")
    order = ">" if content[212:214] == BIG_ENDIAN else "<"
    words = np.frombuffer(content, f"{order}i4")
    width, height, told, mode = (int(word) for word in words[:4])
    extended = int(words[23])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE) or told < 0 or extended < 0:
        raise FrameFileError(
            f"{path}: is no .mrc file: it tells of {told} frames of {width} x {height} pixels "
            f"after {extended} further bytes"
        )
    if mode not in PIXELS:
        raise FrameFileError(
            f"{path}: has pixels of mode {mode}, and those known are "
            f"{', '.join(str(m) for m in PIXELS)}"
        )
    pixels, said = _bytes_of(words) if mode == 0 else (PIXELS[mode], [])
    stored = np.dtype(order + pixels)
    records = find_records(path, HEADER_BYTES + extended, height * width * stored.itemsize)
    count = min(records.count, told) if told else records.count
    if count < told:
        said += [
            f"{path.name}: its header tells of {told} frames, and it holds {count}",
            *records.assumptions,
        ]
    rest = size_of(path) - records.start - count * records.stride
    if count == told and rest:
        said.append(f"{path.name}: {rest} bytes behind its {told} frames were not read")
    info = find_info(path)
    stamps = None
    if info is not None:
        stamps, more = read_info(info, count)
        said += more
    return FilePart(
        path=path,
        count=count,
        height=height,
        width=width,
        dtype=stored.newbyteorder("=").name,
        load=RawPixels(
            path=path, offsets=records.offsets[:count], height=height, width=width, stored=stored
        ),
        stamps=stamps,
        assumptions=tuple(said),
    )


def _bytes_of(words: np.ndarray[tuple[int], np.dtype[np.int32]]) -> tuple[str, list[str]]:
    """Return whether bytes are signed: standard and custom differ."""
    if int(words[38]) == IMOD:
        return (SIGNED if int(words[39]) & 1 else PIXELS[0]), []
    return PIXELS[0], ["bytes of an .mrc file are taken as unsigned, as cameras write them"]
