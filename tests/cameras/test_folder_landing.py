"""Files that land in the nasty ways, in a folder reader that is turned by hand."""

import os
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameras.files.recording import GROUP, read_frames
from cameras.landed_files import describe
from cameras.records import StampClock, StampKind
from mocks.folder_writer import Happening, Manner, encode, truth
from tests.cameras.folder_hand import MS, SHAPE, Hand, assert_true, picture, rewrite_later


def read_with(monkeypatch, reader):
    """Have files read by a reader of the test."""
    monkeypatch.setattr("cameras.landed_files._reader", lambda name: reader)


@pytest.fixture
def hand(tmp_path):
    return Hand(tmp_path / "frames").begin()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_is_a_frame_once_it_is_closed(hand, suffix):
    steps = hand.writer.land(f"f001.{suffix}", picture(1, suffix), Manner.IN_PIECES, [40, 90])
    for _ in range(4):  # made, and three pieces: all of its bytes are there
        next(steps)
        hand.turn(1)
        hand.wait(1000)
    assert hand.found == []
    next(steps)
    closed_ns = hand.now_ns
    hand.turn(5)
    hand.wait(300)
    (frame,) = hand.frames
    assert_true(frame, 1)
    assert frame.info.index == 1
    assert frame.info.arrival_ns == frame.info.device_start_ns == closed_ns
    assert (frame.info.exposure_ns, frame.info.dropped_before) == (100 * MS, 0)
    assert hand.finish() == [frame]


def test_a_renamed_file_is_a_frame_at_once(hand):
    hand.land("f1.png")
    hand.wait(300)
    hand.land("f2.png", manner=Manner.RENAMED, cuts=[50])
    hand.turn()
    assert hand.indices == [1, 2]


def test_a_file_that_is_moved_in_rests_for_a_while(hand):
    hand.land("f5.png", manner=Manner.MOVED_IN)
    landed_ns = hand.now_ns
    hand.turn(100)
    hand.turn(99)
    assert len(hand.reader._order) == 0
    hand.turn(1)
    assert len(hand.reader._order) == 1
    hand.wait(300)
    assert hand.indices == [5]
    assert hand.frames[0].info.arrival_ns == landed_ns


def test_without_events_a_file_must_rest(tmp_path):
    hand = Hand(tmp_path / "frames", deaf=True).begin()
    steps = hand.writer.land("f1.tif", picture(1, "tif"), Manner.RESERVED, [470])
    next(steps)
    for _ in range(3):
        hand.turn(150)
        next(steps, None)
        os.utime(tmp_path / "frames" / "f1.tif", ns=(hand.now_ns, hand.now_ns))
    hand.wait(100)
    assert hand.found == []
    hand.wait(600)
    assert_true(hand.frames[0], 1)


def test_a_reserved_length_is_not_taken_for_a_whole_file(hand):
    data = picture(1, "tif")
    steps = hand.writer.land("f1.tif", data, Manner.RESERVED, [len(data) - 10])
    next(steps)
    next(steps)  # all but ten pixels, and a length that fits
    hand.wait(1500)
    assert hand.found == []
    for _ in steps:
        pass
    hand.wait(300)
    assert_true(hand.frames[0], 1)
    assert hand.faults == []


def test_a_file_that_is_closed_after_each_piece_is_waited_for(hand):
    for _ in hand.writer.land("f1.png", picture(1), Manner.REOPENED, [30, 60, 90]):
        hand.wait(700)
    hand.wait(300)
    assert hand.indices == [1]
    assert hand.faults == []


