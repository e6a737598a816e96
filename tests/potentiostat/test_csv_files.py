"""CSV files: any with names and units, Keithley reading buffers, and the units themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.files import generic_csv, keithley_csv, units
from potentiostat.files.recording import RecordingError


@pytest.fixture
def write(tmp_path):
    def put(text):
        path = tmp_path / "run.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


# --- units -------------------------------------------------------------------------------------

FACTORS = [
    ("time", "s", 1.0),
    ("time", "ms", 1e-3),
    ("time", "µs", 1e-6),
    ("time", "min", 60.0),
    ("time", "h", 3600.0),
    ("voltage", "V", 1.0),
    ("voltage", "mV", 1e-3),
    ("current", "A", 1.0),
    ("current", "mA", 1e-3),
    ("current", "\u00b5A", 1e-6),
    ("current", "\u03bcA", 1e-6),
    ("current", "uA", 1e-6),
    ("current", "nA", 1e-9),
    ("current", "pA", 1e-12),
    ("current", "fA", 1e-15),
    ("charge", "C", 1.0),
    ("charge", "µC", 1e-6),
    ("charge", "pC", 1e-12),
    ("charge", "Ah", 3600.0),
    ("charge", "mA.h", 3.6),
    ("charge", "mA·h", 3.6),
    ("charge", "mAh", 3.6),
    ("charge", "µA.h", 3.6e-3),
    ("charge", "nAh", 3.6e-6),
    ("charge", "pA.h", 3.6e-9),
]


@pytest.mark.parametrize(("quantity", "unit", "factor"), FACTORS)
def test_a_unit_has_one_factor_and_one_quantity(quantity, unit, factor):
    assert units.to_si(quantity, unit) == pytest.approx(factor, rel=1e-15)
    assert units.quantity_of(unit) == quantity


@pytest.mark.parametrize("unit", ["", "MA", "a", "v", "mah", "°C", "S", "mA/cm²", "Ohm", "A.s"])
def test_what_is_no_unit_of_ours_is_refused_with_those_that_are(unit):
    assert units.quantity_of(unit) is None
    with pytest.raises(ValueError, match="is no unit of current; there are fA, pA, nA, uA, mA, A"):
        units.to_si("current", unit)


def test_no_unit_belongs_to_two_quantities():
    every = [unit for known in units.SCALES.values() for unit in known]
    assert len(every) == len(set(every))


# --- any CSV -----------------------------------------------------------------------------------

FORMS = [
    "time_s,voltage_V,current_nA,charge_nC",
    "time/s,Ewe/V,I/nA,(Q-Qo)/nC",
    "t [s],U [V],I [nA],Q [nC]",
    "Time (s),Potential (V),Current (nA),Charge (nC)",
    "Elapsed time_s,Ewe_V,I_nA,q_nC",
    ' "time_s" , E/V,<I>/nA,"Charge [nC]"',
    "# time_s,voltage_V,current_nA,charge_nC",
    "# made by hand\n\n#t_s,E_V,I_nA,Q_nC",
    "\ufefftime_s,voltage_V,current_nA,charge_nC",
    "time_s,voltage_V,current_nA,charge_nC,",
]


@pytest.mark.parametrize("header", FORMS)
def test_names_with_units_are_recognised(write, header):
    found = generic_csv.read(write(f"{header}\n0,3.5,2,0\n10,3.6,2,20\n"))
    assert found.time_s.tolist() == [0.0, 10.0]
    np.testing.assert_allclose(found.voltage_V, [3.5, 3.6])
    np.testing.assert_allclose(found.current_A, [2e-9, 2e-9])
    np.testing.assert_allclose(found.logged_charge_C, [0, 2e-8])
    assert found.assumptions == (generic_csv.SIGN,)
    assert found.start_time == ""


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_are_read_between_semicolons_or_tabs(write, delimiter):
    lines = ["time_s;I_pA;E_V", "0,0;-1,5E+000;3,123", "0,5;2,25;3,5"]
    found = generic_csv.read(write("\r\n".join(lines).replace(";", delimiter) + "\r\n"))
    assert found.time_s.tolist() == [0.0, 0.5]
    np.testing.assert_allclose(found.current_A, [-1.5e-12, 2.25e-12])


def test_latin_1_and_other_columns_do_no_harm(write):
    text = "time_s;Temp_°C;I_µA;comment\n0;20;1;hot; \n1;21;2;cold;\n"
    found = generic_csv.read(write(text.encode("latin-1")))
    np.testing.assert_allclose(found.current_A, [1e-6, 2e-6])


def test_a_temperature_is_no_charge_and_a_set_point_no_voltage(write):
    found = generic_csv.read(write("time_s,T_C,control/V,Ewe/V,I_A\n0,25,1,2,3\n1,25,1,2,3\n"))
    assert found.logged_charge_C is None
    assert found.voltage_V.tolist() == [2.0, 2.0]


def test_the_time_of_a_step_and_the_charge_of_a_half_cycle_are_not_taken(write):
    header = "Test_Time(s),Step_Time(s),Current(A),Voltage(V),Charge_Capacity(Ah)"
    found = generic_csv.read(write(f"{header},Discharge_Capacity(Ah)\n0,0,1,3,0,0\n1,0,1,3,1,1\n"))
    assert found.time_s.tolist() == [0.0, 1.0]
    assert found.logged_charge_C is None


@pytest.mark.parametrize(
    "rows",
    ["0,0,0\n1,0,0\n", "0,nan,0\n1,nan,1\n", "0,1,nan\n1,1,nan\n"],
)
def test_a_charge_that_cannot_be_compared_is_kept_without_a_word(write, rows):
    found = generic_csv.read(write(f"time_s,I_A,Q_C\n{rows}"))
    assert found.logged_charge_C is not None
    assert "charge_check" not in found.details
    assert not any("disagree" in said for said in found.assumptions)


MAP = {"time": "t [s]", "current": "I [nA]"}


@pytest.mark.parametrize("header", ["t,I,E", "t [s],I [nA],E [V]", "x_V,t,I"])
def test_a_map_says_which_column_is_what(write, header):
    rows = "0,5,0\n1,5,0\n" if not header.startswith("x") else "0,0,5\n0,1,5\n"
    found = generic_csv.read(write(f"{header}\n{rows}"), MAP)
    np.testing.assert_allclose(found.current_A, [5e-9, 5e-9])
    assert np.isnan(found.voltage_V).all()


WRONG_MAPS = {
    "no such column": ({"time": "z [s]", "current": "I [nA]"}, "names 0 columns; there are 't',"),
    "no unit": ({"time": "t", "current": "I [nA]"}, "'t' needs a unit of time: ns"),
    "another quantity": ({"time": "t [s]", "current": "I [V]"}, "needs a unit of current"),
    "another key": ({"time": "t [s]", "power": "P [W]"}, "'power' cannot be mapped; time,"),
    "no time": ({"current": "I [nA]"}, "recognised as time"),
    "time alone": ({"time": "t [s]"}, "recognised as voltage or current"),
    "one column twice": ({"time": "t [s]", "current": "t [nA]"}, "names one column twice"),
}


@pytest.mark.parametrize(("columns", "why"), WRONG_MAPS.values(), ids=WRONG_MAPS)
def test_a_wrong_map_is_refused_with_what_would_do(write, columns, why):
    with pytest.raises(RecordingError, match=why):
        generic_csv.read(write("t,I\n0,1\n1,1\n"), columns)


def test_a_map_that_fits_two_columns_is_refused(write):
    with pytest.raises(RecordingError, match="names 2 columns"):
        generic_csv.read(write("t,I,I\n0,1,2\n1,1,2\n"), MAP)


DAMAGED = {
    "empty": ("", "has no line that names the columns"),
    "numbers alone": ("0,1\n1,1\n", "has no line that names the columns"),
    "numbers with commas": ("0,5;1,5\n1,5;1\n", "has no line that names the columns"),
    "one column": ("time_s\n0\n1\n", "names one column only"),
    "no units": ("time,current\n0,1\n1,1\n", "no column is recognised as time; names with units"),
    "no current": ("time_s,x_s\n0,1\n1,1\n", "recognised as voltage or current"),
    "two currents": (
        "time_s,I_A,current [mA]\n0,1,1\n1,1,1\n",
        "its current may be any of 'I_A', 'current .mA.'; say which with a column map",
    ),
    "two times": ("time/s,run_time_s,I/A\n0,1,1\n", "may be any of 'time/s', 'run_time_s'"),
    "no rows": ("time_s,I_A\n", "has 0 whole rows"),
    "English thousands": ("time_s;I_A\n0;1,234.5\n1;1\n", "without thousands separators"),
    "German thousands": ("time_s;I_A\n0;1.234,5\n1;1\n", "without thousands separators"),
    "millions": ("time_s;I_A\n0;1,234,567\n1;1\n", "without thousands separators"),
    "Swiss thousands": ("time_s;I_A\n0;1'234\n1;1\n", "without thousands separators"),
    "French thousands": ("time_s;I_A\n0;1\u00a0234\n1;1\n", "without thousands separators"),
    "perhaps thousands": ("time_s;I_A\n0;1,234\n1;2,345\n", "decimal marks or thousands"),
    "both marks": ("time_s;I_A\n0;1,5\n1;1.5\n", "line 2 has a decimal comma and line 3 a point"),
    "decimal commas between commas": (
        "time_s,I_A\n0,5,1,5\n1,5,1,5\n2,5,1,5\n",
        "line 2 has 4 columns, and the header names 2; with decimal commas, semicolons",
    ),
    "falling times": ("time_s,I_A\n1,1\n0,1\n", "times do not rise"),
    "a word": ("time_s,I_A\n0,one\n1,1\n", "line 2: 'one' in 'current' is no number"),
    "another script": ("time_s,I_A\n0,\u0661\n1,1\n", "is no number"),
    "binary": (b"PK\x03\x04\x00\x00", "line 1 is no text"),
    "UTF-16": ("time_s,I_A\n0,1\n".encode("utf-16"), "UTF-8 or Latin-1 is expected"),
    "a cell without end": ('time_s,I_A\n0,"' + "x" * 200_000 + "\n1,1\n", "has 0 columns"),
}


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_table_is_refused_with_its_name_and_reason(write, content, why):
    path = write(content)
    with pytest.raises(RecordingError, match=why) as caught:
        generic_csv.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("last", ["2,1", "2,", "2", "2,1.5e-"])
def test_a_last_row_cut_short_is_left_out_and_said(write, last):
    found = generic_csv.read(write(f"time_s,I_A\n0,1\n1,1\n{last}"))
    assert found.time_s.tolist() == [0.0, 1.0]
    assert any("the last row (line 4)" in said for said in found.assumptions)


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=200) | st.text(alphabet="0123,;.\n\teE-_sVA", max_size=80))
def test_anything_at_all_is_read_or_refused_but_never_breaks(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("any") / "run.csv"
    path.write_bytes(raw if isinstance(raw, bytes) else b"time_s;I_A\n" + raw.encode())
    try:
        found = generic_csv.read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A) >= 2
    assert np.all(np.diff(found.time_s) > 0)


# --- Keithley reading buffers ------------------------------------------------------------------

BUFFER = """Model,2450
Serial Number:,04123456
Buffer,defbuffer1

