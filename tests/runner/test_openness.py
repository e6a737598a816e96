"""Other programs open a session, and what is exported from it."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from runner.export import Wanted, export_session
from session import Session
from session.errors import SessionRefused
from session.records import (
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.writer import SessionWriter

FRAMES = (0, 1, 2, 4, 5)  # the camera lost frame 3
TIMES_S = [0.0, 0.05, 0.1, 0.2, 0.25]


def pixels(number):
    return np.arange(number, number + 48, dtype=np.uint16).reshape(6, 8)


def write(path, indices):
    rows = np.zeros(20, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = 1_000 + np.arange(20) * 50_000_000
    rows["voltage"] = 3.5 + 1e-3 * np.arange(20)
    rows["current"] = 5.25e-12
    header = SessionHeader(
        title="LCO | LiPON | Li",
        experiment_text="# long\n" * 20_000,  # more than an attribute holds
        start_time="2025-03-01T10:00:00+00:00",
        host_start_ns=1_000,
        simulated=True,
        layers=("LiCoO2", "Li"),
        sample={},
        instruments=(InstrumentHeader(name="potentiostat", attributes={"model": "6430"}),),
        cameras=(
            CameraHeader(
                name="camera",
                model="Maker",
                height=6,
                width=8,
                dtype="uint16",
                frame_rate_Hz=20.0,
                pixel_size_m=0.8e-9,
            ),
        ),
        clocks=(),
    )
    with SessionWriter(path, header) as writer:
        writer.append_samples(rows)
        for before, index in zip((-1, *indices), indices, strict=False):
            frame = FrameHeader(
                t_start_ns=1_000 + index * 50_000_000,
                exposure_ns=40_000_000,
                t_sigma_ns=500.0,
                index=index,
                device_start_ns=index * 50_000_000,
                dropped_before=index - before - 1,
            )
            writer.append_frame("camera", frame, pixels(index))
        writer.append_event(1_000, "note", "operator", "hello", "{}")
        writer.finish("done", "2025-03-01T11:00:00+00:00")
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return write(tmp_path_factory.mktemp("open") / "first.h5", FRAMES)


@pytest.fixture
def peer():
    """Return a function that imports another project's package, whatever it warns of."""

    def load(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip(name, reason=f"{name} is not installed")

    return load


# --- the session itself ------------------------------------------------------------------------


def test_h5py_opens_a_session_without_a_word_of_ours(session):
    with h5py.File(session) as file:
        entry = file[file.attrs["default"]]
        samples = entry[entry.attrs["default"]]
        assert samples[samples.attrs["signal"]][1] == pytest.approx(3.501)
        assert entry["frames/camera/data"][3].tolist() == pixels(4).tolist()


def test_pandas_has_the_readings(session):
    with Session.open(session) as opened:
        samples = opened.samples()
    assert isinstance(samples, pd.DataFrame)
    assert samples.attrs["units"]["current"] == "A"
    assert samples["voltage"].iloc[1] == pytest.approx(3.501)


@pytest.mark.peers
def test_xarray_has_tables_over_time(session, peer):
    peer("xarray")
    with Session.open(session) as opened:
        samples = opened.to_xarray()
        events = opened.to_xarray("events")
    assert samples["current"].attrs["units"] == "A"
    near = samples["voltage"].sel(time=0.149, method="nearest")
    assert float(near) == pytest.approx(3.503)
    assert samples["utc"].to_numpy()[3] == np.datetime64("2025-03-01T10:00:00.150", "ns")
    assert events["kind"].to_numpy().tolist() == ["note"]


@pytest.mark.peers
def test_xarray_reads_only_the_pixels_that_it_is_asked_for(session, peer, monkeypatch):
    peer("xarray")
    from session.frames import FrameStack

    read = []
    plain = FrameStack.__getitem__

    def noted(self, key):
        found = plain(self, key)
        read.append(found.size)
        return found

    monkeypatch.setattr(FrameStack, "__getitem__", noted)
    with Session.open(session) as opened:
        frames = opened.to_xarray("frames/camera")
        assert read == []
        assert frames.shape == (5, 6, 8)
        assert frames["time"].to_numpy() == pytest.approx(TIMES_S)
        assert float(frames["x"][1]) == pytest.approx(0.8e-9)
        one = frames.sel(time=0.19, method="nearest")
        assert one.to_numpy().tolist() == pixels(4).tolist()
        assert read == [48]
        part = frames[::-2, 1:3, 4]
        assert part.to_numpy().tolist() == [pixels(i)[1:3, 4].tolist() for i in (5, 2, 0)]
        with pytest.raises(SessionRefused, match="there is camera"):
            opened.to_xarray("frames/other")


@pytest.mark.peers
def test_xarray_opens_the_file_by_itself(session, peer):
    xarray = peer("xarray")
    peer("h5netcdf")
    with xarray.open_dataset(
        session, group="entry/frames/camera", engine="h5netcdf", decode_times=False
    ) as frames:
        assert dict(frames.sizes) == {"t_start_ns": 5, "y": 6, "x": 8}
        assert frames["data"].dims == ("t_start_ns", "y", "x")
        assert frames["data"][3].to_numpy().tolist() == pixels(4).tolist()


def test_without_xarray_the_extra_is_named(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with (
        Session.open(session) as opened,
        pytest.raises(SessionRefused, match=r"lamella\[export\]"),
    ):
        opened.to_xarray()


@pytest.mark.peers
def test_hyperspy_opens_the_session_as_nexus(session, peer):
    hyperspy = peer("hyperspy.api")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hyperspy.load(session, file_format="nexus", nxdata_only=True, lazy=True)
    frames = next(s for s in found if s.data.ndim == 3)
    assert frames.data[3].compute().tolist() == pixels(4).tolist()
    assert frames.axes_manager.signal_dimension == 2


@pytest.fixture(scope="module")
def nexus_found(session, tmp_path_factory):
    """Return what nexusformat's checker counts in several files: warnings, errors."""
    pytest.importorskip("nexusformat", reason="nexusformat is not installed")
    folder = tmp_path_factory.mktemp("nexus")
    files = {"session": folder / "session.h5"}
    shutil.copyfile(session, files["session"])  # the checker opens files for writing
    for name, frames in (("tables", False), ("frames", True), ("broken", False)):
        files[name] = folder / f"{name}.nxs"
        export_session(session, files[name], "nexus", wanted=Wanted(frames=frames))
    with h5py.File(files["broken"], "r+") as file:
        file["entry/samples"].attrs["axes"] = ["nothing"]
    code = (
        "import sys, nexusformat.nexus as n\n"
        "for path in sys.argv[1:]:\n"
        "    with n.nxopen(path) as root: found = root.check()\n"
        "    print('found', *found)"
    )
    done = subprocess.run(  # it logs to the terminal, and warns as it is imported
        [sys.executable, "-W", "ignore", "-c", code, *map(str, files.values())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("found")]
    return dict(zip(files, (tuple(map(int, line)) for line in lines), strict=True))


@pytest.mark.peers
def test_a_nexus_checker_finds_no_error_in_a_session(nexus_found):
    assert nexus_found["session"][1] == 0


# --- what is exported --------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("what", ["tables", "frames"])
def test_a_nexus_checker_finds_nothing_in_an_export(nexus_found, what):
    assert nexus_found[what] == (0, 0)


@pytest.mark.peers
def test_the_nexus_checker_sees_a_plot_of_nothing(nexus_found):
    assert nexus_found["broken"][1] > 0


@pytest.mark.peers
def test_parquet_holds_the_numbers_and_the_times(session, peer, tmp_path):
    peer("pyarrow")
    export_session(session, tmp_path / "first", "parquet")
    read = pd.read_parquet(tmp_path / "first" / "samples.parquet")
    assert read["current / A"].iloc[0] == 5.25e-12
    assert read["UTC"].iloc[3] == pd.Timestamp("2025-03-01T10:00:00.150", tz="UTC")
    assert read["t / ns"].iloc[1] == 50_001_000
    frames = pd.read_parquet(tmp_path / "first" / "frames_camera.parquet")
    assert frames["arrival / ns"].isna().all()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["Lab__Cell__20250301_001.bdf.csv", "a.bdf.parquet"])
def test_the_battery_data_alliances_validator_accepts_ours(session, peer, tmp_path, name):
    bdf = peer("bdf")
    peer("pyarrow")
    export_session(session, tmp_path / name, "bdf")
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of steps, cycles, times that are not as they should
        report = bdf.validate(read(tmp_path / name), raise_on_error=True)
    assert report["ok"]
    assert report["extras"] == []
    assert report["missing"] == []


@pytest.fixture
def load_hspy(peer):
    hyperspy = peer("hyperspy.api")

    def load(path: Path, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hyperspy.load(path, **options)

    return load


@pytest.mark.peers
def test_hyperspy_opens_frames_with_calibrated_axes(session, load_hspy, tmp_path):
    summary = export_session(session, tmp_path / "a.hspy", "hspy")
    assert "not evenly spaced" in summary.remarks[0]
    signal = load_hspy(tmp_path / "a.hspy", lazy=True)
    assert type(signal).__name__ == "LazySignal2D"
    time, x, y = (signal.axes_manager[name] for name in ("time", "x", "y"))
    assert time.axis == pytest.approx(TIMES_S)
    assert (time.units, x.units, y.units) == ("s", "nm", "nm")
    assert (x.scale, y.scale) == (pytest.approx(0.8), pytest.approx(0.8))
    for number, index in enumerate(FRAMES):
        assert signal.data[number].compute().tolist() == pixels(index).tolist()
    kept = signal.original_metadata
    stamps = np.asarray(kept.frames.t_start_ns).tolist()
    assert stamps == [1_000 + i * 50_000_000 for i in FRAMES]
    assert np.asarray(kept.frames.dropped_before).tolist() == [0, 0, 0, 1, 0]
    assert kept.lamella.title == "LCO | LiPON | Li"
    assert list(kept.lamella.experiment)[:2] == ["# long", "# long"]
    assert len(kept.lamella.experiment) == 20_000


@pytest.mark.peers
def test_hyperspy_has_an_even_axis_where_no_frame_is_missing(load_hspy, tmp_path):
    even = write(tmp_path / "even.h5", range(4))
    assert export_session(even, tmp_path / "a.hspy", "hspy").remarks == ()
    signal = load_hspy(tmp_path / "a.hspy")
    time = signal.axes_manager["time"]
    assert (time.offset, time.scale, time.size) == (0, pytest.approx(0.05), 4)
    assert signal.data[2].tolist() == pixels(2).tolist()