def test_a_file_that_stays_short_is_told_of_once_and_taken_when_it_is_mended(hand):
    data = picture(4)
    hand.land("f4.png", data, Manner.CUT, [60])
    hand.land("f5.png")
    hand.wait(9_000)
    assert hand.indices == [5]
    assert hand.faults == []
    hand.wait(40_000)
    (fault,) = hand.faults
    assert fault.index == 4
    assert str(hand.folder / "f4.png") in fault.reason
    assert "has no end mark, and has been so for 10 s" in fault.reason
    hand.land("f4.png", data)
    hand.turn()
    assert hand.indices == [5, 4]
    assert_true(hand.frames[1], 4)
    assert len(hand.finish()) == 3


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_what_is_no_image_is_told(hand, content):
    hand.land("f4.png", content)
    hand.wait(11_000)
    (fault,) = hand.faults
    assert fault.index == 4


def test_what_was_there_before_the_start_is_no_frame(tmp_path):
    hand = Hand(tmp_path / "frames")
    hand.land("f1.png")
    hand.begin()
    hand.tell(Happening.CLOSED, "f1.png")  # an echo
    hand.land("f2.png")
    hand.wait(1000)
    assert [f.info.index for f in hand.finish()] == [2]


@pytest.mark.parametrize("deaf", [False, True])
def test_what_was_there_before_and_is_written_now_is_a_frame(tmp_path, deaf):
    hand = Hand(tmp_path / "frames", deaf=deaf)
    hand.land("f1.png", b"old")
    hand.begin()
    rewrite_later(hand.folder / "f1.png", picture(1))
    hand.tell(Happening.CLOSED, "f1.png")
    hand.wait(1000)
    assert_true(hand.frames[0], 1)


def test_a_file_seen_twice_is_one_frame(hand):
    hand.land("f1.png")
    hand.wait(1000)
    for happening in (Happening.CLOSED, Happening.MODIFIED, Happening.CREATED):
        hand.tell(happening, "f1.png")
        hand.wait(3000)
    assert len(hand.finish()) == 1


def test_a_file_that_gets_another_name_or_time_later_is_one_frame(hand):
    hand.land("f1.png")
    hand.wait(1000)
    (hand.folder / "f1.png").rename(hand.folder / "f9.png")
    hand.tell(Happening.MOVED, "f9.png", "f1.png")
    os.utime(hand.folder / "f9.png", ns=(5, 5))  # as a copy that keeps times
    hand.tell(Happening.MODIFIED, "f9.png")
    hand.wait(3000)
    assert len(hand.finish()) == 1


def test_a_file_that_is_written_again_is_told_and_stands_as_it_was(hand):
    hand.land("f1.png")
    hand.wait(1000)
    rewrite_later(hand.folder / "f1.png", picture(2))
    hand.tell(Happening.CLOSED, "f1.png")
    hand.wait(1000)
    assert hand.indices == [1]
    assert_true(hand.frames[0], 1)
    (fault,) = hand.faults
    assert fault.index == 1
    assert "written again" in fault.reason


def test_a_file_that_changes_while_it_is_read_is_read_again(hand, monkeypatch):
    path = hand.folder / "f1.png"
    read = []

    def reader(paths):
        recording = read_frames(paths)
        if not read:
            frames = [truth(7, *SHAPE)]
            rewrite_later(path, picture(1))
            recording = Recording(frames)
        read.append(paths)
        return recording

    read_with(monkeypatch, reader)
    hand.land("f1.png", picture(7))
    hand.wait(2000)
    assert len(read) == 2
    assert_true(hand.frames[0], 1)
    assert len(hand.finish()) == 1


def test_a_file_that_is_taken_away_is_told(hand):
    hand.land("f1.png", picture(1), Manner.CUT, [30])
    hand.wait(1000)
    (hand.folder / "f1.png").unlink()
    hand.wait(1000)
    (fault,) = hand.faults
    assert "taken away" in fault.reason
    hand.tell(Happening.CREATED, "f2.png")  # it is gone before anybody looks
    hand.wait(1000)
    assert len(hand.finish()) == 1


def test_a_file_that_cannot_be_opened_is_waited_for(hand, monkeypatch):
    import cameras.landing as module

    real = module.look

    def look(path):
        raise PermissionError(13, "is held by its writer")

    monkeypatch.setattr(module, "look", look)
    hand.land("f1.png")
    hand.wait(12_000)
    (fault,) = hand.faults
    assert "cannot be opened: is held by its writer" in fault.reason
    monkeypatch.setattr(module, "look", real)
    hand.wait(12_000)
    assert hand.indices == [1]


