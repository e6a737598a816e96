"""Frames past the page cache: right, in order, and never named before they are there."""

import dataclasses
import errno
import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from session import Session
from session.pages import PAGE_BYTES
from session.placed_file import STRAIGHT, PlacedFile
from session.positioned import PositionedFile
from session.records import CameraHeader
from session.validate import validate
from session.writer import SessionWriter

O_DIRECT = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no O_DIRECT")


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
    write = PositionedFile.write

    def refuse(file, content, place):
        if not place and len(content) == PAGE_BYTES and not content.any():
            raise OSError(errno.EINVAL, "Invalid argument")
        write(file, content, place)

    monkeypatch.setattr(PositionedFile, "write", refuse)
    return "a page could not be written (Invalid argument)"


@O_DIRECT
@pytest.mark.parametrize("hinder", [no_flag, no_file_system, no_write])
def test_what_hinders_is_said_and_the_frames_are_stored_all_the_same(
    tmp_path, make, monkeypatch, hinder
):
    path = tmp_path / "s.h5"
    why = hinder(monkeypatch)
    assert write_frames(path, make, 20, 50, 60) == 20
    assert way(path) == f"through the page cache: {why}"
    assert_frames_are_there(path, 20, 50, 60)


def test_a_system_without_the_calls_of_posix_stores_them_too(tmp_path, make, monkeypatch):
    names = ("pread", "pwrite", "preadv", "pwritev", "O_DIRECT", "posix_fallocate", "fdatasync")
    for name in names:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "s.h5"
    assert write_frames(path, make, 150, 50, 60) == 150
    assert way(path) == "through the page cache: this system has no O_DIRECT"
    assert_frames_are_there(path, 150, 50, 60)


def test_what_is_written_at_places_from_two_threads_lies_there(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pwrite", raising=False)
    file = PositionedFile(tmp_path / "s", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    pages = [np.full(PAGE_BYTES, number, np.uint8) for number in range(200)]
    with ThreadPoolExecutor(2) as pool:
        for number, page in enumerate(pages):
            pool.submit(file.write, page, number * PAGE_BYTES)
    assert file.read(10**9, 0) == np.concatenate(pages).tobytes()
    file.close()


def test_small_frames_go_through_the_page_cache(write_session):
    assert way(write_session()).endswith("frames of 96 bytes are smaller than a page")


def test_a_frame_counts_only_once_it_is_there(direct_writer, make, monkeypatch):
    may_write = threading.Event()
    put = PlacedFile.put

    def put_late(file, place, pixels):
        may_write.wait()
        put(file, place, pixels)

    monkeypatch.setattr(PlacedFile, "put", put_late)
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
    put = PlacedFile.put
    failing = make_frame(1).reshape(-1).view(np.uint8)
    writer = SessionWriter(path, make.header(cameras=(camera_header(),)))

    def fail_once(file, place, pixels):
        if np.array_equal(pixels, failing):
            raise OSError(errno.ENOSPC, "No space left on device")
        put(file, place, pixels)

    monkeypatch.setattr(PlacedFile, "put", fail_once)
    for index in range(4):
        writer.begin_frame("camera", make.frame_header(index), make_frame(index))
    for call in (writer.flush, writer.close, lambda: writer.collect_frames("camera", wait=True)):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert writer._camera("camera").count == 1
    writer.abandon()
    writer._file.close()
    writer._placed.close()
    with h5py.File(path, "r") as file:
        assert len(file["entry/frames/camera/index"]) == 0  # the last flush was whole


@O_DIRECT
def test_short_writes_go_on_where_they_ended(tmp_path, make, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, part, at: pwrite(file, part[:4096], at))
    write_frames(tmp_path / "s.h5", make, 20, 64, 64)
    assert_frames_are_there(tmp_path / "s.h5", 20, 64, 64)


@O_DIRECT
def test_a_disk_too_full_for_a_block_still_takes_frames(tmp_path, make, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    write_frames(tmp_path / "s.h5", make, 20, 64, 64)
    assert_frames_are_there(tmp_path / "s.h5", 20, 64, 64)


@O_DIRECT
@pytest.mark.parametrize(("free", "reserved"), [(10**12, True), (10**9, False)])
def test_no_room_is_taken_ahead_where_little_is_left(tmp_path, make, monkeypatch, free, reserved):
    begins = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, begin, __: begins.append(begin))
    monkeypatch.setattr("session.placed_file.free_bytes", lambda _: free)
    with SessionWriter(tmp_path / "s.h5", make.header(cameras=(camera_header(),))) as writer:
        writer.append_frame("camera", make.frame_header(0), make_frame(0))
        straight = writer._camera("camera").way == STRAIGHT
    assert bool(begins) == (reserved and straight)


def test_a_short_session_is_no_longer_than_what_it_holds(tmp_path, make):
    write_frames(tmp_path / "few.h5", make, 1, 512, 512)
    write_frames(tmp_path / "more.h5", make, 6, 512, 512)
    few, more = ((tmp_path / name).stat().st_size for name in ("few.h5", "more.h5"))
    assert more - few == 5 * 512 * 512 * 2


def test_frames_lie_one_behind_the_other(tmp_path, make):
    path = tmp_path / "s.h5"
    write_frames(path, make, 100, 64, 64)
    with h5py.File(path, "r") as file:
        data = file["entry/frames/camera/data"].id
        places = [data.get_chunk_info_by_coord((n, 0, 0)).byte_offset for n in range(100)]
    assert places == sorted(places)


@O_DIRECT
def test_a_file_that_is_closed_twice_closes_no_other_file(tmp_path):
    path = tmp_path / "s"
    placed = PlacedFile(path)
    placed.close()
    path.write_bytes(bytes(4096))
    with path.open("rb") as one, path.open("rb") as another:
        placed.close()
        assert one.read() == another.read() == bytes(4096)


class Watched:
    """What h5py has of a dataset; notes what is asked of it."""

    def __init__(self, dataset, asked):
        self._dataset, self._asked = dataset, asked

    def __getattr__(self, name):
        self._asked[name] += 1
        return getattr(self._dataset, name)


@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_a_frame_costs_as_much_late_as_early(tmp_path, make, monkeypatch, compression):
    """HDF5 walks through all chunks before one to tell where it is: it is never asked."""
    asked, driven = Counter(), Counter()

    def watch(dataset):
        of_ours = sys._getframe(1).f_globals["__name__"].startswith("session.")
        return Watched(dataset._id, asked) if of_ours else dataset._id

    def count(call):
        def counted(file, *values):
            driven["calls"] += 1
            return call(file, *values)

        return counted

    for name in ("seek", "read", "write"):
        monkeypatch.setattr(PlacedFile, name, count(getattr(PlacedFile, name)))
    monkeypatch.setattr(h5py.Dataset, "id", property(watch))
    camera = dataclasses.replace(camera_header(2, 2), compression=compression)
    frame, found = np.zeros((2, 2), np.uint16), []
    header = make.header(cameras=(camera,))
    with SessionWriter(tmp_path / "s.h5", header, monotonic_ns=lambda: 0) as writer:
        for index in range(5000):
            before = driven.copy(), asked.copy()
            writer.begin_frame("camera", make.frame_header(index), frame)
            writer.collect_frames("camera", wait=True)
            if index in (100, 4900):
                found.append((driven - before[0], asked - before[1]))
        writer.finish("done", "")
    assert found[0] == found[1] == ({"calls": 2}, {"write_direct_chunk": 1})
    walking = {"get_chunk_info", "get_chunk_info_by_coord", "chunk_iter"}
    assert not walking & set(asked)
    assert asked["write_direct_chunk"] == 5000
