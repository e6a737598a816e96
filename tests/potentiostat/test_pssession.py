"""Sessions of the maker's program: whole ones, damaged ones, and a real one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.files import palmsens_pssession
from potentiostat.files.palmsens_pssession import read
from potentiostat.files.recording import RecordingError, read_recording
from sync.align import cumulative_charge

ROOT = Path(__file__).parents[2]


def array(kind, unit, values):
    return {
        "ArrayType": kind,
        "Unit": {"Type": f"PalmSens.Units.{unit}"},
        "DataValues": [{"V": value} for value in values],
    }


def measurement(*arrays, **changes):
    return {
        "Title": "Chronoamperometry",
        "UTCTimeStamp": 639_009_584_415_849_215,
        "DeviceUsed": 15,
        "DeviceSerial": "ES0000",
        "DeviceFW": "1.406",
        "DataSet": {"Values": list(arrays)},
        **changes,
    }


TIME = array(0, "Time", [0.0, 1.0, 2.0])
APPLIED = array(1, "Volt", [1.0, 1.0, 1.0])
CURRENT = array(2, "MicroAmpere", [-0.5, 0.25, 1.0])
CHARGE = array(3, "NanoCoulomb", [0.0, -125.0, 500.0])
MEASURED = array(30, "MilliVolt", [4045.5, 4045.6, 4045.7])


def session(*measurements, **changes):
    return {"Type": "x", "CoreVersion": "5.12", "Measurements": list(measurements), **changes}


@pytest.fixture
def write(tmp_path):
    def put(content, *, marks=True):
        path = tmp_path / "run.pssession"
        text = content if isinstance(content, str) else json.dumps(content)
        mark = "\ufeff" if marks else ""
        path.write_bytes(f"{mark}{text}{mark}".encode("utf-16-le"))
        return path

    return put


GOOD = session(measurement(TIME, APPLIED, CURRENT, CHARGE, MEASURED))


@pytest.mark.parametrize("marks", [True, False])
def test_a_session_is_read_in_base_units(write, marks):
    found = read(write(GOOD, marks=marks))
    assert found.time_s.tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_allclose(found.current_A, [-5e-7, 2.5e-7, 1e-6])
    np.testing.assert_allclose(found.voltage_V, [4.0455, 4.0456, 4.0457])
    np.testing.assert_allclose(found.logged_charge_C, [0.0, -1.25e-7, 5e-7], atol=1e-30)


def test_who_measured_and_when_is_kept(write):
    found = read(write(GOOD))
    assert found.model.endswith("device code 15")
    assert (found.serial, found.technique) == ("ES0000", "Chronoamperometry")
    assert found.start_time == "2025-12-10T10:14:01.584921+00:00"
    assert found.details == {"firmware": "1.406", "software": "5.12"}
    assert len(found.assumptions) == 2


@pytest.mark.parametrize("ticks", [None, "soon", 0, -1, 10**30])
def test_a_start_that_cannot_be_is_left_empty(write, ticks):
    assert read(write(session(measurement(TIME, CURRENT, UTCTimeStamp=ticks)))).start_time == ""


def test_the_applied_potential_stands_in_for_a_measured_one(write):
    found = read(write(session(measurement(TIME, APPLIED, CURRENT))))
    assert found.voltage_V.tolist() == [1.0, 1.0, 1.0]
    assert found.logged_charge_C is None
    assert any("applied one was taken" in said for said in found.assumptions)


def test_without_any_potential_the_voltage_is_no_number(write):
    assert np.isnan(read(write(session(measurement(TIME, CURRENT)))).voltage_V).all()


def test_one_of_several_measurements_is_chosen_and_said(write):
    other = array(2, "PicoAmpere", [7.0, 8.0, 9.0])
    path = write(session(measurement(TIME, CURRENT), measurement(TIME, other)))
    found = read(path, measurement=1)
    np.testing.assert_allclose(found.current_A, [7e-12, 8e-12, 9e-12])
    assert "measurement 2 of 2 was taken" in found.assumptions
    for wrong in (2, -1):
        with pytest.raises(RecordingError, match="has 2 measurements"):
            read(path, measurement=wrong)


DAMAGED = {
    "no measurements": (session(), "holds no measurement"),
    "measurements of another kind": (session(Measurements={}), "holds no measurement"),
    "a list": ([1, 2], "holds no object"),
    "not JSON": ("{", "is no .pssession file"),
    "nested without end": ("[" * 200_000, "is no .pssession file"),
    "no current": (session(measurement(TIME)), "lacks or misspells 2"),
    "no time": (session(measurement(CURRENT)), "lacks or misspells 0"),
    "no data": (session({"Title": "x"}), "lacks or misspells 'DataSet'"),
    "a measurement of another kind": (session(7), "lacks or misspells"),
    "an unknown unit": (
        session(measurement(TIME, array(2, "Furlong", [1, 2, 3]))),
        "the unit 'Furlong'",
    ),
    "a word for a value": (
        session(measurement(TIME, array(2, "Ampere", [1, "two", 3]))),
        "lacks or misspells",
    ),
    "a value beyond all numbers": (
        session(measurement(TIME, array(2, "Ampere", [1, 10**400, 3]))),
        "lacks or misspells",
    ),
    "columns of different lengths": (
        session(measurement(TIME, array(2, "Ampere", [1, 2]))),
        "different lengths",
    ),
    "times that stand": (
        session(measurement(array(0, "Time", [0, 1, 1]), CURRENT)),
        "times do not rise",
    ),
    "times that are no numbers": (
        session(measurement(array(0, "Time", [0, float("nan"), 2]), CURRENT)),
        "times do not rise",
    ),
    "a time without end": (
        session(measurement(array(0, "Time", [0, 1, float("inf")]), CURRENT)),
        r"row 2 \(from 0\) is at inf s",
    ),
    "a single row": (
        session(measurement(array(0, "Time", [0]), array(2, "Ampere", [1]))),
        "times do not rise",
    ),
}


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_session_is_refused_with_its_name_and_reason(write, content, why):
    path = write(content)
    with pytest.raises(RecordingError, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{}", b"\x00\xd8\x00\xd8", b"PK\x03\x04 zip"])
def test_bytes_of_another_kind_are_refused(tmp_path, raw):
    path = tmp_path / "run.pssession"
    path.write_bytes(raw)
    with pytest.raises(RecordingError, match=r"is no \.pssession file"):
        read(path)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 2000), flip=st.tuples(st.integers(0, 1900), st.integers(0, 255)))
def test_a_cut_or_changed_file_is_read_or_refused_but_never_breaks(tmp_path_factory, cut, flip):
    raw = bytearray(("\ufeff" + json.dumps(GOOD) + "\ufeff").encode("utf-16-le"))
    raw[flip[0] % len(raw)] = flip[1]
    path = tmp_path_factory.mktemp("cut") / "run.pssession"
    path.write_bytes(raw[: cut or None])
    try:
        found = read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="cannot be read"):
        read(tmp_path / "none.pssession")


def test_a_file_that_would_fill_the_memory_is_refused(write, monkeypatch):
    monkeypatch.setattr(palmsens_pssession, "MAX_BYTES", 1000)
    with pytest.raises(RecordingError, match="is larger than"):
        read(write(GOOD))


def test_the_reader_is_found_by_the_suffix(write, tmp_path):
    path = write(GOOD)
    assert len(read_recording(path).time_s) == 3
    shouted = path.rename(tmp_path / "RUN.PSSESSION")
    assert len(read_recording(shouted).time_s) == 3


def test_an_unknown_suffix_is_refused_with_the_known_ones():
    with pytest.raises(RecordingError, match=r"no reader for \.xyz files; there is .*\.pssession"):
        read_recording(Path("run.xyz"))


# --- a real file -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    folder = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT / "../shared/data"))
    path = folder / "echem" / "EN_1Hz_3600s.pssession"
    if not path.exists():
        pytest.skip(f"the real recording is not here: {path}")
    return read_recording(path)


LOGGED_C = -1.4062474e-5


def test_trapezia_give_the_charge_that_the_makers_program_logged(real):
    t_ns = np.round(real.time_s * 1e9).astype(np.int64)
    charge = cumulative_charge(t_ns, real.current_A)
    assert charge[-1] == pytest.approx(LOGGED_C, rel=1e-6)
    assert real.logged_charge_C[-1] == pytest.approx(LOGGED_C, rel=1e-6)
    np.testing.assert_allclose(charge, real.logged_charge_C, rtol=1e-6, atol=1e-18)


def test_a_sum_from_the_left_does_not(real):
    left_C = float(np.sum(real.current_A[:-1] * np.diff(real.time_s)))
    assert left_C != pytest.approx(LOGGED_C, rel=1e-6)


def test_the_real_recording_is_whole(real):
    assert len(real.time_s) == 3601
    assert np.all(np.abs(real.voltage_V - 4.0455) < 0.01)
    assert real.start_time.startswith("2025-12-10T")
