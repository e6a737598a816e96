"""Merlin files, synthetic: each header is written from the known layout."""

import numpy as np
import pytest

from cameras.files.mib import read
from cameras.files.recording import FrameFileError, read_frames
from cameras.records import StampKind
from mocks.merlin_wire import mib_header as wire_header
from tests.cameras.files.writers import EPOCH_NS, mib, mib_header, pictures

# A quad with 1 ms of exposure: 2.09444 ms apart on a grid of 10 ns, with a step of 20 us
# where the clock was set right.
STAMPS_NS = EPOCH_NS + 123_456_780 + np.arange(9) * 2_094_440 + np.array([0] * 5 + [20_000] * 4)


@pytest.mark.parametrize("header_bytes", [384, 768])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_every_frame_has_its_own_stamp_and_pixels(tmp_path, header_bytes, dtype):
    frames = pictures(9, dtype=dtype)
    path = mib(tmp_path / "a.mib", frames, range(1, 10), STAMPS_NS, header_bytes=header_bytes)
    series = read_frames([path])
    assert (len(series), series.height, series.width, series.dtype) == (9, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    assert series.load(8).dtype == np.dtype(dtype)
    stamps = series.stamps
    assert stamps.device_ns.tolist() == STAMPS_NS.tolist()
    assert stamps.device_ns.dtype == np.int64
    assert stamps.exposure_ns.tolist() == [10**6] * 9
    assert stamps.raw[0] == "2023-11-14T22:13:20.123456780Z"
    assert (stamps.clock, stamps.kind) == ("camera UTC", StampKind.UNKNOWN)
    assert (stamps.resolution_ns, stamps.row_time_ns, stamps.computed) == (10, 0.0, False)
    assert series.index.tolist() == list(range(1, 10))
    assert series.assumptions == ()


def test_one_frame_has_a_stamp_too(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(1), [1], STAMPS_NS[:1])
    assert read([path]).stamps.device_ns.tolist() == [STAMPS_NS[0]]


def test_stamps_to_the_nanosecond_keep_their_last_digit(tmp_path):
    stamps_ns = EPOCH_NS + np.array([1, 2_000_003])
    path = mib(tmp_path / "a.mib", pictures(2), [1, 2], stamps_ns)
    stamps = read([path]).stamps
    assert stamps.device_ns.tolist() == stamps_ns.tolist()
    assert stamps.resolution_ns == 1


def test_without_a_tail_the_time_is_local_and_said_to_be(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(9), range(1, 10), STAMPS_NS, tail=False)
    series = read([path])
    assert series.stamps.clock == "camera local time"
    assert not series.stamps.is_utc
    assert series.stamps.resolution_ns == 1000
    expected = (STAMPS_NS + 3600 * 10**9) // 1000 * 1000
    assert series.stamps.device_ns.tolist() == expected.tolist()
    assert series.stamps.exposure_ns.tolist() == [10**6] * 9
    assert any("local time" in text for text in series.assumptions)


def test_a_gap_is_a_gap_and_times_stay_where_they_were(tmp_path):
    keep = [0, 1, 4, 5, 8]
    counters = [int(i) + 1 for i in keep]
    path = mib(tmp_path / "a.mib", pictures(5), counters, STAMPS_NS[keep])
    series = read([path])
    assert series.index.tolist() == counters
    assert series.stamps.device_ns.tolist() == STAMPS_NS[keep].tolist()


@pytest.mark.parametrize("digits", [6, 7])
def test_a_counter_of_six_digits_runs_over_and_a_longer_field_does_not(tmp_path, digits):
    numbers = [999_998, 999_999, 1_000_000, 1_000_002]
    texts = [f"{n % 10**digits:06}" for n in numbers]
    path = mib(tmp_path / "a.mib", pictures(4), texts, STAMPS_NS[[0, 1, 2, 4]])
    series = read([path])
    assert series.index.tolist() == numbers
    assert series.assumptions == ()


def test_a_longer_field_may_leap_back_and_is_no_turn(tmp_path):
    texts = ["1200000", "1200001", "0600000", "0600001"]
    series = read([mib(tmp_path / "a.mib", pictures(4), texts, STAMPS_NS[:4])])
    assert series.index.tolist() == [1_200_000, 1_200_001, 1_200_002, 1_200_003]
    assert any("starts again" in text for text in series.assumptions)
    texts = ["999998", "999999", "400000", "400001"]
    series = read([mib(tmp_path / "b.mib", pictures(4), texts, STAMPS_NS[:4])])
    assert series.index.tolist() == [999_998, 999_999, 1_400_000, 1_400_001]
    assert any("disagree" in text for text in series.assumptions)


def test_late_and_repeated_frames_keep_their_numbers(tmp_path):
    order = [0, 2, 1, 3, 3, 4]
    counters = [i + 1 for i in order]
    path = mib(tmp_path / "a.mib", pictures(6), counters, STAMPS_NS[order])
    series = read([path])
    assert series.index.tolist() == counters
    assert series.stamps.device_ns.tolist() == STAMPS_NS[order].tolist()


def test_a_counter_that_starts_again_counts_on_and_says_so(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(9), [1, 2, 3, 1, 2, 3, 4, 5, 6], STAMPS_NS)
    series = read([path])
    assert series.index.tolist() == list(range(1, 10))
    assert any("starts again 1 times, first at" in text for text in series.assumptions)
    assert any("a.mib: frame 3 (from 0)" in text for text in series.assumptions)


def test_counter_and_stamps_that_disagree_are_told(tmp_path):
    stamps_ns = STAMPS_NS + np.array([0] * 4 + [50_000_000] * 5)
    path = mib(tmp_path / "a.mib", pictures(9), range(1, 10), stamps_ns)
    (said,) = read([path]).assumptions
    assert "disagree at 1 places, first before" in said
    assert "frame 4 (from 0)" in said
    assert "go on by 1, and 24.87 of the usual" in said


def test_files_of_one_series_are_put_in_the_order_of_their_stamps(tmp_path):
    frames = pictures(6)
    later = mib(tmp_path / "a.mib", frames[3:], [4, 5, 6], STAMPS_NS[3:6])
    early = mib(tmp_path / "b.mib", frames[:3], [1, 2, 3], STAMPS_NS[:3])
    series = read([later, early])
    assert [path.name for path in series.paths] == ["b.mib", "a.mib"]
    assert series.index.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    with pytest.raises(FrameFileError, match=r"a\.mib: is named twice"):
        read([later, later])


def test_what_is_left_over_at_the_end_is_told(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(3), [1, 2, 3], STAMPS_NS[:3])
    path.write_bytes(path.read_bytes()[:-10])
    series = read([path])
    assert len(series) == 2
    left = 384 + 48 - 10
    assert f"its 2 whole frames were read, and {left} bytes were left over" in series.assumptions[0]


def test_a_file_that_shrinks_after_it_was_opened_is_told(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(2), [1, 2], STAMPS_NS[:2])
    series = read([path])
    path.write_bytes(path.read_bytes()[:-10])
    assert series.load(0).shape == (4, 6)
    with pytest.raises(FrameFileError, match=r"a\.mib: frame 1 .*ends within it"):
        series.load(1)
    path.unlink()
    with pytest.raises(FrameFileError, match="cannot be read"):
        series.load(0)


def broken(path, frame, change):
    """Change the header of one frame of 4 x 6 uint16."""
    content = bytearray(path.read_bytes())
    at = frame * (384 + 48)
    content[at : at + 384] = change(bytes(content[at : at + 384])).ljust(384, b"\0")[:384]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("frame", "change", "says"),
    [
        (0, lambda h: h.replace(b"MQ1,", b"XX1,"), "is no .mib file"),
        (0, lambda h: h[:20], "is no .mib file"),
        (0, lambda h: h.replace(b"U16", b"R64"), "R64, the raw order"),
        (0, lambda h: h.replace(b"U16", b"U64"), "pixels are 'U64'"),
        (0, lambda h: h.replace(b"00384", b"abcde"), "is no .mib file: .*invalid literal"),
        (0, lambda h: h.replace(b"00384", b"00003"), "a header of 3 bytes cannot be"),
        (0, lambda h: h.replace(b",0006,", b",0000,"), "4 x 0 pixels cannot be"),
        (0, lambda h: h.replace(b",0006,", b",9999,"), "holds no whole frame"),
        (1, lambda h: h.replace(b"MQ1,", b"XX1,"), "frame 1 .*bytes are missing before it"),
        (1, lambda h: h.replace(b"000002", b"0x0002"), "frame 1 .*the counter is '0x0002'"),
        (1, lambda h: h.replace(b"-11-14T", b"-13-14T"), "frame 1 .*header is damaged"),
        (1, lambda h: h.replace(b"2023-11-14T", b"NaT,"), "frame 1 .*header is damaged"),
        (1, lambda h: h.replace(b"1000000ns", b"1000000us"), "frame 1 .*'1000000us' has no unit"),
        (1, lambda h: h.replace(b",0004,", b",0005,"), "frame 1 .*is 6 x 5 U16"),
        (1, lambda h: h.replace(b"MQ1A", b"MQ1B"), "frame 1 .*stamped in camera local time"),
    ],
)
def test_a_damaged_header_is_refused_with_its_frame(tmp_path, frame, change, says):
    path = mib(tmp_path / "a.mib", pictures(3), [1, 2, 3], STAMPS_NS[:3])
    broken(path, frame, change)
    with pytest.raises(FrameFileError, match=rf"a\.mib: .*{says}|a\.mib: {says}"):
        read([path])


