"""Series of image files, and the names of cameras."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cameras.drivers.stream import StreamCamera
from cameras.errors import UnknownCamera
from cameras.files.image import load_image, read
from cameras.files.recording import FrameFileError, read_frames
from cameras.registry import camera_class, camera_names


def picture(path, *, value=0, shape=(6, 8), dtype="uint8"):
    path.parent.mkdir(exist_ok=True)
    pixels = (np.arange(shape[0] * shape[1]).reshape(shape) + value).astype(dtype)
    Image.fromarray(pixels).save(path)
    return path


def names(recording):
    return [path.name for path in recording.paths]


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_series_is_read_with_its_values(tmp_path, suffix, dtype):
    paths = [picture(tmp_path / f"a{i}.{suffix}", value=i, dtype=dtype) for i in range(3)]
    series = read_frames(paths)
    assert (len(series), series.height, series.width, series.dtype) == (3, 6, 8, dtype)
    for i, pixels in enumerate(series.frames()):
        assert pixels.dtype == dtype
        np.testing.assert_array_equal(pixels, np.arange(48).reshape(6, 8) + i)
        assert pixels.flags.c_contiguous


def test_values_of_sixteen_bits_are_not_cut(tmp_path):
    path = picture(tmp_path / "a1.png", value=65_000, dtype="uint16")
    assert load_image(path).max() == 65_047


def test_numbers_order_a_series_and_not_the_alphabet(tmp_path):
    paths = [picture(tmp_path / f"f{i}.png") for i in (10, 9, 1, 100)]
    series = read(paths)
    assert names(series) == ["f1.png", "f9.png", "f10.png", "f100.png"]
    assert series.index.tolist() == [1, 9, 10, 100]
    assert "frame number" in series.assumptions[0]


def test_the_last_number_of_a_name_counts(tmp_path):
    paths = [picture(tmp_path / f"run7_2026-11-24_{i}nm.png") for i in (2, 1)]
    assert read(paths).index.tolist() == [1, 2]


def test_a_gap_in_the_numbers_stays_a_gap(tmp_path):
    series = read([picture(tmp_path / f"f{i:04}.png") for i in (0, 1, 5)])
    assert series.index.tolist() == [0, 1, 5]


def test_names_without_numbers_are_taken_as_given(tmp_path):
    series = read([picture(tmp_path / f"{name}.png") for name in ("later", "early", "f3")])
    assert names(series) == ["later.png", "early.png", "f3.png"]
    assert series.index.tolist() == [0, 1, 2]
    assert "as given" in series.assumptions[0]


def test_the_same_number_twice_is_refused(tmp_path):
    paths = [picture(tmp_path / name) for name in ("a/f1.png", "b/f01.png", "a/f2.png")]
    with pytest.raises(FrameFileError, match=r"a.f1\.png and .*b.f01\.png carry the same number"):
        read(paths)


def test_a_number_too_large_to_count_with_is_refused(tmp_path):
    path = picture(tmp_path / "f99999999999999999999.png")
    with pytest.raises(FrameFileError, match="99999999999999999999"):
        read([path])


@pytest.mark.parametrize("changes", [{"shape": (6, 9)}, {"shape": (8, 6)}, {"dtype": "uint16"}])
def test_a_frame_unlike_the_first_is_named(tmp_path, changes):
    paths = [picture(tmp_path / "f1.png"), picture(tmp_path / "f2.png", **changes)]
    with pytest.raises(FrameFileError, match=r"f2\.png: is .*f1\.png is 8 x 6 uint8"):
        read(paths)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA"])
def test_a_picture_in_colours_is_refused(tmp_path, mode):
    path = tmp_path / "f1.png"
    Image.new(mode, (8, 6)).save(path)
    with pytest.raises(FrameFileError, match="no grey level"):
        read([path])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_picture_cut_short_is_refused(tmp_path, suffix):
    path = picture(tmp_path / f"f1.{suffix}", shape=(200, 300))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameFileError, match=r"f1\."):
        list(read([path]).frames())


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "f1.png"
    path.write_bytes(b"no picture at all")
    with pytest.raises(FrameFileError, match="cannot be read as an image"):
        read([path])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FrameFileError, match="cannot be read as an image"):
        read([tmp_path / "f1.png"])


@pytest.mark.parametrize("limit", [20, 40])
def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, limit):
    path = picture(tmp_path / "f1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(FrameFileError, match="cannot be read as an image"):
        read([path])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it skips
@pytest.mark.parametrize("suffix", ["png", "tif"])
@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_damage_anywhere_is_refused_or_harmless(tmp_path_factory, suffix, at, byte, cut):
    path = picture(tmp_path_factory.mktemp("damage") / f"f1.{suffix}")
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] = byte
    path.write_bytes(raw[: cut or None])
    try:
        series = read([path])
        frames = list(series.frames())
    except FrameFileError:
        return
    assert frames[0].ndim == 2


# --- readers and names ---------------------------------------------------------------------------


def test_no_files_are_no_series():
    with pytest.raises(FrameFileError, match="no frame file is named"):
        read_frames([])


def test_an_unknown_suffix_is_refused_with_the_known_ones():
    with pytest.raises(FrameFileError, match=r"no reader for \.xyz files; there is \.png, \.tif"):
        read_frames([Path("f1.xyz")])


def test_a_suffix_in_capitals_is_known(tmp_path):
    path = picture(tmp_path / "f1.png").rename(tmp_path / "F1.PNG")
    assert len(read_frames([path])) == 1


def test_a_registered_camera_is_found_by_its_name():
    assert "stream" in camera_names()
    assert camera_class("stream") is StreamCamera


def test_a_misspelt_camera_gets_a_hint():
    with pytest.raises(UnknownCamera, match="did you mean 'stream'"):
        camera_class("steam")
    with pytest.raises(UnknownCamera, match="known are .*stream"):
        camera_class("zzz")


def test_camera_names_come_once_and_sorted(monkeypatch):
    def entry(name):
        return importlib.metadata.EntryPoint(name, "x:y", "lamella.cameras")

    monkeypatch.setattr(
        "cameras.registry.entry_points", lambda group: [entry("b"), entry("a"), entry("b")]
    )
    assert camera_names() == ("a", "b")
