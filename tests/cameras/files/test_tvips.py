"""TVIPS files, synthetic: written from the two public maps where they agree."""

import struct

import numpy as np
import pytest

from cameras.files.recording import FrameFileError, read_frames
from cameras.files.tvips import read
from cameras.records import StampKind
from tests.cameras.files.writers import EPOCH_S, pictures, tvips

STAMPS_MS = EPOCH_S * 1000 + np.array([990, 1001, 1009, 1021, 1030, 1041])


def whole(path, **others):
    return tvips(path, pictures(6), range(10, 16), STAMPS_MS.tolist(), **others)


@pytest.mark.parametrize(("version", "header_bytes"), [(1, 12), (2, 12), (2, 60), (2, 108)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_frame_has_its_own_stamp_and_pixels(tmp_path, version, header_bytes, dtype):
    frames = pictures(6, dtype=dtype)
    path = tmp_path / "a_000.tvips"
    tvips(path, frames, range(6), STAMPS_MS.tolist(), version=version, header_bytes=header_bytes)
    series = read_frames([path])
    assert (len(series), series.height, series.width, series.dtype) == (6, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    stamps = series.stamps
    assert stamps.device_ns.tolist() == (STAMPS_MS * 10**6).tolist()
    assert stamps.raw[1].tolist() == [EPOCH_S + 1, 1]
    assert (stamps.clock, stamps.kind) == ("recording computer UTC", StampKind.UNKNOWN)
    assert stamps.is_utc
    assert (stamps.resolution_ns, stamps.exposure_ns) == (10**6, None)
    assert series.index.tolist() == list(range(6))
    assert series.assumptions == ()


def test_jitter_and_losses_stay_in_the_times(tmp_path):
    kept = np.array([0, 1, 2, 5, 6])
    stamps_ms = EPOCH_S * 1000 + kept * 10 + np.array([0, -1, 2, 1, -2])
    path = tvips(tmp_path / "a_000.tvips", pictures(5), kept.tolist(), stamps_ms.tolist())
    series = read([path])
    assert series.index.tolist() == kept.tolist()
    assert series.stamps.device_ns.tolist() == (stamps_ms * 10**6).tolist()


def test_a_series_goes_on_in_further_files_without_a_header(tmp_path):
    frames = pictures(6)
    for number, at in enumerate((0, 3, 5)):
        until = (3, 5, 6)[number]
        tvips(
            tmp_path / f"a_{number:03}.tvips",
            *(frames[at:until], range(at, until), STAMPS_MS[at:until].tolist()),
            first=number == 0,
        )
    files = [tmp_path / f"a_{n:03}.tvips" for n in range(3)]
    for named in (files[:1], files, files[::-1]):
        series = read(named)
        assert series.paths == tuple(files)
        np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
        assert series.stamps.device_ns.tolist() == (STAMPS_MS * 10**6).tolist()
    for named in (files[1:], [files[0], files[2]]):
        with pytest.raises(FrameFileError, match=r"files of one series end in 000"):
            read(named)
    other = whole(tmp_path / "b_001.tvips")
    with pytest.raises(FrameFileError, match=r"given are a_000\.tvips, b_001\.tvips"):
        read([files[0], other])


def test_a_name_without_a_number_is_one_file(tmp_path):
    assert len(read([whole(tmp_path / "movie.tvips")])) == 6


def test_a_counter_that_cycles_counts_on(tmp_path):
    counters = [8, 9, 0, 1, 2, 4]
    path = tvips(tmp_path / "a_000.tvips", pictures(6), counters, STAMPS_MS.tolist())
    series = read([path])
    assert series.index.tolist() == [8, 9, 10, 11, 12, 14]
    assert any("starts again" in text for text in series.assumptions)


def test_equal_stamps_are_what_they_are(tmp_path):
    path = tvips(tmp_path / "a_000.tvips", pictures(3), range(3), [EPOCH_S * 1000] * 3)
    assert set(read([path]).stamps.device_ns.tolist()) == {EPOCH_S * 10**9}


def test_stamps_of_zero_are_none(tmp_path):
    path = tvips(tmp_path / "a_000.tvips", pictures(3), range(3), [0, 1, 2])
    series = read([path])
    assert series.stamps is None
    assert "the files give no time for a frame" in series.assumptions


def test_a_clock_that_was_set_back_is_refused(tmp_path):
    stamps_ms = STAMPS_MS.copy()
    stamps_ms[4] -= 3600_000
    path = tvips(tmp_path / "a_000.tvips", pictures(6), range(6), stamps_ms.tolist())
    with pytest.raises(FrameFileError, match=r"a_000\.tvips: frame 4 .*3599991000000 ns before"):
        read([path])


def test_what_is_left_over_is_told(tmp_path):
    path = whole(tmp_path / "a_000.tvips")
    path.write_bytes(path.read_bytes() + b"\0" * 17)
    series = read([path])
    assert len(series) == 6
    assert "17 bytes were left over" in series.assumptions[0]


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        (0, 300, "no .tvips file of version 1 or 2: it says version 2, with a header of 300"),
        (1, 3, "it says version 3"),
        (2, 0, "frames of 0 x 4 pixels"),
        (3, 70_000, "frames of 6 x 70000 pixels"),
        (3, 65_000, "holds no whole frame"),
        (4, 12, "has 12 bits a pixel"),
        (12, 8, "a header of 8 bytes before each frame"),
        (12, 64, r"frame 1 \(from 0\)"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, word, value, says):
    path = whole(tmp_path / "a_000.tvips", header_bytes=60)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4 * word, value)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=says):
        read([path])


def test_more_than_999_milliseconds_are_refused(tmp_path):
    path = whole(tmp_path / "a_000.tvips", header_bytes=60)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 256 + 2 * (60 + 48) + 8, 1000)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=r"frame 2 .*stamped with 1000 milliseconds"):
        read([path])


def test_a_stub_is_refused(tmp_path):
    (tmp_path / "a_000.tvips").write_bytes(b"TVIPS")
    with pytest.raises(FrameFileError, match="it has 5 bytes"):
        read([tmp_path / "a_000.tvips"])
