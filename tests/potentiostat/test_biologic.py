"""BioLogic files: the text export, the binary file, damaged ones, and a real one."""

import os
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.files import biologic_mpr, biologic_mpt, tables
from potentiostat.files.recording import RecordingError

ROOT = Path(__file__).parents[2]

COLUMNS = "mode\terror\tNs\ttime/s\tEwe/V\tI/mA\t(Q-Qo)/mA.h\tcycle number\t"
ROWS = (
    "1\t0\t0\t0.000E+000\t3.1000000E+000\t1.0000000E-006\t0.0000E+000\t0.0E+000",
    "1\t0\t0\t3.600E+003\t3.2000000E+000\t1.0000000E-006\t1.0000E-006\t0.0E+000",
    "1\t1\t1\t7.200E+003\t3.3000000E+000\t3.0000000E-006\t3.0000E-006\t1.0E+000",
)


def mpt(columns=COLUMNS, rows=ROWS, *, magic="EC-Lab ASCII FILE", count=None, last="\r\n"):
    header = [
        "",
        "Modulo Bat",
        "",
        "Run on channel : 1 (SN 35699)",
        "Electrode surface area : 0.001 cm²",
        "Acquisition started on : 12/08/2022 14:36:53.355",
        "Technique started on : 12/08/2022 14:36:53.355",
        "Device : VSP (SN 1705)",
        "EC-Lab for windows v11.43 (software)",
        "",
        columns,
    ]
    top = [magic, f"Nb header lines : {count or len(header) + 2}                   "]
    return "\r\n".join([*top, *header, *rows]) + last


