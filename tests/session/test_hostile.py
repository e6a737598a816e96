"""Files that are not what they say are refused, by name and with a way out."""

import h5py
import numpy as np
import pytest

from session import Session
from session.errors import SessionRefused
from session.validate import validate


@pytest.fixture
def spoil(write_session):
    """Return a function that changes a good session and opens it again."""

    def change_and_open(change):
        path = write_session()
        with h5py.File(path, "r+") as file:
            change(file)
        with Session.open(path) as session:
            return session.title

    return change_and_open


def test_a_good_file_passes(spoil):
    assert spoil(lambda _: None).startswith("LCO")


def test_what_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "text.h5"
    path.write_text("not a session")
    with pytest.raises(SessionRefused, match=r"text\.h5 cannot be opened as HDF5"):
        Session.open(path)
    with pytest.raises(SessionRefused, match="no such file"):
        Session.open(tmp_path / "nothing.h5")
    assert "no such file" in validate(tmp_path / "nothing.h5")[0].message


def test_another_schema_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(SessionRefused, match=r"schema 'none'.*'lamella-session'"):
        Session.open(tmp_path / "other.h5")


def test_another_major_version_is_refused(spoil):
    with pytest.raises(SessionRefused, match=r"version 2\.0.*reads 1\.x"):
        spoil(lambda file: file.attrs.__setitem__("schema_version", "2.0"))


def test_a_later_minor_version_is_read(spoil):
    assert spoil(lambda file: file.attrs.__setitem__("schema_version", "1.7"))


def external_link(file):
    file["entry/secret"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    file["entry/elsewhere"] = h5py.SoftLink("/entry/samples")


def external_storage(file):
    file["entry"].create_dataset("secret", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])


def virtual_dataset(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(4,))
    file["entry"].create_virtual_dataset("secret", layout)


def references(file):
    file["entry"].create_dataset("refs", data=[file.ref], dtype=h5py.ref_dtype)


def compound(file):
    file["entry/rows"] = np.zeros(3, [("a", "i4")])


def ragged(file):
    file["entry"].create_dataset("ragged", (3,), dtype=h5py.vlen_dtype("i4"))


def named_type(file):
    file["entry/type"] = np.dtype("i4")


def null_dataset(file):
    file["entry/null"] = h5py.Empty("f8")


def huge_column(file):
    file["entry"].create_dataset("bomb", (10**15,), "f8", chunks=(1024,))


def huge_contiguous(file):
    file["entry"].create_dataset("bomb", (10**12,), "f8")


def huge_stack(file):
    del file["entry/frames/camera/data"]
    file["entry/frames/camera"].create_dataset(
        "data", (10**9, 6, 8), "u2", maxshape=(None, 6, 8), chunks=(1, 6, 8)
    )


def huge_frame(file):
    file["entry"].create_dataset(
        "bomb", (0, 2**15, 2**15), "u2", maxshape=(None, 2**15, 2**15), chunks=True
    )
    del file["entry/bomb"]
    file["entry"].create_dataset("bomb", (1, 2**15, 2**15), "u2", chunks=(1, 2**15, 2**15))


def deep_groups(file):
    file.create_group("entry/" + "/".join("x" * 40))


def cycle(file):
    file["entry/samples/again"] = file["entry"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (external_link, "is a link to elsewhere"),
        (soft_link, "is a link to elsewhere"),
        (external_storage, "takes its data from other files"),
        (virtual_dataset, "takes its data from other files"),
        (references, "holds objects of type object"),
        (compound, "holds objects of type"),
        (ragged, "holds objects of type"),
        (named_type, "is a named type"),
        (null_dataset, "is empty"),
        (huge_column, "declares 8000000000000000 bytes"),
        (huge_contiguous, "declares 8000000000000 bytes"),
        (huge_stack, r"frames/camera/data declares"),
        (huge_frame, "declares"),
        (deep_groups, "nested deeper"),
        (cycle, "nested deeper|objects"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_could_harm_is_refused(spoil, change, match):
    with pytest.raises(SessionRefused, match=match) as caught:
        spoil(change)
    assert "session.h5" in str(caught.value)
    assert "will do" in str(caught.value)


def test_a_replaced_root_is_refused(spoil):
    def replace(file):
        del file["entry"]
        file["entry"] = h5py.ExternalLink("/etc/other.h5", "/entry")

    with pytest.raises(SessionRefused, match="will do"):
        spoil(replace)


def test_a_swarm_of_objects_is_refused(spoil, monkeypatch):
    monkeypatch.setattr("session.structure._MAX_OBJECTS", 20)
    with pytest.raises(SessionRefused, match="more than 20 objects"):
        spoil(lambda _: None)


def test_a_swollen_attribute_is_refused(spoil, monkeypatch):
    monkeypatch.setattr("session.structure._MAX_ATTRIBUTE_BYTES", 1_000)
    with pytest.raises(SessionRefused, match="is an attribute of 8000 bytes"):
        spoil(lambda file: file["entry"].attrs.__setitem__("x", np.zeros(1_000)))


def test_compressed_frames_are_read(spoil):
    def compress(file):
        frames = file["entry/frames/camera/data"][()]
        del file["entry/frames/camera/data"]
        file["entry/frames/camera"].create_dataset(
            "data", data=frames, chunks=(1, 6, 8), compression="gzip"
        )

    assert spoil(compress)


def test_strange_attributes_do_not_stop_a_reader(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        sample = file["entry/sample"]
        sample.attrs["bytes"] = np.bytes_(b"ab\xff")
        sample.attrs["empty"] = h5py.Empty("f8")
        sample.attrs["none"] = ()
        sample.attrs["layers"] = "one"
        file["entry/events/data"][0] = "not json"
    with Session.open(path) as session:
        attributes = session.attributes("sample")
        assert attributes["bytes"] == "ab\ufffd"
        assert attributes["empty"] == ""
        assert attributes["none"] == ()
        assert session.layers == ()
        assert session.events()[0].data == {"text": "not json"}
        assert "DIMENSION_LIST" not in session.attributes("samples/voltage")


def test_an_event_whose_data_are_no_object_is_read(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        file["entry/events/data"][0] = "[1, 2]"
    with Session.open(path) as session:
        assert session.events()[0].data == {"value": [1, 2]}


def test_a_damaged_file_is_refused_as_such(write_session):
    path = write_session()
    content = bytearray(path.read_bytes())
    # The announced end is moved before most of what the index points at.
    content[40:48] = (60_000).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(SessionRefused, match=r"session\.h5 is damaged"):
        Session.open(path)


def test_a_session_without_columns_reads_as_empty(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        for name in tuple(file["entry/samples"]):
            del file["entry/samples"][name]
        del file["entry/frames/camera/t_start_ns"]
    with Session.open(path) as session:
        assert session.sample_columns() == {}
        assert len(session.frames("camera")) == 70
