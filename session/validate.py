"""Checks a session against its schema and against itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from session.checksum import pixel_checksum
from session.columns import count_rows, read_column, storage_dtype
from session.errors import HDF5_ERRORS, SessionRefused
from session.frames import FrameStack
from session.journal import journal_path
from session.migrations import is_newer, lacking
from session.reader import Session
from session.records import NOT_FINISHED
from session.schema import (
    FRAMES,
    NO_STAMP,
    ROOT,
    SAMPLES,
    SCHEMA_VERSION,
    find_group,
    unit_of,
)
from session.seal import broken_seals
from session.spec import Column, Group, Shape
from session.structure import open_checked
from session.tables import unit_of_dataset, version_of

_FRAMES_AT_ONCE = 16


class Severity(StrEnum):
    """How bad a problem is."""

    ERROR = "error"  # data are missing, wrong or cannot be told from wrong
    WARNING = "warning"  # unusual; the data may be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a file, and where."""

    path: str
    message: str
    severity: Severity = Severity.ERROR


def validate(path: Path | str, *, pixels: bool = True) -> list[Problem]:
    """Return all that is wrong with a session file; an empty list when nothing is.

    Parameters
    ----------
    pixels
        Read every frame and compare its checksum.
    """
    path = Path(path)
    try:
        with open_checked(path) as file:
            entry = file[ROOT]
            problems = list(_check_groups(entry))
            if not problems:  # else the tables may not be there to look into
                problems += _check_content(entry, pixels=pixels)
                problems += _check_session(path)
            return [*_check_version(file), *problems, *_check_seals(entry)]
    except SessionRefused as error:
        left = journal_path(path)
        hint = f"; {left} is there: `lamella recover {path}`" if left.exists() else ""
        return [Problem(path="/", message=f"{error}{hint}")]
    except HDF5_ERRORS as error:
        return [Problem(path="/", message=f"the file is damaged: {error}")]


def _check_version(file: h5py.File) -> Iterator[Problem]:
    if is_newer(version_of(file)):
        yield Problem(
            path="/",
            message=f"is of version {version_of(file)} of the schema, newer than"
            f" {SCHEMA_VERSION} of this program: what that added is not looked at; verify it"
            " with a newer Lamella",
            severity=Severity.WARNING,
        )


# --- against the schema ------------------------------------------------------------


def _check_groups(entry: h5py.Group) -> Iterator[Problem]:
    for required in ("samples", "events", "frames", "instrument", "sample"):
        if required not in entry:
            yield Problem(path=required, message="is missing")
    found: list[tuple[str, h5py.Group]] = [("", entry)]

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            found.append((name, item))

    entry.visititems(collect)
    for name, group in found:
        spec = find_group(name)
        if spec is None:
            yield Problem(
                path=name,
                message="is not in the schema",
                severity=Severity.WARNING,
            )
            continue
        yield from _check_group(name, group, spec)


def _check_group(name: str, group: h5py.Group, spec: Group) -> Iterator[Problem]:
    nx_class = group.attrs.get("NX_class")
    if nx_class != spec.nx_class and spec.path != "instrument/<name>":
        yield Problem(path=name, message=f"NX_class is {nx_class}, not {spec.nx_class}")
    for attribute in spec.attributes:
        if attribute.required and attribute.name not in group.attrs:
            yield Problem(path=f"{name}@{attribute.name}", message="is missing")
    old = lacking(version_of(group), spec)
    for column in spec.columns:
        where = f"{name}/{column.name}".lstrip("/")
        if column.name in group:
            yield from _check_column(where, group[column.name], spec, column)
        elif column.required and column.name not in old:
            yield Problem(path=where, message="is missing")
    columns = [group[c.name] for c in spec.rows if c.name in group]
    lengths = {column.shape for column in columns if isinstance(column, h5py.Dataset)}
    if len(lengths) > 1:
        yield Problem(
            path=name,
            message=f"columns end at different rows: {sorted(lengths)}; the recorder"
            " was killed, and only whole rows count",
            severity=Severity.WARNING,
        )


def _check_column(
    where: str, dataset: h5py.Dataset | h5py.Group, spec: Group, column: Column
) -> Iterator[Problem]:
    if not isinstance(dataset, h5py.Dataset):
        yield Problem(path=where, message="is a group, and no dataset")
        return
    dimensions = {Shape.SCALAR: 0, Shape.FRAMES: 3}.get(column.shape, 1)
    if dataset.ndim != dimensions:
        yield Problem(path=where, message=f"has shape {dataset.shape}")
    if column.dtype != "pixel" and dataset.dtype != storage_dtype(column.dtype):
        yield Problem(path=where, message=f"is {dataset.dtype}, not {column.dtype}")
    unit = unit_of_dataset(dataset)
    expected = unit_of(spec, column.name)
    is_axis = column.shape in (Shape.HEIGHT, Shape.WIDTH)
    if unit != expected and not (is_axis and unit == "px"):
        yield Problem(path=where, message=f"unit is {unit!r}, not {expected!r}")