@pytest.fixture
def write(tmp_path):
    def put(text, name="run.mpt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("latin-1"))
        return path

    return put


def test_a_text_export_is_read_in_base_units(write):
    found = biologic_mpt.read(write(mpt()))
    np.testing.assert_allclose(found.time_s, [0, 3600, 7200])
    np.testing.assert_allclose(found.voltage_V, [3.1, 3.2, 3.3])
    np.testing.assert_allclose(found.current_A, [1e-9, 1e-9, 3e-9])
    np.testing.assert_allclose(found.logged_charge_C, [0, 3.6e-6, 10.8e-6])
    assert (found.model, found.serial) == ("BioLogic VSP", "1705")
    assert found.technique == "Modulo Bat"
    assert found.start_time == "2022-12-08T14:36:53.355000"
    assert found.details["software"] == "EC-Lab for windows v11.43 (software)"
    assert found.details["Ns"] == "0 to 1"
    assert found.details["error_rows"] == "1"
    assert found.assumptions == (biologic_mpt.SIGN, biologic_mpt.LOCAL_TIME)


def test_decimal_commas_are_read(write):
    comma = biologic_mpt.read(write(mpt(rows=[row.replace(".", ",") for row in ROWS])))
    point = biologic_mpt.read(write(mpt(), "point.mpt"))
    np.testing.assert_array_equal(comma.current_A, point.current_A)
    np.testing.assert_array_equal(comma.time_s, point.time_s)


def test_a_comma_before_three_digits_is_decimal_in_this_makers_files(write):
    rows = ["0,000\t3,100\t1,000", "1,000\t3,200\t2,000"]
    found = biologic_mpt.read(write(mpt("time/s\tEwe/V\tI/mA", rows)))
    np.testing.assert_allclose(found.current_A, [1e-3, 2e-3])


def test_points_and_commas_in_one_file_are_refused(write):
    with pytest.raises(RecordingError, match="line 15 has a decimal comma and line 14 a point"):
        biologic_mpt.read(write(mpt(rows=[ROWS[0], ROWS[1].replace(".", ",")])))


def test_mean_currents_and_charges_in_coulombs_are_read_and_said(write):
    rows = ["0\t2.5\t1.0\t0.0", "10\t2.5\t1.0\t0.01"]
    found = biologic_mpt.read(write(mpt("time/s\t<Ewe>/V\t<I>/mA\t(Q-Qo)/C", rows)))
    np.testing.assert_allclose(found.current_A, [1e-3, 1e-3])
    np.testing.assert_allclose(found.logged_charge_C, [0, 0.01])
    assert biologic_mpt.MEAN in found.assumptions


def test_the_instant_current_is_preferred_to_the_mean(write):
    rows = ["0\t2\t5\t9", "1\t2\t5\t9"]
    found = biologic_mpt.read(write(mpt("time/s\tEwe/V\tI/mA\t<I>/mA", rows)))
    np.testing.assert_allclose(found.current_A, [5e-3, 5e-3])
    assert biologic_mpt.MEAN not in found.assumptions


def test_a_potential_against_the_counter_electrode_is_said(write):
    found = biologic_mpt.read(write(mpt("time/s\tEcell/V\tI/mA", ["0\t2\t1", "1\t2\t1"])))
    assert found.voltage_V.tolist() == [2.0, 2.0]
    assert any("counter electrode" in said for said in found.assumptions)


def test_open_circuit_has_no_current_and_says_so(write):
    found = biologic_mpt.read(write(mpt("time/s\tEwe/V", ["0\t2", "1\t2"])))
    assert np.isnan(found.current_A).all()
    assert any("no current in the file" in said for said in found.assumptions)


def test_a_charge_that_disagrees_with_the_current_is_said(write):
    rows = [row.replace("3.0000E-006", "9.0000E-006") for row in ROWS]
    said = " ".join(biologic_mpt.read(write(mpt(rows=rows))).assumptions)
    assert "disagree: 3.24e-05 C in the file, 1.08e-05 C by trapezia, 66.67% apart" in said


def test_a_charge_of_the_other_sign_is_said(write):
    rows = [row.replace("\t1.0000E-006", "\t-1.0000E-006") for row in ROWS]
    rows = [row.replace("\t3.0000E-006", "\t-3.0000E-006") for row in rows]
    said = " ".join(biologic_mpt.read(write(mpt(rows=rows))).assumptions)
    assert "one of them has the other sign" in said


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_a_last_row_cut_short_is_left_out_and_said(write, cut):
    whole = mpt(last="")
    found = biologic_mpt.read(write(whole[: len(whole) - cut]))
    assert len(found.time_s) == 2
    assert any("line 16" in said and "left out" in said for said in found.assumptions)


def test_a_first_row_later_than_zero_is_said(write):
    found = biologic_mpt.read(write(mpt("time/s\tI/mA", ["16.5\t1", "17\t1"])))
    assert found.time_s.tolist() == [16.5, 17.0]
    assert any("first row is at 16.5 s" in said for said in found.assumptions)


def test_rows_with_the_time_of_the_row_before_are_left_out_and_counted(write):
    found = biologic_mpt.read(write(mpt("time/s\tI/mA", ["0\t1", "1\t2", "1\t7", "2\t3"])))
    np.testing.assert_allclose(found.current_A, [1e-3, 2e-3, 3e-3])
    assert any(said.startswith("1 rows repeat the time") for said in found.assumptions)


def test_unknown_values_are_no_numbers(write):
    found = biologic_mpt.read(write(mpt("time/s\tI/mA\tEwe/V", ["0\tXXX\t1", "1\t\t1"])))
    assert np.isnan(found.current_A).all()


DAMAGED = {
    "empty": ("", "is no .mpt file"),
    "another file": ("time,current\n0,1\n", "is no .mpt file"),
    "no count": (mpt().replace("Nb header lines", "Lines"), "is no .mpt file"),
    "another maker": (mpt(magic="Some ASCII FILE"), "is no .mpt file"),
    "too few header lines": (mpt(count=2), "cannot have 2 header lines"),
    "too many header lines": (mpt(count=999_999), "cannot have 999999 header lines"),
    "header without end": (mpt(count=500), "ends within its header of 500"),
    "wrong count": (mpt(count=12), "lacks columns"),
    "no time": (mpt("Ewe/V\tI/mA", ["1\t2", "1\t2"]), "lacks columns; time/s"),
    "time alone": (mpt("time/s\tx", ["1\t2", "2\t2"]), "there are time/s, x"),
    "a unit that is none": (mpt("time/s\tI/furlong", ["1\t2", "2\t2"]), "lacks columns"),
    "twice a column": (mpt("time/s\tI/mA\tI/mA", ["1\t2\t2"]), "'I/mA' more than once"),
    "no rows": (mpt(rows=[]), "has 0 whole rows"),
    "one row": (mpt(rows=ROWS[:1]), "has 1 whole rows"),
    "a short row in the middle": (
        mpt(rows=[ROWS[0], "1\t0", ROWS[2]]),
        "line 15 has 2 columns, and the header names 8",
    ),
    "a word": (mpt("time/s\tI/mA", ["0\t1", "1\ttwo"]), "line 15: 'two' in 'I/mA' is no number"),
    "absolute times": (
        mpt("time/s\tI/mA", ["12/08/2022 14:36:53\t1", "12/08/2022 14:36:54\t1"]),
        "is no number",
    ),
    "thousands": (mpt("time/s\tI/mA", ["0\t1,234.5", "1\t1"]), "without thousands separators"),
    "beyond all numbers": (mpt("time/s\tI/mA", ["0\t1e999", "1\t1"]), "beyond all numbers"),
    "infinite": (mpt("time/s\tI/mA", ["0\tinf", "1\t1"]), "is no number"),
    "underscores": (mpt("time/s\tI/mA", ["0\t1_0", "1\t1"]), "is no number"),
    "falling times": (mpt("time/s\tI/mA", ["1\t1", "0\t1"]), "times do not rise"),
    "standing times": (mpt("time/s\tI/mA", ["1\t1", "1\t1"]), "times do not rise"),
    "unknown times": (mpt("time/s\tI/mA", ["\t1", "1\t1"]), "times do not rise"),
    "nul bytes": (mpt() + "\0\0", "line 17 is no text"),
    "a line without end": ("EC-Lab ASCII FILE" + "x" * (tables.MAX_LINE_BYTES + 9), "is no text"),
}


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_export_is_refused_with_its_name_and_reason(write, content, why):
    path = write(content)
    with pytest.raises(RecordingError, match=why) as caught:
        biologic_mpt.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("reader", [biologic_mpt.read, biologic_mpr.read])
def test_what_is_no_file_is_refused(tmp_path, reader):
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(RecordingError, match="cannot be read"):
            reader(path)


@pytest.mark.parametrize("reader", [biologic_mpt.read, biologic_mpr.read])
def test_a_file_that_would_fill_the_memory_is_refused(write, monkeypatch, reader):
    monkeypatch.setattr(tables, "MAX_BYTES", 100)
    with pytest.raises(RecordingError, match="is larger than"):
        reader(write(mpt()))


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 1000), flip=st.tuples(st.integers(0, 900), st.integers(0, 255)))
def test_a_cut_or_changed_export_is_read_or_refused_but_never_breaks(tmp_path_factory, cut, flip):
    raw = bytearray(mpt().encode("latin-1"))
    raw[flip[0] % len(raw)] = flip[1]
    path = tmp_path_factory.mktemp("cut") / "run.mpt"
    path.write_bytes(raw[: cut or None])
    try:
        found = biologic_mpt.read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A) == len(found.voltage_V)