def test_what_is_damaged_or_unlike_is_a_fault_and_the_rest_goes_on(hand):
    hand.land("f1.png")
    damaged = bytearray(picture(2))
    damaged[45:60] = bytes(15)
    hand.land("f2.png", bytes(damaged))
    hand.land("f3.png", picture(3, dtype="uint16"))
    hand.land("f4.png", picture(4, shape=(9, 4)))
    hand.land("f5.png")
    hand.wait(1000)
    assert hand.indices == [1, 5]
    assert [f.index for f in hand.faults] == [2, 3, 4]
    for fault, said in zip(
        hand.faults,
        ("f2.png", "uint16 instead of uint8", "4 x 9 pixels instead of 7 x 5"),
        strict=True,
    ):
        assert said in fault.reason
    assert [f.info.dropped_before for f in hand.frames] == [0, 0]  # they were told as faults
    rewrite_later(hand.folder / "f2.png", picture(2))
    hand.tell(Happening.CLOSED, "f2.png")
    hand.turn()
    assert_true(hand.frames[2], 2)  # mended


def test_a_gap_before_a_damaged_file_is_counted_with_the_next_frame(hand):
    hand.land("f1.png")
    hand.wait(300)
    hand.land("f4.png", picture(4, dtype="uint16"))
    hand.land("f5.png")
    hand.wait(300)
    assert [f.info.dropped_before for f in hand.frames] == [0, 2]
    assert [f.index for f in hand.faults] == [4]


def test_a_damaged_file_without_a_place_is_told_all_the_same(hand):
    hand.land("f1.png")
    hand.wait(300)
    hand.land("plain.png", picture(1, dtype="uint16"))
    hand.turn()
    assert hand.faults[0].index is None


def test_a_file_that_goes_while_it_is_read_is_told(hand, monkeypatch):
    def reader(paths):
        recording = read_frames(paths)
        paths[0].unlink()
        return recording

    read_with(monkeypatch, reader)
    hand.land("f1.png")
    hand.wait(1000)
    assert hand.frames == []
    assert "taken away" in hand.faults[0].reason


def test_a_file_that_changes_whenever_it_is_read_is_told_at_the_end(hand, monkeypatch):
    times = iter(range(10**18, 10**18 + 1000))

    def reader(paths):
        now_ns = next(times)
        os.utime(paths[0], ns=(now_ns, now_ns))
        return Recording([truth(1, *SHAPE)])

    read_with(monkeypatch, reader)
    hand.land("f1.png")
    hand.wait(30_000)
    assert hand.found == []
    (fault,) = hand.finish()
    assert "f1.png may still be written to; the run has ended" in fault.reason


def test_a_file_that_cannot_be_seen_to_be_the_same_is_told(hand, monkeypatch):
    monkeypatch.setattr(hand.reader._landing, "is_same", lambda landed: False)
    hand.land("f1.png")
    hand.wait(30_000)
    (fault,) = hand.found
    assert "changed while it was read, or could not be seen, and has been so for" in fault.reason


def test_a_file_that_is_seen_and_not_there_is_nothing(tmp_path):
    hand = Hand(tmp_path / "frames", "**/*.png")
    (hand.folder / "f0.png").symlink_to(tmp_path / "nowhere")
    hand.begin()
    (hand.folder / "f1.png").symlink_to(tmp_path / "nowhere")
    hand.wait(1000)
    assert hand.finish() == []


def test_a_folder_in_the_folder_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    hand = Hand(tmp_path / "frames", "**/*.png", deaf=True).begin()
    (hand.folder / "in").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("in"):
            raise PermissionError(13, "not for you")
        return real(path)

    monkeypatch.setattr("cameras.landing.os.scandir", scandir)
    hand.land("f1.png")
    hand.wait(1000)
    assert hand.indices == [1]


