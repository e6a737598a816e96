"""Our times beside RosettaSciIO's axis, on the same synthetic files.

Each row of what it gets wrong is shown with both results: ours are the stamps, exact. Where
it is right (pixels, tags) both agree, which tells that our files are what they should be.
"""

import time

import numpy as np
import pytest

from cameras.files.recording import read_frames
from tests.cameras.files.writers import (
    EPOCH_NS,
    EPOCH_S,
    Typed,
    de_info,
    dm,
    filetime,
    mib,
    mrc,
    pictures,
    sequence_tags,
    ser,
    tvips,
    velox,
    velox_json,
)

pytestmark = [
    pytest.mark.peers,
    # It and its dependencies warn of what is no matter of ours.
    pytest.mark.filterwarnings("ignore"),
]
reason = "RosettaSciIO is not installed"


def rosetta(module, path, **others):
    """Return its last signal: thumbnails come first."""
    found = pytest.importorskip(f"rsciio.{module}", reason=reason).file_reader(str(path), **others)
    return found[-1]


def axis_ns(signal):
    """The times that its uniform axis gives, from its first frame, in nanoseconds."""
    axis = signal["axes"][0]
    return np.arange(axis["size"]) * float(axis["scale"]) * 1e9


def ours_ns(path):
    stamps = read_frames([path]).stamps
    return stamps.device_ns - stamps.device_ns[0]


def test_tvips_takes_the_axis_from_the_first_two_stamps(tmp_path):
    # 10 ms apart, +-2 ms of jitter, 5 frames lost; the first two are 9 ms apart.
    rng = np.random.default_rng(3)
    numbers = np.sort(rng.choice(np.arange(2, 105), 98, replace=False))
    numbers = np.concatenate([[0, 1], numbers])
    jitter = rng.integers(-2, 3, 100)
    jitter[:2] = [0, -1]
    stamps_ms = EPOCH_S * 1000 + 10 * numbers + jitter
    path = tmp_path / "a_000.tvips"
    frames = pictures(100)
    tvips(path, frames, numbers.tolist(), stamps_ms.tolist())
    true_ns = (stamps_ms - stamps_ms[0]) * 10**6
    signal = rosetta("tvips", path)
    np.testing.assert_array_equal(signal["data"], frames)
    assert signal["axes"][0]["scale"] == pytest.approx(0.009, abs=1e-6)
    error_s = np.abs(axis_ns(signal) - true_ns).max() / 1e9
    assert 0.14 < error_s < 0.16  # in 1.04 s
    assert ours_ns(path).tolist() == true_ns.tolist()
    assert read_frames([path]).index.tolist() == numbers.tolist()


def test_tvips_of_equal_first_stamps_has_no_axis_at_all(tmp_path):
    stamps_ms = [EPOCH_S * 1000 + ms for ms in (0, 0, 1, 1)]
    path = tvips(tmp_path / "a_000.tvips", pictures(4), range(4), stamps_ms)
    assert rosetta("tvips", path)["axes"][0]["scale"] == 0
    assert ours_ns(path).tolist() == [0, 0, 10**6, 10**6]


def test_tvips_calls_local_time_utc(tmp_path, monkeypatch):
    path = tvips(tmp_path / "a_000.tvips", pictures(2), range(2), [EPOCH_S * 1000, EPOCH_S * 1001])
    if not hasattr(time, "tzset"):
        pytest.skip("this system has no time zone that a test could set")
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        general = rosetta("tvips", path)["metadata"]["General"]
        stamps = read_frames([path]).stamps
    finally:
        monkeypatch.undo()
        time.tzset()
    said = (general["date"], general["time"], general["time_zone"])
    assert said == ("2023-11-15", "07:13:20", "UTC")
    assert stamps.clock == "recording computer UTC"
    assert np.datetime64(int(stamps.device_ns[0]), "ns") == np.datetime64("2023-11-14T22:13:20")


def test_a_sum_of_direct_electron_frames_is_100_times_too_short(tmp_path):
    # Both rates alike, so that the sum alone is compared.
    changes = {"Autosave Movie Sum Count": 10, "Frame Time (nanoseconds)": None}
    changes["Specimen Pixel Size Y (nanometers)"] = 0.1
    de_info(tmp_path / "20241021_00405_info.txt", **changes)
    frames = pictures(32, dtype="uint8")
    path = mrc(tmp_path / "20241021_00405_movie.mrc", frames)
    signal = rosetta("mrc", path)
    np.testing.assert_array_equal(signal["data"], frames)
    scale = signal["axes"][0]["scale"]
    assert isinstance(scale, str)
    assert float(scale) == pytest.approx(1 / 7000)
    assert ours_ns(path)[1] / 1e9 == pytest.approx(10 / 700, abs=1e-9)
    assert ours_ns(path)[1] / axis_ns(signal)[1] == pytest.approx(100, rel=1e-6)