Index,Reading,Unit,Range Digits,Value,Unit,Date,Time,Fractional Seconds
1,1.5E-12,Amp DC,6,3.9,Volt,12/31/2025,23:59:59,0.75
2,2.5E-12,Amp DC,6,4.0,Volt,01/01/2026,00:00:00,0.25
3,-1E-12,Amp DC,6,4.1,Volt,01/01/2026,00:00:01,0.25
"""
RELATIVE = "Reading (nA),Source Value (mV),Relative Time,\n1,3900,0.0\n2,4000,0.5\n"


def test_a_buffer_with_dates_is_read_in_base_units(write):
    found = keithley_csv.read(write(BUFFER))
    np.testing.assert_allclose(found.time_s, [0, 0.5, 1.5])
    np.testing.assert_allclose(found.current_A, [1.5e-12, 2.5e-12, -1e-12])
    np.testing.assert_allclose(found.voltage_V, [3.9, 4.0, 4.1])
    assert (found.model, found.serial) == ("Keithley 2450", "04123456")
    assert found.start_time == "2025-12-31T23:59:59.750000"
    assert keithley_csv.SIGN in found.assumptions
    assert any("set or read back" in said for said in found.assumptions)


def test_a_buffer_with_relative_times_is_read(write):
    found = keithley_csv.read(write(RELATIVE))
    assert found.time_s.tolist() == [0.0, 0.5]
    np.testing.assert_allclose(found.current_A, [1e-9, 2e-9])
    np.testing.assert_allclose(found.voltage_V, [3.9, 4.0])
    assert found.start_time == ""


def test_a_source_of_current_is_read_the_other_way_round(write):
    text = "Reading,Unit,Value,Unit,Relative Time\n3,Volt DC,5E-12,Amp,0\n3,Volt DC,5E-12,Amp,1\n"
    found = keithley_csv.read(write(text))
    assert found.voltage_V.tolist() == [3.0, 3.0]
    np.testing.assert_allclose(found.current_A, [5e-12, 5e-12])


def test_a_value_is_preferred_to_a_mark_called_source(write):
    head = "Reading (A),Source,Value (V),Relative Time (ms),Date,Time"
    rows = "1,ON,2,0,06/14/2025,01:00:00\n1,ON,2,500,06/14/2025,01:00:00\n"
    found = keithley_csv.read(write(f"{head}\n{rows}"))
    assert found.voltage_V.tolist() == [2.0, 2.0]
    assert found.time_s.tolist() == [0.0, 0.5]
    assert found.start_time == "2025-06-14T01:00:00"


def test_an_overflow_is_unknown_and_said(write):
    found = keithley_csv.read(write(RELATIVE.replace("\n2,", "\n9.9E37,")))
    assert np.isnan(found.current_A[1])
    assert "1 rows of the reading are overflows: unknown" in found.assumptions


def test_a_buffer_without_source_has_no_voltage(write):
    found = keithley_csv.read(write("Reading (A),Relative Time\n1,0\n1,1\n"))
    assert np.isnan(found.voltage_V).all()


def test_the_reader_of_any_csv_hands_a_buffer_over(write):
    assert generic_csv.read(write(BUFFER)).model == "Keithley 2450"
    assert not keithley_csv.recognises(write("time_s,I_A\n0,1\n1,1\n"))


NO_BUFFER = {
    "another table": ("time_s,I_A\n0,1\n1,1\n", "no Keithley buffer; a row of names with Reading"),
    "no unit": ("Reading,Relative Time\n1,0\n1,1\n", "its Reading has no unit; a row of names"),
    "the other's unit": (
        "Reading,Value,Unit,Relative Time\n1,1,V,0\n1,1,V,1\n",
        "its Reading has no unit",
    ),
    "readings twice": ("Reading (A),Reading (V),Relative Time\n", "'Reading' more than once"),
    "changing unit": (
        "Reading,Unit,Relative Time\n1,Amp DC,0\n1,Volt DC,1\n",
        "changes its unit .Amp DC, Volt DC.",
    ),
    "ohms": ("Reading,Unit,Relative Time\n1,Ohm,0\n1,Ohm,1\n", "its reading is in 'Ohm'"),
    "volts twice": ("Reading (V),Value (V),Relative Time\n1,1,0\n", "its source is in 'V'"),
    "no time": ("Reading (A),Value (V)\n1,1\n1,1\n", "has no times; a row of names"),
    "no fraction": (
        "Reading (A),Date,Time\n1,06/14/2025,01:00:00\n",
        "has no times",
    ),
    "time in volts": ("Reading (A),Relative Time (V)\n1,0\n1,1\n", "Relative Time is in 'V'"),
    "no date": (
        "Reading (A),Date,Time,Fractional Seconds\n1,soon,late,0\n1,soon,late,0.5\n",
        "'soon late' is no date and time; such as 06/14/2025",
    ),
    "no fraction of a second": (
        "Reading (A),Date,Time,Fractional Seconds\n1,06/14/2025,01:00:00,7\n",
        "not between 0 and 1",
    ),
    "no rows": ("Reading (A),Date,Time,Fractional Seconds\n", "has 0 whole rows"),
}


@pytest.mark.parametrize(("content", "why"), NO_BUFFER.values(), ids=NO_BUFFER)
def test_what_is_no_whole_buffer_is_refused_with_what_was_looked_for(write, content, why):
    path = write(content)
    with pytest.raises(RecordingError, match=why) as caught:
        keithley_csv.read(path)
    assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 400), flip=st.tuples(st.integers(0, 400), st.integers(0, 255)))
def test_a_cut_or_changed_buffer_is_read_or_refused_but_never_breaks(tmp_path_factory, cut, flip):
    raw = bytearray(BUFFER.encode())
    raw[flip[0] % len(raw)] = flip[1]
    path = tmp_path_factory.mktemp("cut") / "run.csv"
    path.write_bytes(raw[: cut or None])
    try:
        found = keithley_csv.read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A)
