"""Frames past the page cache: right, in order, and never named before they are there."""

import errno
import os
import threading

import h5py
import numpy as np
import pytest

from session import Session
from session.direct import DirectFile
from session.pixel_stores import STRAIGHT
from session.records import CameraHeader
from session.validate import validate
from session.writer import SessionWriter

PWRITE = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no O_DIRECT")


def camera_header(height=64, width=64):
    return CameraHeader(
        name="camera",
        model="Maker One",
        height=height,
        width=width,
        dtype="uint16",
        frame_rate_Hz=20.0,
        pixel_size_m=1e-9,
    )


def make_frame(index, height=64, width=64):
    return np.random.default_rng(index).integers(0, 2**16, (height, width), dtype=np.uint16)


@pytest.fixture
def direct_writer(tmp_path, make):
    """Return a writer whose frames go past the page cache, or skip."""
    with SessionWriter(tmp_path / "s.h5", make.header(cameras=(camera_header(),))) as writer:
        if writer._camera("camera").way != STRAIGHT:
            pytest.skip(f"frames go {writer._camera('camera').way}")
        yield writer


def way(path):
    with Session.open(path) as session:
        return session.attributes("instrument/camera")["frames_written"]


def write_frames(path, make, count, height, width):
    header = make.header(cameras=(camera_header(height, width),))
    with SessionWriter(path, header) as writer:
        for index in range(count):
            pixels = make_frame(index, height, width)
            writer.begin_frame("camera", make.frame_header(index), pixels)
        collected = writer.collect_frames("camera", wait=True)
        writer.append_samples(make.samples(3))
        writer.finish("done", "")
    return collected


def assert_frames_are_there(path, count, height, width):
    with h5py.File(path, "r") as file:
        data = file["entry/frames/camera/data"]
        assert data.shape == (count, height, width)
        for index in range(count):
            np.testing.assert_array_equal(data[index], make_frame(index, height, width))
    assert validate(path) == []


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (50, 60), (32, 64)], ids=["pages", "a tail", "one page"]
)
def test_frames_of_any_size_are_what_was_given(tmp_path, make, height, width):
    path = tmp_path / "s.h5"
    assert write_frames(path, make, 150, height, width) == 150
    assert_frames_are_there(path, 150, height, width)


def no_flag(monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    return "this system has no O_DIRECT"


def no_file_system(monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    return "this file system has no O_DIRECT (Invalid argument)"


def no_write(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "pwrite", refuse)
    return "a page could not be written (Invalid argument)"


def no_alignment(monkeypatch):
    check = DirectFile.check
    monkeypatch.setattr(
        DirectFile, "check", lambda file, places: check(file, [place + 512 for place in places])
    )
    return "HDF5 does not put frames at the beginning of a page"


@PWRITE
@pytest.mark.parametrize("hinder", [no_flag, no_file_system, no_write, no_alignment])
def test_what_hinders_is_said_and_the_frames_are_stored_all_the_same(
    tmp_path, make, monkeypatch, hinder
):
    path = tmp_path / "s.h5"
    why = hinder(monkeypatch)
    assert write_frames(path, make, 20, 64, 64) == 20
    assert way(path) == f"through the page cache: {why}"
    assert_frames_are_there(path, 20, 64, 64)


def test_small_frames_go_through_the_page_cache(write_session):
    assert way(write_session()).endswith("frames of 96 bytes are smaller than a page")


def test_a_frame_counts_only_once_it_is_there(direct_writer, make, monkeypatch):
    may_write = threading.Event()
    write = DirectFile.write

    def write_late(file, offset, pixels):
        may_write.wait()
        write(file, offset, pixels)

    monkeypatch.setattr(DirectFile, "write", write_late)
    for index in range(3):
        direct_writer.begin_frame("camera", make.frame_header(index), make_frame(index))
    assert direct_writer.collect_frames("camera") == 0
    assert not direct_writer._camera("camera").table.is_waiting
    may_write.set()
    assert direct_writer.collect_frames("camera", wait=True) == 3
    assert direct_writer.collect_frames("camera", wait=True) == 0


def test_a_flush_waits_for_the_frames_that_were_begun(direct_writer, make, tmp_path):
    for index in range(20):
        direct_writer.begin_frame("camera", make.frame_header(index), make_frame(index))
    direct_writer.flush()
    (tmp_path / "copy.h5").write_bytes(direct_writer.path.read_bytes())
    with Session.open(tmp_path / "copy.h5") as session:
        for index, pixels in enumerate(session.frames("camera")):
            np.testing.assert_array_equal(pixels, make_frame(index))
        assert len(session.frames("camera")) == 20


def test_after_a_frame_that_failed_none_is_named(tmp_path, make, monkeypatch):
    path = tmp_path / "s.h5"
    write = DirectFile.write
    writer = SessionWriter(path, make.header(cameras=(camera_header(),)))
    if writer._camera("camera").way != STRAIGHT:
        pytest.skip(f"frames go {writer._camera('camera').way}")
    failing = writer._camera("camera").store.places[1]

    def fail_once(file, offset, pixels):
        if offset == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, offset, pixels)

    monkeypatch.setattr(DirectFile, "write", fail_once)
    for index in range(4):
        writer.begin_frame("camera", make.frame_header(index), make_frame(index))
    for call in (writer.flush, writer.close, lambda: writer.collect_frames("camera", wait=True)):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert writer._camera("camera").count == 1
    writer.abandon()
    writer._file.close()
    with h5py.File(path, "r") as file:
        assert len(file["entry/frames/camera/index"]) == 0  # the last flush was whole


@PWRITE
def test_short_writes_go_on_where_they_ended(tmp_path, make, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, part, at: pwrite(file, part[:4096], at))
    write_frames(tmp_path / "s.h5", make, 20, 64, 64)
    assert_frames_are_there(tmp_path / "s.h5", 20, 64, 64)


@PWRITE
def test_a_disk_too_full_for_a_block_still_takes_frames(tmp_path, make, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    write_frames(tmp_path / "s.h5", make, 20, 64, 64)
    assert_frames_are_there(tmp_path / "s.h5", 20, 64, 64)


def test_a_short_session_leaves_no_long_block_empty(tmp_path, make):
    write_frames(tmp_path / "s.h5", make, 5, 512, 512)
    assert (tmp_path / "s.h5").stat().st_size < 10 * 512 * 512 * 2


@PWRITE
def test_a_way_that_is_closed_twice_closes_no_other_file(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(bytes(4096))
    way = DirectFile(path, 4096)
    way.close()
    with path.open("rb") as one, path.open("rb") as another:
        way.close()
        assert one.read() == another.read() == bytes(4096)
