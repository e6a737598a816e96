"""What all readers share: nothing is read before it is asked for, dates are exact."""

import tracemalloc

import numpy as np
import pytest

from cameras.files.raw import find_records, read_start
from cameras.files.recording import FrameFileError, read_frames
from cameras.files.times import date_to_ns, seconds_to_ns
from tests.cameras.files.writers import EPOCH_MS, pictures, tvips


def test_a_movie_is_never_in_memory(tmp_path):
    path = tmp_path / "a_000.tvips"
    side, count, header_bytes = 2048, 30, 108
    tvips(path, np.zeros((1, side, side), np.uint8), [0], [EPOCH_MS])
    head = path.read_bytes()[256 : 256 + header_bytes]
    with path.open("r+b") as file:
        for number in range(1, count):
            # The pixels are holes of the file.
            file.seek(256 + number * (side * side + header_bytes))
            file.write(number.to_bytes(4, "little") + head[4:])
        file.truncate(256 + count * (side * side + header_bytes))
    tracemalloc.start()
    series = read_frames([path])
    _, peak = tracemalloc.get_traced_memory()
    assert len(series) == count
    assert peak < side * side
    for _ in zip(series.frames(), range(3), strict=False):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * side * side


def test_frames_of_two_files_are_found_at_their_places(tmp_path):
    frames = pictures(5)
    tvips(tmp_path / "a_000.tvips", frames[:2], range(2), [EPOCH_MS] * 2)
    tvips(tmp_path / "a_001.tvips", frames[2:], range(2, 5), [EPOCH_MS] * 3, first=False)
    series = read_frames([tmp_path / "a_000.tvips"])
    for number in (4, 1, 2, 0, 3):
        np.testing.assert_array_equal(series.load(number), frames[number])


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2023-11-14 22:13:20.5", 1_700_000_000_500_000_000),
    ],
)
def test_dates_are_exact_to_the_nanosecond(text, ns):
    assert date_to_ns(text) == ns


@pytest.mark.parametrize(
    "text", ["", "NaT", "now", "today", "2023-11-14", "2023-02-30T00:00:00", "2023-01-01T25:00:00"]
)
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match=r"no date|day|month|hour|[Dd]atetime|range"):
        date_to_ns(text)


@pytest.mark.parametrize(
    ("text", "ns"), [("0.001", 10**6), (" 1.4285e-3 ", 1_428_500), ("2", 2 * 10**9)]
)
def test_seconds_are_exact(text, ns):
    assert seconds_to_ns(text) == ns


def test_files_that_went_away_are_told(tmp_path):
    for read in (lambda path: read_start(path, 10), lambda path: find_records(path, 0, 1)):
        with pytest.raises(FrameFileError, match=r"a\.mib: cannot be read"):
            read(tmp_path / "a.mib")
