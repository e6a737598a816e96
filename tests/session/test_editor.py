"""Results join a session; raw data stay."""

import h5py
import numpy as np
import pytest

from session import Session
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.validate import validate

T_NS = np.arange(4, dtype=np.int64) * 50


@pytest.fixture
def path(write_session):
    return write_session()


def track(**changes):
    columns = {
        "t_ns": T_NS,
        "position": np.linspace(0, 1e-7, 4),
        "position_sigma": np.full(4, 1e-9),
        "valid": [True, True, False, True],
    }
    return columns | changes


def test_a_track_is_put_and_read(path):
    with SessionEditor.open(path) as editor:
        editor.put_table("tracks/front", track(), {"tracker": "front", "version": 1})
    with Session.open(path) as session:
        assert session.tracks == ("front",)
        table = session.table("tracks/front")
        assert table.units == {"t_ns": "ns", "position": "m", "position_sigma": "m"}
        assert table["valid"].dtype == np.uint8
        assert table.attributes["tracker"] == "front"
        assert table.attributes["signal"] == "position"
        frame = table.to_pandas()
        assert frame.index.name == "t_ns"
        np.testing.assert_array_equal(frame["position"], track()["position"])
    assert validate(path) == []


def test_a_table_is_replaced_as_a_whole(path):
    with SessionEditor.open(path) as editor:
        editor.put_table("tracks/front", track(), {"old": 1})
        editor.put_table("tracks/front", track(area=np.ones(4)), {"new": 1})
    with Session.open(path) as session:
        table = session.table("tracks/front")
        assert "old" not in table.attributes
        assert "area" in table
        assert session.tracks == ("front",)


def test_what_a_crash_left_is_swept_away(path):
    with h5py.File(path, "r+") as file:
        file.create_group("entry/tracks/front~new/rest")
    with Session.open(path) as session:
        assert session.tracks == ()
    with SessionEditor.open(path) as editor:
        editor.put_table("tracks/front", track())
    with Session.open(path) as session:
        assert session.tracks == ("front",)
    assert validate(path) == []


def test_a_clock_fit_is_put_row_by_row(path):
    with SessionEditor.open(path) as editor:
        editor.put_table(
            "clocks/camera/fit",
            {
                "reference_device_ns": [1, 2],
                "reference_host_ns": [3, 4],
                "rate": [1.0, 1.00001],
                "rate_sigma": [1e-9, 1e-9],
                "offset_sigma_ns": [5.0, 6.0],
                "covariance_ns": [0.0, 0.0],
                "bound_ns": [100.0, 100.0],
                "valid_from_ns": [0, 10],
                "valid_to_ns": [10, 20],
            },
        )
    with Session.open(path) as session:
        first, second = session.clock_fits("camera")
        assert first.reference_device_ns == 1
        assert isinstance(first.reference_device_ns, int)
        assert second.rate == 1.00001
        assert second.count == 0
    assert validate(path) == []


def test_ledger_and_drift_and_frame_samples_fit_the_schema(path):
    terms = ("instrument", "capacitive", "leak", "beam", "dielectric", "ionic")
    ledger = {"t_ns": T_NS} | {
        f"{term}{end}": np.zeros(4) for term in terms for end in ("", "_sigma")
    }
    drift = {"t_ns": T_NS, "valid": np.ones(4, "u1")} | {
        name: np.zeros(4) for name in ("dx", "dy", "sigma_x", "sigma_y", "sigma", "quality")
    }
    means = {"t_ns": T_NS} | {
        name: np.zeros(4)
        for name in (
            "voltage_mean",
            "voltage_std",
            "current_mean",
            "current_std",
            "count",
            "coverage",
            "charge_since_last",
        )
    }
    with SessionEditor.open(path) as editor:
        editor.put_table("ledger", ledger)
        editor.put_table("drift/camera", drift)
        editor.put_table("frame_samples/camera", means)
    with Session.open(path) as session:
        assert session.table("ledger").units["ionic_sigma"] == "C"
        assert session.table("ledger").attributes["signal"] == "ionic"
        assert session.table("drift/camera").units["dx"] == "px"
    assert validate(path) == []


def test_free_tables_hold_any_shape(path):
    with SessionEditor.open(path) as editor:
        editor.put_table(
            "correlation/lag",
            {"lag_s": [0.5], "surrogates": np.zeros((3, 4)), "names": ["a", "b"]},
            {"p": 0.01, "tested": "velocity against current"},
            units={"lag_s": "s"},
        )
        editor.put_table("calibration", {"voltage": [1.0, 2.0]}, {"capacitance_F": 1e-12})
        editor.put_table("correlation/empty", {"nothing": []})
    with Session.open(path) as session:
        table = session.table("correlation/lag")
        assert table["surrogates"].shape == (3, 4)
        assert list(table["names"]) == ["a", "b"]
        assert table.units == {"lag_s": "s"}
        with pytest.raises(SessionRefused, match="differ in shape"):
            table.to_pandas()
        assert session.calibration is not None
        assert session.calibration.attributes["capacitance_F"] == 1e-12
        assert list(session.calibration.to_pandas()["voltage"]) == [1.0, 2.0]
    assert validate(path) == []