def test_a_merlin_axis_has_no_time_and_index_times_exposure_is_far_off(tmp_path):
    # A quad: 1 ms of exposure, 2.09444 ms apart: 1881 s in an hour.
    stamps_ns = EPOCH_NS + np.arange(9) * 2_094_440
    frames = pictures(9, 8, 8)
    path = mib(tmp_path / "a.mib", frames, range(1, 10), stamps_ns, header_bytes=768)
    signal = rosetta("quantumdetector", path, navigation_shape=(9,))
    # It turns images upside down; ours are as stored.
    np.testing.assert_array_equal(signal["data"], frames[:, ::-1])
    axis = signal["axes"][0]
    assert (axis["scale"], axis["units"]) == (1.0, "")
    assert ours_ns(path).tolist() == (stamps_ns - stamps_ns[0]).tolist()
    exposure_ns = read_frames([path]).stamps.exposure_ns
    behind = 1 - exposure_ns[0] / np.diff(ours_ns(path)).mean()
    assert 3600 * behind == pytest.approx(1881, abs=1)


def test_all_merlin_stamps_are_one_too_few(tmp_path):
    module = pytest.importorskip("rsciio.quantumdetector", reason=reason)
    stamps_ns = EPOCH_NS + np.arange(9) * 2_094_440
    for count, theirs in ((9, 8), (1, 0)):
        path = mib(
            tmp_path / f"{count}.mib",
            *(pictures(count, 8, 8), range(1, count + 1), stamps_ns[:count]),
        )
        _, headers = module.load_mib_data(str(path), return_headers=True)
        assert len(module.parse_timestamps(headers, max_index=-1)) == theirs
        assert len(module.parse_exposures(headers, max_index=-1)) == theirs
        assert module.parse_timestamps(headers) == read_frames([path]).stamps.raw.tolist()
        assert len(read_frames([path]).stamps.device_ns) == count


def test_a_velox_stack_takes_the_exposure_for_the_period(tmp_path):
    # 20 ms of dead time, and one frame lost.
    stamps_us = EPOCH_S * 10**6 + np.array([0, 820_000, 1_640_000, 3_280_000])
    frames = pictures(4)
    path = velox(tmp_path / "a.emd", frames, [velox_json(us) for us in stamps_us.tolist()])
    signal = rosetta("emd", path)
    np.testing.assert_array_equal(signal["data"], frames)
    assert signal["axes"][0]["units"] in ("s", "ms")
    unit = 1 if signal["axes"][0]["units"] == "s" else 1e-3
    assert axis_ns(signal)[1] * unit == pytest.approx(8e8)
    error_s = np.abs(axis_ns(signal) * unit - ours_ns(path)).max() / 1e9
    assert error_s == pytest.approx(0.88)
    assert ours_ns(path).tolist() == ((stamps_us - stamps_us[0]) * 1000).tolist()


def test_a_ser_series_has_its_times_in_tags_only(tmp_path):
    seconds = EPOCH_S + np.array([0, 0, 1, 3, 4])
    frames = pictures(5, 8, 8)
    path = ser(tmp_path / "a_1.ser", frames, seconds.tolist())
    signal = rosetta("tia", path)
    assert signal["data"].shape == frames.shape
    assert signal["axes"][0]["scale"] == 1.0
    assert ours_ns(path).tolist() == ((seconds - EPOCH_S) * 10**9).tolist()


@pytest.mark.parametrize("version", [3, 4])
def test_digitalmicrograph_tags_and_pixels_are_the_same_in_both(tmp_path, version):
    frames = pictures(3, dtype="uint16")
    planes = [{"added @ time": f"5:00:{s} PM"} for s in (27, 29, 32)]
    path = dm(tmp_path / f"a.dm{version}", frames, {"plane info": planes}, version=version)
    signal = rosetta("digitalmicrograph", path)
    np.testing.assert_array_equal(signal["data"], frames)
    assert signal["axes"][0]["scale"] == 1.0
    assert ours_ns(path).tolist() == [0, 2 * 10**9, 5 * 10**9]
    tags = sequence_tags(EPOCH_S * 1000, 123_456_789)
    tags["DataBar"] = {"Acquisition Time (OS)": Typed("q", filetime(EPOCH_NS))}
    path = dm(tmp_path / f"b.dm{version}", frames[:1], tags, version=version)
    read = rosetta("digitalmicrograph", path)["original_metadata"]["ImageList"]
    sequence = read[max(read)]["ImageTags"]["Acquisition"]["Frame"]["Sequence"]
    assert sequence["Exposure Start (ns)"] == 123_456_789
    assert read_frames([path]).stamps.device_ns.tolist() == [EPOCH_NS + 123_456_789]