# --- the binary file ---------------------------------------------------------------------------

MAGIC = b"BIO-LOGIC MODULAR FILE\x1a".ljust(48) + bytes(4)


def module(short, data):
    head = short.ljust(10) + short.ljust(25) + struct.pack("<II", len(data), 0) + b"12/08/23"
    return b"MODULE" + head + data


def mpr(rows=((16.0, 3.5, -1e-3, 0.0), (52.0, 3.4, -1e-3, -1e-5)), ids=(4, 6, 8, 13)):
    head = struct.pack("<IB", len(rows), len(ids)) + bytes(ids)
    data = b"".join(struct.pack("<dffd", *row) for row in rows)
    return (
        MAGIC + module(b"VMP Set", bytes(40)) + module(b"VMP data", head.ljust(100, b"\0") + data)
    )


def test_a_file_of_another_kind_is_refused_without_the_library(write):
    with pytest.raises(RecordingError, match=r"is no \.mpr file"):
        biologic_mpr.read(write(b"PK\x03\x04" * 99, "run.mpr"))


def test_without_the_library_it_says_what_would_do(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "galvani", None)
    monkeypatch.setitem(sys.modules, "galvani.BioLogic", None)
    with pytest.raises(RecordingError, match=r"GPL-3 or later: pip install.*or export it as text"):
        biologic_mpr.read(write(mpr(), "run.mpr"))


@pytest.fixture
def stand_in(monkeypatch):
    """A library of our own, so that what we do with its answer is tested without it."""

    def put(parse):
        library = ModuleType("galvani.BioLogic")
        library.MPRfile = parse
        monkeypatch.setitem(sys.modules, "galvani", ModuleType("galvani"))
        monkeypatch.setitem(sys.modules, "galvani.BioLogic", library)

    return put