# --- against itself ----------------------------------------------------------------


def _check_content(entry: h5py.Group, *, pixels: bool) -> Iterator[Problem]:
    samples = entry["samples"]
    count = count_rows(samples, SAMPLES)
    yield from _check_rising("samples/t_ns", samples["t_ns"][:count], strict=False)
    duration = samples["read_end_ns"][:count] - samples["read_start_ns"][:count]
    early = int(np.count_nonzero(duration < 0))
    if early:
        yield Problem(
            path="samples/read_end_ns",
            message=f"{early} readings end before they begin",
        )
    for camera, group in entry["frames"].items():
        yield from _check_frames(f"frames/{camera}", group, pixels=pixels)
    yield from _check_written("samples", samples, SAMPLES, count)
    data = read_column(entry["events/data"])
    for number, text in enumerate(data):
        if not _is_json(text):
            yield Problem(path="events/data", message=f"row {number} is not JSON")


def _check_session(path: Path) -> Iterator[Problem]:
    left = journal_path(path)
    with Session.open(path) as session:
        if session.exit_reason != NOT_FINISHED and left.exists():
            yield Problem(
                path="/",
                message=f"{left} is left beside a finished session: `lamella recover` says whether"
                " it holds more, or is of another run",
                severity=Severity.WARNING,
            )
        if session.exit_reason == NOT_FINISHED:
            yield Problem(
                path="exit_reason",
                message="the session was never finished: the recorder was killed, or records"
                " still; `lamella recover` makes it whole"
                + ("" if left.exists() else ", as far as the file goes: its journal is not there"),
                severity=Severity.WARNING,
            )


def _check_written(where: str, group: h5py.Group, spec: Group, count: int) -> Iterator[Problem]:
    """Look for room that was made for rows which a disk that failed never got."""
    for column in spec.rows:
        if column.dtype.endswith("i8") and column.required:
            absent = np.flatnonzero(group[column.name][:count] == NO_STAMP)
            if absent.size:
                yield Problem(
                    path=f"{where}/{column.name}",
                    message=f"{absent.size} rows were never written, first row {int(absent[0])}",
                )


def _check_seals(entry: h5py.Group) -> Iterator[Problem]:
    reason = entry.get("exit_reason")
    if isinstance(reason, h5py.Dataset) and str(read_column(reason)) == NOT_FINISHED:
        return  # it is sealed as it is finished
    for target, message in broken_seals(entry):
        path = target.name.removeprefix(entry.name).lstrip("/")
        group = path if isinstance(target, h5py.Group) else path.rpartition("/")[0]
        if find_group(group) is not None:  # what others have put in beside is theirs
            yield Problem(path=path, message=message)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _check_rising(where: str, stamps: NDArray[np.int64], *, strict: bool) -> Iterator[Problem]:
    steps = np.diff(stamps)
    back = np.flatnonzero(steps <= 0 if strict else steps < 0)
    if back.size:
        yield Problem(
            path=where,
            message=f"does not rise at {back.size} rows, first at row {back[0] + 1}",
        )


def _check_frames(where: str, group: h5py.Group, *, pixels: bool) -> Iterator[Problem]:
    count = count_rows(group, FRAMES)
    stack = FrameStack(group["data"], count, Path(group.file.filename))
    if group["data"].shape[0] < count:
        yield Problem(
            path=f"{where}/data",
            message=f"{group['data'].shape[0]} frames for {count} stamps",
        )
        return
    if group["data"].shape[0] > count:
        yield Problem(
            path=f"{where}/data",
            message=f"{group['data'].shape[0] - count} frames beyond the stamps",
            severity=Severity.WARNING,
        )
    # Stamps that stand still for a second, and a frame that came twice, are how it was.
    for name in ("t_start_ns", "index"):
        yield from _check_rising(f"{where}/{name}", group[name][:count], strict=False)
    lost = np.maximum(np.diff(group["index"][:count]) - 1, 0)
    stated = group["dropped_before"][:count]
    if "left_out" in group:
        stated = stated + group["left_out"][:count]
    wrong = np.flatnonzero(lost != stated[1:])
    if wrong.size:
        row = int(wrong[0]) + 1
        yield Problem(
            path=f"{where}/dropped_before",
            message=f"{wrong.size} gaps do not add up: at row {row} the counter lost"
            f" {lost[row - 1]}, the file says {stated[row]}",
        )
    if pixels:
        yield from _check_pixels(where, stack, group["checksum"][:count])


def _check_pixels(
    where: str,
    stack: FrameStack,
    checksums: NDArray[np.uint32],
) -> Iterator[Problem]:
    for start, frames in stack.chunks(_FRAMES_AT_ONCE):
        for number, frame in enumerate(frames, start=start):
            if pixel_checksum(np.ascontiguousarray(frame)) != checksums[number]:
                yield Problem(
                    path=f"{where}/data",
                    message=f"frame {number} is not what was recorded: its checksum differs",
                )