def test_growth_is_looked_for_in_the_last_files_only(tmp_path):
    hand = Hand(tmp_path / "frames", deaf=True).begin()
    for number in range(70):
        hand.land(f"f{number:02}.png")
    hand.wait(1000)
    assert len(hand.indices) == 70
    for number in (0, 69):
        rewrite_later(hand.folder / f"f{number:02}.png", picture(3))
    hand.wait(1000)
    assert [f.index for f in hand.faults] == [69]


# --- order -------------------------------------------------------------------------------------


def test_files_that_land_out_of_order_are_put_in_order(hand):
    for number in (2, 1, 4, 3):
        hand.land(f"f{number}.png")
        hand.turn(5)
    hand.wait(300)
    assert hand.indices == [1, 2, 3, 4]
    assert [f.info.dropped_before for f in hand.frames] == [0, 0, 0, 0]


def test_a_missing_number_is_a_gap_and_holds_nothing_up(hand):
    hand.land("f1.png")
    hand.wait(300)
    for number in (4, 5):
        hand.land(f"f{number}.png")
    hand.turn()
    hand.turn(240)
    assert hand.indices == [1]
    hand.turn(11)
    assert hand.indices == [1, 4, 5]
    assert [f.info.dropped_before for f in hand.frames] == [0, 2, 0]
    hand.land("f3.png")
    hand.turn()
    assert hand.indices == [1, 4, 5, 3]
    assert hand.frames[-1].info.dropped_before == 0


def test_a_number_that_comes_twice_is_a_fault(hand):
    for name in ("a_07.png", "b_7.png"):
        hand.land(name, picture(7))
        hand.wait(300)
    assert hand.indices == [7]
    assert "b_7.png carries the number of a frame that was there already" in hand.faults[0].reason


def test_a_file_without_a_number_among_numbered_ones_is_a_fault(hand):
    hand.land("f1.png")
    hand.wait(300)
    hand.land("overview.png", picture(0))
    hand.turn()
    assert "overview.png has no number" in hand.faults[0].reason


def test_files_without_numbers_are_counted_as_they_come(hand):
    for name in ("b.png", "a.png", "c 3.png"):
        hand.land(name, picture(0))
        hand.turn()
    hand.wait(300)
    assert hand.indices == [0, 1, 2]


def test_a_tree_of_hours_and_seconds_is_one_series(tmp_path):
    hand = Hand(tmp_path / "frames", "**/*.png").begin()
    for second, frames in ((0, (0, 1)), (1, (1,)), (2, (0, 1))):
        inner = hand.folder / f"Hour_00/Minute_00/Second_{second:02}"
        inner.mkdir(parents=True)
        for frame in frames:
            hand.land(f"Hour_00/Minute_00/Second_{second:02}/x_Frame_{frame:04}.png", picture(0))
        hand.wait(1000)
    assert hand.indices == [0, 1, 3, 4, 5]
    assert [f.info.dropped_before for f in hand.frames] == [0, 0, 1, 0, 0]


def test_a_jump_that_is_no_count_is_told_and_not_counted(hand):
    hand.land("f1.png")
    hand.wait(300)
    hand.land("f20261125192000.png", picture(1))
    hand.wait(300)
    assert hand.indices == [1, 20261125192000]
    assert hand.frames[1].info.dropped_before == 0
    assert "taken for no loss" in hand.faults[0].reason


def test_names_that_are_not_meant_are_left_alone(tmp_path):
    hand = Hand(tmp_path / "frames", "F*.PNG").begin()
    for name in ("g1.png", ".f1.png", "f1.png.part", "notes.txt"):
        hand.land(name, picture(1))
    hand.land("f2.png")
    hand.wait(1000)
    assert [each.info.index for each in hand.finish()] == [2]


# --- many frames in a file ---------------------------------------------------------------------


