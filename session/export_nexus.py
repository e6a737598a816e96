"""Writes a session as plain NeXus: base classes only, times in seconds, nothing outside."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import write_attributes
from session.columns import describe_column
from session.export_metadata import session_metadata
from session.export_tables import TIME_NAME, UTC_NAME, ExportTable, export_table, table_paths
from session.frames import FrameStack
from session.reader import Session
from session.schema import find_group

_MOST_FRAMES, _MOST_BYTES = 16, 64 * 2**20  # in memory at once, of a copy
_TIME = "time"
_NM = 1e9  # viewers that show the number as it is are read in nm
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]")


def write_nexus(
    session: Session,
    target: Path,
    *,
    frames: bool = False,
) -> None:
    """Write the tables of a session, and its frames if asked for, into a new file.

    Parameters
    ----------
    frames
        Copy the pixels too. They are copied, not linked to: the file stands alone.
    """
    with h5py.File(target, "x") as file:
        write_attributes(
            file,
            {"NX_class": "NXroot", "default": "entry", "creator": f"lamella {version('lamella')}"},
        )
        entry = _group(file, "entry", "NXentry")
        entry["title"] = session.title
        for name, text in (("start_time", session.start_time), ("end_time", session.end_time)):
            if _is_time(text):
                entry[name] = text
        _write_descriptions(entry, session)
        names = _Names()
        for path in table_paths(session):
            table = export_table(session, path)
            group = _write_table(entry, names.take(table.name), table)
            if frames and path.startswith("frames/"):
                _add_frames(group, session, path.partition("/")[2])
        if "samples" in entry:
            entry.attrs["default"] = "samples"


class _Names:
    """Names that NeXus permits; what is alike after that is numbered."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wanted: str) -> str:
        plain = _NOT_IN_NAMES.sub("_", wanted)
        name, number = plain, 1
        while name in self._taken:
            number += 1
            name = f"{plain}_{number}"
        self._taken.add(name)
        return name


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _write_descriptions(entry: h5py.Group, session: Session) -> None:
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = " | ".join(session.layers) or session.title
    instrument = _group(entry, "instrument", "NXinstrument")
    names = _Names()
    for name in session.instruments:
        is_camera = name in session.cameras
        group = _group(instrument, names.take(name), "NXdetector" if is_camera else "NXsensor")
        model = str(session.attributes(f"instrument/{name}").get("model", ""))
        group["local_name" if is_camera else "name"] = name
        group["description" if is_camera else "model"] = model
    # All that base classes have no place for: one text that every tool can show.
    described = _group(entry, "description", "NXcollection")
    described["experiment"] = session.experiment_text
    described["metadata"] = json.dumps(session_metadata(session), allow_nan=False, indent=1)


def _write_table(entry: h5py.Group, name: str, table: ExportTable) -> h5py.Group:
    time = table.column(TIME_NAME)
    numbers = {c.name: c for c in table.columns if c.data.dtype.kind in "biuf"}
    spec = find_group(table.path)
    signal = _signal(spec.signal if spec else "", numbers)
    is_plot = time is not None and signal is not None and not table.path.startswith("frames/")
    group = _group(entry, name, "NXdata" if is_plot else "NXcollection")
    names = _Names()
    written: dict[str, str] = {}
    for column in table.columns:
        if column.name == UTC_NAME:
            continue  # HDF5 has no such type; start_time and seconds say the same
        wanted = _TIME if column.name == TIME_NAME else _errors_name(column.name, numbers)
        written[column.name] = names.take(wanted)
        dataset = group.create_dataset(written[column.name], data=_storable(column.data))
        describe_column(dataset, column.unit, column.meaning)
    if is_plot and signal is not None:
        write_attributes(
            group, {"signal": written[signal], "axes": (_TIME,), f"{_TIME}_indices": 0}
        )
        if table.path == "samples":
            group.attrs["auxiliary_signals"] = ["current"]
        group[_TIME].make_scale(_TIME)
        for dataset in group.values():
            if dataset != group[_TIME]:
                dataset.dims[0].attach_scale(group[_TIME])
    return group


def _signal(listed: str, numbers: Mapping[str, Any]) -> str | None:
    if listed in numbers:
        return listed
    plotted = [n for n, c in numbers.items() if c.data.dtype.kind == "f" and n != TIME_NAME]
    return plotted[0] if plotted else None


def _errors_name(name: str, numbers: Mapping[str, Any]) -> str:
    """Return the name that NeXus has for the uncertainty of a neighbour."""
    quantity = name.removesuffix("_sigma")
    return f"{quantity}_errors" if quantity != name and quantity in numbers else name


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "O":
        return np.asarray([str(v) for v in values], dtype=h5py.string_dtype())
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _add_frames(group: h5py.Group, session: Session, camera: str) -> None:
    """Copy the pixels beside their stamps, in pieces, and make a plot of the group."""
    stack = session.frames(camera)
    _, height, width = stack.shape
    data = group.create_dataset(
        "data", shape=stack.shape, dtype=stack.dtype, chunks=(1, height, width)
    )
    describe_column(data, "counts", "TEM intensity")
    for start, frames in stack.chunks(frames_at_once(stack)):
        data[start : start + len(frames)] = frames
    step, unit = pixel_step(session, camera)
    for name, length in (("y", height), ("x", width)):
        axis = group.create_dataset(name, data=np.arange(length) * step)
        describe_column(axis, unit, name)
    group.attrs["NX_class"] = "NXdata"
    axes = (_TIME, "y", "x")
    write_attributes(group, {"signal": "data", "axes": axes, "interpretation": "image"})
    for dimension, name in enumerate(axes):
        group.attrs[f"{name}_indices"] = dimension
        group[name].make_scale(name)
        data.dims[dimension].attach_scale(group[name])


def frames_at_once(stack: FrameStack) -> int:
    """Return how many frames a copy may hold in memory."""
    frame_bytes = max(1, int(np.prod(stack.shape[1:])) * stack.dtype.itemsize)
    return max(1, min(_MOST_FRAMES, _MOST_BYTES // frame_bytes))


def pixel_step(session: Session, camera: str) -> tuple[float, str]:
    """Return the edge of a pixel in nm; one pixel where it is unknown."""
    size_m = session.attributes(f"frames/{camera}").get("pixel_size", 0.0)
    if isinstance(size_m, float) and np.isfinite(size_m) and size_m > 0:
        return size_m * _NM, "nm"
    return 1.0, "px"
