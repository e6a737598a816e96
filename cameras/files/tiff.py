"""TIFF: stacks of many pages, or a series of single images.

A page may carry the date on which it was written, and OME-TIFF the time of each plane after
the first. Most stacks carry neither.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cameras.files import image
from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import RawPixels, frame_in
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.files.times import date_to_ns, seconds_to_ns
from cameras.records import StampKind

LOCAL = "recording computer local time"
SINCE_START = "recording, from its start"
_DATE = re.compile(r"([0-9]{4}):([0-9]{2}):([0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2})")
_PLANE = re.compile(r"<(?:\w+:)?Plane\b([^>]*)>")
_FIELD = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")
UNITS = {"s": 0, "ms": -3, "\u00b5s": -6, "\u03bcs": -6, "us": -6, "ns": -9}


class _Pages:
    """Reads pages that are compressed or in pieces."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._path, self._shape = path, shape
        self._dtype = dtype.newbyteorder("=")

    def __call__(self, number: int, /) -> NDArray[np.generic]:
        try:
            found = tifffile.imread(self._path, key=number)
        except Exception as error:
            raise FrameFileError(f"{frame_in(self._path, number)}: is damaged: {error}") from error
        kind = found.dtype.newbyteorder("=")
        if found.shape != self._shape or kind != self._dtype:
            raise FrameFileError(
                f"{frame_in(self._path, number)}: is of {kind} {found.shape}, the first one of"
                f" {self._dtype} {self._shape}: it is damaged, or of another series"
            )
        return np.ascontiguousarray(found.astype(self._dtype))


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read stacks, or single images in the order of the numbers in their names.

    Raises
    ------
    FrameFileError
        One cannot be read, or is no grey level.
    """
    stacks = [path for path in paths if _is_stack(path)]
    if not stacks:
        return image.read(paths)
    for path in paths:
        if path not in stacks:
            raise FrameFileError(
                f"{path}: is a single image, and {stacks[0]} is a stack; import them apart"
            )
    return join_parts(read_parts(paths, _part), model="TIFF")


def _is_stack(path: Path) -> bool:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with tifffile.TiffFile(path) as file:
            return len(file.series) > 0 and len(file.series[0].shape) > 2
    except Exception as error:
        raise FrameFileError(f"{path}: cannot be read as an image: {error}") from error


def _part(path: Path) -> FilePart:
    try:
        with tifffile.TiffFile(path) as file:
            return _in_file(path, file)
    except FrameFileError:
        raise
    except Exception as error:
        raise FrameFileError(f"{path}: cannot be read as an image: {error}") from error


def _in_file(path: Path, file: tifffile.TiffFile) -> FilePart:
    series = file.series[0]
    dtype = np.dtype(series.dtype)
    if len(series.shape) != 3 or dtype.kind not in "iuf" or series.keyframe.samplesperpixel != 1:
        raise FrameFileError(
            f"{path}: holds {dtype} of {' x '.join(str(n) for n in series.shape)} "
            f"({series.axes}), and no grey levels of (frame, row, column)"
        )
    count, height, width = (int(n) for n in series.shape)
    load: RawPixels | _Pages = _Pages(path, (height, width), dtype)
    if series.dataoffset is not None:
        stored = dtype.newbyteorder(file.byteorder)
        offsets = series.dataoffset + height * width * dtype.itemsize * np.arange(
            count, dtype=np.int64
        )
        load = RawPixels(path=path, offsets=offsets, height=height, width=width, stored=stored)
    said = []
    if len(file.series) > 1:
        said.append(f"{path.name} holds {len(file.series)} series: the first was taken")
    stamps, how = _stamps(path, file, series, count)
    return FilePart(
        path=path,
        count=count,
        height=height,
        width=width,
        dtype=dtype.newbyteorder("=").name,
        load=load,
        stamps=stamps,
        assumptions=(*said, *how),
    )


def _stamps(
    path: Path, file: tifffile.TiffFile, series: Any, count: int
) -> tuple[FrameStamps | None, list[str]]:
    if file.is_ome and file.ome_metadata:
        found = _planes(file.ome_metadata, count)
        if found is not None:
            return found, []
    dates = [_date(page) for page in series.pages if page is not None]
    texts = [text for text in dates if text]
    if len(texts) != count:
        return None, []
    if len(set(texts)) == 1:
        return None, [
            f"{path.name}: all pages are dated {texts[0]}, when the file was written: not used"
        ]
    device_ns = np.array([date_to_ns(text) for text in texts], np.int64)
    stamps = FrameStamps(
        raw=np.array(texts),
        device_ns=device_ns,
        exposure_ns=None,
        kind=StampKind.UNKNOWN,
        clock=LOCAL,
        resolution_ns=10**9,
    )
    return stamps, [f"{path.name}: a page's date is taken for the time of its frame"]


def _date(page: Any) -> str:
    tags = getattr(page, "tags", None)
    tag = None if tags is None else tags.get("DateTime")
    found = None if tag is None else _DATE.fullmatch(str(tag.value).strip("\0 "))
    return "" if found is None else f"{found[1]}-{found[2]}-{found[3]}T{found[4]}"


def _planes(xml: str, count: int) -> FrameStamps | None:
    """Return the times of OME planes, where each has one."""
    texts: list[str] = []
    times: list[int] = []
    step_ns = 10**9
    for plane in _PLANE.findall(xml):
        fields = dict(_FIELD.findall(plane))
        power = UNITS.get(fields.get("DeltaTUnit", "s"))
        if "DeltaT" not in fields or power is None:
            return None
        try:
            times.append(seconds_to_ns(f"{fields['DeltaT']}e{power}"))
        except ValueError:
            return None
        texts.append(fields["DeltaT"])
        step_ns = min(step_ns, _step_ns(fields["DeltaT"], power))
    if len(times) != count:
        return None
    return FrameStamps(
        raw=np.array(texts),
        device_ns=np.array(times, np.int64),
        exposure_ns=None,
        kind=StampKind.UNKNOWN,
        clock=SINCE_START,
        resolution_ns=step_ns,
    )


def _step_ns(text: str, power: int) -> int:
    exponent = Decimal(text).as_tuple().exponent
    step: int = 10 ** max(0, 9 + power + int(exponent))
    return step
