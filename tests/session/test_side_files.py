"""Truth, calibration, provenance and the reference page."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from session.calibration_file import (
    read_calibration,
    read_calibration_tables,
    write_calibration,
)
from session.errors import SessionExists, SessionRefused
from session.provenance import collect_provenance
from session.records import SESSION_SAMPLE_DTYPE
from session.schema import GROUPS, find_group, is_name, row_dtype, unit_of
from session.schema_page import reference_page
from session.truth import read_truth, write_truth

TRUTH = {
    "tracks/front": {"t_ns": np.arange(3), "position": np.zeros(3)},
    "clocks/camera/fit": {"rate": [1.0]},
    "ledger": {"ionic": [0.0, 1.0]},
    "cell": {"kind": ["short", "none"]},
}


def test_truth_stands_beside_the_session_with_its_paths(tmp_path):
    path = tmp_path / "s.truth.h5"
    write_truth(path, TRUTH)
    with h5py.File(path) as file:
        assert file["truth/tracks/front/position"].attrs["units"] == "m"
        assert "entry" not in file
    found = read_truth(path)
    assert set(found) == set(TRUTH)
    np.testing.assert_array_equal(found["tracks/front"]["t_ns"], np.arange(3))
    assert found["tracks/front"]["t_ns"].dtype == np.int64
    assert list(found["cell"]["kind"]) == ["short", "none"]


def test_truth_is_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "s.truth.h5"
    write_truth(path, TRUTH)
    with pytest.raises(SessionExists):
        write_truth(path, {})
    write_truth(path, {}, overwrite=True)
    assert read_truth(path) == {}


@pytest.mark.parametrize("tables", [{"../x": {}}, {"a": {"b/c": [1]}}])
def test_truth_with_bad_names_is_refused(tmp_path, tables):
    with pytest.raises(SessionRefused, match="cannot name"):
        write_truth(tmp_path / "t.h5", tables)
    assert not (tmp_path / "t.h5").exists()


def test_a_session_is_not_truth(write_session):
    with pytest.raises(SessionRefused, match="lamella-truth"):
        read_truth(write_session())


def test_a_calibration_comes_back(tmp_path):
    path = tmp_path / "CAL.h5"
    write_calibration(
        path,
        {"capacitance_F": 2e-12, "holder": "A"},
        {"current": np.ones(3), "noise": np.zeros((2, 2))},
        units={"current": "A"},
    )
    table = read_calibration(path)
    assert table.attributes["capacitance_F"] == 2e-12
    assert table.units == {"current": "A"}
    assert table["noise"].shape == (2, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["CAL.h5"]


def test_a_calibration_is_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "CAL.h5"
    write_calibration(path, {"a": 1}, {})
    with pytest.raises(SessionExists, match="another name will do"):
        write_calibration(path, {"a": 2}, {})
    with pytest.raises(SessionRefused):
        write_calibration(path, {"a": object()}, {}, overwrite=True)
    assert read_calibration(path).attributes["a"] == 1
    write_calibration(path, {"a": 2}, {}, overwrite=True)
    assert read_calibration(path).attributes["a"] == 2


def test_a_session_is_no_calibration(write_session):
    with pytest.raises(SessionRefused, match="lamella-calibration"):
        read_calibration(write_session())


def test_provenance_names_versions_and_hashes_but_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("session.provenance._PACKAGES", ("numpy", "no-such-package"))
    file = tmp_path / "x.toml"
    file.write_bytes(b"abc")
    provenance = collect_provenance({"experiment": file})
    assert provenance.files == {"experiment": hashlib.sha256(b"abc").hexdigest()}
    assert provenance.versions["numpy"] == np.__version__
    assert "no-such-package" not in provenance.versions
    assert set(provenance.host) == {
        "system",
        "release",
        "machine",
        "implementation",
        "processors",
    }
    assert collect_provenance().files == {}


def test_the_reference_page_names_every_path_and_column():
    page = reference_page()
    for group in GROUPS:
        assert f"`/entry{'/' if group.path else ''}{group.path}`" in page
        for column in group.columns:
            assert f"| `{column.name}` | " in page
    assert "| `t_ns` | i8 | (n,) | ns | middle of the aperture" in page
    kept = Path(__file__).parents[2] / "docs" / "session-file.md"
    assert kept.read_text("utf-8") == page, "python -m session.schema_page > docs/session-file.md"


def test_sample_columns_are_those_that_files_rely_on():
    assert SESSION_SAMPLE_DTYPE.names == (
        "t_ns",
        "t_sigma_ns",
        "device_time_s",
        "read_start_ns",
        "read_end_ns",
        "aperture_s",
        "voltage",
        "current",
        "voltage_sigma",
        "current_sigma",
        "setpoint",
        "range",
        "status",
        "step",
        "cycle",
        "charge",
        "charge_ionic",
        "charge_ionic_sigma",
        "averaged",
        "left_out",
    )


def test_paths_find_their_group():
    assert find_group("tracks/front").path == "tracks/<name>"
    assert find_group("provenance/versions").path == "provenance/versions"
    assert find_group("tracks/a/b") is None
    assert find_group("").nx_class == "NXentry"
    tracks = find_group("tracks/front")
    assert unit_of(tracks, "velocity_sigma") == "m/s"
    assert unit_of(tracks, "whatever") == ""
    assert row_dtype(find_group("events"))["message"] == np.dtype(object)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a~new", "é", "a" * 200])
def test_names_that_could_mislead_are_none(name):
    assert not is_name(name)


def test_a_calibration_has_the_tables_of_the_schema_alone(tmp_path):
    path = tmp_path / "CAL.h5"
    with pytest.raises(SessionRefused, match="no table 'surprise'"):
        write_calibration(path, {}, {}, tables={"surprise": {"a": [1.0]}})
    curve = {name: [1.0] for name in ("time", "deviation", "deviation_low", "deviation_high")}
    write_calibration(path, {}, {"voltage": [1.0]}, tables={"allan/100 pA": curve})
    (found,) = read_calibration_tables(path).items()
    assert found[0] == "allan/100 pA"
    assert found[1].units["deviation"] == "A"
    assert list(read_calibration(path).columns) == ["voltage"]