class Stamps:
    kind, computed, resolution_ns, row_time_ns = StampKind.UNKNOWN, False, 1, 0.0

    def __init__(self, device_ns, exposure_ns=None):
        self.device_ns = np.array(device_ns)
        self.exposure_ns = None if exposure_ns is None else np.array(exposure_ns)


class Recording:
    """As a reader of stacks returns one."""

    def __init__(self, frames, counters=None, stamps=None):
        self._frames = frames
        self.index = np.array(range(len(frames)) if counters is None else counters)
        self.height, self.width = SHAPE
        self.dtype = "uint8"
        self.stamps = stamps

    def __len__(self):
        return len(self._frames)

    def frames(self):
        yield from self._frames


@pytest.fixture
def stacks(monkeypatch):
    """Read .mib files that the simulated writer made."""

    def reader(paths):
        if paths[0].suffix != ".mib":
            return read_frames(paths)
        data, frames, counters = paths[0].read_bytes(), [], []
        size = 384 + SHAPE[0] * SHAPE[1]
        for at in range(0, len(data), size):
            counters.append(int(data[at + 4 : at + 10]) + reader.offset)
            pixels = np.frombuffer(data[at + 384 : at + size], np.uint8)
            frames.append(pixels.reshape(SHAPE))
        return Recording(frames, counters)

    reader.offset = 0
    read_with(monkeypatch, reader)
    return reader


def stack(*indices):
    return encode("mib", [truth(i, *SHAPE) for i in indices])


def test_a_stack_yields_all_its_frames_and_the_next_counts_on(hand, stacks):
    hand.land("s1.mib", stack(1, 2, 3))
    hand.wait(300)
    hand.land("s2.mib", stack(4, 5))
    hand.turn()
    hand.land("s3.mib", stack(6))
    hand.turn()
    assert hand.indices == [1, 2, 3, 4, 5, 6]
    for frame in hand.frames:
        assert_true(frame)
    assert hand.faults == []


def test_a_counter_that_goes_on_from_file_to_file_shows_gaps(hand, stacks):
    hand.land("s1.mib", stack(1, 2))
    hand.wait(300)
    stacks.offset = 3
    hand.land("s2.mib", stack(4, 5))
    hand.turn()
    assert hand.indices == [1, 2, 4, 5]
    assert [f.info.dropped_before for f in hand.frames] == [0, 0, 1, 0]


def test_a_stack_that_is_missing_is_told_and_not_guessed(hand, stacks):
    for number in (1, 4, 3):
        hand.land(f"s{number}.mib", stack(8, 9))
        hand.wait(300)
    assert hand.indices == [1, 2, 3, 4, 5, 6]
    first, second = (fault.reason for fault in hand.faults)
    assert "files 2 to 3 are missing" in first
    assert "unknown" in first
    assert "came after a file of a higher number" in second


def test_a_stack_that_grows_yields_what_is_new(hand, stacks):
    hand.land("s1.mib", stack(1, 2))
    hand.wait(300)
    hand.land("s1.mib", stack(1, 2, 3, 4))
    hand.turn()
    assert hand.indices == [1, 2, 3, 4]
    for frame in hand.frames:
        assert_true(frame)
    rewrite_later(hand.folder / "s1.mib", stack(1, 2, 3, 4))
    hand.tell(Happening.CLOSED, "s1.mib")
    hand.turn()
    assert "written again" in hand.faults[0].reason


def test_a_growing_stack_is_followed_without_events(tmp_path, stacks):
    hand = Hand(tmp_path / "frames", deaf=True).begin()
    hand.land("s1.mib", stack(1, 2))
    hand.wait(1900)
    assert hand.found == []  # its header does not tell where it ends
    hand.wait(1000)
    assert hand.indices == [1, 2]
    rewrite_later(hand.folder / "s1.mib", stack(1, 2, 3))
    hand.finish()
    assert hand.indices == [1, 2, 3]


