"""TIFF stacks, written by tifffile."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cameras.files.raw import RawPixels
from cameras.files.recording import FrameFileError, read_frames
from cameras.files.tiff import read
from tests.cameras.files.writers import pictures


def told(series, text):
    return any(text in sentence for sentence in series.assumptions)


def pages(path, frames, dates):
    with tifffile.TiffWriter(path) as file:
        for frame, date in zip(frames, dates, strict=True):
            file.write(frame, contiguous=False, datetime=date, metadata=None)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"ome": True},
    ],
)
def test_a_stack_is_read_frame_by_frame(tmp_path, dtype, options):
    if options.get("imagej") and dtype == "uint32":
        return  # ImageJ has no such pixels
    frames = pictures(5, dtype=dtype)
    path = tmp_path / ("a.ome.tif" if options.get("ome") else "a.tif")
    tifffile.imwrite(path, frames, photometric="minisblack", **options)
    series = read_frames([path])
    assert (len(series), series.height, series.width, series.dtype) == (5, 4, 6, dtype)
    np.testing.assert_array_equal(np.stack(list(series.frames())), frames)
    assert series.load(4).dtype == np.dtype(dtype)
    assert series.stamps is None
    assert told(series, "the files give no time for a frame")


def test_plain_pages_are_read_where_they_lie(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pictures(3), photometric="minisblack")
    series = read([path])
    monkeypatch.setattr(tifffile, "imread", None)
    np.testing.assert_array_equal(series.load(2), pictures(3)[2])
    assert RawPixels.__call__.__doc__


def test_single_images_are_a_series_by_their_names_as_before(tmp_path):
    for number in (10, 9):
        Image.fromarray(pictures(1)[0]).save(tmp_path / f"f{number}.tif")
    series = read_frames([tmp_path / "f10.tif", tmp_path / "f9.tif"])
    assert series.index.tolist() == [9, 10]
    assert series.model == "imported images"
    tifffile.imwrite(tmp_path / "stack.tif", pictures(3), photometric="minisblack")
    for named in ("f9.tif", "f9.png"):
        Image.fromarray(pictures(1)[0]).save(tmp_path / named)
        with pytest.raises(FrameFileError, match=rf"{named}: is a single image"):
            read([tmp_path / named, tmp_path / "stack.tif"])


def test_dates_of_pages_are_their_times_to_a_second(tmp_path):
    dates = ["2024:05:07 13:59:59", "2024:05:07 14:00:00", "2024:05:07 14:00:02"]
    series = read([pages(tmp_path / "a.tif", pictures(3), dates)])
    first_ns = 1_715_090_399 * 10**9
    assert series.stamps.device_ns.tolist() == [first_ns, first_ns + 10**9, first_ns + 3 * 10**9]
    assert series.stamps.clock == "recording computer local time"
    assert series.stamps.raw.tolist()[0] == "2024-05-07T13:59:59"
    assert told(series, "a page's date is taken for the time of its frame")


def test_one_date_on_all_pages_is_when_the_file_was_written(tmp_path):
    series = read([pages(tmp_path / "a.tif", pictures(3), ["2024:05:07 13:59:59"] * 3)])
    assert series.stamps is None
    assert told(series, "all pages are dated 2024-05-07T13:59:59, when the file was written")


def test_dates_on_some_pages_only_are_not_used(tmp_path):
    dates = ["2024:05:07 13:59:59", None, "2024:05:07 14:00:02"]
    assert read([pages(tmp_path / "a.tif", pictures(3), dates)]).stamps is None


def ome(path, times, unit="ms", count=3):
    planes = {"DeltaT": times, "DeltaTUnit": [unit] * len(times)}
    metadata = {"axes": "TYX", "Plane": planes}
    tifffile.imwrite(path, pictures(count), ome=True, photometric="minisblack", metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("unit", "ns", "step_ns"), [("s", 10**9, 10**7), ("ms", 10**6, 10**4), ("\u00b5s", 1000, 10)]
)
def test_planes_of_ome_have_their_times_in_their_units(tmp_path, unit, ns, step_ns):
    series = read([ome(tmp_path / "a.ome.tif", [0.25, 2.75, 7.5], unit)])
    assert series.stamps.device_ns.tolist() == [ns // 4, 11 * ns // 4, 15 * ns // 2]
    assert series.stamps.clock == "recording, from its start"
    assert series.stamps.resolution_ns == step_ns


def test_planes_without_all_their_times_have_none(tmp_path):
    path = ome(tmp_path / "a.ome.tif", [0.25, 2.75, 7.5])
    content = path.read_bytes()
    for old, new in ((b'"7.5"', b'"odd"'), (b"DeltaT=", b"DeltaX="), (b'"ms"', b'"h "')):
        assert old in content
        path.write_bytes(content.replace(old, new))
        assert read([path]).stamps is None


def test_further_series_are_told(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(pictures(3), photometric="minisblack")
        file.write(pictures(2, height=5), photometric="minisblack")
    series = read([path])
    assert len(series) == 3
    assert told(series, "holds 2 series: the first was taken")


def test_what_is_no_stack_of_grey_levels_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pictures(3, width=3)[:, :, :], photometric="rgb")
    with pytest.raises(FrameFileError, match="no grey levels"):
        read([path])
    tifffile.imwrite(path, np.zeros((2, 3, 4, 6), "u2"), photometric="minisblack")
    with pytest.raises(FrameFileError, match=r"holds uint16 of 2 x 3 x 4 x 6"):
        read([path])
    tifffile.imwrite(path, pictures(2).astype("c8"), photometric="minisblack")
    with pytest.raises(FrameFileError, match="holds complex64"):
        read([path])
    path.write_bytes(b"II*\0 and no more")
    with pytest.raises(FrameFileError, match="cannot be read as an image"):
        read([path])


def test_damaged_pages_are_told_when_they_are_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pictures(3, 60, 60), photometric="minisblack", compression="zlib")
    series = read([path])
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offsets = [page.dataoffsets[0] for page in file.pages]
    for at in offsets:
        content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(FrameFileError, match=r"a\.tif: frame 2 .*is damaged"):
        series.load(2)


@pytest.mark.parametrize(("tag", "value"), [("ImageLength", 3), ("BitsPerSample", 8)])
def test_a_page_that_is_not_as_the_first_is_refused_and_not_passed_on(tmp_path, tag, value):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pictures(3), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[1].tags[tag].overwrite(value)
    frames = read([path]).frames()
    next(frames)
    with pytest.raises(FrameFileError, match="frame 1 "):
        next(frames)
