"""Velox ``.emd``: HDF5 with one JSON text for each frame.

h5py is elsewhere imported in ``session`` only, for our own files. Here it is imported
because these HDF5 files are another maker's, whose frames no other door leads to.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cameras.files.parts import FilePart, join_parts, read_parts
from cameras.files.raw import frame_in, size_of
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.files.times import seconds_to_ns
from cameras.records import StampKind

IMAGES = "Data/Image"
CLOCK = "camera UTC"
BEST_COMPRESSION = 1100  # deflate reaches 1032
# What h5py raises when the bytes make no sense.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
_STAMP = re.compile(r"Detectors\[(.+)\]\.TimeStamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmdPixels:
    """Reads frames of one image series, shape (height, width, n) in the file."""

    path: Path
    series: str

    def __call__(self, number: int, /) -> NDArray[np.generic]:
        """Return one frame."""
        try:
            with h5py.File(self.path, "r") as file:
                data = _dataset(self.path, file, f"{self.series}/Data", 3)
                pixels: NDArray[np.generic] = data[:, :, number]
        except FrameFileError:
            raise
        except _DAMAGE as error:
            raise FrameFileError(f"{frame_in(self.path, number)}: is damaged: {error}") from error
        return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("=")))


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read Velox files as one series.

    Raises
    ------
    FrameFileError
        One is no such file, or holds no images.
    """
    return join_parts(read_parts(paths, _part), model="Velox EMD")


def _part(path: Path) -> FilePart:
    try:
        with h5py.File(path, "r") as file:
            return _in_file(path, file)
    except FrameFileError:
        raise
    except _DAMAGE as error:
        raise FrameFileError(f"{path}: cannot be read as HDF5: {error}") from error


def _in_file(path: Path, file: h5py.File) -> FilePart:
    found = _own(path, file, IMAGES)
    names = sorted(found) if isinstance(found, h5py.Group) else []
    series = [
        name
        for name in names
        if isinstance(own := _own(path, found, name), h5py.Group) and {"Data", "Metadata"} <= {*own}
    ]
    if not series:
        raise FrameFileError(f"{path}: is no Velox file with images: {IMAGES} holds no series")
    all_data = {name: _dataset(path, found, f"{name}/Data", 3) for name in series}
    # The movie, where single images lie beside it.
    chosen = max(series, key=lambda name: int(all_data[name].shape[-1]))
    if not all_data[chosen].size:
        raise FrameFileError(f"{path}: {chosen} holds no frame: {all_data[chosen].shape}")
    data, metadata = all_data[chosen], _dataset(path, found, f"{chosen}/Metadata", 2)
    if data.dtype.kind not in "iuf" or metadata.dtype.kind not in "iu":
        raise FrameFileError(
            f"{path}: {chosen} holds {data.dtype} {data.shape}, and no grey levels of "
            "(height, width, frame), or metadata that are no bytes"
        )
    count = int(data.shape[2])
    said = []
    if len(series) > 1:
        said.append(f"{path.name} holds {len(series)} series: {chosen} of {count} frames was taken")
    for name, rows in (
        ("Metadata", metadata.shape[-1]),
        ("FrameLookupTable", _rows(path, found[chosen])),
    ):
        if rows is not None and rows != count:
            said.append(f"{path.name}: {name} has {rows} entries for {count} frames")
    frames = [_told(path, metadata, i) for i in range(min(count, int(metadata.shape[-1])))]
    stamps, how = _stamps(path, frames, count)
    return FilePart(
        path=path,
        count=count,
        height=int(data.shape[0]),
        width=int(data.shape[1]),
        dtype=data.dtype.newbyteorder("=").name,
        load=EmdPixels(path=path, series=f"{IMAGES}/{chosen}"),
        stamps=stamps,
        assumptions=(*said, *how),
    )


def _own(path: Path, group: h5py.Group, name: str) -> Any:
    """Return what lies under a path in the file itself, None where there is nothing."""
    found: Any = group
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or part not in found:
            return None
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise FrameFileError(
                f"{path}: {found.name}/{part} is a link to elsewhere, which is not followed"
            )
        found = found[part]
    return found


