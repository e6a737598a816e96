"""Norpix ``.seq`` of StreamPix: images at one stride, each with its time behind it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, Records, find_records, frame_in, read_start
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.records import StampKind

MAGIC = 0xFEED
HEAD = np.dtype(
    {
        "names": [
            *("magic", "version", "width", "height", "bits", "image_bytes", "format"),
            *("allocated", "stride", "compression"),
        ],
        "formats": ["<u4", "<i4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4"],
        "offsets": [0, 28, 548, 552, 556, 564, 568, 572, 580, 620],
        "itemsize": 1024,
    }
)
PIXELS = {8: "<u1", 16: "<u2", 32: "<u4"}
GREY = (0, 100)  # not told, and monochrome
MICROSECONDS_SINCE = 5
MAX_SIDE = 2**16
# Seconds since 1970 by the name of the type; which zone the program sets is unconfirmed.
CLOCK = "recording computer UTC"
UNCONFIRMED = "seconds in a .seq file are taken for UTC (unconfirmed)"


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read StreamPix sequences as one series.

    Raises
    ------
    FrameFileError
        One is no such file, is compressed or has colours.
    """
    return join_parts(read_parts(paths, _part), model="Norpix SEQ")


def _part(path: Path) -> FilePart:
    content = read_start(path, HEAD.itemsize)
    if len(content) < HEAD.itemsize:
        raise FrameFileError(f"{path}: is no .seq file: it has {len(content)} bytes")
    head = np.frombuffer(content, HEAD, 1)[0]
    stored, height, width = _check(path, head)
    version = int(head["version"])
    fields = [("s", "<u4"), ("ms", "<u2")]
    fields += [("us", "<u2")] if version >= MICROSECONDS_SINCE else []
    tail = np.dtype(fields)
    image_bytes, stride = int(head["image_bytes"]), int(head["stride"])
    if stride < image_bytes + tail.itemsize:
        raise FrameFileError(
            f"{path}: images lie {stride} bytes apart, too near for {image_bytes} bytes of "
            "pixels and a stamp"
        )
    records = find_records(path, 8192 if version >= MICROSECONDS_SINCE else 1024, stride)
    said = list(records.assumptions)
    if int(head["allocated"]) != records.count:
        said.append(
            f"{path.name}: its header tells of {head['allocated']} frames, and it holds "
            f"{records.count}"
        )
    return FilePart(
        path=path,
        count=records.count,
        height=height,
        width=width,
        dtype=stored.newbyteorder("=").name,
        load=RawPixels(
            path=path, offsets=records.offsets, height=height, width=width, stored=stored
        ),
        stamps=_stamps(path, records, tail, image_bytes),
        assumptions=(*said, UNCONFIRMED),
    )


def _check(path: Path, head: np.void) -> tuple[np.dtype[np.generic], int, int]:
    if int(head["magic"]) != MAGIC:
        raise FrameFileError(f"{path}: is no .seq file: it begins with {int(head['magic']):#x}")
    if int(head["compression"]):
        raise FrameFileError(f"{path}: is compressed (kind {head['compression']}); save it plain")
    bits, kind = int(head["bits"]), int(head["format"])
    if bits not in PIXELS or kind not in GREY:
        raise FrameFileError(
            f"{path}: has {bits} bits a pixel of format {kind}, and grey levels of 8, 16 or 32 "
            "bits are known"
        )
    stored = np.dtype(PIXELS[bits])
    height, width = int(head["height"]), int(head["width"])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise FrameFileError(f"{path}: frames of {width} x {height} pixels cannot be")
    if int(head["image_bytes"]) != height * width * stored.itemsize:
        raise FrameFileError(
            f"{path}: {width} x {height} pixels of {bits} bits are not the "
            f"{head['image_bytes']} bytes that it tells of"
        )
    return stored, height, width


def _stamps(path: Path, records: Records, tail: np.dtype[np.void], at: int) -> FrameStamps:
    found = records.fields(tail, at)
    columns = [found[name].astype(np.int64) for name in tail.names or ()]
    for name, column in zip(("milliseconds", "microseconds"), columns[1:], strict=False):
        odd = np.flatnonzero(column > 999)
        if len(odd):
            raise FrameFileError(
                f"{frame_in(path, int(odd[0]))}: is stamped with {column[odd[0]]} {name}"
            )
    units_ns = (10**9, 10**6, 10**3)[: len(columns)]
    return FrameStamps(
        raw=np.column_stack(columns),
        device_ns=np.sum([c * unit for c, unit in zip(columns, units_ns, strict=True)], axis=0),
        exposure_ns=None,
        kind=StampKind.UNKNOWN,
        clock=CLOCK,
        resolution_ns=units_ns[-1],
    )
