"""`lamella export` as its users meet it; what other programs make of it is in test_openness."""

import csv
import errno
import json
import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from runner import export, export_files, export_hspy
from runner.cli import main
from runner.export import Wanted, export_session, render_export
from runner.export_bdf import LABELS, bdf_frame
from runner.outputs import OutputRefused
from session import Session
from session.columns import write_table
from session.errors import SessionRefused
from session.export_nexus import frames_at_once, write_nexus
from session.records import (
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.schema import TRACKS
from session.writer import SessionWriter

START_NS = 5_000
STEP_NS = 50_000_000


def pixels(number):
    return np.arange(number, number + 48, dtype=np.uint16).reshape(6, 8)


def write_session(
    path, *, samples=20, frames=(0, 1, 2, 4, 5), cameras=("camera",), start="", size=0.8e-9
):
    rows = np.zeros(samples, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = START_NS + np.arange(samples) * STEP_NS
    rows["voltage"] = 3.5 + 1e-3 * np.arange(samples)
    rows["current"] = 5.123456789e-12
    rows["charge"] = 3.6e-9 * np.arange(samples)
    rows["step"] = np.repeat([0, 1, 0, 1], -(-samples // 4))[:samples]
    rows["cycle"] = np.repeat([0, 1], -(-samples // 2))[:samples]
    header = SessionHeader(
        title="first charge",
        experiment_text="a = 1\nb = 2\n",
        start_time=start or "2025-03-01T10:00:00+00:00",
        host_start_ns=START_NS,
        simulated=True,
        layers=("LiCoO2", "Li"),
        sample={},
        instruments=(InstrumentHeader(name="potentiostat", attributes={"model": "6430"}),),
        cameras=tuple(
            CameraHeader(
                name=name,
                model="Maker",
                height=6,
                width=8,
                dtype="uint16",
                frame_rate_Hz=20.0,
                pixel_size_m=size,
            )
            for name in cameras
        ),
        clocks=(),
    )
    with SessionWriter(path, header) as writer:
        writer.append_samples(rows)
        for name in cameras:
            for before, index in zip((-1, *frames), frames, strict=False):
                stamp = START_NS + index * STEP_NS
                frame = FrameHeader(
                    t_start_ns=stamp,
                    exposure_ns=40_000_000,
                    t_sigma_ns=500.0,
                    index=index,
                    device_start_ns=stamp,
                    dropped_before=index - before - 1,
                )
                writer.append_frame(name, frame, pixels(index))
        writer.append_event(START_NS, "note", "operator", '=1+1, "so"\nit is', "{}")
        writer.finish("done", "2025-03-01T11:00:00+00:00")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_session(tmp_path_factory.mktemp("written") / "first.h5")


@pytest.fixture
def session(tmp_path, written):
    return shutil.copyfile(written, tmp_path / "first.h5")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def lamella(*words, code=0):
    result = CliRunner().invoke(main, ["export", *map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- tables ----------------------------------------------------------------------------


def test_all_tables_go_into_a_folder_with_what_they_mean(session, out):
    result = lamella(session, "--to", "csv", "-o", out / "first", "--json")
    assert names(out / "first") == [
        "events.csv",
        "frames_camera.csv",
        "samples.csv",
        "session.json",
    ]
    summary = json.loads(result.stdout.strip().splitlines()[-1])
    assert summary["left_out"] == ["pixels of camera"]
    described = json.loads((out / "first" / "session.json").read_text("utf-8"))
    assert described["title"] == "first charge"
    (samples,) = (t for t in described["tables"] if t["file"] == "samples.csv")
    assert samples["rows"] == 20
    with (out / "first" / "samples.csv").open(encoding="utf-8", newline="") as file:
        heading = next(csv.reader(file))
    assert [c["label"] for c in samples["columns"]] == heading
    assert heading[:3] == ["UTC", "session time / s", "t / ns"]


def test_every_number_of_a_csv_is_the_number_of_the_session(session, out):
    lamella(session, "--to", "csv", "-o", out / "first")
    read = pd.read_csv(out / "first" / "samples.csv")
    with Session.open(session) as opened:
        table = opened.table("samples")
        for name, label in (("current", "current / A"), ("voltage", "voltage / V")):
            assert np.array_equal(read[label].to_numpy(), table[name])
        assert np.array_equal(read["t / ns"].to_numpy(), table["t_ns"])
    stamps = pd.to_datetime(read["UTC"], format="ISO8601")
    assert (stamps[3] - stamps[0]) == pd.Timedelta(150, "ms")
    assert read["UTC"][3] == "2025-03-01T10:00:00.150000000Z"
    events = pd.read_csv(out / "first" / "events.csv")
    assert events["message"][0] == '=1+1, "so"\nit is'
    frames = pd.read_csv(out / "first" / "frames_camera.csv")
    assert frames["arrival / ns"].isna().all()
    assert frames["index"].tolist() == [0, 1, 2, 4, 5]


def test_a_row_without_a_time_is_empty_in_a_csv(session, out):
    with h5py.File(session, "r+") as file:
        file["entry/events/t_ns"][0] = 2**62
    lamella(session, "--to", "csv", "--table", "events", "-o", out / "e.csv")
    row = pd.read_csv(out / "e.csv", keep_default_na=False).iloc[0]
    assert row["UTC"] == ""
    assert row["session time / s"] == ""


def test_one_table_goes_into_a_file_with_another_beside_it(session, out):
    told = lamella(session, "--to", "csv", "--table", "events", "-o", out / "e.csv").stdout
    assert names(out) == ["e.csv", "e.csv.json"]
    assert "samples" in told  # is left out
    described = json.loads((out / "e.csv.json").read_text("utf-8"))
    assert [t["session_path"] for t in described["tables"]] == ["/entry/events"]
    # A name that ends like a file is one, and takes the readings.
    lamella(session, "--to", "csv", "-o", out / "s.csv")
    assert "current / A" in pd.read_csv(out / "s.csv").columns


def test_a_session_without_a_row_makes_tables_without_one(tmp_path, out):
    empty = write_session(tmp_path / "e.h5", samples=0, frames=())
    lamella(empty, "--to", "csv", "-o", out / "first")
    assert len(pd.read_csv(out / "first" / "samples.csv")) == 0
    assert len(pd.read_csv(out / "first" / "frames_camera.csv")) == 0


def test_a_start_without_a_zone_is_told(tmp_path, out):
    path = write_session(tmp_path / "z.h5", start="2025-03-01T10:00:00")
    told = " ".join(lamella(path, "--to", "csv", "-o", out / "first").stdout.split())
    assert "no time zone" in told
    assert "UTC" not in pd.read_csv(out / "first" / "samples.csv").columns
    lamella(path, "--to", "bdf", "-o", out / "z.bdf.csv")
    assert "Unix Time / s" not in pd.read_csv(out / "z.bdf.csv").columns


def test_tables_whose_files_would_be_one_are_refused(session, out, monkeypatch):
    paths = ("samples", "samples")
    monkeypatch.setattr(export, "table_paths", lambda _: paths)
    with pytest.raises(OutputRefused, match="take each with --table"):
        export_session(session, out / "first", "csv")
    assert names(out) == []


def test_without_pyarrow_parquet_names_the_extra(session, out, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    for words in (
        ("parquet", "-o", out / "first"),
        ("parquet", "--table", "samples", "-o", out / "s"),
        ("bdf", "-o", out / "s.bdf.parquet"),
    ):
        assert "lamella[export]" in lamella(session, "--to", *words, code=2).stderr
    assert names(out) == []


# --- the Battery Data Format ---------------------------------------------------------------


def test_bdf_has_the_labels_of_its_specification_and_our_numbers(session, out):
    lamella(session, "--to", "bdf", "-o", out / "a.bdf.csv")
    read = pd.read_csv(out / "a.bdf.csv")
    assert list(read.columns) == list(LABELS.values())
    assert list(read.columns)[:3] == ["Test Time / s", "Voltage / V", "Current / A"]
    assert read["Test Time / s"][3] == pytest.approx(0.15)
    assert read["Current / A"][0] == 5.123456789e-12  # positive charges, there as here
    assert read["Unix Time / s"][2] == pytest.approx(1_740_823_200.1, abs=1e-6)
    assert read["Net Capacity / Ah"][10] == pytest.approx(1e-11)
    described = json.loads((out / "a.bdf.csv.json").read_text("utf-8"))
    assert [c["label"] for c in described["tables"][0]["columns"]] == list(read.columns)


def test_bdf_counts_steps_as_they_were_played(session):
    with Session.open(session) as opened:
        frame = bdf_frame(opened)
    # The plan went 0, 1 and, in the next cycle, 0, 1 again.
    assert frame["Step Count / 1"].tolist() == np.repeat([0, 1, 2, 3], 5).tolist()
    assert frame["Cycle Count / 1"].tolist() == np.repeat([0, 1], 10).tolist()


def test_bdf_says_nothing_of_what_was_not_known(session):
    with h5py.File(session, "r+") as file:
        file["entry/samples/charge"][:] = np.nan
        file["entry/samples/t_ns"][1] = -(2**63)
    with Session.open(session) as opened:
        frame = bdf_frame(opened)
    assert "Net Capacity / Ah" not in frame.columns
    assert np.isnan(frame["Unix Time / s"][1])
    assert np.isnan(frame["Test Time / s"][1])
    assert frame["Unix Time / s"].notna().sum() == 19


def test_bdf_of_no_readings_is_refused(tmp_path, out):
    empty = write_session(tmp_path / "e.h5", samples=0)
    assert "no readings" in lamella(empty, "--to", "bdf", "-o", out / "a.bdf", code=2).stderr
    assert names(out) == []


# --- NeXus -----------------------------------------------------------------------------------


def test_nexus_leads_to_a_plot_in_seconds(session, out):
    told = lamella(session, "--to", "nexus", "-o", out / "a.nxs").stdout
    assert "--frames copies them" in " ".join(told.split())
    with h5py.File(out / "a.nxs") as file:
        entry = file[file.attrs["default"]]
        group = entry[entry.attrs["default"]]
        assert group.attrs["NX_class"] == "NXdata"
        assert group[group.attrs["signal"]][2] == pytest.approx(3.502)
        axis = group[group.attrs["axes"][0]]
        assert axis.attrs["units"] == "s"
        assert axis[3] == pytest.approx(0.15)
        assert "voltage_errors" in group
        assert "voltage_sigma" not in group
        assert group["voltage"].dims[0][0] == axis
        assert entry["frames_camera"].attrs["NX_class"] == "NXcollection"
        assert "data" not in entry["frames_camera"]
        assert entry["description/experiment"].asstr()[()] == "a = 1\nb = 2\n"
        assert json.loads(entry["description/metadata"].asstr()[()])["simulated"] is True


def test_nexus_copies_frames_when_asked(tmp_path, out):
    indices = [0, 1, 2, *range(4, 40)]  # more than a copy holds at once
    session = write_session(tmp_path / "many.h5", frames=indices)
    lamella(session, "--to", "nexus", "--frames", "-o", out / "a.nxs")
    with h5py.File(out / "a.nxs") as file:
        group = file["entry/frames_camera"]
        assert group.attrs["NX_class"] == "NXdata"
        assert list(group.attrs["axes"]) == ["time", "y", "x"]
        assert group["data"].shape == (39, 6, 8)
        for number, index in enumerate(indices):
            assert np.array_equal(group["data"][number], pixels(index))
        assert group["time"][:5] == pytest.approx([0, 0.05, 0.1, 0.2, 0.25])
        assert group["x"].attrs["units"] == "nm"
        assert group["x"][1] == pytest.approx(0.8)

        def is_own(name):
            assert isinstance(file.get(name, getlink=True), h5py.HardLink)

        file.visit(is_own)


def test_nexus_names_are_ones_that_it_permits(tmp_path, out):
    path = write_session(tmp_path / "n.h5", cameras=("a b", "a-b"), size=float("nan"), start="?")
    export_session(path, out / "a.nxs", "nexus", wanted=Wanted(frames=True))
    with h5py.File(out / "a.nxs") as file:
        entry = file["entry"]
        assert {"frames_a_b", "frames_a_b_2"} <= set(entry)
        assert sorted(entry["instrument"]) == ["a_b", "a_b_2", "potentiostat"]
        assert entry["instrument/a_b_2/local_name"].asstr()[()] == "a-b"
        assert entry["frames_a_b/x"].attrs["units"] == "px"
        assert "start_time" not in entry  # it was no time
        found = []
        file.visit(found.append)
        assert all(re.fullmatch(r"[A-Za-z0-9_/]+", name) for name in found)


def test_nexus_plots_a_track_by_its_first_quantity(session, out):
    with h5py.File(session, "r+") as file:
        group = file.create_group("entry/tracks/front")
        columns = {
            "t_ns": START_NS + np.arange(3) * STEP_NS,
            "valid": np.array([True, True, False]),
            "position": np.array([1e-9, 2e-9, 3e-9]),
            "position_sigma": np.full(3, 1e-10),
        }
        write_table(group, TRACKS, columns, {"position_sigma": "m"})
        silent = file.create_group("entry/tracks/silent")
        write_table(silent, TRACKS, {"t_ns": columns["t_ns"], "valid": columns["valid"]}, {})
    with Session.open(session) as opened:
        write_nexus(opened, out / "a.nxs")
    with h5py.File(out / "a.nxs") as file:
        assert file["entry/tracks_front"].attrs["signal"] == "position"
        assert file["entry/tracks_front/position_errors"][0] == 1e-10
        assert file["entry/tracks_front/valid"][:].tolist() == [1, 1, 0]
        assert file["entry/tracks_silent"].attrs["NX_class"] == "NXcollection"


def test_a_copy_holds_few_frames_in_memory():
    class Stack:
        shape = (100, 4096, 4096)
        dtype = np.dtype("uint16")

    assert frames_at_once(Stack()) == 2
    Stack.shape = (100, 16384, 16384)
    assert frames_at_once(Stack()) == 1
    Stack.shape = (100, 256, 256)
    assert frames_at_once(Stack()) == 16


# --- HyperSpy ----------------------------------------------------------------------------------


def test_frames_that_are_even_have_an_even_axis():
    axis, remarks = export_hspy.time_axis(np.array([1.0, 1.05, 1.1002, 1.15]), whole=True)
    assert axis["_type"] == "UniformDataAxis"
    assert (axis["offset"], axis["scale"], axis["size"]) == (1.0, pytest.approx(0.05), 4)
    assert remarks == ()


@pytest.mark.parametrize(
    ("seconds", "whole"),
    [([0.0, 0.05, 0.15, 0.2], False), ([0.0, 0.05, 0.102, 0.15], True), ([0, 1, 2, 3], False)],
)
def test_frames_that_are_not_keep_each_its_time(seconds, whole):
    axis, remarks = export_hspy.time_axis(np.array(seconds), whole=whole)
    assert axis["_type"] == "DataAxis"
    assert axis["axis"].tolist() == seconds
    assert "not evenly spaced" in remarks[0]


@pytest.mark.parametrize("seconds", [[0.0, 0.1, 0.1], [0.0, np.nan, 0.1], [0.1, 0.0]])
def test_times_that_do_not_rise_are_no_axis(seconds):
    axis, remarks = export_hspy.time_axis(np.array(seconds), whole=True)
    assert (axis["name"], axis["units"], axis["size"]) == ("frame", "", len(seconds))
    assert "do not rise" in remarks[0]


def test_few_frames_have_an_axis_too():
    assert export_hspy.time_axis(np.zeros(0), whole=True)[0]["size"] == 0
    assert export_hspy.time_axis(np.array([3.0]), whole=True)[0]["offset"] == 3.0


def test_without_rosettasciio_hspy_names_the_extra(session, out, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(export_hspy, "import_module", absent)
    told = lamella(session, "--to", "hspy", "-o", out / "a.hspy", code=2).stderr
    assert "lamella[formats]" in told
    assert "GPL-3" in told
    assert names(out) == []


def test_the_camera_that_is_asked_for_is_taken(tmp_path, out, monkeypatch):
    two = write_session(tmp_path / "2.h5", cameras=("a", "b"))
    taken = []

    def write(_session, camera, target):
        taken.append(camera)
        target.write_bytes(b"x")
        return ()

    monkeypatch.setattr(export, "write_hspy", write)
    lamella(two, "--to", "hyperspy", "--camera", "b", "-o", out / "a.hspy")
    assert taken == ["b"]
    assert names(out) == ["a.hspy"]


def test_hspy_wants_its_ending_and_one_camera(tmp_path, session, out):
    two = write_session(tmp_path / "2.h5", cameras=("a", "b"))
    none = write_session(tmp_path / "0.h5", cameras=())
    for path, words, says in (
        (session, ("a.h5",), ".hspy will do"),
        (two, ("a.hspy",), "there is a, b"),
        (two, ("a.hspy", "--camera", "c"), "no camera 'c'"),
        (none, ("a.hspy",), "there is none"),
    ):
        told = lamella(path, "--to", "hspy", "-o", out / words[0], *words[1:], code=2).stderr
        assert says in told


# --- what is refused, and what is left behind --------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "bdf", "--table", "samples"), "--table goes with csv and parquet, not with bdf"),
        (("--to", "csv", "--frames"), "no place for pixels"),
        (("--to", "hspy", "--frames"), "holds the frames anyway"),
        (("--to", "csv", "--camera", "camera"), "--camera goes with hspy"),
        (("--to", "csv", "--table", "../../x"), "has no table '../../x'; there is samples"),
        (("--to", "csv", "--table", ""), "has no table ''"),
    ],
)
def test_what_does_not_go_together_is_refused(session, out, words, says):
    assert says in lamella(session, *words, "-o", out / "a", code=2).stderr
    assert names(out) == []


@pytest.mark.parametrize(
    ("to", "name"), [("csv", "s.csv"), ("csv", "folder"), ("bdf", "a.bdf"), ("nexus", "a.nxs")]
)
def test_what_exists_is_replaced_only_when_asked(session, out, to, name):
    lamella(session, "--to", to, "-o", out / name)
    before = names(out)
    mark = out / name / "samples.csv" if name == "folder" else out / name
    mark.write_text("mine")
    told = lamella(session, "--to", to, "-o", out / name, code=2).stderr
    assert "exists already" in told
    assert mark.read_text() == "mine"
    lamella(session, "--to", to, "-o", out / name, "--overwrite")
    assert mark.read_bytes() != b"mine"
    assert names(out) == before


def test_a_side_file_of_somebody_else_is_not_replaced(session, out):
    (out / "s.csv.json").write_text("mine")
    assert (
        "s.csv.json exists" in lamella(session, "--to", "csv", "-o", out / "s.csv", code=2).stderr
    )
    assert names(out) == ["s.csv.json"]


@pytest.mark.parametrize("link", [False, True])
def test_the_session_itself_is_never_the_output(session, out, link):
    content = session.read_bytes()
    target = session
    if link:
        target = out / "link.h5"
        target.hardlink_to(session)
    for to in ("nexus", "bdf"):
        told = lamella(session, "--to", to, "-o", target, "--overwrite", code=2).stderr
        assert "is the session itself" in told
    assert session.read_bytes() == content


def test_a_folder_with_other_things_is_never_replaced(session, out):
    lamella(session, "--to", "csv", "-o", out / "first")
    (out / "first" / "thesis.txt").write_text("mine")
    told = lamella(session, "--to", "csv", "-o", out / "first", "--overwrite", code=2).stderr
    assert "holds thesis.txt" in told
    (out / "other").mkdir()
    (out / "other" / "session.json").write_text('{"tables": [1]}')  # not an export's
    assert "holds session.json" in (
        lamella(session, "--to", "csv", "-o", out / "other", "--overwrite", code=2).stderr
    )
    (out / "plain").write_text("a file")
    assert "is a file" in lamella(session, "--to", "csv", "-o", out / "plain", code=2).stderr
    assert (
        "does not exist" in lamella(session, "--to", "csv", "-o", out / "no" / "f", code=2).stderr
    )
    assert (out / "first" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("to", "name"), [("csv", "folder"), ("csv", "s.csv"), ("nexus", "a.nxs")])
def test_a_disk_that_fills_leaves_nothing_and_says_so(session, out, monkeypatch, to, name):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_files, "_sync", full)
    told = lamella(session, "--to", to, "-o", out / name, code=2).stderr
    assert "was not written" in told
    assert "No space left" in told
    assert names(out) == []


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(session, out, monkeypatch):
    lamella(session, "--to", "csv", "-o", out / "first")
    before = (out / "first" / "samples.csv").read_bytes()
    rename = type(out).rename

    def refuse(self, target):
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(out), "rename", refuse)
    told = lamella(session, "--to", "csv", "-o", out / "first", "--overwrite", code=2).stderr
    assert "was not written" in told
    assert (out / "first" / "samples.csv").read_bytes() == before
    monkeypatch.setattr(type(out), "rename", refuse)
    lamella(session, "--to", "csv", "-o", out / "second", code=2)
    assert names(out) == ["first"]


def test_another_program_that_was_quicker_keeps_its_file(session, out, monkeypatch):
    def meanwhile(_path):
        (out / "s.csv").write_text("theirs")

    monkeypatch.setattr(export_files, "_sync", meanwhile)
    assert "exists" in lamella(session, "--to", "csv", "-o", out / "s.csv", code=2).stderr
    assert (out / "s.csv").read_text() == "theirs"
    assert names(out) == ["s.csv"]


def test_what_is_no_session_is_refused(tmp_path, out):
    (tmp_path / "no.h5").write_bytes(b"nothing")
    assert "HDF5" in lamella(tmp_path / "no.h5", "--to", "csv", "-o", out / "a", code=2).stderr
    with pytest.raises(SessionRefused):
        export_session(tmp_path / "none.h5", out / "a", "csv")
    assert names(out) == []


def test_the_summary_is_a_table(session, out):
    summary = export_session(session, out / "s.csv", "csv")
    assert render_export(summary).row_count == len(summary.files) + len(summary.left_out)


def test_the_help_has_an_example():
    assert "Example: lamella export" in " ".join(lamella("--help").stdout.split())