def _dataset(path: Path, group: h5py.Group, name: str, dimensions: int) -> h5py.Dataset:
    """Return a dataset whose numbers are in the file."""
    found = _own(path, group, name)
    if not isinstance(found, h5py.Dataset) or found.shape is None or found.ndim != dimensions:
        raise FrameFileError(f"{path}: {name} is no dataset of {dimensions} dimensions")
    if found.is_virtual or found.external:
        raise FrameFileError(f"{path}: {name} takes its data from other files")
    declared = found.size * found.dtype.itemsize
    most = size_of(path) * (BEST_COMPRESSION if found.compression or found.chunks else 1)
    if found.dtype.kind not in "iuf" or declared > most:
        raise FrameFileError(
            f"{path}: {name} holds {found.dtype} {found.shape}, and no grey levels or bytes that "
            f"the file of {size_of(path)} bytes has room for"
        )
    return found


def _rows(path: Path, series: h5py.Group) -> int | None:
    table = _own(path, series, "FrameLookupTable")
    return int(table.shape[0]) if isinstance(table, h5py.Dataset) and table.ndim else None


def _told(path: Path, metadata: h5py.Dataset, number: int) -> Mapping[str, Any]:
    content = bytes(np.asarray(metadata[:, number], np.uint8)).split(b"\0", 1)[0]
    try:
        found = json.loads(content)
    except ValueError as error:
        raise FrameFileError(
            f"{frame_in(path, number)}: its metadata are damaged: {error}"
        ) from error
    return found if isinstance(found, dict) else {}


def _at(tree: Any, *names: str) -> Any:
    """Return what lies under these names, None where one is missing."""
    for name in names:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(name)
    return tree


def _stamp_us(frame: Mapping[str, Any]) -> int | None:
    properties = _at(frame, "CustomProperties")
    for name, value in (properties if isinstance(properties, dict) else {}).items():
        text = str(_at(value, "value"))
        if _STAMP.fullmatch(name) and text.isdecimal():
            return int(text)
    return None


def _exposure_ns(frame: Mapping[str, Any]) -> int | None:
    detector = _at(frame, "BinaryResult", "DetectorIndex")
    return _seconds(_at(frame, "Detectors", f"Detector-{detector}", "ExposureTime"))


def _seconds(text: Any) -> int | None:
    try:
        found = seconds_to_ns(str(text))
    except ValueError:
        return None
    return found if found > 0 else None


def _stamps(
    path: Path, frames: Sequence[Mapping[str, Any]], count: int
) -> tuple[FrameStamps | None, tuple[str, ...]]:
    stamps_us = [us for frame in frames if (us := _stamp_us(frame)) is not None]
    exposures = [ns for frame in frames if (ns := _exposure_ns(frame)) is not None]
    exposure_ns = np.array(exposures, np.int64) if len(exposures) == count else None
    if len(stamps_us) == count:
        raw = np.array(stamps_us, np.int64)
        stamps = FrameStamps(
            raw=raw,
            device_ns=raw * 1000,
            exposure_ns=exposure_ns,
            kind=StampKind.UNKNOWN,
            clock=CLOCK,
            resolution_ns=1000,
        )
        return stamps, ()
    if stamps_us:
        raise FrameFileError(f"{path}: only {len(stamps_us)} of its {count} frames have a stamp")
    if not frames:
        return None, ()
    return _computed(path, frames[0], exposure_ns, count)


def _computed(
    path: Path, frame: Mapping[str, Any], exposure_ns: NDArray[np.int64] | None, count: int
) -> tuple[FrameStamps | None, tuple[str, ...]]:
    start_ns = _seconds(_at(frame, "Acquisition", "AcquisitionStartDatetime", "DateTime"))
    period_ns = _seconds(_at(frame, "Scan", "FrameTime"))
    if start_ns is None or period_ns is None:
        return None, ()
    stamps = FrameStamps(
        raw=np.full(count, start_ns // 10**9, np.int64),
        device_ns=start_ns + period_ns * np.arange(count, dtype=np.int64),
        exposure_ns=exposure_ns,
        kind=StampKind.UNKNOWN,
        clock=CLOCK,
        resolution_ns=10**9,
        computed=True,
    )
    return stamps, (
        f"{path.name}: frames have no stamps; times are computed from the start, given to 1 s, "
        f"and the scan's frame time of {period_ns} ns",
    )
