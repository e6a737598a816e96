"""Writes a camera's frames as HyperSpy keeps them, with the library that defines the format.

RosettaSciIO is GPL-3: it is imported only here and only when asked for.
"""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.outputs import OutputRefused
from session.export_metadata import session_metadata
from session.export_nexus import frames_at_once, pixel_step
from session.export_tables import TIME_NAME, export_table
from session.reader import Session

# Stamps that leave a straight line by less than this share of an interval are one.
UNIFORM_WITHIN = 0.01


def write_hspy(session: Session, camera: str, target: Path) -> tuple[str, ...]:
    """Write the frames of a camera as one HyperSpy signal; return what was assumed.

    Pixels are read and written in pieces. All stamps and the readings over each
    exposure stand in ``original_metadata``, whatever the axis is.

    Raises
    ------
    OutputRefused
        RosettaSciIO is missing.
    """
    writer, dask = _load("rsciio.hspy").file_writer, _load("dask.array")
    stack = session.frames(camera)
    stamps = export_table(session, f"frames/{camera}")
    time = stamps.column(TIME_NAME)
    seconds = np.arange(len(stack)) * 1.0 if time is None else time.data
    axis, remark = time_axis(seconds, _is_whole(session, camera))
    step, unit = pixel_step(session, camera)
    pixels = dask.from_array(
        stack, chunks=(frames_at_once(stack), *stack.shape[1:]), name=False, lock=True
    )
    writer(
        str(target),
        {
            "data": pixels,
            "axes": [
                axis,
                *(
                    _uniform(name, unit, 0.0, step, size, navigate=False)
                    for name, size in zip("yx", stack.shape[1:], strict=True)
                ),
            ],
            "metadata": {
                "General": {"title": session.title, "original_filename": session.path.name},
                "Signal": {"signal_type": "", "quantity": "TEM intensity (counts)"},
            },
            "original_metadata": {
                "lamella": _description(session),
                "frames": _columns(session, f"frames/{camera}"),
                "frame_samples": _columns(session, f"frame_samples/{camera}"),
            },
            "learning_results": {},
            "tmp_parameters": {},
            "attributes": {"_lazy": True, "ragged": False},
            "package_info": {},
            "models": {},
        },
        chunks=(1, *stack.shape[1:]),
        compression=None,  # noise does not shrink, and gzip is slower than any disk
        shuffle=False,
        show_progressbar=False,
    )
    return remark


def time_axis(seconds: NDArray[Any], whole: bool) -> tuple[dict[str, Any], tuple[str, ...]]:  # noqa: FBT001
    """Return the navigation axis of frames at given times, and what to tell of it.

    Uniform where the frames are; else with each frame's own time; by number where times
    do not rise, which no axis of HyperSpy may be.
    """
    count = len(seconds)
    steps = np.diff(seconds)
    if count < 2:
        return _uniform("time", "s", float(seconds[0]) if count else 0.0, 1.0, count), ()
    if not np.all(steps > 0):  # a time that is not a number is not above 0 either
        remark = "times do not rise from frame to frame: the axis counts frames"
        return _uniform("frame", "", 0.0, 1.0, count), (remark,)
    scale = float(seconds[-1] - seconds[0]) / (count - 1)
    line = seconds[0] + scale * np.arange(count)
    if whole and np.max(np.abs(seconds - line)) <= UNIFORM_WITHIN * scale:
        return _uniform("time", "s", float(seconds[0]), scale, count), ()
    axis = {
        "_type": "DataAxis",
        "name": "time",
        "units": "s",
        "navigate": True,
        "axis": np.asarray(seconds, dtype=float),
        "size": count,
    }
    return axis, ("frames are not evenly spaced: the time axis is not uniform",)


def _description(session: Session) -> dict[str, Any]:
    described = session_metadata(session)
    # HyperSpy keeps a text in 64 kB, a list of them in as much as it takes.
    described["experiment"] = session.experiment_text.splitlines()
    kept: dict[str, Any] = _without_none(described)
    return kept


def _without_none(value: Any) -> Any:
    """Leave out unknown numbers, or write NaN where they stand in a list."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [math.nan if item is None else item for item in value]
    return value


def _is_whole(session: Session, camera: str) -> bool:
    table = session.frame_table(camera)
    lost = np.any(table["dropped_before"] > 0)
    return not (lost or ("left_out" in table and np.any(table["left_out"] > 0)))


def _uniform(
    name: str, unit: str, offset: float, scale: float, size: int, *, navigate: bool = True
) -> dict[str, Any]:
    return {
        "_type": "UniformDataAxis",
        "name": name,
        "units": unit,
        "navigate": navigate,
        "offset": offset,
        "scale": scale,
        "size": size,
    }


def _columns(session: Session, path: str) -> dict[str, Any]:
    if not session.has(path):
        return {}
    table = session.table(path)
    return {name: values for name, values in table.columns.items() if values.ndim == 1}


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise OutputRefused(
            f"{name.partition('.')[0]} is not installed, which writes HyperSpy's files;"
            " pip install 'lamella[formats]' brings it (RosettaSciIO is GPL-3)"
        ) from None
