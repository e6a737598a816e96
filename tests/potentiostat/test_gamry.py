"""Gamry files: whole ones, damaged ones, and a real one."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.files.gamry_dta import LOCAL_TIME, read
from potentiostat.files.recording import RecordingError

ROOT = Path(__file__).parents[2]

NAMES = "\tPt\tT\tVf\tIm\tOver"
UNITS = "\t#\ts\tV vs. Ref.\tA\tbits"
ROWS = (
    "\t0\t0\t4.00000E+000\t1.00000E-009\t....",
    "\t1\t30\t4.10000E+000\t2.00000E-009\t....",
    "\t2\t60.5\t4.20000E+000\t-3.00000E-009\t....",
)


def head(**changes):
    labels = {
        "TITLE": "LABEL\tA title\tTest &Identifier",
        "DATE": "LABEL\t12/31/2019\tDate",
        "TIME": "LABEL\t16:35:22\tTime",
        "NOTES": "NOTES\t1\t&Notes...\n\tmy notes",
        "PSTATSECTION": "LABEL\tREF3000-21108\tPstat Section",
        "PSTATSERIALNO": "LABEL\t21108\tPstat Serial Number",
        "CONVENTION": "IQUANT\t1\tCurrent Convention",
        "FRAMEWORKVERSION": "QUANT\t6.25\tFramework Version",
    } | changes
    lines = [f"{name}\t{text}" for name, text in labels.items() if text is not None]
    return "\n".join(["EXPLAIN", "TAG\tCHRONOA", *lines]) + "\n"


def table(rows=ROWS, *, name="CURVE", count="3", names=NAMES, units=UNITS):
    return "\n".join([f"{name}\tTABLE\t{count}", names, units, *rows]) + "\n"


@pytest.fixture
def write(tmp_path):
    def put(text):
        path = tmp_path / "run.DTA"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("latin-1"))
        return path

    return put


def test_a_curve_is_read_in_base_units(write):
    found = read(write(head() + table()))
    assert found.time_s.tolist() == [0.0, 30.0, 60.5]
    np.testing.assert_allclose(found.voltage_V, [4.0, 4.1, 4.2])
    np.testing.assert_allclose(found.current_A, [1e-9, 2e-9, -3e-9])
    assert found.logged_charge_C is None
    assert (found.model, found.serial) == ("Gamry REF3000-21108", "21108")
    assert (found.technique, found.start_time) == ("CHRONOA", "2019-12-31T16:35:22")
    assert found.details["title"] == "A title"
    assert LOCAL_TIME in found.assumptions
    assert len(found.assumptions) == 2


def test_decimal_commas_are_read(write):
    found = read(write(head() + table([row.replace(".", ",") for row in ROWS])))
    assert found.time_s.tolist() == [0.0, 30.0, 60.5]
    np.testing.assert_allclose(found.current_A, [1e-9, 2e-9, -3e-9])


@pytest.mark.parametrize("count", ["5258", "", "many"])
def test_the_count_in_the_header_is_not_trusted(write, count):
    found = read(write(head() + table(count=count)))
    assert len(found.time_s) == 3
    assert any("3 whole ones are there" in said for said in found.assumptions)


def test_other_units_and_a_charge_are_converted_and_checked(write):
    names, units = "\tT\tVm\tIm\tQ", "\tmin\tmV\tnA\tuC"
    rows = ["\t0\t1500\t1\t0", "\t1\t1500\t1\t0.06"]
    found = read(write(head() + table(rows, names=names, units=units, count="2")))
    assert found.time_s.tolist() == [0.0, 60.0]
    np.testing.assert_allclose(found.voltage_V, [1.5, 1.5])
    np.testing.assert_allclose(found.logged_charge_C, [0, 6e-8])
    assert found.details["charge_check"].endswith("0.00% apart")


def test_what_stands_after_the_table_is_no_row(write):
    after = "EXPERIMENTABORTED\tTOGGLE\tT\tExperiment Aborted\n"
    found = read(write(head() + table() + after))
    assert len(found.time_s) == 3
    assert any("aborted" in said for said in found.assumptions)


def test_the_curve_before_the_run_is_not_taken_for_it(write):
    before = table([ROWS[0]], name="OCVCURVE", count="1")
    assert len(read(write(head() + before + table())).time_s) == 3


def test_one_of_several_curves_is_chosen_and_said(write):
    second = [row.replace("E-009", "E-012") for row in ROWS]
    path = write(head() + table(name="CURVE1") + table(second, name="CURVE2"))
    found = read(path, curve=1)
    np.testing.assert_allclose(found.current_A, [1e-12, 2e-12, -3e-12])
    assert "curve 2 of 2 was taken" in found.assumptions
    assert "curve 1 of 2 was taken" in read(path).assumptions
    for wrong in (2, -1):
        with pytest.raises(RecordingError, match="has 2 CURVE tables"):
            read(path, curve=wrong)


@pytest.mark.parametrize(
    ("date", "time", "start"),
    [
        ("12/31/2019", "16:35:22", "2019-12-31T16:35:22"),
        ("31/12/2019", "16:35:22", "2019-12-31T16:35:22"),
        ("31.12.2019", "16:35:22", "2019-12-31T16:35:22"),
        ("2019-12-31", "16:35:22", "2019-12-31T16:35:22"),
        ("5/5/2019", "1:02:03", "2019-05-05T01:02:03"),
        ("3/10/2019", "12:00:00", ""),
        ("yesterday", "noon", ""),
    ],
)
def test_a_start_that_may_be_two_days_is_left_out(write, date, time, start):
    changes = {"DATE": f"LABEL\t{date}\tDate", "TIME": f"LABEL\t{time}\tTime"}
    found = read(write(head(**changes) + table()))
    assert found.start_time == start
    assert found.details["started"] == f"{date} {time}"
    assert any("start is left out" in said for said in found.assumptions) is not bool(start)


@pytest.mark.parametrize("convention", [None, "IQUANT\t0\tCurrent Convention"])
def test_a_sign_that_is_not_known_is_said(write, convention):
    found = read(write(head(CONVENTION=convention) + table()))
    assert any("check that charging is positive" in said for said in found.assumptions)


def test_a_last_row_cut_short_is_left_out_and_said(write):
    whole = head() + table()
    for cut in (1, 4, 8, 30):
        found = read(write(whole[:-cut]))
        assert len(found.time_s) == 2
        assert any("left out" in said for said in found.assumptions)


def test_open_circuit_has_no_current(write):
    text = table(["\t0\t1", "\t1\t1"], names="\tT\tVf", units="\ts\tV", count="2")
    assert np.isnan(read(write(head() + text)).current_A).all()


DAMAGED = {
    "empty": ("", "is no .DTA file"),
    "another file": ("time\tcurrent\n", "is no .DTA file"),
    "header alone": (head(), "has 0 CURVE tables"),
    "impedance": (head() + table(name="ZCURVE"), "there are also ZCURVE"),
    "no names": (head() + "CURVE\tTABLE\t5\n", "lacks the row of names"),
    "no units": (head() + f"CURVE\tTABLE\t5\n{NAMES}\n", "lacks the row of names or that of"),
    "no rows": (head() + table([]), "has 0 whole rows"),
    "no time": (head() + table(names=NAMES.replace("T", "X")), "lacks columns; T, Vf"),
    "time alone": (head() + table(["\t1"], names="\tT", units="\ts"), "there are T"),
    "time twice": (head() + table(names=NAMES.replace("Pt", "T")), "'T' more than once"),
    "unit": (head() + table(units=UNITS.replace("A", "mi")), "'Im': 'mi' is no unit of current"),
    "a word": (head() + table([*ROWS, "\t3\tx\t1\t1\t."]), "'x' in 'time' is no number"),
    "a short row": (head() + table([ROWS[0], "\t1", ROWS[2]]), "has 2 columns, and the header"),
    "falling times": (head() + table([ROWS[1], ROWS[0]]), "times do not rise"),
    "nul bytes": (head() + "\0" + table(), "is no text"),
}


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_with_its_name_and_reason(write, content, why):
    path = write(content)
    with pytest.raises(RecordingError, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 700), flip=st.tuples(st.integers(0, 700), st.integers(0, 255)))
def test_a_cut_or_changed_file_is_read_or_refused_but_never_breaks(tmp_path_factory, cut, flip):
    raw = bytearray((head() + table()).encode())
    raw[flip[0] % len(raw)] = flip[1]
    path = tmp_path_factory.mktemp("cut") / "run.DTA"
    path.write_bytes(raw[: cut or None])
    try:
        found = read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A)


# --- a real file -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    folder = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT / "../shared/data"))
    path = folder / "echem" / "gamry_chronoa_data.dta"
    if not path.exists():
        pytest.skip(f"the real recording is not here: {path}")
    return read(path)


def charge_C(found, rows):
    time_s, current_A = found.time_s[:rows], found.current_A[:rows]
    return np.sum(0.5 * (current_A[1:] + current_A[:-1]) * np.diff(time_s))


def test_the_real_file_has_the_rows_that_are_there(real):
    assert len(real.time_s) == 10
    assert "the header says 5258 rows; 10 whole ones are there" in real.assumptions


@pytest.mark.parametrize(("rows", "expected_C"), [(10, 1.3766e-6), (9, 1.2704e-6)])
def test_trapezia_of_the_real_file_give_the_known_charge(real, rows, expected_C):
    assert charge_C(real, rows) == pytest.approx(expected_C, rel=1e-4)
