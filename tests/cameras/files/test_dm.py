"""DigitalMicrograph files, synthetic: tag trees of versions 3 and 4 in either byte order."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameras.files.dm import read
from cameras.files.dm_tags import read_tags
from cameras.files.recording import FrameFileError, read_frames
from cameras.records import StampKind
from tests.cameras.files.writers import (
    EPOCH_NS,
    EPOCH_S,
    Dm,
    Typed,
    day_text,
    dm,
    filetime,
    image_of,
    pictures,
    sequence_tags,
)

EPOCH_MS = EPOCH_S * 1000


def told(series, text):
    return any(text in sentence for sentence in series.assumptions)


def data_bar(ns, *, code="q", exposure_s=0.5):
    value = float(filetime(ns)) if code == "d" else filetime(ns)
    tags = {"Acquisition Time (OS)": Typed(code, value), "Acquisition Time": "10:13:20 PM"}
    return {"DataBar": tags | {"Exposure Time (s)": Typed("d", exposure_s)}}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_a_stack_is_read_frame_by_frame(tmp_path, version, order, dtype):
    frames = pictures(3, dtype=dtype)
    path = dm(tmp_path / f"a.dm{version}", frames, {}, version=version, order=order)
    series = read_frames([path])
    assert (len(series), series.height, series.width, series.dtype) == (3, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    assert series.stamps is None
    assert told(series, "the files give no time for a frame")


def test_frames_of_a_sequence_have_start_and_exposure(tmp_path):
    after_ns = [5, 400_000_123, 1_200_000_777]
    numbers = [0, 1, 3]
    frames = pictures(3)
    paths = [
        dm(
            tmp_path / f"f{9 - i}.dm4",
            frames[i : i + 1],
            sequence_tags(EPOCH_MS + 7, after_ns[i], number=numbers[i]),
            version=4,
        )
        for i in range(3)
    ]
    series = read_frames(paths)
    stamps = series.stamps
    assert stamps.device_ns.tolist() == [EPOCH_NS + 7_000_000 + ns for ns in after_ns]
    assert stamps.raw.tolist() == [[EPOCH_MS + 7, ns] for ns in after_ns]
    assert stamps.exposure_ns.tolist() == [400_000_000] * 3
    assert (stamps.clock, stamps.kind) == ("camera UTC", StampKind.EXPOSURE_START)
    assert stamps.resolution_ns == 10**6
    assert series.index.tolist() == numbers
    assert [path.name for path in series.paths] == ["f9.dm4", "f8.dm4", "f7.dm4"]
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)


def test_a_filetime_keeps_each_tick_of_100_ns(tmp_path):
    stamps_ns = [EPOCH_NS + 100, EPOCH_NS + 1_234_567_800]
    paths = [
        dm(tmp_path / f"f{i}.dm4", pictures(1), data_bar(ns), version=4)
        for i, ns in enumerate(stamps_ns)
    ]
    stamps = read(paths).stamps
    assert stamps.device_ns.tolist() == stamps_ns
    assert stamps.exposure_ns.tolist() == [500_000_000] * 2
    assert (stamps.clock, stamps.resolution_ns) == ("recording computer UTC", 100)
    # As a float, the ticks would be lost.
    assert int(float(filetime(stamps_ns[0]))) != filetime(stamps_ns[0])


def test_a_filetime_stored_as_a_float_says_how_coarse_it_is(tmp_path):
    path = dm(tmp_path / "a.dm3", pictures(1), data_bar(EPOCH_NS + 100, code="d"))
    stamps = read([path]).stamps
    assert stamps.resolution_ns == 100 * math.ulp(float(filetime(EPOCH_NS))) == 1600
    assert abs(int(stamps.device_ns[0]) - EPOCH_NS - 100) <= 1600


def test_times_that_cannot_be_true_are_not_used(tmp_path):
    odd = sequence_tags(-530_000_000_000_000, 5) | data_bar(EPOCH_NS)
    series = read([dm(tmp_path / "a.dm3", pictures(1), odd)])
    assert series.stamps.clock == "recording computer UTC"
    assert told(series, "start of -530000000000000 ms")
    for after_ns in (-1, 10**18):
        tags = sequence_tags(EPOCH_MS, after_ns)
        assert read([dm(tmp_path / "b.dm3", pictures(1), tags)]).stamps is None
    early = {"DataBar": {"Acquisition Time (OS)": Typed("q", 5)}}
    series = read([dm(tmp_path / "c.dm3", pictures(1), early)])
    assert series.stamps is None
    assert told(series, "the operating system's time 5 cannot be true")
    nothing = {"DataBar": {"Acquisition Time (OS)": Typed("d", math.nan)}}
    assert read([dm(tmp_path / "d.dm3", pictures(1), nothing)]).stamps is None


def test_one_source_of_time_is_used_for_all_files(tmp_path):
    good = sequence_tags(EPOCH_MS, 5) | data_bar(EPOCH_NS)
    odd = sequence_tags(0, 5) | data_bar(EPOCH_NS + 10**9)
    paths = [dm(tmp_path / f"f{i}.dm3", pictures(1), tags) for i, tags in enumerate((good, odd))]
    series = read(paths)
    assert series.stamps.device_ns.tolist() == [EPOCH_NS, EPOCH_NS + 10**9]
    assert told(series, "times are those of the data bar's")


@pytest.mark.parametrize("exposure_s", [0.0, -1.0, math.nan, 1e9])
def test_an_exposure_that_cannot_be_true_is_not_used(tmp_path, exposure_s):
    path = dm(tmp_path / "a.dm3", pictures(1), data_bar(EPOCH_NS, exposure_s=exposure_s))
    assert read([path]).stamps.exposure_ns is None


def test_single_images_that_all_have_the_same_number_have_no_counter(tmp_path):
    paths = [
        dm(tmp_path / f"f{i}.dm3", pictures(1), sequence_tags(EPOCH_MS + 1000 * i, 0))
        for i in range(3)
    ]
    series = read(paths)
    assert series.index.tolist() == [0, 1, 2]
    assert told(series, "no counter")


# --- stack builder, and names --------------------------------------------------------------------


def planes(*texts):
    return {"plane info": [{"added @ time": text, "id": Typed("I", 1)} for text in texts]}


def test_planes_of_the_stack_builder_have_the_second_when_they_were_added(tmp_path):
    path = dm(tmp_path / "a.dm3", pictures(3), planes("5:00:27 PM", "5:00:29 PM", "5:00:32 PM"))
    series = read([path])
    stamps = series.stamps
    seconds = [17 * 3600 + s for s in (27, 29, 32)]
    assert stamps.device_ns.tolist() == [s * 10**9 for s in seconds]
    assert stamps.raw.tolist() == ["5:00:27 PM", "5:00:29 PM", "5:00:32 PM"]
    assert (stamps.kind, stamps.resolution_ns) == (StampKind.ARRIVAL, 10**9)
    assert not stamps.is_utc


def test_midnight_is_passed_and_not_run_backwards(tmp_path):
    times_ns = [(86_398 + 2 * i) * 10**9 for i in range(3)]
    texts = [day_text(ns % (86_400 * 10**9)) for ns in times_ns]
    assert texts[1] == "12:00:00 AM"
    tags = {"Tags": {"deeper": planes(*texts)}}
    assert read([dm(tmp_path / "a.dm3", pictures(3), tags)]).stamps.device_ns.tolist() == times_ns


@pytest.mark.parametrize(
    "texts",
    [
        ("5:00:27 PM", "5:00:29 PM"),
        ("5:00:27 PM", "5:00:29 PM", "soon"),
        ("5:00:27 PM", "5:00:29 PM", "13:00:00 PM"),
        ("5:00:27 PM", "5:00:29 PM", "24:00:00"),
    ],
)
def test_planes_that_do_not_all_tell_are_not_used(tmp_path, texts):
    series = read([dm(tmp_path / "a.dm3", pictures(3), planes(*texts), axis=2.5)])
    assert series.stamps is None
    assert told(series, "2 planes of 3 tell when they were added")
    assert told(series, "its axis says 2.5 s a frame, which is no stamp")


def test_the_tree_of_an_in_situ_recording_tells_whole_seconds(tmp_path):
    paths = []
    for second, frame in ((59, 0), (59, 1), (60, 0)):
        minute, s = divmod(second, 60)
        name = f"film_Hour_00_Minute_{minute:02}_Second_{s:02}_Frame_{frame:04}.dm4"
        paths.append(dm(tmp_path / name, pictures(1), {}, version=4))
    series = read(paths[::-1])
    assert series.paths == tuple(paths)
    assert series.stamps.device_ns.tolist() == [59 * 10**9, 59 * 10**9, 60 * 10**9]
    assert series.stamps.clock == "recording, from its start"
    assert series.index.tolist() == [0, 1, 2]


# --- files that cannot be ------------------------------------------------------------------------


def test_files_that_hold_no_frames_are_refused(tmp_path):
    path = tmp_path / "a.dm3"
    for tags, says in (
        ({"ImageList": []}, "holds no image"),
        ({"Other": Typed("I", 1)}, "holds no image"),
        ({"ImageList": [image_of(np.zeros(5, "u2"), 10, {})]}, "holds data of 5 elements"),
    ):
        Dm().file(path, tags)
        with pytest.raises(FrameFileError, match=says):
            read([path])
    dm(path, pictures(2), {}, data_type=3)
    with pytest.raises(FrameFileError, match="pixels of type 3"):
        read([path])
    dm(path, pictures(2), {}, data_type=2)
    with pytest.raises(FrameFileError, match="float32 are 192 bytes, and it holds 96"):
        read([path])


@pytest.mark.parametrize("cut", [9, 60, 400])
def test_a_file_cut_short_is_refused(tmp_path, cut):
    path = dm(tmp_path / "a.dm4", pictures(2), sequence_tags(1, 1), version=4, cut=cut)
    with pytest.raises(FrameFileError, match=r"a\.dm4: (ends within|no value|a tag of|a length)"):
        read([path])


def test_other_versions_empty_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "a.dm3"
    path.write_bytes(struct.pack(">i", 5) + bytes(100))
    with pytest.raises(FrameFileError, match="begins with 5"):
        read([path])
    path.write_bytes(b"")
    with pytest.raises(FrameFileError, match="cannot be read"):
        read([path])
    path.unlink()
    with pytest.raises(FrameFileError, match="cannot be read"):
        read([path])


def test_tags_within_tags_end_somewhere(tmp_path):
    tags = {"end": Typed("I", 1)}
    for _ in range(80):
        tags = {"more": tags}
    path = Dm().file(tmp_path / "a.dm3", tags)
    with pytest.raises(FrameFileError, match="tags within tags"):
        read_tags(path)


def test_values_of_every_kind_are_read(tmp_path):
    tags = {
        "text": "\u00b5m",
        "bytes": b"ascii",
        "struct": (Typed("h", -2), Typed("d", 0.5)),
        "": Typed("B", 1),
        "long": np.arange(5000, dtype=np.uint16),
    }
    for version in (3, 4):
        found, order = read_tags(Dm(version).file(tmp_path / "a.dm3", tags))
        assert order == "<"
        assert (found["text"], found["bytes"]) == ("\u00b5m", "ascii")
        assert (found["struct"], found["0"]) == ((-2, 0.5), 1)
        assert (found["long"].count, found["long"].size) == (5000, 10_000)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 900), byte=st.integers(0, 255), cut=st.integers(0, 900))
def test_damage_anywhere_is_refused_or_harmless(tmp_path_factory, at, byte, cut):
    path = tmp_path_factory.mktemp("damage") / "a.dm4"
    dm(path, pictures(2), planes("5:00:27 PM", "5:00:29 PM"), version=4)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content[: cut or None])
    try:
        frames = list(read([path]).frames())
    except FrameFileError:
        return
    assert frames[0].ndim == 2