@pytest.mark.parametrize("exposure", [b",much,", b",inf,", b",nan,", b",-1,"])
def test_an_exposure_that_cannot_be_is_refused_where_no_tail_has_a_better_one(tmp_path, exposure):
    path = mib(tmp_path / "a.mib", pictures(3), [1, 2, 3], STAMPS_NS[:3], tail=False)
    broken(path, 1, lambda h: h.replace(b",0.001000,", exposure))
    with pytest.raises(FrameFileError, match=r"a\.mib: frame 1 .*(of seconds|cannot be)"):
        read([path])


def test_a_short_exposure_without_a_tail_is_exact(tmp_path):
    # As a float of seconds times 1e9 it would be fine only after rounding.
    path = mib(tmp_path / "a.mib", pictures(2), [1, 2], STAMPS_NS[:2], tail=False)
    broken(path, 1, lambda h: h.replace(b",0.001000,", b",16777.216000001,"))
    assert read([path]).stamps.exposure_ns.tolist() == [10**6, 16_777_216_000_001]


def test_files_and_wire_are_read_by_one_parser(tmp_path):
    """What the detector simulator sends, stored as it is, is a file that reads the same."""
    frames = pictures(3)
    content = b""
    for i, frame in enumerate(frames):
        head = wire_header(
            i + 1, height=4, width=6, code="U16", depth=12, exposure_ns=10**6, **at(i)
        )
        content += head + frame.astype(">u2").tobytes()
    path = tmp_path / "a.mib"
    path.write_bytes(content)
    series = read([path])
    assert series.stamps.device_ns.tolist() == STAMPS_NS[:3].tolist()
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)


