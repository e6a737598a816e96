"""The attributes by which other programs find their way."""

import h5py
import numpy as np
import pytest

from session.schema import GROUPS, find_group


@pytest.fixture
def file(write_session):
    with h5py.File(write_session(frames=3), "r") as opened:
        yield opened


def test_the_default_file_format_is_used(write_session):
    # Superblock 0: what reopens after a kill, and what every reader knows.
    with write_session().open("rb") as stream:
        assert stream.read(9) == b"\x89HDF\r\n\x1a\n\x00"


def test_default_leads_from_the_root_to_a_plot(file):
    assert file.attrs["NX_class"] == "NXroot"
    entry = file[file.attrs["default"]]
    assert entry.attrs["NX_class"] == "NXentry"
    data = entry[entry.attrs["default"]]
    assert data.attrs["NX_class"] == "NXdata"
    assert data[data.attrs["signal"]].attrs["units"] == "V"
    axis = data[data.attrs["axes"]]
    assert axis.shape == data[data.attrs["signal"]].shape
    assert axis.is_scale
    assert list(data.attrs["auxiliary_signals"]) == ["current"]


def test_frames_are_an_image_stack_with_axes(file):
    group = file["entry/frames/camera"]
    assert group.attrs["interpretation"] == "image"
    assert list(group.attrs["axes"]) == ["t_start_ns", "y", "x"]
    data = group[group.attrs["signal"]]
    assert data.attrs["units"] == "counts"
    assert data.chunks == (1, 6, 8)
    for dimension, axis in enumerate(group.attrs["axes"]):
        assert group.attrs[f"{axis}_indices"] == dimension
        assert group[axis].shape == (data.shape[dimension],)
        assert data.dims[dimension][0] == group[axis]
    assert group["x"].attrs["units"] == "m"
    assert group["x"][1] == pytest.approx(0.8e-9)


def test_each_group_has_the_class_of_the_schema(file):
    groups = []
    file["entry"].visititems(
        lambda name, item: groups.append(name) if isinstance(item, h5py.Group) else None
    )
    for name in groups:
        spec = find_group(name)
        assert spec is not None, name
        expected = "NXdetector" if name == "instrument/camera" else spec.nx_class
        assert file["entry"][name].attrs["NX_class"] == expected


def test_flag_names_stand_beside_the_flags(file):
    assert "1: COMPLIANCE" in list(file["entry/samples/status"].attrs["flags"])


def test_schema_and_version_are_in_the_root(file):
    assert file.attrs["schema"] == "lamella-session"
    assert file.attrs["schema_version"] == "1.1"
    assert file.attrs["creator"].startswith("lamella")


def test_every_time_column_is_an_integer_of_nanoseconds():
    stamps = [
        column
        for group in GROUPS
        for column in group.columns
        if column.unit == "ns" and "sigma" not in column.name
    ]
    integers = {c.name for c in stamps if np.dtype(c.dtype) == np.int64}
    assert {c.name for c in stamps} - integers == {"covariance_ns", "bound_ns"}
