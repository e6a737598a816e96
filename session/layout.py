"""An empty session: all groups and datasets, made before the first reading."""

import math
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import h5py
import numpy as np

from potentiostat.records import Status
from session.attributes import write_attributes
from session.capture import frames_held
from session.codecs import find_codec
from session.columns import create_columns, describe_column, mark_group
from session.errors import SessionRefused
from session.records import (
    MAX_FRAME_BYTES,
    NOT_FINISHED,
    AttributeValue,
    CameraHeader,
    Capture,
    InstrumentHeader,
    SessionHeader,
)
from session.ring import HOLDING_BYTES
from session.schema import (
    EDGES,
    ENTRY,
    EVENTS,
    EXCHANGES,
    FRAMES,
    ROOT,
    SAMPLES,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    TEMPERATURE,
    find_group,
    is_name,
)
from session.spec import Group

if TYPE_CHECKING:
    from collections.abc import Mapping

_FEWEST_BESIDE = 16  # slots of a ring beside those of frames that are held


def check_header(header: SessionHeader) -> None:
    """Refuse a header that could not be written or read back.

    Raises
    ------
    SessionRefused
        A name cannot stand in a path, two are alike, or a frame has no sane size.
    """
    kinds = {
        "camera": [camera.name for camera in header.cameras],
        "instrument": [i.name for i in header.instruments],
        "clock": list(header.clocks),
    }
    for kind, names in kinds.items():
        for name in names:
            check_name(kind, name)
        if len(set(names)) != len(names):
            raise SessionRefused(f"two {kind}s have one name: {', '.join(names)}")
    for camera in header.cameras:
        _check_camera(camera)


def check_name(kind: str, name: str) -> None:
    """Refuse a name that cannot stand in a path of the file."""
    if not is_name(name):
        raise SessionRefused(
            f"{kind} name {name!r}: letters, digits, '_', '-', '.' and blanks will do,"
            " beginning with a letter or digit"
        )