def test_a_stack_that_changes_while_its_growth_is_read_is_read_again(hand, stacks, monkeypatch):
    hand.land("s1.mib", stack(1, 2))
    hand.wait(300)

    def fail(paths):
        rewrite_later(paths[0], stack(1, 2, 3))
        raise ValueError("half a header")

    read_with(monkeypatch, fail)
    rewrite_later(hand.folder / "s1.mib", stack(1, 2, 5))
    hand.tell(Happening.CLOSED, "s1.mib")
    hand.turn()
    read_with(monkeypatch, stacks)
    hand.wait(3000)
    assert hand.indices == [1, 2, 3]
    assert_true(hand.frames[-1])
    assert hand.faults == []


def test_single_frames_before_a_stack_count_too(hand, stacks):
    hand.land("s1.mib", stack(1))
    hand.wait(300)
    hand.land("s2.mib", stack(2, 3))
    hand.turn()
    assert hand.indices == [1, 2, 3]


def test_a_damaged_frame_ends_a_stack_and_is_told(hand, monkeypatch):
    class Damaged(Recording):
        def frames(self):
            yield self._frames[0]
            raise IndexError("a broken block")

    read_with(
        monkeypatch,
        lambda paths: Damaged([truth(i, *SHAPE) for i in range(3)]),
    )
    hand.land("s1.mib", stack(0, 1, 2))
    hand.wait(300)
    assert hand.indices == [0]
    (fault,) = hand.faults
    assert fault.index == 1
    assert "frames 2 to 3 of that file are left out" in fault.reason


def test_a_stack_that_does_not_count_is_numbered_as_it_comes(hand, monkeypatch):
    read_with(
        monkeypatch,
        lambda paths: Recording([truth(i, *SHAPE) for i in range(3)], [7, 7, 6]),
    )
    hand.land("s1.mib", stack(0, 1, 2))
    hand.wait(300)
    assert hand.indices == [0, 1, 2]
    assert "do not count upwards" in hand.faults[0].reason


def test_a_reader_that_fails_in_its_own_way_is_a_fault(hand, monkeypatch):
    def reader(paths):
        raise KeyError("no such tag")

    read_with(monkeypatch, reader)
    hand.land("f1.png")
    hand.wait(300)
    (fault,) = hand.faults
    assert "cannot be read: 'no such tag'" in fault.reason


# --- the frames' own stamps --------------------------------------------------------------------


def test_a_files_own_stamps_are_kept(tmp_path, monkeypatch):
    files = {
        "a.mib": Recording([truth(1, *SHAPE)], stamps=Stamps([5], [7])),
        "s2.mib": Recording([truth(2, *SHAPE)], stamps=Stamps([70], [9])),
        "s3.mib": Recording([truth(3, *SHAPE)], stamps=Stamps([90])),
        "s4.mib": Recording([truth(4, *SHAPE)]),
    }
    read_with(monkeypatch, lambda paths: files[paths[0].name])
    info = describe(tmp_path / "a.mib", "test")
    assert (info.stamp, info.clock) == (StampKind.UNKNOWN, StampClock.CAMERA)
    hand = Hand.__new__(Hand)
    monkeypatch.setattr("tests.cameras.folder_hand.describe", lambda path, model: info)
    hand.__init__(tmp_path / "frames")
    hand.begin()
    for name in ("s2.mib", "s3.mib", "s4.mib"):
        hand.land(name, stack(0))
    hand.wait(300)
    assert [(f.info.device_start_ns, f.info.exposure_ns) for f in hand.frames] == [
        (70, 9),
        (90, 100 * MS),
    ]
    assert all(f.info.arrival_ns == 1_000_000_000 for f in hand.frames)
    assert "has no stamp of its own" in hand.faults[0].reason


