"""Times in the tags of a DigitalMicrograph image, each taken only where it can be true."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cameras.files.dm_tags import Tags
from cameras.files.recording import FrameStamps
from cameras.records import StampKind

# In the order in which they are preferred.
SOURCES: Mapping[str, str] = {
    "sequence": "the acquisition's start (ms) and the exposure's start after it (ns)",
    "filetime": "the data bar's time of the operating system (100 ns)",
    "planes": "the stack builder, when each plane was added (1 s)",
    "name": "the file's name (1 s)",
}
FILETIME_OF_1970 = 116_444_736_000_000_000
STEP_NS = 100  # of a FILETIME
EARLIEST_NS = 631_152_000 * 10**9  # 1990
LATEST_NS = 4_102_444_800 * 10**9  # 2100
DAY_NS = 86_400 * 10**9
LONGEST_NS = 30 * DAY_NS
_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2}) *(AM|PM)?", re.IGNORECASE)
_IN_SITU = re.compile(r"Hour_([0-9]+)_Minute_([0-9]+)_Second_([0-9]+)_Frame_[0-9]+$")


@dataclass(slots=True)
class FoundTimes:
    """What the tags of one image tell of time.

    Parameters
    ----------
    stamps
        By source, those that can be true.
    number
        Of the frame in its acquisition; None where it is not told.
    """

    stamps: dict[str, FrameStamps] = field(default_factory=dict)
    number: int | None = None
    assumptions: list[str] = field(default_factory=list)


def find_stamps(path: Path, tags: Tags, count: int) -> FoundTimes:
    """Return every time that the tags of ``count`` frames tell."""
    found = FoundTimes()
    if count == 1:
        exposure_ns = _exposure_ns(tags)
        _sequence(path, tags, exposure_ns, found)
        _filetime(path, tags, exposure_ns, found)
        _name(path, exposure_ns, found)
    else:
        _planes(path, tags, count, found)
    return found


def _at(tags: Any, *names: str) -> Any:
    for name in names:
        tags = tags.get(name) if isinstance(tags, dict) else None
    return tags


def _whole(value: Any, low: int, high: int) -> int | None:
    """Return a number as int where it lies in [low, high): tags may hold anything."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = round(value)
    if not isinstance(value, int) or not low <= value < high:
        return None
    return value


def _exposure_ns(tags: Tags) -> int | None:
    found = _whole(_at(tags, "Acquisition", "Frame", "Sequence", "Exposure Time (ns)"), 1, DAY_NS)
    if found is not None:
        return found
    seconds = _at(tags, "DataBar", "Exposure Time (s)")
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    return _whole(round(seconds * 1e9), 1, DAY_NS)


def _one(
    raw: list[Any], ns: int, exposure_ns: int | None, kind: StampKind, clock: str, step_ns: int
) -> FrameStamps:
    return FrameStamps(
        raw=np.array(raw),
        device_ns=np.array([ns], np.int64),
        exposure_ns=None if exposure_ns is None else np.array([exposure_ns], np.int64),
        kind=kind,
        clock=clock,
        resolution_ns=step_ns,
    )


def _sequence(path: Path, tags: Tags, exposure_ns: int | None, found: FoundTimes) -> None:
    sequence = _at(tags, "Acquisition", "Frame", "Sequence")
    if not isinstance(sequence, dict):
        return
    found.number = _whole(sequence.get("Frame Index"), 0, 2**32)
    told_ms, told_ns = (
        sequence.get("Acquisition Start Time (epoch)"),
        sequence.get("Exposure Start (ns)"),
    )
    start_ms = _whole(told_ms, EARLIEST_NS // 10**6, LATEST_NS // 10**6)
    after_ns = _whole(told_ns, 0, LONGEST_NS)
    if start_ms is None or after_ns is None:
        found.assumptions.append(
            f"{path.name}: an acquisition's start of {told_ms} ms and an exposure's {told_ns} ns "
            "after it cannot be true and were not used"
        )
        return
    found.stamps["sequence"] = _one(
        [[start_ms, after_ns]],
        start_ms * 10**6 + after_ns,
        exposure_ns,
        StampKind.EXPOSURE_START,
        "camera UTC",
        10**6,
    )


def _filetime(path: Path, tags: Tags, exposure_ns: int | None, found: FoundTimes) -> None:
    told = _at(tags, "DataBar", "Acquisition Time (OS)")
    if told is None:
        return
    low = EARLIEST_NS // STEP_NS + FILETIME_OF_1970
    ticks = _whole(told, low, LATEST_NS // STEP_NS + FILETIME_OF_1970)
    if ticks is None:
        found.assumptions.append(
            f"{path.name}: the operating system's time {told} cannot be true and was not used"
        )
        return
    # Some versions store it as a float, which has no single ticks left.
    step = math.ceil(math.ulp(told)) if isinstance(told, float) else 1
    found.stamps["filetime"] = _one(
        [ticks],
        (ticks - FILETIME_OF_1970) * STEP_NS,
        exposure_ns,
        StampKind.UNKNOWN,
        "recording computer UTC",
        step * STEP_NS,
    )


def _planes(path: Path, tags: Tags, count: int, found: FoundTimes) -> None:
    planes = _find_group(tags, "plane info")
    texts = [
        plane["added @ time"]
        for plane in planes.values()
        if isinstance(plane, dict) and isinstance(plane.get("added @ time"), str)
    ]
    times = [ns for text in texts if (ns := _of_day_ns(text)) is not None]
    if not texts:
        return
    if len(times) != count:
        found.assumptions.append(
            f"{path.name}: {len(times)} planes of {count} tell when they were added; none was used"
        )
        return
    device_ns = np.array(times, np.int64)
    # Past midnight the time of day begins again.
    days = np.cumsum(np.diff(device_ns) < -DAY_NS // 2)
    device_ns[1:] += DAY_NS * days
    found.stamps["planes"] = FrameStamps(
        raw=np.array(texts),
        device_ns=device_ns,
        exposure_ns=None,
        kind=StampKind.ARRIVAL,
        clock="recording computer local time of day",
        resolution_ns=10**9,
    )


def _find_group(tags: Tags, name: str) -> Tags:
    if isinstance(tags.get(name), dict):
        group: Tags = tags[name]
        return group
    for value in tags.values():
        if isinstance(value, dict) and (group := _find_group(value, name)):
            return group
    return {}


def _of_day_ns(text: str) -> int | None:
    found = _OF_DAY.fullmatch(text.strip())
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3])
    if found[4]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[4].upper() == "PM" else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    return (hour * 3600 + minute * 60 + second) * 10**9


def _name(path: Path, exposure_ns: int | None, found: FoundTimes) -> None:
    told = _IN_SITU.search(path.stem)
    if told is None:
        return
    hour, minute, second = (int(text) for text in told.groups())
    found.stamps["name"] = _one(
        [told[0]],
        (hour * 3600 + minute * 60 + second) * 10**9,
        exposure_ns,
        StampKind.UNKNOWN,
        "recording, from its start",
        10**9,
    )
