"""MRC files, and the text that a Direct Electron camera leaves beside them; synthetic."""

import math
import struct

import numpy as np
import pytest

from cameras.files.mrc import read
from cameras.files.recording import FrameFileError, read_frames
from cameras.records import StampKind
from tests.cameras.files.writers import EPOCH_NS, de_info, mrc, pictures


def said(series, text):
    return any(text in sentence for sentence in series.assumptions)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float16"])
def test_frames_are_read_without_times(tmp_path, order, dtype):
    frames = pictures(3, dtype=dtype)
    series = read_frames([mrc(tmp_path / "a.mrc", frames, order=order, extended=b"x" * 128)])
    assert (len(series), series.height, series.width, series.dtype) == (3, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    assert series.stamps is None
    assert said(series, "the files give no time for a frame")


def test_bytes_are_signed_only_where_imod_says_so(tmp_path):
    path = mrc(tmp_path / "a.mrcs", pictures(2, dtype="uint8"))
    assert said(read_frames([path]), "taken as unsigned")
    content = bytearray(path.read_bytes())
    for flags, dtype in ((1, "int8"), (0, "uint8")):
        struct.pack_into("<2i", content, 152, 1146047817, flags)
        path.write_bytes(content)
        series = read([path])
        assert series.dtype == dtype
        assert not said(series, "taken as unsigned")


def test_header_and_size_that_disagree_are_told(tmp_path):
    short = read([mrc(tmp_path / "a.mrc", pictures(3), told=5, behind=b"xx")])
    assert len(short) == 3
    assert said(short, "tells of 5 frames, and it holds 3")
    assert said(short, "2 bytes were left over")
    longer = read([mrc(tmp_path / "b.mrc", pictures(3), told=2, behind=b"xx")])
    assert len(longer) == 2
    assert said(longer, "50 bytes behind its 2 frames were not read")
    assert len(read([mrc(tmp_path / "c.mrc", pictures(3), told=0)])) == 3


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, 0, "is no .mrc file: it tells of 3 frames of 0 x 4"),
        (8, -1, "is no .mrc file"),
        (12, 4, "pixels of mode 4"),
        (92, -5, "is no .mrc file"),
        (92, 500, "holds no whole frame"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path, at, value, says):
    path = mrc(tmp_path / "a.mrc", pictures(3))
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, at, value)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=says):
        read([path])


def test_a_stub_is_refused(tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"MRC")
    with pytest.raises(FrameFileError, match="it has 3 bytes"):
        read([tmp_path / "a.mrc"])


# --- Direct Electron -----------------------------------------------------------------------------

NAME = "20241021_00405_movie.mrc"


def movie(folder, *, count=32, **changes):
    de_info(folder / "20241021_00405_info.txt", **changes)
    return read_frames([mrc(folder / NAME, pictures(count))])


def test_times_of_a_movie_are_computed_and_marked_so(tmp_path):
    series = movie(tmp_path)
    stamps = series.stamps
    assert stamps.device_ns.tolist() == (EPOCH_NS + 1_428_500 * np.arange(32)).tolist()
    assert stamps.exposure_ns.tolist() == [1_427_500] * 32
    assert (stamps.computed, stamps.kind) == (True, StampKind.UNKNOWN)
    assert stamps.resolution_ns == 10**9
    assert math.isnan(stamps.row_time_ns)
    assert said(series, "times are computed from the start")
    assert said(series, "the shutter is rolling")
    # The two rates of the real file: 50 ppm, 0.18 s an hour.
    assert said(series, "-50 ppm apart; 1428500 ns was taken as nearer to Exposure Time")


@pytest.mark.parametrize("summed", [1, 10])
def test_a_sum_of_frames_takes_as_many_times_as_long(tmp_path, summed):
    series = movie(tmp_path, **{"Autosave Movie Sum Count": summed})
    stamps = series.stamps
    expected_ns = summed * 1_428_500 * np.arange(32)
    assert (stamps.device_ns - EPOCH_NS).tolist() == expected_ns.tolist()
    assert set(stamps.exposure_ns.tolist()) == {(summed - 1) * 1_428_500 + 1_427_500}


@pytest.mark.parametrize(
    ("changes", "period_ns", "says"),
    [
        ({"Frame Time (nanoseconds)": None}, 1e9 / 700, None),
        ({"Frames Per Second": None}, 1_428_500, None),
        ({"Frames Per Second": 1e9 / 1_428_500}, 1_428_500, None),
        ({"Frames Per Second": 0}, 1_428_500, None),
        ({"Exposure Time (seconds)": None}, 1_428_500, "as the finer"),
        ({"Exposure Time (seconds)": 32 / 700}, 1e9 / 700, "1428571.43 ns was taken"),
    ],
)
def test_rates_that_disagree_are_told_and_others_not(tmp_path, changes, period_ns, says):
    series = movie(tmp_path, **changes)
    expected_ns = np.round(np.arange(32) * period_ns).astype(int)
    assert np.abs(series.stamps.device_ns - EPOCH_NS - expected_ns).max() <= 1
    assert said(series, "ppm apart") == (says is not None)
    assert says is None or said(series, says)


def test_a_global_shutter_has_no_row_time_and_dropped_frames_are_told(tmp_path):
    changes = {"Readout - Shutter": "Global", "Grabber Dropped Frames": 3}
    series = movie(tmp_path, **changes)
    assert series.stamps.row_time_ns == 0.0
    assert said(series, "dropped 3 frames")


@pytest.mark.parametrize(
    "changes",
    [
        {"Timestamp (seconds since Epoch)": None},
        {"Timestamp (seconds since Epoch)": -1},
        {"Frame Time (nanoseconds)": None, "Frames Per Second": None},
    ],
)
def test_without_start_or_period_there_are_no_times(tmp_path, changes):
    series = movie(tmp_path, **changes)
    assert series.stamps is None
    assert said(series, "tells no start or no period")


def test_without_exposures_there_are_none(tmp_path):
    changes = {"Frame Exposure Time (nanoseconds)": None, "Readout - Shutter": None}
    series = movie(tmp_path, **changes)
    assert series.stamps.exposure_ns is None
    assert said(series, "the shutter is not told")


def test_a_number_that_is_none_is_refused(tmp_path):
    with pytest.raises(FrameFileError, match=r"info\.txt: Frames Per Second is 'fast'"):
        movie(tmp_path, **{"Frames Per Second": "fast"})


def test_the_text_is_found_by_the_beginning_of_the_name(tmp_path):
    de_info(tmp_path / "20241021_00405_info.txt")
    path = mrc(tmp_path / "20241021_00405_lamella_2_movie.mrc", pictures(2))
    assert read([path]).stamps.computed
    assert read([mrc(tmp_path / "other_movie.mrc", pictures(2))]).stamps is None
    assert read([mrc(tmp_path / "20241021_00405.mrc", pictures(2))]).stamps is None


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "20241021_00405_info.txt").mkdir()
    with pytest.raises(FrameFileError, match=r"info\.txt: cannot be read"):
        read([mrc(tmp_path / NAME, pictures(2))])


def test_movies_with_a_start_each_are_not_joined(tmp_path):
    paths = []
    for number in (405, 406):
        de_info(tmp_path / f"20241021_00{number}_info.txt")
        paths.append(mrc(tmp_path / f"20241021_00{number}_movie.mrc", pictures(2)))
    with pytest.raises(FrameFileError, match="cannot be joined to those of"):
        read(paths)
    bare = mrc(tmp_path / "bare.mrc", pictures(2))
    with pytest.raises(FrameFileError, match=r"bare\.mrc: has no stamps, and .* has"):
        read([paths[0], bare])
