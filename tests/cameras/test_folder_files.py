"""Whole files, and the numbers of their names."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameras.landed_files import matcher
from cameras.landing import Identity, Landed
from cameras.numbering import MAX_GAPS, MAX_SERIES, Count, Misplaced, Order, key_of
from cameras.wholeness import Whole, known_suffixes, look
from mocks.folder_writer import encode, truth

SUFFIXES = ["png", "tif", "mrc", "mib", "ser", "tvips", "dm4"]
ENDLESS = {"mib", "tvips"}  # their headers do not tell how many frames there are
SLACK = {"tif": 4, "ser": 24}  # bytes at the end that hold no pixels


def frames_for(suffix, count=3):
    return [truth(i, 5, 7) for i in range(1 if suffix == "png" else count)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_whole_with_its_last_byte_and_not_before(tmp_path, suffix):
    data, path = encode(suffix, frames_for(suffix)), tmp_path / f"a.{suffix}"
    frame = (len(data) - (256 if suffix == "tvips" else 0)) // 3
    ends = {end + by for end in (0, frame, 2 * frame, len(data)) for by in (-1, 0, 1, 25)}
    starts = {len(data) - 3 * frame + end for end in ends}
    for length in sorted({*range(0, len(data), 17), *ends, *starts} & {*range(len(data) + 1)}):
        path.write_bytes(data[:length])
        found = look(path)
        if suffix in ENDLESS:
            over = length - len(data) + 3 * frame
            expected = Whole.SO_FAR if over > 0 and over % frame == 0 else Whole.NO
        else:
            expected = Whole.YES if length >= len(data) - SLACK.get(suffix, 0) else Whole.NO
            if len(data) - SLACK.get(suffix, 0) <= length < len(data):
                continue
        assert found.whole is expected, (length, found)
        assert bool(found.reason) == (expected is Whole.NO)


@pytest.mark.parametrize("suffix", [s.lstrip(".") for s in known_suffixes()])
@pytest.mark.parametrize("content", [b"\0" * 3000, b"\xff" * 3000, b"", b"hello"])
def test_what_is_of_another_kind_is_not_whole(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    # A later part of a TVIPS series has no header to know it by.
    headless = suffix == "tvips" and content[:1] == b"\xff"
    assert look(path).whole is (Whole.SO_FAR if headless else Whole.NO)


@given(st.sampled_from(SUFFIXES), st.data())
def test_no_damage_to_a_header_is_an_error_of_ours(tmp_path_factory, suffix, data):
    content = bytearray(encode(suffix, frames_for(suffix, 2)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    path.write_bytes(bytes(content))
    look(path)


@pytest.mark.parametrize(("at", "value"), [(4, 2**64 - 1), (4, 2**63 - 1)])
def test_a_header_that_points_beyond_all_disks_is_not_whole(tmp_path, at, value):
    path = tmp_path / "a.tif"
    big = b"II+\0\x08\0\0\0" + bytes(8)
    path.write_bytes(big[: at + 4] + value.to_bytes(8, "little") + bytes(100))
    assert look(path).whole is Whole.NO


def test_a_table_that_no_memory_holds_is_not_read(tmp_path):
    path = tmp_path / "a.ser"
    head = struct.pack("<3H4I", 0x4949, 0x0197, 0x0220, 0x4122, 0, 2**32 - 1, 2**32 - 1)
    path.write_bytes(head + struct.pack("<Q", 40) + bytes(100))
    assert look(path).whole is Whole.NO


def test_a_file_of_a_kind_that_is_not_understood_may_be_whole(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_bytes(b"1")
    assert look(path).whole is Whole.SO_FAR


def test_a_later_part_of_a_series_has_no_header(tmp_path):
    path = tmp_path / "a_001.tvips"
    path.write_bytes(b"\x07\0\0\0" + bytes(60))
    assert look(path).whole is Whole.SO_FAR


def test_a_header_that_announces_less_than_is_there_is_not_believed(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(encode("mrc", frames_for("mrc")) + b"more")
    assert look(path).whole is Whole.SO_FAR


def test_a_ser_file_that_is_not_full_may_be_done(tmp_path):
    data = bytearray(encode("ser", frames_for("ser")))
    data[18] = 2  # of three
    path = tmp_path / "a.ser"
    path.write_bytes(bytes(data))
    assert look(path).whole is Whole.SO_FAR


def test_raw_merlin_files_are_left_to_their_reader(tmp_path):
    path = tmp_path / "a.mib"
    path.write_bytes(encode("mib", frames_for("mib")).replace(b"U08", b"R64"))
    assert look(path).whole is Whole.SO_FAR


def test_a_png_with_something_after_its_end_is_whole(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode("png", frames_for("png")) + b"more")
    assert look(path).whole is Whole.YES


# --- TIFF in its other forms, from its specification -------------------------------------------


def tiff(order="<", *, big=False, kind=4, offset=None, strips=1, tags=(273, 279)):
    """Return a TIFF file of one page whose pixels are its last 20 bytes for each strip."""
    pointer = "Q" if big else "I"
    word = {3: "H", 4: "I", 16: "Q"}[kind]
    head = 16 if big else 8
    room = struct.calcsize(pointer)
    count_size, entry_size = (8, 20) if big else (2, 12)
    after = head + count_size + 2 * entry_size + room
    lists = strips * struct.calcsize(word)
    inline = lists <= room
    pixels = after + (0 if inline else 2 * lists)
    values = [
        [pixels + 20 * i if offset is None else offset for i in range(strips)],
        [20] * strips,
    ]
    entries, extra = b"", b""
    for tag, numbers in zip(tags, values, strict=True):
        packed = struct.pack(f"{order}{strips}{word}", *numbers)
        if not inline:
            at = after + len(extra)
            extra += packed
            packed = struct.pack(order + pointer, at)
        entries += struct.pack(f"{order}HH{pointer}", tag, kind, strips) + packed.ljust(room, b"\0")
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    start += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    count = struct.pack(order + ("Q" if big else "H"), 2)
    return start + count + entries + bytes(room) + extra + b"\x07" * 20 * strips


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("big", "kind"), [(False, 3), (False, 4), (True, 16), (True, 4)])
@pytest.mark.parametrize("strips", [1, 5])
@pytest.mark.parametrize("tags", [(273, 279), (324, 325)])
def test_every_form_of_tiff_is_whole_with_its_last_byte(tmp_path, order, big, kind, strips, tags):
    data = tiff(order, big=big, kind=kind, strips=strips, tags=tags)
    path = tmp_path / "a.tif"
    for length in {*range(0, len(data), 11), len(data) - 20, len(data) - 1}:
        path.write_bytes(data[:length])
        assert look(path).whole is Whole.NO, length
    path.write_bytes(data)
    assert look(path).whole is Whole.YES


def test_a_tiff_that_does_not_say_where_its_pixels_are_is_waited_for(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(offset=0))
    assert "does not say yet where its pixels are" in look(path).reason
    path.write_bytes(b"II*\0" + bytes(40))
    assert "no directory yet" in look(path).reason
    path.write_bytes(tiff(tags=(256, 257)))
    assert look(path).whole is Whole.SO_FAR


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("f0012.tif", (12,)),
        ("run7_2026-11-24_1nm.png", (7, 2026, 11, 24, 1)),
        ("Hour_01/Second_02/x_3.dm4", (1, 2, 3)),
        ("plain.tif", ()),
        ("run3/plain.mp4", ()),
        ("f99999999999999999999.png", ()),
    ],
)
def test_the_numbers_of_a_name(name, key):
    assert key_of(name) == key


@pytest.mark.parametrize(
    ("pattern", "meant", "not_meant"),
    [
        ("", ("a.TIF", "b.dm4", "in/c.png"), ("a.txt", ".a.tif", "a.tif.part", "in/.c.png")),
        ("*.TIF", ("a.tif",), ("a.png",)),
        ("**/*.dm4", ("a.dm4", "in/deep/a.dm4"), ("a.tif",)),
        ("run?/*.tif", ("run1/a.tif",), ("a.tif",)),
    ],
)
def test_patterns(pattern, meant, not_meant):
    matches = matcher(pattern)
    assert all(map(matches, meant))
    assert not any(map(matches, not_meant))


# --- order -------------------------------------------------------------------------------------


def landed(name):
    return Landed(name=name, path=None, arrival_ns=0, identity=Identity(0, 0))


def drained(order, now_ns, *, ended=False):
    found = []
    while (each := order.next(now_ns, ended=ended)) is not None:
        found.append(each.name)
    return found


def test_the_first_file_is_held_for_lower_ones_and_no_longer():
    order = Order(hold_ns=100)
    order.add(landed("2"), 0)
    assert drained(order, 99) == []
    order.add(landed("1"), 99)
    assert order.next_due_ns() == 100
    assert drained(order, 100) == ["1", "2"]
    assert order.next_due_ns() is None


@pytest.mark.parametrize("name", ["f0", "f1", "Second_3/f0"])
def test_nothing_is_waited_for_below_the_lowest_number(name):
    order = Order(hold_ns=100)
    order.add(landed(name), 0)
    assert drained(order, 0) == [name]


def test_the_one_that_waited_longest_is_not_held_up_by_lower_ones():
    order = Order(hold_ns=100)
    order.add(landed("9"), 0)
    order.add(landed("5"), 90)
    order.add(landed("11"), 90)
    assert drained(order, 100) == ["5", "9"]
    assert len(order) == 1
    assert drained(order, 100, ended=True) == ["11"]


def test_no_more_than_some_are_held():
    order = Order(hold_ns=100, most=3)
    for number in (2, 4, 6, 8):
        order.add(landed(str(number)), 0)
    assert drained(order, 1) == ["2"]


def test_a_file_without_a_number_is_not_held():
    order = Order(hold_ns=100)
    order.add(landed("plain"), 0)
    assert drained(order, 0) == ["plain"]
    assert len(order) == 0


@given(st.permutations(range(2, 10)), st.sets(st.integers(2, 9), max_size=4))
def test_within_its_hold_any_order_is_put_right(numbers, missing):
    order = Order(hold_ns=100)
    found = []
    for now_ns, number in enumerate(numbers):
        if number not in missing:
            order.add(landed(str(number)), now_ns)
        found += drained(order, now_ns)
    found += drained(order, 1000)
    assert found == [str(n) for n in range(2, 10) if n not in missing]


# --- indices -----------------------------------------------------------------------------------


def placed(count, *names):
    found = []
    for name in names:
        place, odd = count.place(name)
        assert odd == ""
        found.append((place.index, place.dropped_before))
    return found


def test_late_and_early_frames_keep_their_indices():
    count = Count()
    assert placed(count, "5", "9", "7", "2", "6", "3") == [
        (5, 0),
        (9, 3),
        (7, 0),
        (2, 0),
        (6, 0),
        (3, 0),
    ]
    for taken in ("7", "9", "2", "6"):
        with pytest.raises(Misplaced, match="there already"):
            count.place(taken)
    assert placed(count, "8", "10") == [(8, 0), (10, 0)]


def test_a_series_that_begins_anew_counts_on():
    count = Count()
    assert placed(count, "1_3", "1_4", "2_0", "2_2") == [(3, 0), (4, 0), (5, 0), (7, 1)]
    assert placed(count, "3_5") == [(10, 2)]  # a number that goes on over the series
    with pytest.raises(Misplaced, match="there already"):
        count.place("1_5")  # its place was given away


def test_a_series_that_is_over_takes_no_more():
    count = Count()
    placed(count, "2_1", "3_1")
    with pytest.raises(Misplaced, match="too late"):
        count.place("1_1")
    for series in range(4, 5 + MAX_SERIES):
        count.place(f"{series}_1")
    with pytest.raises(Misplaced, match="too late"):
        count.place("2_2")


def test_a_number_too_large_to_count_with_is_refused():
    count = Count()
    count.place(f"1_{2**63 - 1}")
    with pytest.raises(Misplaced, match="too large"):
        count.place("2_1")


def test_only_so_many_gaps_are_remembered():
    count = Count()
    for number in range(0, 2 * MAX_GAPS + 10, 2):
        count.place(str(number))
    with pytest.raises(Misplaced):
        count.place("1")
    assert placed(count, str(2 * MAX_GAPS + 7)) == [(2 * MAX_GAPS + 7, 0)]


def test_an_index_is_told_where_it_can_be():
    count = Count()
    assert count.index_of("f3") == 3
    assert count.index_of("plain") is None
    count.place("f3")
    assert count.index_of("f4") == 4
    assert count.index_of("2_f4") is None
    count.place_stack("f5", np.arange(3))
    assert count.index_of("f4") is None


def test_stacks_of_other_series_say_nothing_of_missing_files():
    count = Count()
    for name in ("1_1", "2_7", "plain"):
        _, odd = count.place_stack(name, np.arange(2))
        assert odd == ""
    assert count.last == 5