def test_a_merlin_stack_keeps_its_own_stamps(tmp_path, monkeypatch):
    if not entry_points(group=GROUP, name="mib"):
        pytest.skip("no reader of .mib files is registered")
    sample = tmp_path / "sample.mib"
    sample.write_bytes(stack(0))
    info = describe(sample, "test")
    assert info.clock is StampClock.CAMERA
    monkeypatch.setattr("tests.cameras.folder_hand.describe", lambda path, model: info)
    hand = Hand(tmp_path / "frames").begin()
    hand.land("s1.mib", stack(1, 2, 3))
    hand.wait(300)
    assert hand.indices == [1, 2, 3]
    assert np.diff([f.info.device_start_ns for f in hand.frames]).tolist() == [MS, MS]
    assert {f.info.exposure_ns for f in hand.frames} == {MS}
    for frame in hand.frames:
        assert_true(frame)


@pytest.mark.parametrize("odd", [{"computed": True}, {"resolution_ns": 10**9}])
def test_stamps_that_say_less_than_the_arrival_are_left_out(monkeypatch, odd):
    stamps = Stamps([5])
    for name, value in odd.items():
        setattr(stamps, name, value)
    recording = Recording([truth(1, *SHAPE)], stamps=stamps)
    read_with(monkeypatch, lambda paths: recording)
    info = describe(Path("a.mib"), "test")
    assert (info.stamp, info.clock) == (StampKind.ARRIVAL, StampClock.HOST)


# --- the folder itself -------------------------------------------------------------------------


def test_a_folder_that_goes_and_comes_back_is_told_and_nothing_is_lost(hand):
    hand.land("f1.png")
    hand.wait(1000)
    away = hand.folder.with_name("away")
    hand.folder.rename(away)
    hand.wait(5000)
    assert hand.watches == 0
    assert hand.indices == [1]
    hand.folder = away
    (away / "f2.png").write_bytes(picture(2))
    hand.folder = away.rename(away.with_name("frames"))
    hand.wait(2000)
    assert hand.watches == 1
    (fault,) = hand.faults
    assert f"{hand.folder} was away for up to 5" in fault.reason
    hand.land("f3.png")
    hand.turn()
    assert hand.indices == [1, 2, 3]
    assert len(hand.finish()) == 4


def test_half_a_file_is_waited_for_while_the_folder_is_away(hand):
    steps = hand.writer.land("f1.png", picture(1), Manner.IN_PIECES, [50])
    next(steps)
    hand.turn()
    away = hand.folder.rename(hand.folder.with_name("away"))
    hand.turn(240)  # before anybody has looked at the folder
    hand.wait(60_000)
    assert hand.found == []
    away.rename(hand.folder)
    hand.wait(1000)  # its time has begun anew
    for _ in steps:
        pass
    hand.wait(1000)
    assert hand.indices == [1]
    assert len(hand.faults) == 1


def test_another_folder_in_its_place_is_watched_anew(hand):
    hand.turn()
    hand.folder.rename(hand.folder.with_name("away"))
    hand.folder.mkdir()
    hand.wait(300)
    assert "another folder stands in its place" in hand.faults[0].reason
    hand.land("f1.png")
    hand.wait(300)
    assert hand.indices == [1]
    assert hand.watches == 1


def test_a_folder_that_is_away_at_the_end_is_told(hand):
    hand.turn()
    hand.folder.rename(hand.folder.with_name("away"))
    (fault,) = hand.finish()
    assert "is away" in fault.reason
    assert "is not read" in fault.reason


def test_without_events_the_folder_is_looked_at_and_that_is_told(tmp_path):
    hand = Hand(tmp_path / "frames", refuses=True).begin()
    hand.land("f1.png")
    hand.wait(1000)
    assert hand.indices == [1]
    (fault,) = hand.faults
    assert "no inotify watches are left" in fault.reason
    away = hand.folder.rename(hand.folder.with_name("away"))
    hand.wait(1000)
    away.rename(hand.folder)
    hand.wait(1000)
    assert len(hand.faults) == 2  # told once that there are no events


def test_a_slow_look_around_is_made_more_rarely(hand, monkeypatch):
    real = hand.reader._landing.look_around

    def slow(now_ns):
        real(now_ns)
        hand.now_ns += 100 * MS

    monkeypatch.setattr(hand.reader._landing, "look_around", slow)
    assert hand.turn() == 1100 * MS


