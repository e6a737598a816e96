"""Damage anywhere in a file is refused with a clear error, or does no harm."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cameras.files.recording import FrameFileError, read_frames
from tests.cameras.files.writers import (
    EPOCH_MS,
    EPOCH_NS,
    EPOCH_S,
    de_info,
    mib,
    mrc,
    pictures,
    seq,
    ser,
    tvips,
)

FRAMES = pictures(3)


def made_mib(folder):
    return mib(folder / "a.mib", FRAMES, [1, 2, 3], EPOCH_NS + np.arange(3) * 10**6)


def made_tvips(folder):
    return tvips(folder / "a_000.tvips", FRAMES, range(3), [EPOCH_MS, EPOCH_MS + 9, EPOCH_MS + 20])


def made_seq(folder):
    return seq(folder / "a.seq", FRAMES, [EPOCH_NS // 1000 + i for i in range(3)], version=4)


def made_ser(folder):
    return ser(folder / "a.ser", FRAMES, [EPOCH_S] * 3)


def made_mrc(folder):
    return mrc(folder / "a.mrc", FRAMES)


def made_info(folder):
    mrc(folder / "a_1_movie.mrc", FRAMES)
    return de_info(folder / "a_1_info.txt")


def made_tiff(folder):
    tifffile.imwrite(folder / "a.tif", FRAMES, photometric="minisblack")
    return folder / "a.tif"


@pytest.mark.filterwarnings("ignore")  # tifffile warns of what it skips
@pytest.mark.parametrize(
    "make", [made_mib, made_tvips, made_seq, made_ser, made_mrc, made_info, made_tiff]
)
@settings(max_examples=60, deadline=None)
@given(
    hits=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 1500),
)
def test_damage_anywhere_is_refused_or_harmless(tmp_path_factory, make, hits, cut):
    folder = tmp_path_factory.mktemp("damage")
    path = make(folder)
    content = bytearray(path.read_bytes())
    for at, byte in hits:
        content[at % len(content)] = byte
    path.write_bytes(content[: cut or None])
    movie = path if path.suffix != ".txt" else folder / "a_1_movie.mrc"
    try:
        series = read_frames([movie])
        frames = list(series.frames())
    except FrameFileError:
        return
    assert len(frames) == len(series) == len(series.index)
    assert frames[0].shape == (series.height, series.width)
    if series.stamps is not None:
        assert len(series.stamps.device_ns) == len(series)