def test_columns_of_the_library_become_base_units(write, stand_in):
    dtype = [("flags", "u1"), ("time/s", "<f8"), ("Ewe/V", "<f4"), ("<I>/mA", "<f4")]
    data = np.array([(8, 0.0, 3.0, 2.0), (0, 1.0, 3.0, 2.0)], dtype=dtype)
    answer = SimpleNamespace(
        data=data, flags_dict={"error": 8}, get_flag=lambda _: (data["flags"] & 8).astype(bool)
    )
    stand_in(lambda _file: answer)
    found = biologic_mpr.read(write(mpr(), "run.mpr"))
    np.testing.assert_allclose(found.current_A, [2e-3, 2e-3])
    assert found.logged_charge_C is None
    assert found.details["error_rows"] == "1"
    assert found.start_time == ""


@pytest.mark.parametrize("error", [ValueError, OSError, AssertionError, IndexError, TypeError])
def test_whatever_the_library_raises_becomes_our_error(write, stand_in, error):
    def parse(_file):
        raise error("bad \x00\x1b[31m bytes")

    stand_in(parse)
    with pytest.raises(RecordingError, match=r"damaged, cut short.*bad \[31m bytes.*\.mpt"):
        biologic_mpr.read(write(mpr(), "run.mpr"))


def test_a_column_that_the_library_does_not_know_is_said(write, stand_in):
    def parse(_file):
        raise NotImplementedError("Column ID 182 after column time/s is unknown")

    stand_in(parse)
    with pytest.raises(RecordingError, match=r"galvani does not know \(Column ID 182"):
        biologic_mpr.read(write(mpr(), "run.mpr"))


@pytest.fixture
def galvani():
    return pytest.importorskip("galvani", reason="galvani (GPL-3, optional) is not installed")


@pytest.mark.usefixtures("galvani")
def test_a_binary_file_is_read_in_base_units(write):
    found = biologic_mpr.read(write(mpr(), "run.mpr"))
    assert found.time_s.tolist() == [16.0, 52.0]
    np.testing.assert_allclose(found.voltage_V, [3.5, 3.4], rtol=1e-6)
    np.testing.assert_allclose(found.current_A, [-1e-6, -1e-6], rtol=1e-6)
    np.testing.assert_allclose(found.logged_charge_C, [0, -3.6e-5])
    assert found.details["charge_check"].endswith("0.00% apart")


@pytest.mark.usefixtures("galvani")
def test_a_damaged_binary_file_is_refused(write):
    for raw in (mpr()[:-1], mpr()[:150], MAGIC, mpr(rows=()), mpr(ids=(4, 6, 8, 251))):
        with pytest.raises(RecordingError, match=r"run\.mpr"):
            biologic_mpr.read(write(raw, "run.mpr"))


@pytest.mark.usefixtures("galvani")
@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), flip=st.tuples(st.integers(0, 400), st.integers(0, 255)))
def test_a_cut_or_changed_binary_file_never_breaks(tmp_path_factory, cut, flip):
    raw = bytearray(mpr())
    raw[flip[0] % len(raw)] = flip[1]
    path = tmp_path_factory.mktemp("cut") / "run.mpr"
    path.write_bytes(raw[: cut or None])
    try:
        found = biologic_mpr.read(path)
    except RecordingError:
        return
    assert len(found.time_s) == len(found.current_A)


@pytest.mark.usefixtures("galvani")
def test_the_real_binary_file_agrees_with_its_own_charge():
    folder = Path(os.environ.get("LAMELLA_REAL_DATA", ROOT / "../shared/data"))
    path = folder / "echem" / "navani_00_test_04_MB_C01.mpr"
    if not path.exists():
        pytest.skip(f"the real recording is not here: {path}")
    found = biologic_mpr.read(path)
    assert len(found.time_s) == 1501
    assert found.time_s[0] == pytest.approx(16.1674, abs=1e-4)
    assert found.time_s[-1] == pytest.approx(17.6672, abs=1e-4)
    assert found.voltage_V.min() == pytest.approx(-1.6502, abs=5e-5)
    assert found.voltage_V.max() == pytest.approx(-1.6500, abs=5e-5)
    assert found.current_A.min() == pytest.approx(-45.4e-6, abs=5e-8)
    assert found.current_A.max() == pytest.approx(-40.4e-6, abs=5e-8)
    mean = 0.5 * (found.current_A[1:] + found.current_A[:-1])
    trapezia_C = np.sum(mean * np.diff(found.time_s))
    assert found.logged_charge_C[-1] / 3.6 == pytest.approx(-1.79530e-5, rel=1e-5)
    assert trapezia_C / 3.6 == pytest.approx(-1.79440e-5, rel=1e-5)
    assert found.start_time == "2023-12-08T09:49:52.346000"
    assert found.details["charge_check"].endswith("0.05% apart")
