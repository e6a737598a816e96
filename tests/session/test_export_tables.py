"""The tables of a session, flat and placed in wall-clock time."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from session import Session
from session.errors import SessionRefused
from session.export_metadata import only_described, session_metadata, table_metadata
from session.export_tables import export_table, label_of, start_utc_ns, table_paths
from session.schema import NO_STAMP
from session.writer import SessionWriter


@pytest.fixture
def session(write_session):
    with Session.open(write_session(frames=4)) as opened:
        yield opened


@pytest.fixture
def started(tmp_path, make):
    """Return a function that opens a session with another start."""
    opened = []

    def start(text):
        path = tmp_path / f"{len(opened)}.h5"
        with SessionWriter(path, make.header(start_time=text)) as writer:
            writer.append_samples(make.samples(2))
        opened.append(Session.open(path))
        return opened[-1]

    yield start
    for session in opened:
        session.close()


def test_every_table_with_rows_is_there(session):
    assert table_paths(session) == (
        "samples",
        "events",
        "frames/camera",
        "clocks/camera/exchanges",
        "clocks/potentiostat/exchanges",
    )
    assert export_table(session, "frames/camera").name == "frames_camera"


def test_headings_name_the_unit_once(session):
    labels = [c.label for c in export_table(session, "samples").columns]
    assert labels[:4] == ["UTC", "session time / s", "t / ns", "t_sigma / ns"]
    assert {"current / A", "voltage / V", "device_time / s", "status", "charge / C"} <= set(labels)
    assert label_of("dose", "1/m^2") == "dose / 1/m^2"
    assert label_of("t_ns", "") == "t_ns"


def test_headings_that_would_be_alike_stay_apart(session, monkeypatch):
    table = session.table("samples")
    alike = dataclasses.replace(
        table,
        columns={"x": table["voltage"], "x_m": table["current"], "t_ns": table["t_ns"]},
        units={"x": "m", "x_m": "m"},
    )
    monkeypatch.setattr(Session, "table", lambda *_: alike)
    labels = [c.label for c in export_table(session, "samples").columns]
    assert labels == ["UTC", "session time / s", "x / m", "x_m / m", "t_ns"]


def test_rows_are_in_utc_and_in_seconds_since_the_start(session):
    table = export_table(session, "samples")
    utc, time = table.column("utc").data, table.column("session_time_s").data
    # The host clock stood at 1000 ns at 10:00:00; rows are 50 ms apart.
    assert utc[0] == np.datetime64("2025-03-01T10:00:00", "ns")
    assert utc[3] == np.datetime64("2025-03-01T10:00:00.150", "ns")
    assert time[3] == pytest.approx(0.15, abs=1e-12)
    assert table.column("nothing") is None
    assert len(table) == 30


def test_a_start_elsewhere_is_utc_to_the_microsecond(started):
    there = started("2025-03-01T10:00:00.123456+09:00")
    assert start_utc_ns(there) == 1_740_790_800_123_456_000
    table = export_table(there, "samples")
    assert table.column("utc").data[0] == np.datetime64("2025-03-01T01:00:00.123456", "ns")


@pytest.mark.parametrize("text", ["2025-03-01T10:00:00", "", "yesterday"])
def test_a_start_without_a_zone_makes_no_utc(started, text):
    there = started(text)
    table = export_table(there, "samples")
    assert table.column("utc") is None
    assert table.column("session_time_s").data[1] == pytest.approx(0.05)
    assert "no time zone" in session_metadata(there)["wall_clock"]


def test_stamps_that_were_never_written_are_missing(session):
    frame = export_table(session, "frames/camera").to_pandas()
    assert frame["arrival / ns"].isna().all()
    assert str(frame["arrival / ns"].dtype) == "Int64"
    assert frame["t_start / ns"].tolist() == [1_000 + i * 50_000_000 for i in range(4)]
    assert str(frame["UTC"].dt.tz) == "UTC"


def test_a_row_without_a_time_has_none(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        file["entry/events/t_ns"][0] = 2**62  # no host clock is 146 years old
        file["entry/samples/t_ns"][4] = NO_STAMP
    with Session.open(path) as session:
        events, samples = export_table(session, "events"), export_table(session, "samples")
    assert np.isnat(events.column("utc").data[0])
    assert np.isnan(events.column("session_time_s").data[0])
    assert np.isnat(samples.column("utc").data).tolist() == [i == 4 for i in range(30)]
    assert samples.to_pandas()["t / ns"].isna().sum() == 1


def test_a_start_that_is_no_time_is_refused(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        file["entry"].attrs["host_start_ns"] = np.int64(2**63 - 1)
    with Session.open(path) as session, pytest.raises(SessionRefused, match="is no time"):
        export_table(session, "samples")


def test_an_unknown_table_is_refused_with_those_that_are_there(session):
    with pytest.raises(SessionRefused, match="no table 'trax'; there is samples, events"):
        export_table(session, "trax")
    with pytest.raises(SessionRefused, match="no table"):
        export_table(session, "../samples")


def test_columns_of_more_dimensions_are_left_out_and_named(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        group = file.create_group("entry/tracks/front")
        group["t_ns"] = np.arange(3)
        group["valid"] = np.ones(3, np.uint8)
        group["profile"] = np.zeros((3, 5))
    with Session.open(path) as session:
        table = export_table(session, "tracks/front")
        described = table_metadata(table, "front.csv")
    assert table.left_out == ("profile",)
    assert "profile" not in [c.name for c in table.columns]
    assert described["left_out"] == ["profile"]
    assert described["session_path"] == "/entry/tracks/front"
    assert described["rows"] == 3


def test_the_description_is_json_with_all_that_tables_do_not_hold(session):
    described = json.loads(json.dumps(session_metadata(session), allow_nan=False))
    assert described["title"] == "LCO | LiPON | Li, first charge"
    assert described["experiment"] == 'title = "x"\n# µm and Å stay\n'
    assert described["instruments"]["potentiostat"]["ranges_A"] == [1e-12, 1e-11]
    assert described["cameras"]["camera"]["pixel_size"] == 0.8e-9
    assert "1: COMPLIANCE" in described["status_flags"]
    assert described["provenance"]["files"] == {"experiment": "ab"}
    assert "positive current charges" in described["signs"]


def test_unknown_numbers_are_null(tmp_path, make):
    camera = dataclasses.replace(make.header().cameras[0], pixel_size_m=float("nan"))
    path = tmp_path / "a.h5"
    with SessionWriter(path, make.header(cameras=(camera,))):
        pass
    with Session.open(path) as session:
        assert session_metadata(session)["cameras"]["camera"]["pixel_size"] is None
        assert len(export_table(session, "samples")) == 0


def test_a_track_without_times_and_with_a_short_column_keeps_whole_rows(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        group = file.create_group("entry/tracks/odd")
        group["valid"] = np.ones(3, np.uint8)
        group["position"] = np.arange(2.0)
        timed = file.create_group("entry/tracks/timed")
        timed["t_ns"] = np.arange(3)
        timed["position"] = np.arange(2.0)
    with Session.open(path) as session:
        odd, timed = (export_table(session, f"tracks/{name}") for name in ("odd", "timed"))
    assert [c.name for c in odd.columns] == ["valid", "position"]
    assert len(odd.to_pandas()) == 2
    assert len(timed.to_pandas()) == 2


def test_results_are_described_and_their_columns_named_as_missing(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        file.create_group("entry/correlation/front").attrs["p"] = 0.01
        file.create_group("entry/contact").attrs["verdict"] = "cell"
    with Session.open(path) as session:
        described, missing = session_metadata(session), only_described(session)
    assert described["correlation"] == {"front": {"p": 0.01}}
    assert described["contact"]["verdict"] == "cell"
    assert missing == ("columns of contact", "columns of correlation/front")
