"""StreamPix and TIA files, synthetic: written from their known layouts."""

import struct

import numpy as np
import pytest

from cameras.files import seq as seq_files
from cameras.files import ser as ser_files
from cameras.files.recording import FrameFileError, read_frames
from cameras.records import StampKind
from tests.cameras.files.writers import EPOCH_S, pictures, seq, ser

STAMPS_US = EPOCH_S * 10**6 + np.array([1_999_999, 2_002_500, 2_005_001, 2_012_499])


# --- SEQ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_every_seq_frame_has_the_stamp_behind_it(tmp_path, dtype):
    frames = pictures(4, dtype=dtype)
    series = read_frames([seq(tmp_path / "a.seq", frames, STAMPS_US.tolist())])
    assert (len(series), series.height, series.width, series.dtype) == (4, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    stamps = series.stamps
    assert stamps.device_ns.tolist() == (STAMPS_US * 1000).tolist()
    assert stamps.raw[0].tolist() == [EPOCH_S + 1, 999, 999]
    assert (stamps.resolution_ns, stamps.kind) == (1000, StampKind.UNKNOWN)
    assert any("unconfirmed" in text for text in series.assumptions)
    assert any("no counter" in text for text in series.assumptions)


def test_older_seq_files_have_milliseconds(tmp_path):
    path = seq(tmp_path / "a.seq", pictures(4), STAMPS_US.tolist(), version=4, pad=0)
    series = read_frames([path])
    assert series.stamps.device_ns.tolist() == (STAMPS_US // 1000 * 10**6).tolist()
    assert series.stamps.resolution_ns == 10**6
    np.testing.assert_array_equal(series.load(3), pictures(4)[3])


def test_a_seq_file_that_ends_early_is_read_as_far_as_it_goes(tmp_path):
    path = seq(tmp_path / "a.seq", pictures(4), STAMPS_US.tolist())
    path.write_bytes(path.read_bytes()[:-1])
    series = read_frames([path])
    assert len(series) == 3
    assert any("155 bytes were left over" in text for text in series.assumptions)
    assert any("tells of 4 frames, and it holds 3" in text for text in series.assumptions)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, 0xBEEF, "is no .seq file: it begins with 0xbeef"),
        (548, 0, "frames of 0 x 4 pixels"),
        (548, 7, "7 x 4 pixels of 16 bits are not the 48 bytes"),
        (556, 12, "has 12 bits a pixel of format 100"),
        (568, 200, "has 16 bits a pixel of format 200"),
        (580, 50, "images lie 50 bytes apart"),
        (620, 1, r"is compressed \(kind 1\)"),
        (8192 + 2 * 156 + 52, 1000, r"frame 2 \(from 0\): is stamped with 1000 milliseconds"),
        (8192 + 1 * 156 + 52, 2000 << 16, r"frame 1 \(from 0\): .* 2000 microseconds"),
    ],
)
def test_a_seq_file_that_cannot_be_is_refused(tmp_path, at, value, says):
    path = seq(tmp_path / "a.seq", pictures(4), STAMPS_US.tolist())
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, at, value)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=says):
        seq_files.read([path])


def test_seq_stubs_are_refused(tmp_path):
    (tmp_path / "a.seq").write_bytes(b"\xed\xfe\0\0")
    with pytest.raises(FrameFileError, match="it has 4 bytes"):
        seq_files.read([tmp_path / "a.seq"])


# --- SER -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0x0210, 0x0220])
@pytest.mark.parametrize("tag", [0x4152, 0x4142])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_ser_image_has_the_second_of_its_tag(tmp_path, version, tag, dtype):
    frames = pictures(5, dtype=dtype)
    seconds = EPOCH_S + np.array([0, 0, 1, 1, 2])
    path = ser(tmp_path / "a_1.ser", frames, seconds.tolist(), version=version, tag=tag)
    series = read_frames([path])
    assert (len(series), series.height, series.width, series.dtype) == (5, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    assert series.stamps.device_ns.tolist() == (seconds * 10**9).tolist()
    assert series.stamps.raw.tolist() == seconds.tolist()
    assert series.stamps.resolution_ns == 10**9
    assert any("unconfirmed" in text for text in series.assumptions)


def test_a_ser_series_that_was_ended_early_says_so(tmp_path):
    path = ser(tmp_path / "a_1.ser", pictures(3), [EPOCH_S] * 3, total=5)
    series = read_frames([path])
    assert len(series) == 3
    assert any("5 images were meant, 3 are told of, and 3 are" in t for t in series.assumptions)


@pytest.mark.parametrize("cut", [1, 20, 90, 106])
def test_a_ser_file_cut_short_gives_its_whole_images(tmp_path, cut):
    # Behind the pixels of the last image are the 8 bytes of its tag: both are needed.
    path = ser(tmp_path / "a_1.ser", pictures(3), [EPOCH_S] * 3)
    path.write_bytes(path.read_bytes()[:-cut])
    series = read_frames([path])
    assert len(series) == 2
    assert any("3 are told of, and 2 are whole" in text for text in series.assumptions)


def test_a_ser_file_without_times_has_no_stamps(tmp_path):
    assert read_frames([ser(tmp_path / "a.ser", pictures(2), [1, 2], tag=0x1111)]).stamps is None
    assert read_frames([ser(tmp_path / "b.ser", pictures(2), [0, 0])]).stamps is None


@pytest.mark.parametrize(
    ("at", "form", "value", "says"),
    [
        (0, "<H", 0x4D4D, "is no .ser file: it begins with 4d 4d 97 01"),
        (6, "<I", 0x4120, "holds spectra and no images"),
        (6, "<I", 0x4999, "data of an unknown kind 0x4999"),
        (18, "<I", 0, "tells of 0 of 3 images"),
        (18, "<I", 9, "tells of 9 of 3 images"),
        (22, "<Q", 9999, "whose offsets do not lie in it"),
        (66, "<Q", 10**6, "frame 0 .*its image does not lie in the file"),
        (90, "<Q", 10**6, "its tag does not lie in the file"),
        (98, "<Q", 0, "frame 1 .*its tag is damaged"),
        (154, "<H", 9, "unknown or complex type 9"),
        (156, "<I", 0, "frames of 0 x 4 pixels"),
        (66 + 8, "<Q", 2**63, "frame 1 .*its image does not lie in the file"),
        (156, "<I", 60_000, "frame 0 .*its image does not lie in the file"),
        (156 + 106, "<I", 5, "frame 1 .*is 5 x 4 of type 2, and frame 0 is 6 x 4"),
    ],
)
def test_a_ser_file_that_cannot_be_is_refused(tmp_path, at, form, value, says):
    path = ser(tmp_path / "a.ser", pictures(3), [EPOCH_S] * 3)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, value)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=says):
        ser_files.read([path])


def test_ser_stubs_are_refused(tmp_path):
    (tmp_path / "a.ser").write_bytes(b"II")
    with pytest.raises(FrameFileError, match="it has 2 bytes"):
        ser_files.read([tmp_path / "a.ser"])