def at(i):
    return {"stamp_ns": int(STAMPS_NS[i])}


def test_stamps_that_run_backwards_are_refused(tmp_path):
    stamps_ns = STAMPS_NS[[0, 1, 3, 2]]
    path = mib(tmp_path / "a.mib", pictures(4), [1, 2, 3, 4], stamps_ns)
    with pytest.raises(FrameFileError, match=r"frame 3 \(from 0\): is stamped 2094440 ns before"):
        read([path])


def test_stamps_of_the_arrival_may_follow_the_file_and_not_the_counter(tmp_path):
    path = mib(tmp_path / "a.mib", pictures(4), [1, 3, 2, 4], STAMPS_NS[:4])
    series = read([path])
    assert series.index.tolist() == [1, 3, 2, 4]
    assert any("not that of the counter" in text for text in series.assumptions)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"frames": pictures(2, height=5)}, "frames are 6 x 5 uint16, and those of .*alike"),
        ({"frames": pictures(2, dtype="uint8")}, "6 x 4 uint8"),
        ({"tail": False}, "is stamped by the clock camera local time"),
    ],
)
def test_files_that_are_no_one_series_are_refused(tmp_path, other, says):
    first = mib(tmp_path / "a.mib", pictures(2), [1, 2], STAMPS_NS[:2])
    options = {"frames": pictures(2), **other}
    second = mib(tmp_path / "b.mib", options.pop("frames"), [3, 4], STAMPS_NS[2:4], **options)
    with pytest.raises(FrameFileError, match=rf"b\.mib: .*{says}"):
        read([first, second])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FrameFileError, match="cannot be read"):
        read([tmp_path / "none.mib"])


def test_the_layout_of_a_header_is_that_of_real_ones():
    text = mib_header(1, EPOCH_NS, shape=(256, 256)).decode()
    assert text.startswith(
        "MQ1,000001,00384,01,0256,0256,U16,   1x1,01,2023-11-14 23:13:20.000000,"
    )
    assert text.rstrip("\0").split(",")[-5:-1] == [
        "MQ1A",
        "2023-11-14T22:13:20.000000000Z",
        "1000000ns",
        "12",
    ]
