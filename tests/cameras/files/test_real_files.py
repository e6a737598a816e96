"""Files of real instruments, read in place where somebody has put them.

They are RosettaSciIO's test files, whose stamps were read by hand; see docs/frame-files.md.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cameras.files.recording import read_frames

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT.parent / "shared" / "data"))


def real(name):
    found = sorted(REAL.rglob(name)) if REAL.is_dir() else []
    if not found:
        pytest.skip(f"{name} is not under {REAL}")
    return found[0]


@pytest.mark.parametrize(
    ("name", "device_ns"),
    [
        (
            "fei_example_tem_stack.emd",
            [1_575_540_226_238_991_000, 1_575_540_227_038_967_000],
        ),
        (
            "test_stackbuilder_imagestack.dm3",
            [(17 * 3600 + second) * 10**9 for second in (27, 29, 32)],
        ),
    ],
)
def test_stamps_are_those_in_the_file(name, device_ns):
    assert read_frames([real(name)]).stamps.device_ns.tolist() == device_ns


def test_a_preview_of_five_images_was_taken_within_a_second():
    series = read_frames([real("128x128x5-diffraction_preview_1.ser")])
    assert (len(series), series.height, series.width) == (5, 128, 128)
    assert len(set(series.stamps.device_ns.tolist())) == 1


def test_a_direct_electron_movie_has_the_period_of_its_frame_time():
    path = real("20241021_00405_movie.mrc")
    real("20241021_00405_info.txt")
    stamps = read_frames([path]).stamps
    assert np.diff(stamps.device_ns).tolist() == [1_428_500] * 31
    assert stamps.device_ns[0] == 1_729_539_410 * 10**9


def test_merlin_files_have_a_stamp_for_each_of_nine_frames(tmp_path):
    with zipfile.ZipFile(real("Merlin_Single_Quad.zip")) as archive:
        archive.extractall(tmp_path)
    movies = 0
    for path in sorted(tmp_path.rglob("*.mib")):
        if b"R64" in path.read_bytes()[:384] or path.stat().st_size < 9 * 256 * 256 // 8:
            continue
        series = read_frames([path])
        movies += len(series) == 9
        assert series.stamps.clock == "camera UTC"
        assert np.all(np.diff(series.stamps.device_ns) > 0)
    assert movies == 8
