"""Imports of files whose frames have stamps of their own."""

import math

import numpy as np
import pytest

from cameras.files.recording import FrameFileError, read_frames
from runner.frame_times import time_frames
from runner.importing import import_session, render_import
from session import Session
from session.validate import validate
from tests.cameras.files.writers import (
    EPOCH_MS,
    EPOCH_NS,
    de_info,
    dm,
    mib,
    mrc,
    pictures,
    seq,
    ser,
    tvips,
)

NUMBERS = [1, 2, 3, 6, 6, 5]
STAMPS_NS = [EPOCH_NS + 2_094_440 * n for n in NUMBERS]


def told(summary, text):
    return any(text in sentence for sentence in summary.assumptions)


@pytest.fixture
def stamped(tmp_path):
    frames = pictures(6)
    path = mib(tmp_path / "film.mib", frames, NUMBERS, STAMPS_NS)
    summary = import_session(tmp_path / "film.h5", frames=[path], pixel_size_m=1e-9)
    with Session.open(tmp_path / "film.h5") as session:
        yield session, summary, frames


def test_the_stamps_are_used_and_kept_raw(stamped):
    session, summary, frames = stamped
    table = session.frame_table("camera")
    # The last frame of the file came late: it is put where its number says.
    order = [0, 1, 2, 5, 3, 4]
    in_order_ns = [STAMPS_NS[i] for i in order]
    assert table["index"].tolist() == [1, 2, 3, 5, 6, 6]
    assert table["device_start_ns"].tolist() == in_order_ns
    assert table["t_start_ns"].tolist() == [ns - STAMPS_NS[0] for ns in in_order_ns]
    assert set(table["exposure_ns"].tolist()) == {10**6}
    # Read to 10 ns, and anywhere in an exposure of 1 ms.
    np.testing.assert_allclose(table["t_sigma_ns"], math.hypot(10, 10**6) / math.sqrt(12))
    np.testing.assert_array_equal(np.asarray(session.frames("camera")), frames[order])
    assert (summary.frames, summary.gaps) == (6, 1)
    assert told(summary, "times are the files' own (camera UTC, to 1e-08 s)")
    assert told(summary, "what a stamp marks is not told")
    assert render_import(summary).row_count > 4


def test_the_camera_says_what_its_stamps_are(stamped):
    session, _, _ = stamped
    camera = session.attributes("frames/camera")
    assert camera["stamp"] == "unknown"
    assert camera["clock"] == "camera"
    assert camera["model"] == "Merlin"
    assert camera["row_time"] == 0
    assert camera["frame_rate"] == pytest.approx(1e9 / 2_094_440)


def test_gaps_repeats_and_late_frames_are_events(stamped):
    session, _, _ = stamped
    found = [
        (event.kind, event.t_ns, event.message)
        for event in session.events()
        if event.kind != "import"
    ]
    start = STAMPS_NS[0]
    late = "number 5 (from 0) of the files comes late and was put in order as frame 5"
    assert found == [
        ("gap", STAMPS_NS[5] - start, "1 frames are missing before frame 5"),
        ("frame_order", STAMPS_NS[5] - start, late),
        ("frame_order", STAMPS_NS[4] - start, "the frame before comes again as frame 6"),
    ]
    gap = next(event for event in session.events() if event.kind == "gap")
    assert gap.data == {"index": 5, "missing": 1}
    dropped = session.frame_table("camera")["dropped_before"]
    assert dropped.tolist() == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("numbers", [[1, 2, 4, 3, 7], [2, 1, 3, 4]])
def test_late_frames_leave_a_session_without_a_problem(tmp_path, numbers):
    stamps_ns = [EPOCH_NS + 2_094_440 * n for n in numbers]
    path = mib(tmp_path / "film.mib", pictures(len(numbers)), numbers, stamps_ns)
    summary = import_session(tmp_path / "film.h5", frames=[path])
    assert validate(tmp_path / "film.h5") == []
    assert summary.gaps == max(numbers) - len(numbers)
    with Session.open(tmp_path / "film.h5") as session:
        assert session.frame_table("camera")["t_start_ns"][0] == 0