def _check_camera(camera: CameraHeader) -> None:
    find_codec(camera.compression)
    if camera.capture is not None:
        _check_capture(camera, camera.capture)
    try:
        dtype = np.dtype(camera.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "uif":
        raise SessionRefused(
            f"camera {camera.name}: pixel type {camera.dtype!r} cannot be stored;"
            " 'uint8', 'uint16', 'int32' or 'float32' will do"
        )
    if min(camera.height, camera.width) < 1 or camera.frame_bytes > MAX_FRAME_BYTES:
        raise SessionRefused(
            f"camera {camera.name}: frames of {camera.height} x {camera.width} pixels;"
            f" each side must be at least 1 and a frame at most {MAX_FRAME_BYTES} bytes"
        )


def _check_capture(camera: CameraHeader, capture: Capture) -> None:
    rate_Hz = camera.frame_rate_Hz
    if not (math.isfinite(rate_Hz) and rate_Hz > 0):
        raise SessionRefused(
            f"camera {camera.name}: which frames are held for an event follows from its frame"
            f" rate, and {rate_Hz} Hz is none"
        )
    if not all(0 <= value < math.inf for value in (capture.before_s, capture.after_s)):
        raise SessionRefused(f"camera {camera.name}: {capture} names no times")
    held = frames_held(capture, rate_Hz) + _FEWEST_BESIDE
    most = HOLDING_BYTES // camera.frame_bytes
    if held > most:
        raise SessionRefused(
            f"camera {camera.name}: {capture.before_s:g} s before an event are"
            f" {held * camera.frame_bytes / 2**20:.0f} MiB at {rate_Hz:g} frames a second, and"
            f" {HOLDING_BYTES / 2**20:.0f} MiB may be held; fewer seconds, a lower"
            " frame rate or smaller frames will do"
        )


def create_layout(file: h5py.File, header: SessionHeader) -> None:
    """Make every group and dataset of an empty session."""
    write_attributes(
        file,
        {
            "NX_class": "NXroot",
            "schema": SCHEMA_NAME,
            "schema_version": SCHEMA_VERSION,
            "creator": f"lamella {_own_version()}",
            "file_time": datetime.now(UTC).isoformat(),
            "default": ROOT,
        },
    )
    entry = file.create_group(ROOT)
    mark_group(entry, ENTRY)
    write_attributes(
        entry,
        {
            "default": SAMPLES.path,
            "host_start_ns": header.host_start_ns,
            "simulated": header.simulated,
        },
    )
    texts = {
        "title": header.title,
        "start_time": header.start_time,
        "end_time": "",
        "exit_reason": NOT_FINISHED,
        "experiment": header.experiment_text,
    }
    for name, text in texts.items():
        # A NUL would end the text for every reader of the file.
        write_now(entry.create_dataset(name, data=text.replace("\0", "")))
    _create_descriptions(entry, header)
    _create_tables(entry, header)


def write_now(dataset: h5py.Dataset) -> None:
    """Have HDF5 write the values of a small dataset, and not when Python forgets the object.

    Raises
    ------
    OSError, RuntimeError
        HDF5 cannot write them. Later nobody would be told.
    """
    dataset.flush()


def _own_version() -> str:
    try:
        return version("lamella")
    except PackageNotFoundError:
        return "unknown"


def ensure_group(entry: h5py.Group, path: str) -> h5py.Group:
    """Return the group at a path of the schema; make it, and those above, if needed."""
    group = entry
    for depth, name in enumerate(path.split("/"), start=1):
        if name in group:
            group = group[name]
            continue
        group = group.create_group(name)
        spec = find_group("/".join(path.split("/")[:depth]))
        if spec is not None:
            mark_group(group, spec)
    return group


def _create_descriptions(entry: h5py.Group, header: SessionHeader) -> None:
    described: dict[str, Mapping[str, AttributeValue]] = {
        "sample": {"layers": header.layers, **header.sample},
        "instrument": {},
        "provenance/versions": header.provenance.versions,
        "provenance/host": header.provenance.host,
        "provenance/files": header.provenance.files,
        "queues": {},
        "drift": {},
        "tracks": {},
        "correlation": {},
        "frame_samples": {},
    }
    for path, attributes in described.items():
        write_attributes(ensure_group(entry, path), attributes)
    for instrument in (*header.instruments, *map(_as_instrument, header.cameras)):
        group = ensure_group(entry, f"instrument/{instrument.name}")
        group.attrs["NX_class"] = instrument.nx_class
        write_attributes(group, instrument.attributes)


def _as_instrument(camera: CameraHeader) -> InstrumentHeader:
    return InstrumentHeader(
        name=camera.name,
        nx_class="NXdetector",
        attributes={"model": camera.model, "frame_rate_Hz": camera.frame_rate_Hz},
    )


def _create_tables(entry: h5py.Group, header: SessionHeader) -> None:
    flags = tuple(f"{flag.value}: {flag.name}" for flag in Status)
    samples = _create_table(entry, SAMPLES, SAMPLES.path)
    samples.attrs["auxiliary_signals"] = ["current"]
    write_attributes(samples["status"], {"flags": flags})
    _create_table(entry, EVENTS, EVENTS.path)
    ensure_group(entry, "frames")
    ensure_group(entry, "clocks")
    for camera in header.cameras:
        _create_frames(entry, camera)
    for clock in header.clocks:
        create_exchanges(entry, clock)


def _create_table(entry: h5py.Group, spec: Group, path: str) -> h5py.Group:
    group = ensure_group(entry, path)
    create_columns(group, spec)
    return group


def create_exchanges(entry: h5py.Group, clock: str) -> h5py.Group:
    """Make the empty table of a clock's exchanges."""
    return _create_table(entry, EXCHANGES, f"clocks/{clock}/exchanges")


def create_edges(entry: h5py.Group) -> h5py.Group:
    """Make the empty table of the edges of trigger lines."""
    return _create_table(entry, EDGES, EDGES.path)


def create_temperature(entry: h5py.Group) -> h5py.Group:
    """Make the empty table of what a thermometer says."""
    return _create_table(entry, TEMPERATURE, TEMPERATURE.path)


def _create_frames(entry: h5py.Group, camera: CameraHeader) -> None:
    group = ensure_group(entry, f"frames/{camera.name}")
    size = (camera.height, camera.width)
    codec = find_codec(camera.compression)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if codec is not None:
        codec.describe(properties, np.dtype(camera.dtype).itemsize)
        group.attrs["compression"] = codec.stated
    data = group.create_dataset(
        "data",
        shape=(0, *size),
        maxshape=(None, *size),
        chunks=(1, *size),
        dtype=np.dtype(camera.dtype).newbyteorder("<"),
        dcpl=properties,
    )
    describe_column(data, "counts", "TEM intensity")
    create_columns(group, FRAMES)
    known = camera.pixel_size_m > 0
    step, unit = (camera.pixel_size_m, "m") if known else (1.0, "px")
    for dimension, (name, length) in enumerate(zip("yx", size, strict=True), start=1):
        axis = group.create_dataset(name, data=np.arange(length) * step)
        write_now(axis)
        describe_column(axis, unit, name)
        axis.make_scale(name)
        data.dims[dimension].attach_scale(axis)
    write_attributes(
        group,
        {
            "pixel_size": camera.pixel_size_m,
            "model": camera.model,
            "frame_rate": camera.frame_rate_Hz,
            "stamp": camera.stamp,
            "clock": camera.clock,
            "row_time": camera.row_time_ns,
            "interpretation": "image",
        },
    )
