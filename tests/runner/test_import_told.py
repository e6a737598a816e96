"""What an import takes for granted is said and stored, and what it is told is used."""

import math
from datetime import UTC

import numpy as np
import pytest

from potentiostat.files.recording import RecordingError
from runner.import_told import Told, parse_column_map, parse_zone
from runner.importing import import_session, render_import
from runner.outputs import OutputRefused
from session import Session
from tests.cameras.files.writers import pictures, seq
from tests.potentiostat.test_gamry import head
from tests.potentiostat.test_gamry import table as rows_of_gamry

CSV = "t [s],I [nA],I2 [nA],U [V],Q [pC]\n" + "".join(
    f"{i / 2},{2.0},{5.0},{3.6 + i / 100},{1000.0 * i}\n" for i in range(6)
)
COLUMNS = "time=t [s],current=I2 [nA],voltage=U [V]"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(CSV.replace("I2 [nA]", "other [nA]"))
    return path


def film(folder):
    return seq(folder / "film.seq", pictures(3), [1_000_000, 2_000_000, 3_000_000])


def about(summary):
    return {what.about: what for what in summary.report if what.about != "file"}


def test_all_that_was_taken_for_granted_is_told_with_what_would_tell_it(table, tmp_path):
    summary = import_session(tmp_path / "a.h5", echem=table)
    found = about(summary)
    assert found["columns"].text == (
        "columns by their names and units: time from 't [s]', voltage from 'U [V]', "
        "current from 'I [nA]', charge from 'Q [pC]'"
    )
    assert found["columns"].option == "--columns"
    assert (found["sign"].option, found["sign"].told) == ("--sign", False)
    assert found["holder"].text.startswith("no open-holder calibration")
    with Session.open(tmp_path / "a.h5") as session:
        stored = [e for e in session.events() if e.kind == "import"]
        assert session.provenance.files.keys() == {"other.csv"}
    assert [e.message for e in stored] == list(summary.assumptions)
    assert [e.data["option"] for e in stored] == [what.option for what in summary.report]
    assert render_import(summary).row_count == 3 + len(summary.report)


def test_what_is_told_is_used_and_stored_as_told(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text(CSV)
    told = Told(columns=parse_column_map(COLUMNS), sign=-1)
    summary = import_session(tmp_path / "a.h5", echem=path, told=told)
    with Session.open(tmp_path / "a.h5") as session:
        columns = session.sample_columns()
        stored = {e.data["about"]: e for e in session.events() if e.kind == "import"}
    np.testing.assert_allclose(columns["current"], -5e-9)
    np.testing.assert_allclose(columns["voltage"], 3.6 + np.arange(6) / 100)
    assert summary.charge_C == pytest.approx(-5e-9 * 2.5)
    assert stored["columns"].data["told"] is stored["sign"].data["told"] is True
    assert "discharges the cell, as told: currents and charges were turned round" in (
        stored["sign"].message
    )
    assert not any("is taken as the current that charges" in text for text in summary.assumptions)


def test_a_logged_charge_is_turned_round_with_its_current(table, tmp_path):
    summary = import_session(tmp_path / "a.h5", echem=table, told=Told(sign=-1))
    assert summary.charge_C == pytest.approx(-2e-9 * 2.5)
    assert summary.logged_charge_C == pytest.approx(-5000e-12)


def test_a_local_start_gets_the_zone_that_is_told(tmp_path):
    path = tmp_path / "run.DTA"
    path.write_text(head() + rows_of_gamry())
    summary = import_session(tmp_path / "a.h5", echem=path)
    with Session.open(tmp_path / "a.h5") as session:
        local = session.start_time
    assert about(summary)["time zone"].option == "--time-zone"
    assert "+" not in local
    summary = import_session(tmp_path / "b.h5", echem=path, told=Told(zone=parse_zone("+02:00")))
    with Session.open(tmp_path / "b.h5") as session:
        assert session.start_time == f"{local}+02:00"
    assert about(summary)["time zone"].told
    with pytest.raises(RecordingError, match="columns of a .dta file are known"):
        import_session(tmp_path / "c.h5", echem=path, told=Told(columns={"time": "t [s]"}))


def test_the_edge_of_a_pixel_is_told_or_said_to_be_unknown(tmp_path):
    frames = [film(tmp_path)]
    summary = import_session(tmp_path / "a.h5", frames=frames)
    assert about(summary)["pixel size"].text.startswith("the edge of a pixel is not known")
    summary = import_session(tmp_path / "b.h5", frames=frames, pixel_size_m=2e-9)
    assert about(summary)["pixel size"].told
    for wrong in (0.0, -1e-9, math.nan, math.inf):
        with pytest.raises(OutputRefused, match="--pixel-size must be more than nothing"):
            import_session(tmp_path / "c.h5", frames=frames, pixel_size_m=wrong)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (Told(columns={"time": "I [nA]", "current": "other [nA]"}), "needs a unit of time"),
        (Told(columns={"time": "t [s]", "current": "none [nA]"}), "names 0 columns"),
        (Told(zone=UTC), "does not say when it began"),
    ],
)
def test_what_is_told_and_cannot_be_right_is_refused(table, tmp_path, told, why):
    with pytest.raises(RecordingError, match=why):
        import_session(tmp_path / "a.h5", echem=table, told=told)
    assert not (tmp_path / "a.h5").exists()


def test_two_columns_that_may_be_the_current_are_refused_unless_told(tmp_path):
    (tmp_path / "two.csv").write_text(CSV.replace("I2 [nA]", "current [nA]"))
    with pytest.raises(RecordingError, match=r"its current may be any of 'I \[nA\]', 'current"):
        import_session(tmp_path / "a.h5", echem=tmp_path / "two.csv")


def test_what_tells_of_readings_needs_readings(tmp_path):
    frames = [film(tmp_path)]
    with pytest.raises(OutputRefused, match="name it with --echem"):
        import_session(tmp_path / "a.h5", frames=frames, told=Told(sign=1))


@pytest.mark.parametrize("text", ["time", "time=", "speed=v [m/s]", "time=a [s],time=b [s]", ""])
def test_a_column_map_that_is_none_is_refused(text):
    with pytest.raises(RecordingError, match="--columns"):
        parse_column_map(text)


@pytest.mark.parametrize("text", ["+25:00", "Nowhere/Land", "../etc/passwd", "", "2"])
def test_a_zone_that_is_none_is_refused(text):
    with pytest.raises(RecordingError, match=r"such as \+02:00"):
        parse_zone(text)


def test_zones_are_offsets_or_names():
    assert parse_zone("utc") is UTC
    assert parse_zone("-03:30").utcoffset(None).total_seconds() == -3.5 * 3600
    assert parse_zone("Europe/Berlin").key == "Europe/Berlin"
