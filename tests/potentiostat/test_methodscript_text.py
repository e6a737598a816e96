"""MethodSCRIPT as text: numbers, packages, errors, and what every script has."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocks.methodscript import parse
from potentiostat.errors import ReplyError, UnsafeRequest
from potentiostat.methodscript import Variable, explain_error, read_package, write_number
from potentiostat.methodscript_scripts import Terms, hold_script, open_script, rest_script
from potentiostat.protocol import Setpoint

PREFIXES = {"": 1.0, "a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3}
PREFIXES |= {"k": 1e3, "M": 1e6, "G": 1e9}


def value_of(text):
    letter = text[-1] if text[-1].isalpha() else ""
    return int(text.removesuffix(letter)) * PREFIXES[letter]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.906, "3906m"),
        (-5e-12, "-5p"),
        (5e-7, "500n"),
        (0.04, "40m"),
        (1e6, "1M"),
        (146.25, "146250m"),
        (1e-18, "1a"),
        (2.5, "2500m"),
        (1.9999e18, "1999900000G"),
    ],
)
def test_a_number_is_an_integer_and_a_prefix(value, text):
    assert write_number(value) == text


@given(st.floats(min_value=1e-12, max_value=1e9), st.sampled_from([1, -1]))
@settings(deadline=None)
def test_no_number_loses_more_than_its_sixth_digit(size, sign):
    text = write_number(sign * size)
    assert value_of(text) == pytest.approx(sign * size, rel=1e-6)
    assert abs(int(text.rstrip("afpnumkMG"))) < 2**31


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e-19, 3e18])
def test_what_is_no_number_is_not_written(value):
    with pytest.raises(UnsafeRequest, match="no number for a script"):
        write_number(value)


def test_a_package_is_read_by_its_types():
    assert read_package("Peb800000Am") == {"eb": Variable(value=pytest.approx(0.01))}
    found = read_package("Pda7F85F3Fu;ba48D503Dp,10,288;aa8000003i")
    assert found["da"].value == pytest.approx(-0.499905, rel=1e-9)
    assert found["ba"] == Variable(
        value=pytest.approx((0x48D503D - 0x8000000) * 1e-12), status=0, range_index=0x88
    )
    assert found["aa"].value == 3
    assert read_package("Pba8000001 ,12,20C,40")["ba"].status == 2
    assert math.isnan(read_package("Pab     nan")["ab"].value)


def test_a_blank_prefix_may_have_been_cut_off_with_the_line_end():
    assert read_package("Pab8000004")["ab"].value == 4


@pytest.mark.parametrize(
    "line",
    ["", "M0007", "P", "Pzz8000000 ", "Pab800000", "Pab800000Gm", "Pab8000000q",
     "Pab8000000m;ab8000000m", "Pba8000000p,1x", "Pba8000000p,2"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(line):
    with pytest.raises(ReplyError):
        read_package(line)


def test_errors_in_words():
    assert explain_error("!0032: Line 8") == (
        "!0032: Line 8 (overload of the cell, stopped to prevent damage)"
    )
    assert "see appendix A" in explain_error("e!1234: Line 3, Col 9")
    assert explain_error("Y!0006") is None  # of a command, not of a script
    assert explain_error("Pab8000000m") is None


TERMS = Terms(interval_s=0.04, lease_s=2.0, reach_V=(-3.0, 3.0), window_V=(1.5, 2.8), mains_Hz=50.0)
CURRENT = Setpoint(mode="current", level=5e-9, clamp=2.8, range_A=1e-8)
VOLTAGE = Setpoint(mode="voltage", level=2.2, clamp=9e-9, range_A=1e-8)


def scripts():
    free = Terms(interval_s=0.04, lease_s=2.0, reach_V=(-3.0, 3.0))
    yield open_script()
    for terms in (TERMS, free):
        yield rest_script(terms)
        for setpoint in (CURRENT, VOLTAGE):
            yield hold_script(terms, setpoint)
            yield hold_script(terms, setpoint, step=1e-3)


@pytest.mark.parametrize("script", list(scripts()))
def test_every_script_opens_the_cell_first_and_last(script):
    lines = script.split("\n")
    assert lines[:2] == ["e", "cell_off"]
    assert lines[-2:] == ["on_finished:", "cell_off"]
    parse(lines[1:])  # the interpreter takes it
    assert len(script) < 2_500


@pytest.mark.parametrize("setpoint", [CURRENT, VOLTAGE])
def test_a_script_that_is_cut_short_is_refused_once_it_could_switch_on(setpoint):
    lines = hold_script(TERMS, setpoint).split("\n")[1:]
    on = lines.index("cell_on")
    refused = 0
    for count in range(on + 1, len(lines)):
        try:
            parse([*lines[:count], "i"])
        except Exception as error:  # noqa: BLE001 - of whatever kind
            assert "!" in str(error)
            refused += 1
    assert refused == len(lines) - on - 1


def test_a_voltage_comes_on_at_what_was_measured_and_a_current_at_none():
    lines = hold_script(TERMS, VOLTAGE).split("\n")
    on = lines.index("cell_on")
    assert lines[on - 1] == "set_e p"
    assert lines.index("meas_loop_ocp p 40m 40m") < lines.index("if p > 1500m") < on
    lines = hold_script(TERMS, CURRENT).split("\n")
    assert lines[lines.index("cell_on") - 1] == "set_i 0"
    assert "meas_loop_cp p c s 40m 2" in lines
    assert "if t > 1980m" in lines
    assert "if p < 1500m" in lines


def test_a_mains_filter_is_set_where_the_model_has_one():
    assert "set_acquisition_frac_autoadjust 50" in rest_script(TERMS)
    free = Terms(interval_s=0.04, lease_s=2.0, reach_V=(-3.0, 3.0))
    assert "frac_autoadjust" not in rest_script(free)
