"""DigitalMicrograph ``.dm3`` and ``.dm4``: single frames and stacks.

Which tag tells the time differs from camera to camera, and tags can hold nonsense: each is
taken only where it can be true, and one source is used for all files of a series.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cameras.files.dm_tags import Block, Tags, read_tags
from cameras.files.dm_times import SOURCES, find_stamps
from cameras.files.parts import FilePart, in_order, join_parts, natural_key
from cameras.files.raw import RawPixels
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps

PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}
MAX_COUNT = 2**40


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read DigitalMicrograph files as one series, in the order of their stamps.

    Raises
    ------
    FrameFileError
        One is no such file, is damaged, or holds no grey levels.
    """
    found = [_part(path) for path in sorted(set(paths), key=natural_key)]
    source = next((name for name in SOURCES if all(name in times for _, times in found)), "")
    parts = [
        dataclasses.replace(part, stamps=times.get(source)) if source else part
        for part, times in found
    ]
    counters = {int(part.counter[0]) for part in parts if part.counter is not None}
    # Frames taken one by one all have the same number in their acquisition.
    if len(counters) < len(parts):
        parts = [dataclasses.replace(part, counter=None) for part in parts]
    said = [f"times are those of {SOURCES[source]}"] if source else []
    recording = join_parts(in_order(parts), model="DigitalMicrograph")
    return dataclasses.replace(recording, assumptions=(*said, *recording.assumptions))


def _part(path: Path) -> tuple[FilePart, dict[str, FrameStamps]]:
    tags, order = read_tags(path)
    image = _image(path, tags)
    data = image["ImageData"]
    sides = _numbers(data.get("Dimensions"))
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise FrameFileError(
            f"{path}: holds data of {' x '.join(str(side) for side in sides) or 'no'} elements, "
            "and no images or stack of them"
        )
    kind = data.get("DataType")
    if kind not in PIXELS:
        raise FrameFileError(f"{path}: has pixels of type {kind}, which are no grey levels")
    stored = np.dtype(order + PIXELS[kind])
    width, height = sides[0], sides[1]
    count = sides[2] if len(sides) == 3 else 1
    block: Block = data["Data"]
    frame_bytes = width * height * stored.itemsize
    if block.size != count * frame_bytes:
        raise FrameFileError(
            f"{path}: {count} frames of {width} x {height} {stored.name} are "
            f"{count * frame_bytes} bytes, and it holds {block.size}"
        )
    image_tags = image.get("ImageTags")
    found = find_stamps(path, image_tags if isinstance(image_tags, dict) else {}, count)
    said = list(found.assumptions)
    if count > 1 and not found.stamps:
        said += _axis(path, data)
    part = FilePart(
        path=path,
        count=count,
        height=height,
        width=width,
        dtype=stored.newbyteorder("=").name,
        load=RawPixels(
            path=path,
            offsets=block.offset + frame_bytes * np.arange(count, dtype=np.int64),
            height=height,
            width=width,
            stored=stored,
        ),
        counter=None if found.number is None else np.array([found.number], np.int64),
        assumptions=tuple(said),
    )
    return part, found.stamps


def _image(path: Path, tags: Tags) -> Tags:
    """Return the largest image: the others are its thumbnails."""
    listed = tags.get("ImageList")
    images: list[Tags] = [
        image
        for image in (listed.values() if isinstance(listed, dict) else [])
        if isinstance(image, dict)
        and isinstance(image.get("ImageData"), dict)
        and isinstance(image["ImageData"].get("Data"), Block)
    ]
    if not images:
        raise FrameFileError(f"{path}: holds no image")
    return max(images, key=lambda image: int(image["ImageData"]["Data"].size))


def _numbers(tags: Any) -> list[int]:
    values = list(tags.values()) if isinstance(tags, dict) else []
    return [v for v in values if isinstance(v, int) and v < MAX_COUNT]


def _axis(path: Path, data: Tags) -> list[str]:
    """Say what the stack's own axis tells, which is no stamp."""
    axis: Any = data
    for name in ("Calibrations", "Dimension", "2"):
        axis = axis.get(name) if isinstance(axis, dict) else None
    if not isinstance(axis, dict) or axis.get("Units") not in ("s", "sec"):
        return []
    return [f"{path.name}: its axis says {axis.get('Scale'):.9g} s a frame, which is no stamp"]
