"""Compressed frames: right, readable in h5py, and never at the price of a frame."""

import dataclasses
import importlib
import os
import threading
import time

import h5py
import numpy as np
import pytest

from session import Session
from session.codecs import BLOSC, BitshuffleLz4, Deflate, find_codec
from session.errors import SessionRefused
from session.journal import Journal, journal_path
from session.journal_words import begin
from session.placed_file import PlacedFile
from session.recover import recover
from session.spare_cores import SpareCores
from session.validate import validate
from session.writer import SessionWriter

COUNT = 30
WAYS = [
    "deflate",
    pytest.param(
        "bitshuffle-lz4",
        marks=pytest.mark.skipif(
            any(importlib.util.find_spec(name) is None for name in ("numcodecs", "hdf5plugin")),
            reason="the extra compress is not installed",
        ),
    ),
]


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Whether a core is free does not depend on what else the computer does."""
    cores = SpareCores(spent_s=time.perf_counter)
    monkeypatch.setattr("session.pixel_store.spare_cores", lambda: cores)
    return cores


def frames(dtype="uint16", count=COUNT):
    """Return frames in which neighbours are as different as in counted electrons."""
    return np.random.default_rng(5).poisson(8, (count, 64, 80)).astype(dtype)


def header(make, compression, dtype="uint16"):
    camera = make.header().cameras[0]
    camera = dataclasses.replace(camera, height=64, width=80, dtype=dtype, compression=compression)
    return make.header(cameras=(camera,))


def write(path, make, compression, pixels, journal=None):
    made = header(make, compression, pixels.dtype.name)
    with SessionWriter(path, made, journal=journal) as writer:
        for index, frame in enumerate(pixels):
            writer.begin_frame("camera", make.frame_header(index), frame)
        store = writer._camera("camera").store
        writer.finish("done", "")
    return store


def assert_there(path, pixels):
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["entry/frames/camera/data"], pixels)
    assert validate(path) == []


@pytest.mark.parametrize("compression", WAYS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_frames_are_what_was_given_and_take_less(tmp_path, make, monkeypatch, compression, dtype):
    path, pixels = tmp_path / "s.h5", frames(dtype)
    monkeypatch.setattr("session.pixel_store._PRESSED_AT_ONCE", COUNT)
    store = write(path, make, compression, pixels)
    assert store.counters()["compressed"] == COUNT
    assert store.counters()["stored_bytes"] < 0.7 * pixels.nbytes
    assert_there(path, pixels)
    with Session.open(path) as session:
        about = session.attributes("frames/camera")
        counters = session.attributes("queues/compression.camera")
    assert ("hdf5plugin" in about["compression"]) == (compression != "deflate")
    assert counters["pixel_bytes"] == pixels.nbytes


@pytest.mark.parametrize("compression", WAYS)
def test_frames_that_find_no_thread_free_are_stored_as_they_are(
    tmp_path, make, monkeypatch, compression
):
    path, pixels = tmp_path / "s.h5", frames()
    may_go_on = threading.Event()
    codec = type(find_codec(compression))
    press = codec.compress

    def wait(self, frame):
        may_go_on.wait()
        return press(self, frame)

    monkeypatch.setattr(codec, "compress", wait)
    with SessionWriter(path, header(make, compression)) as writer:
        store = writer._camera("camera").store
        monkeypatch.setattr(store, "_pressers", 1)
        for index in range(6):
            writer.begin_frame("camera", make.frame_header(index), pixels[index])
        while store.raw < 4:  # two are being compressed, and hold up nobody
            pass
        assert writer.collect_frames("camera") == 0  # in their order
        may_go_on.set()
        for index in range(6, COUNT):
            writer.begin_frame("camera", make.frame_header(index), pixels[index])
        writer.finish("done", "")
    assert store.counters()["compressed"] >= 2
    assert_there(path, pixels)


def test_while_no_core_is_free_frames_are_stored_as_they_are(tmp_path, make, monkeypatch, cores):
    path, pixels, free = tmp_path / "s.h5", frames(count=9), [True]
    monkeypatch.setattr(SpareCores, "are_there", property(lambda self: self is cores and free[0]))
    with SessionWriter(path, header(make, "deflate")) as writer:
        for index, frame in enumerate(pixels):
            free[0] = index < 3 or index > 6
            writer.append_frame("camera", make.frame_header(index), frame)
        store = writer._camera("camera").store
        writer.finish("done", "")
    assert (store.pressed, store.raw) == (5, 4)
    assert_there(path, pixels)


def test_what_cannot_be_compressed_is_stored_as_it_is(tmp_path, make):
    noise = np.random.default_rng(1).integers(0, 256, (5, 64, 80), dtype=np.uint8)
    store = write(tmp_path / "s.h5", make, "deflate", noise)
    assert store.counters() == {
        "compressed": 0,
        "uncompressed": 5,
        "stored_bytes": noise.nbytes,
        "pixel_bytes": noise.nbytes,
    }
    assert_there(tmp_path / "s.h5", noise)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no O_DIRECT")
def test_without_a_way_past_the_page_cache_frames_go_through_it(tmp_path, make, monkeypatch):
    past, pixels = write(tmp_path / "past.h5", make, "deflate", frames(count=3)), frames(count=3)
    monkeypatch.delattr(os, "O_DIRECT")
    through = write(tmp_path / "through.h5", make, "deflate", pixels)
    assert through.way == "compressed, through the page cache: this system has no O_DIRECT"
    assert past.way.startswith(("compressed, straight to the disk", "compressed, through the page"))
    assert_there(tmp_path / "through.h5", pixels)


def test_a_frame_that_fails_is_told_and_none_after_it_is_named(tmp_path, make, monkeypatch):
    path, pixels = tmp_path / "s.h5", frames()
    writer = SessionWriter(path, header(make, "deflate"))
    place = PlacedFile.place

    def fail(self, data, number, content, mask):
        if number == 2:
            raise OSError(28, "No space left on device")
        return place(self, data, number, content, mask)

    monkeypatch.setattr(PlacedFile, "place", fail)
    monkeypatch.setattr("session.pixel_store._PRESSED_AT_ONCE", COUNT)
    for index in range(5):
        writer.begin_frame("camera", make.frame_header(index), pixels[index])
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
    assert writer._camera("camera").count == 2
    writer.abandon()
    writer._file.close()


@pytest.mark.parametrize("compression", WAYS)
def test_what_a_crash_left_is_made_whole_from_the_journal(tmp_path, make, monkeypatch, compression):
    monkeypatch.setattr("session.pixel_store._PRESSED_AT_ONCE", COUNT)
    path, pixels = tmp_path / "s.h5", frames(count=8)
    journal = Journal(path)
    begin(journal, header(make, compression))
    writer = SessionWriter(path, header(make, compression), journal=journal, monotonic_ns=lambda: 0)
    for index, frame in enumerate(pixels):
        writer.begin_frame("camera", make.frame_header(index), frame)
    writer._camera("camera").settle()
    journal.write()
    image = bytearray(path.read_bytes())
    image[:96] = b"\xff" * 96  # HDF5 cannot open it any more
    writer.close()
    journal.close()
    path.write_bytes(image)
    recovered = recover(path)
    assert recovered.missing == ()
    with h5py.File(recovered.path, "r") as file:
        np.testing.assert_array_equal(file["entry/frames/camera/data"], pixels)
    assert validate(recovered.path) == []
    recovered.path.unlink()
    pressed = find_codec(compression).compress(pixels[7])
    image[image.rindex(pressed) + len(pressed) // 2] ^= 0xFF
    path.write_bytes(image)
    assert recover(path).missing == ("frames/camera: the pixels of frame 7 are not in the file",)
    assert journal_path(path).exists()


@pytest.mark.parametrize("compression", WAYS)
def test_what_cannot_be_compressed_is_made_whole_too(tmp_path, make, compression):
    path = tmp_path / "s.h5"
    noise = np.random.default_rng(1).integers(0, 2**16, (4, 64, 80), dtype=np.uint16)
    journal = Journal(path)
    begin(journal, header(make, compression))
    write(path, make, compression, noise, journal=journal)
    journal.close()
    image = bytearray(path.read_bytes())
    image[:96] = b"\xff" * 96
    path.write_bytes(image)
    recovered = recover(path)
    assert recovered.missing == ()
    assert_there(recovered.path, noise)


def test_automatic_is_what_is_installed_and_what_is_missing_is_said(monkeypatch):
    found = importlib.import_module

    def without(name):
        if name in ("numcodecs", "hdf5plugin"):
            raise ModuleNotFoundError(name, name=name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert isinstance(find_codec("auto"), Deflate)
    assert find_codec("none") is None
    with pytest.raises(SessionRefused, match=r"hdf5plugin.*lamella\[compress\]"):
        find_codec("bitshuffle-lz4")
    with pytest.raises(SessionRefused, match="'deflate', 'bitshuffle-lz4' will do"):
        find_codec("zip")


def test_a_file_that_cannot_be_read_here_says_what_would_do(tmp_path, make, monkeypatch):
    path = tmp_path / "s.h5"
    write(path, make, "deflate", frames(count=1))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code == BLOSC)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(SessionRefused, match=r"HDF5 filter \d.*lamella\[compress\]"):
        Session.open(path)


@pytest.mark.parametrize("codec", [Deflate, BitshuffleLz4])
def test_content_that_is_not_whole_is_refused(codec):
    try:
        made = codec()
    except ImportError as error:
        pytest.skip(str(error))
    pixels = frames(count=1)[0]
    pressed, size = made.compress(pixels), pixels.nbytes
    assert made.expand(pressed, pixels.dtype, size) == pixels.tobytes()
    for spoilt, length in (
        (b"\x01" * 40, size),
        (pressed[: len(pressed) // 2], size),
        (pressed, size + 2),
    ):
        with pytest.raises(ValueError, match=r"\S"):
            made.expand(spoilt, pixels.dtype, length)
