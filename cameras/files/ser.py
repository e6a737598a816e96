"""TIA ``.ser``: a table of offsets to images, and another to their tags with the time.

The time is in whole seconds since 1970. The ``.emi`` file beside it is not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, frame_in, read_start, size_of
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.records import StampKind

HEAD = np.dtype(
    [
        ("order", "<u2"),
        ("series", "<u2"),
        ("version", "<u2"),
        ("data_kind", "<u4"),
        ("tag_kind", "<u4"),
        ("total", "<u4"),
        ("valid", "<u4"),
    ]
)
LITTLE, SERIES = 0x4949, 0x0197
IMAGES, SPECTRA = 0x4122, 0x4120
OLD_VERSION = 0x0210  # up to it, offsets have 4 bytes
TAGS = (0x4152, 0x4142)  # time, and time with a position
IMAGE = np.dtype(
    [("calibration", "V40"), ("kind", "<u2"), ("width", "<u4"), ("height", "<u4")],
)
TAG = np.dtype([("kind", "<u2"), ("not_used", "<u2"), ("s", "<u4")])
PIXELS = {
    1: "<u1",
    2: "<u2",
    3: "<u4",
    4: "<i1",
    5: "<i2",
    6: "<i4",
    7: "<f4",
    8: "<f8",
}
MAX_SIDE = 2**16
CLOCK = "recording computer UTC"
UNCONFIRMED = "seconds in a .ser file are taken for UTC (unconfirmed)"


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read TIA series as one.

    Raises
    ------
    FrameFileError
        One is no such file, or holds spectra or unlike images.
    """
    return join_parts(read_parts(paths, _part), model="TIA SER")


def _part(path: Path) -> FilePart:
    head, offsets_at, wide = _header(path)
    valid, total = int(head["valid"]), int(head["total"])
    size = size_of(path)
    offset_type = np.dtype("<u8" if wide else "<u4")
    if valid < 1 or total < valid or offsets_at + 2 * total * offset_type.itemsize > size:
        raise FrameFileError(
            f"{path}: tells of {valid} of {total} images whose offsets do not lie in it"
        )
    with path.open("rb") as file:
        file.seek(offsets_at)
        table = np.frombuffer(file.read(2 * total * offset_type.itemsize), offset_type)
    table = table.astype(np.int64)
    images_at, tags_at = table[:valid], table[total : total + valid]
    kept, height, width, stored = _images(path, images_at, size)
    if int(head["tag_kind"]) in TAGS:
        kept = _inside(path, tags_at[:kept], TAG.itemsize, size, "tag")
    said = []
    if kept < valid or valid < total:
        said.append(
            f"{path.name}: {total} images were meant, {valid} are told of, and {kept} are whole; "
            "those were read"
        )
    stamps = _stamps(path, tags_at[:kept], int(head["tag_kind"]))
    return FilePart(
        path=path,
        count=kept,
        height=height,
        width=width,
        dtype=stored.newbyteorder("=").name,
        load=RawPixels(
            path=path,
            offsets=images_at[:kept] + IMAGE.itemsize,
            height=height,
            width=width,
            stored=stored,
        ),
        stamps=stamps,
        assumptions=tuple(said if stamps is None else [*said, UNCONFIRMED]),
    )


def _header(path: Path) -> tuple[np.void, int, bool]:
    content = read_start(path, HEAD.itemsize + 8)
    if len(content) < HEAD.itemsize + 8:
        raise FrameFileError(f"{path}: is no .ser file: it has {len(content)} bytes")
    head = np.frombuffer(content, HEAD, 1)[0]
    if (int(head["order"]), int(head["series"])) != (LITTLE, SERIES):
        raise FrameFileError(f"{path}: is no .ser file: it begins with {content[:4].hex(' ')}")
    if int(head["data_kind"]) == SPECTRA:
        raise FrameFileError(f"{path}: holds spectra and no images")
    if int(head["data_kind"]) != IMAGES:
        raise FrameFileError(f"{path}: holds data of an unknown kind {int(head['data_kind']):#x}")
    wide = int(head["version"]) > OLD_VERSION
    offsets_at = np.frombuffer(content, "<u8" if wide else "<u4", 1, HEAD.itemsize)
    return head, int(offsets_at[0]), wide


def _images(
    path: Path, images_at: NDArray[np.int64], size: int
) -> tuple[int, int, int, np.dtype[np.generic]]:
    """Return how many images are whole, their height and width, and their pixels' type."""
    _inside(path, images_at[:1], IMAGE.itemsize, size, "image")
    with path.open("rb") as file:
        kind, width, height = first = _image_at(file, int(images_at[0]))
        stored = _pixels(path, kind, width, height)
        length = IMAGE.itemsize + width * height * stored.itemsize
        kept = _inside(path, images_at, length, size, "image")
        for i, at in enumerate(images_at[:kept]):
            found = _image_at(file, int(at))
            if found != first:
                raise FrameFileError(
                    f"{frame_in(path, i)}: is {found[1]} x {found[2]} of type {found[0]}, and "
                    f"frame 0 is {width} x {height} of type {kind}"
                )
    return kept, height, width, stored


def _image_at(file: BinaryIO, at: int) -> tuple[int, int, int]:
    file.seek(at)
    image = np.frombuffer(file.read(IMAGE.itemsize), IMAGE, 1)[0]
    return int(image["kind"]), int(image["width"]), int(image["height"])


def _inside(path: Path, at: NDArray[np.int64], length: int, size: int, what: str) -> int:
    """Return how many lie before the end of the file; none may lie beyond it but the last."""
    inside = (at >= 0) & (at <= size - length)
    kept = len(inside) if np.all(inside) else int(np.argmin(inside))
    if kept == 0 or np.any(inside[kept:]):
        raise FrameFileError(f"{frame_in(path, kept)}: its {what} does not lie in the file")
    return kept


def _pixels(path: Path, kind: int, width: int, height: int) -> np.dtype[np.generic]:
    if kind not in PIXELS:
        raise FrameFileError(f"{path}: has pixels of the unknown or complex type {kind}")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise FrameFileError(f"{path}: frames of {width} x {height} pixels cannot be")
    return np.dtype(PIXELS[kind])


def _stamps(path: Path, tags_at: NDArray[np.int64], kind: int) -> FrameStamps | None:
    if kind not in TAGS:
        return None
    seconds = np.zeros(len(tags_at), np.int64)
    with path.open("rb") as file:
        for i, at in enumerate(tags_at):
            file.seek(int(at))
            tag = np.frombuffer(file.read(TAG.itemsize), TAG, 1)[0]
            if int(tag["kind"]) not in TAGS:
                raise FrameFileError(f"{frame_in(path, i)}: its tag is damaged")
            seconds[i] = int(tag["s"])
    if not np.any(seconds):
        return None
    return FrameStamps(
        raw=seconds,
        device_ns=seconds * 10**9,
        exposure_ns=None,
        kind=StampKind.UNKNOWN,
        clock=CLOCK,
        resolution_ns=10**9,
    )