# --- the end -----------------------------------------------------------------------------------


def test_at_the_end_half_a_file_may_still_become_whole(hand):
    hand.land("f1.png")
    steps = hand.writer.land("f2.png", picture(2), Manner.IN_PIECES, [50])
    next(steps)
    hand.wait(400)
    hand.reader.stop()
    hand.turn()
    for _ in steps:
        pass
    hand.land("f3.png")  # began after the end
    hand.turn(1)
    assert [f.info.index for f in hand.finish()] == [1, 2]


def test_at_the_end_half_a_file_is_given_up_after_a_while(hand):
    hand.land("f1.png", picture(1), Manner.CUT, [40])
    hand.wait(5000)
    begun_ns = hand.now_ns
    (fault,) = hand.finish()
    assert "f1.png has no end mark" in fault.reason
    assert hand.now_ns - begun_ns < 10_500 * MS


def test_a_file_that_never_rests_is_given_up_after_the_end(hand):
    steps = hand.writer.land("f1.png", picture(1), Manner.IN_PIECES, range(1, 90))
    hand.reader.stop()
    for _ in range(80):
        next(steps)
        if hand.turn(300) is None:
            break
    else:
        pytest.fail("it does not end")
    (fault,) = hand.faults
    assert "the run has ended" in fault.reason


# --- whatever the order and the pieces ---------------------------------------------------------

manners = st.sampled_from(list(Manner))


@st.composite
def landings(draw):
    indices = draw(st.lists(st.integers(1, 14), min_size=1, max_size=7, unique=True))
    files = []
    for index in indices:
        manner = draw(manners)
        deaf = draw(st.booleans())
        # A length that is reserved beforehand fools whoever hears no events, if the header
        # comes first; the end mark of a PNG comes last.
        suffix = (
            "png" if deaf and manner is Manner.RESERVED else draw(st.sampled_from(("png", "tif")))
        )
        data = picture(index, suffix)
        cuts = draw(st.lists(st.integers(0, len(data) - 5), min_size=1, max_size=3))
        files.append((index, suffix, data, manner, cuts, deaf))
    steps = draw(
        st.lists(
            st.tuples(st.integers(0, len(files) - 1), st.sampled_from((0, 1, 20, 60))), max_size=30
        )
    )
    return files, steps


@settings(max_examples=25)
@given(landings())
def test_every_whole_file_is_one_frame_whatever_the_order_and_the_pieces(landing):
    play(*landing)


def play(files, steps):
    with tempfile.TemporaryDirectory() as inside:
        hand = Hand(Path(inside) / "frames").begin()
        writing = [
            (hand.writer.land(f"f{index:03}.{suffix}", data, manner, cuts), deaf)
            for index, suffix, data, manner, cuts, deaf in files
        ]
        for which, pause_ms in [*steps, *((i, 0) for i in range(len(files)) for _ in range(9))]:
            generator, hand.deaf = writing[which]
            next(generator, None)
            hand.turn(pause_ms)
        hand.finish()
        for frame in hand.frames:
            assert_true(frame)
        whole = {file[0] for file in files if file[3] is not Manner.CUT}
        assert sorted(hand.indices) == sorted(whole)
        faults = " ".join(fault.reason for fault in hand.faults)
        for index, suffix, _, manner, *_ in files:
            assert (f"f{index:03}.{suffix}" in faults) == (manner is Manner.CUT)
    check_gaps(hand.frames)


def check_gaps(frames):
    """Hold the counted gaps against the numbers that are really missing."""
    if not frames:
        return
    first = last = frames[0].info.index
    counted = found_late = 0
    for frame in frames:
        index = frame.info.index
        counted += frame.info.dropped_before
        found_late += first < index < last
        last = max(last, index)
    came = {frame.info.index for frame in frames}
    assert counted - found_late == len(set(range(first, last + 1)) - came)