def test_a_track_without_quantities_has_no_signal(path):
    with SessionEditor.open(path) as editor:
        editor.put_table("tracks/none", {"t_ns": T_NS, "valid": np.zeros(4, "u1")})
    with Session.open(path) as session:
        assert "signal" not in session.table("tracks/none").attributes


@pytest.mark.parametrize(
    ("where", "columns", "match"),
    [
        ("samples", {}, "takes no results"),
        ("frames/camera", {}, "takes no results"),
        ("nowhere", {}, "takes no results"),
        ("tracks/a~b", track(), "takes no results"),
        ("tracks/front", {"t_ns": T_NS}, "lacks the columns valid"),
        ("tracks/front", track(position=[1.0]), r"one shape \(n,\)"),
        ("tracks/front", {"t_ns": 1, "valid": 1}, r"one shape \(n,\)"),
        ("tracks/front", track(t_ns=T_NS * 1.0), "t_ns: values of float64"),
        ("tracks/front", track(valid=[1, 0, 300, 1]), "valid: values of int64"),
        ("tracks/front", track(position=["a"] * 4), "position: values of"),
        ("tracks/front", track(other=[1j] * 4), "other: values of complex128"),
        ("tracks/front", track(other=[object()] * 4), "other: values of object"),
        ("tracks/front", track(**{"a/b": T_NS}), "no column 'a/b'"),
        ("clocks/camera/fit", {"reference_device_ns": [1]}, "lacks the columns"),
    ],
)
def test_tables_that_do_not_fit_are_refused(path, where, columns, match):
    with SessionEditor.open(path) as editor:
        with pytest.raises(SessionRefused, match=match):
            editor.put_table(where, columns)
        with pytest.raises(SessionRefused):
            editor.put_table("tracks/front", track(), {"x": object()})
    with Session.open(path) as session:
        assert session.tracks == ()


def test_fixed_tables_take_no_other_columns(path):
    fit = {"t_ns": T_NS, "voltage_mean": T_NS}
    with (
        SessionEditor.open(path) as editor,
        pytest.raises(SessionRefused, match="lacks the columns"),
    ):
        editor.put_table("frame_samples/camera", fit)


def test_provisional_columns_are_rewritten(path):
    with Session.open(path) as session:
        before = session.sample_columns()
        frames = session.frame_table("camera")
    with SessionEditor.open(path) as editor:
        editor.update_columns("samples", {"t_ns": before["t_ns"] + 7, "charge_ionic": np.ones(30)})
        editor.update_columns("frames/camera", {"t_start_ns": frames["t_start_ns"] + 9})
    with Session.open(path) as session:
        after = session.sample_columns()
        np.testing.assert_array_equal(after["t_ns"], before["t_ns"] + 7)
        np.testing.assert_array_equal(after["charge_ionic"], np.ones(30))
        np.testing.assert_array_equal(after["read_start_ns"], before["read_start_ns"])
        assert session.frame_table("camera")["t_start_ns"][0] == 1_009
    assert validate(path) == []


@pytest.mark.parametrize(
    ("where", "columns", "match"),
    [
        ("samples", {"voltage": np.zeros(30)}, "stays as it was recorded"),
        ("frames/camera", {"device_start_ns": T_NS}, "stays as it was recorded"),
        ("samples", {"t_ns": T_NS}, "has 30 rows"),
        ("samples", {"t_ns": np.zeros(30)}, "values of float64"),
        ("events", {"t_ns": [1]}, "no columns that may be rewritten"),
        ("frames/other", {"t_start_ns": [1]}, "no columns that may be rewritten"),
        ("nowhere", {}, "no columns that may be rewritten"),
    ],
)
def test_raw_columns_stay(path, where, columns, match):
    with SessionEditor.open(path) as editor, pytest.raises(SessionRefused, match=match):
        editor.update_columns(where, columns)


def test_attributes_and_events_are_added(path):
    with SessionEditor.open(path) as editor:
        editor.put_attributes("sample", {"capacity_C": 1e-9})
        editor.put_attributes("instrument/new", {"model": "x"})
        editor.add_event(5_000, "note", "align", "fitted", {"sigma_ns": 3})
        with pytest.raises(SessionRefused, match="no further attributes"):
            editor.put_attributes("samples", {"x": 1})
        with pytest.raises(SessionRefused, match="cannot be stored"):
            editor.put_attributes("sample", {"x": object()})
    with Session.open(path) as session:
        assert session.attributes("sample")["capacity_C"] == 1e-9
        assert session.attributes("instrument/new")["model"] == "x"
        first, second = session.events()
        assert first.message == "step 0"
        assert second.data == {"sigma_ns": 3}
    assert validate(path) == []
