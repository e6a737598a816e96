"""Damage that the fuzzer found: each kind is refused by name, or verify tells of it."""

import struct

import h5py
import numpy as np
import pytest

from session import Session
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.heaps import has_endless_heap
from session.seal import broken_seals, is_sealed
from session.validate import validate
from session.writer import SessionWriter


def named(value):
    """Name a case by its words alone: a function's own name holds where it lies in memory."""
    return value if isinstance(value, str) else ""


@pytest.fixture
def spoil(write_session):
    def change(how):
        path = write_session()
        with h5py.File(path, "r+") as file:
            how(file["entry"])
        return path

    return change


def exchange(first, second):
    def how(entry):
        a, b = entry[first], entry[second]
        del entry[first], entry[second]
        entry[first], entry[second] = b, a

    return how


def retype(name, dtype):
    def how(entry):
        values = entry[name][()]
        del entry[name]
        entry.create_dataset(name, data=values.astype(dtype))

    return how


def test_a_heap_without_an_end_is_refused_and_not_walked(write_session):
    """HDF5 itself stays in it for ever."""
    path = write_session()
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL")
    content[at + 100 : at + 1000] = bytes(900)
    path.write_bytes(content)
    with pytest.raises(SessionRefused, match="heap of text in it has no end"):
        Session.open(path)
    assert "no end" in validate(path)[0].message


@pytest.mark.parametrize("name", ["title", "events/kind"])
def test_text_that_is_longer_than_its_file_is_refused_before_memory_is_taken(write_session, name):
    """HDF5 fills as much memory as the length says before it looks for the text."""
    path = write_session()
    with h5py.File(path) as file:
        dataset = file["entry"][name].id
        chunked = dataset.get_create_plist().get_layout() == h5py.h5d.CHUNKED
        at = dataset.get_chunk_info(0).byte_offset if chunked else dataset.get_offset()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<I", 100_000_000))
    with pytest.raises(SessionRefused, match=f"{name} has 1000000[0-9]+ bytes of text in a file"):
        Session.open(path)
    assert "bytes of text" in validate(path)[0].message


@pytest.mark.parametrize(("at", "found"), [(100, True), (20_000_000, False), (39_990_000, True)])
def test_both_ends_of_a_long_file_are_looked_through_for_such_heaps(tmp_path, at, found):
    path = tmp_path / "long.h5"
    with path.open("wb") as file:
        file.truncate(40_000_000)
        file.seek(at)
        # One object of 8 bytes, then one of no size.
        file.write(struct.pack("<4sB3sQ", b"GCOL", 1, b"", 4096))
        file.write(struct.pack("<HHIQ8x", 1, 1, 0, 8))
    assert has_endless_heap(path) is found


@pytest.mark.parametrize(
    ("how", "read", "why"),
    [
        (exchange("experiment", "provenance"), lambda s: s.experiment_text, "is no text"),
        (exchange("samples/t_ns", "sample"), lambda s: s.samples(), "no column of one value"),
        (retype("samples/t_ns", "f8"), lambda s: s.samples(), "float64, and the schema has"),
        (retype("events/t_ns", "f4"), lambda s: s.events(), "float32, and the schema has"),
        (lambda e: e.__delitem__("events/data"), lambda s: s.events(), "lacks the columns data"),
        (
            lambda e: e["frames/camera"].move("data", "elsewhere"),
            lambda s: s.frames("camera"),
            "has no 'frames/camera/data'",
        ),
        (
            retype("frames/camera/data", "?"),
            lambda s: s.frames("camera"),
            "holds no frames",
        ),
        (
            lambda e: e.attrs.__setitem__("host_start_ns", "soon"),
            lambda s: s.host_start_ns,
            "no whole number",
        ),
        (
            lambda e: [e["samples"][n].resize(9000, axis=0) for n in e["samples"]],
            lambda s: s.sample_columns(),
            "chunks are there of the",
        ),
    ],
    ids=named,
)
def test_what_would_be_read_wrongly_is_refused(spoil, how, read, why):
    path = spoil(how)
    if "chunks" in why:  # the last row has a stamp, those between have no chunk
        with h5py.File(path, "r+") as file:
            file["entry/samples/t_ns"][-1] = 10**18
    with Session.open(path) as session, pytest.raises(SessionRefused, match=why):
        read(session)
    validate(path)  # does not raise


@pytest.mark.parametrize(
    ("how", "where", "message"),
    [
        (lambda e: e["samples/voltage"].__setitem__(3, 9.9), "samples/voltage", "checksum differs"),
        (
            exchange("samples/aperture_s", "samples/device_time_s"),
            "samples/aperture_s",
            "checksum differs",
        ),
        (lambda e: e["title"].__setitem__((), "else"), "title", "checksum differs"),
        (lambda e: e["events/message"].__setitem__(0, "x"), "events/message", "checksum differs"),
        (
            lambda e: e["frames/camera"].attrs.__setitem__("pixel_size", 8e-9),
            "frames/camera",
            "has other attributes",
        ),
        (
            lambda e: e.__delitem__("instrument/potentiostat"),
            "instrument",
            "lacks potentiostat, which was there",
        ),
        (lambda e: e["sample"].attrs.__delitem__("seal"), "sample", "carries no checksum"),
        (
            lambda e: e["sample"].attrs.__setitem__("seal", "x"),
            "sample",
            "carries a damaged checksum",
        ),
    ],
    ids=named,
)
def test_verify_tells_of_every_change(spoil, how, where, message):
    found = [p for p in validate(spoil(how)) if p.path == where]
    assert message in found[0].message


def test_what_the_editor_changes_is_sealed_again(write_session):
    path = write_session(frames=4)
    with SessionEditor.open(path) as editor:
        editor.put_table("tracks/front", {"t_ns": np.arange(4), "valid": np.ones(4, np.uint8)})
        editor.put_table("tracks/front", {"t_ns": np.arange(2), "valid": np.ones(2, np.uint8)})
        editor.update_columns("samples", {"t_sigma_ns": np.arange(30.0)})
        editor.put_attributes("instrument/new", {"model": "x"})
        editor.add_event(5, "note", "operator", "late")
    assert validate(path) == []


def test_an_unfinished_session_is_not_sealed(tmp_path, make):
    with SessionWriter(tmp_path / "s.h5", make.header()) as writer:
        writer.append_samples(make.samples(3))
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert not is_sealed(file["entry"])
        assert list(broken_seals(file["entry"])) == []
