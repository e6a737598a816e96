"""What another program recorded, and the readers that are registered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = "lamella.echem_files"


class RecordingError(ValueError):
    """A file is not what it should be; says which part, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One measurement of another program.

    Parameters
    ----------
    time_s
        Since its start, as the file says, float64, shape (n,).
    voltage_V, current_A
        Readings; a positive current charges the cell. NaN where the file has none.
    logged_charge_C
        Charge as its program counted it, shape (n,), or None.
    model, serial, technique
        As the file says.
    start_time
        As the file says; empty where it does not.
    assumptions
        What the reader took for granted, one sentence each.
    details
        What else is worth keeping.
    """

    time_s: NDArray[np.float64]
    voltage_V: NDArray[np.float64]
    current_A: NDArray[np.float64]
    logged_charge_C: NDArray[np.float64] | None
    model: str
    serial: str
    technique: str
    start_time: str
    assumptions: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


def read_recording(path: Path, columns: Mapping[str, str] | None = None) -> Recording:
    """Read a potentiostat's file with the reader of its suffix.

    Parameters
    ----------
    columns
        Which column is what, for a format whose columns anybody names; None to recognise
        them.

    Raises
    ------
    RecordingError
        No reader knows the suffix, or the file is not what it should be.
    """
    suffix = path.suffix.lower().lstrip(".")
    readers: dict[str, Any] = {e.name: e for e in entry_points(group=GROUP)}
    if suffix not in readers:
        known = ", ".join(f".{name}" for name in sorted(readers))
        raise RecordingError(f"{path}: no reader for .{suffix} files; there is {known}")
    read = readers[suffix].load()
    if columns is None:
        recording: Recording = read(path)
        return recording
    if "columns" not in signature(read).parameters:
        raise RecordingError(f"{path}: the columns of a .{suffix} file are known; name none")
    mapped: Recording = read(path, columns)
    return mapped