def test_an_interval_is_refused_where_there_are_stamps(tmp_path):
    path = mib(tmp_path / "film.mib", pictures(6), NUMBERS, STAMPS_NS)
    with pytest.raises(FrameFileError, match=r"has times of its own \(camera UTC.*leave --frame-i"):
        import_session(tmp_path / "a.h5", frames=[path], frame_interval_s=1.0)
    assert not list(tmp_path.glob("*.h5*"))


def test_an_interval_is_wanted_where_there_are_none(tmp_path):
    path = mrc(tmp_path / "film.mrc", pictures(3))
    with pytest.raises(FrameFileError, match="say how far apart"):
        import_session(tmp_path / "a.h5", frames=[path])
    import_session(tmp_path / "a.h5", frames=[path], frame_interval_s=0.5)
    with Session.open(tmp_path / "a.h5") as session:
        table = session.frame_table("camera")
        assert table["t_start_ns"].tolist() == [0, 5 * 10**8, 10**9]
        assert np.all(np.isnan(table["t_sigma_ns"]))


def test_computed_times_have_no_sigma_and_an_unknown_row_time(tmp_path):
    de_info(tmp_path / "20241021_00405_info.txt")
    path = mrc(tmp_path / "20241021_00405_movie.mrc", pictures(3))
    summary = import_session(tmp_path / "a.h5", frames=[path])
    with Session.open(tmp_path / "a.h5") as session:
        table = session.frame_table("camera")
        assert table["t_start_ns"].tolist() == [0, 1_428_500, 2_857_000]
        assert table["device_start_ns"].tolist()[0] == EPOCH_NS
        assert np.all(np.isnan(table["t_sigma_ns"]))
        assert math.isnan(session.attributes("frames/camera")["row_time"])
    assert told(summary, "times are computed from the start")


def test_the_session_begins_when_the_first_frame_was_stamped_in_utc(tmp_path):
    path = seq(tmp_path / "film.seq", pictures(2), [EPOCH_NS // 1000 + 7, EPOCH_NS // 1000 + 9])
    import_session(tmp_path / "a.h5", frames=[path])
    with Session.open(tmp_path / "a.h5") as session:
        assert session.start_time == "2023-11-14T22:13:20.000006+00:00"


# --- times alone ---------------------------------------------------------------------------------


def test_exposures_that_are_not_told_last_from_frame_to_frame(tmp_path):
    stamps_ms = [EPOCH_MS, EPOCH_MS + 9, EPOCH_MS + 40]
    path = tvips(tmp_path / "a_000.tvips", pictures(3), [0, 1, 4], stamps_ms)
    times = time_frames(read_frames([path]), None)
    assert times.exposure_ns.tolist() == [10**7] * 3
    assert times.rate_Hz == 100
    np.testing.assert_allclose(times.sigma_ns, math.hypot(10**6, 10**7) / math.sqrt(12))
    assert any("exposed all the time, 0.01 s in the mean" in text for text in times.assumptions)


@pytest.mark.parametrize("count", [1, 3])
def test_frames_of_one_second_have_no_rate(tmp_path, count):
    path = ser(tmp_path / "a_1.ser", pictures(count), [EPOCH_NS // 10**9] * count)
    times = time_frames(read_frames([path]), None)
    assert times.start_ns.tolist() == [0] * count
    assert math.isnan(times.rate_Hz)
    assert times.exposure_ns.tolist() == [0] * count
    np.testing.assert_allclose(times.sigma_ns, 10**9 / math.sqrt(12))
    assert any("cannot be had from the stamps: 0 is stored" in t for t in times.assumptions)


def test_a_stamp_of_the_arrival_is_said_to_be_one(tmp_path):
    planes = [{"added @ time": f"5:00:2{i} PM"} for i in range(3)]
    path = dm(tmp_path / "a.dm3", pictures(3), {"plane info": planes})
    times = time_frames(read_frames([path]), None)
    assert times.kind == "arrival"
    assert times.start_time == ""
    assert any("a stamp marks the arrival" in text for text in times.assumptions)
    assert np.all(np.isnan(times.sigma_ns))
