"""The strict parser: what it reads, and what it refuses with a text that would do."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.quantities import KINDS, QuantityError, parse, parse_any


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5 pA", "current", 5e-12),
        ("5pA", "current", 5e-12),
        (" 5 pA ", "current", 5e-12),
        ("-5 pA", "current", -5e-12),
        ("+5e-12 A", "current", 5e-12),
        (".5 pA", "current", 0.5e-12),
        ("5. pA", "current", 5e-12),
        ("5 µA", "current", 5e-6),
        ("5 \u03bcA", "current", 5e-6),
        ("20 mV/s", "scan_rate", 0.02),
        ("100 e/Å^2", "dose", 1e22),
        ("100 e/A\u030a^2", "dose", 1e22),
        ("100 e/\u212b^2", "dose", 1e22),
        ("3 e/A^2/s", "dose_rate", 3e20),
        ("0.5 e/angstrom^2/s", "dose_rate", 5e19),
        ("5 pAh", "charge", 1.8e-8),
        ("0.5 C", "c_rate", 0.5),
        ("C/20", "c_rate", 0.05),
        ("-C/20", "c_rate", -0.05),
        ("400 fps", "frame_rate", 400.0),
        ("5 Å", "length", 5e-10),
        ("2 min", "time", 120.0),
        ("1 h", "time", 3600.0),
        ("0.2 mA/cm^2", "current_density", 2.0),
        ("298 K", "temperature", 298.0),
        ("45 degC", "temperature", 318.15),
        ("45 °C", "temperature", 318.15),
        ("-273.15 degC", "temperature", 0.0),
        ("0.85 degC", "temperature", 274.0),
        ("0 pA", "current", 0.0),
    ],
)
def test_reads(text, kind, value):
    assert parse(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("4,3 V", "voltage", "decimal point"),
        ("1,000 pA", "current", "comma"),
        ("5 pA 3", "current", "not known"),
        ("5 pA; 3", "current", "not known"),
        ("0.5 C", "charge", "C-rate"),
        ("0.5 C", "current", "C-rate"),
        ("C/20", "current", "5 pA"),
        ("1/3 C", "c_rate", "0.05 C"),
        ("C/0", "c_rate", "divides by zero"),
        ("5 pa", "current", "did you mean pA"),
        ("1 PA", "current", "did you mean pA"),
        ("5 Pa", "current", "did you mean pA"),
        ("20 mv/s", "scan_rate", "did you mean mV/s"),
        ("4.3 v", "voltage", "did you mean V"),
        ("400 fps", "voltage", "is a frame rate"),
        ("5 pV", "current", "is a voltage; this field is a current"),
        ("10 m", "time", "is a length"),
        ("5 A", "length", "is a current"),
        ("3 e/A^2/s", "dose", "is a dose rate"),
        ("nan V", "voltage", "not a number with a unit"),
        ("inf A", "current", "not a number with a unit"),
        ("1e400 A", "current", "beyond any number"),
        ("1e-400 A", "current", "beyond any number"),
        ("1e99999999 A", "current", "beyond any number"),
        ("5", "current", "has no unit; write for example 5 pA"),
        ("", "current", "not a number"),
        ("1_000 pA", "current", "5 pA"),
        ("0x10 V", "voltage", "4.2 V"),
        ("4.3.2 V", "voltage", "4.2 V"),
        ("5 e-12 A", "current", "5 pA"),
        ("12:30", "time", "10 min"),
        ("5 ± 1 pA", "current", "5 pA"),
        ("5 p A", "current", "5 pA"),
        ("\u0663 pA", "current", "not a number"),
        ("\u22125 pA", "current", "not a number"),
        ("5\u00a0pA", "current", "5 pA"),
        ("5 C/3", "current", "5 pA"),
        ("45 C", "temperature", "is in C, which is coulomb here, and no temperature"),
        ("45 degc", "temperature", "did you mean degC"),
        ("45 k", "temperature", "did you mean K"),
        ("45 °F", "temperature", "298 K"),
        ("-1 K", "temperature", "below what there can be of a temperature"),
        ("-273.16 degC", "temperature", "below what there can be of a temperature"),
        ("5 K", "charge", "is a temperature; this field is a charge"),
        ("45 degC", "voltage", "is a temperature; this field is a voltage"),
    ],
)
def test_refuses_and_says_what_would_do(text, kind, says):
    with pytest.raises(QuantityError, match=says.replace(".", r"\.")) as refused:
        parse(text, kind)
    assert "1.000" not in str(refused.value)


@pytest.mark.parametrize("thing", [5, 5.0, None, True, ["5 pA"], {"a": 1}])
def test_a_thing_that_is_no_text_has_no_unit(thing):
    with pytest.raises(QuantityError, match="has no unit"):
        parse(thing, "current")


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(QuantityError) as refused:
        parse("5 " + "x" * 10_000, "current")
    assert len(str(refused.value)) < 300


def test_several_kinds_tell_which_was_meant():
    kinds = ("current", "current_density", "c_rate")
    assert parse_any("5 pA", kinds) == (5e-12, "current")
    assert parse_any("1 mA/cm²", kinds) == (10.0, "current_density")
    assert parse_any("C/10", kinds) == (0.1, "c_rate")
    with pytest.raises(QuantityError, match="a current or a current density"):
        parse_any("5 V", kinds)


def test_whole_picoamperes_are_the_literals_themselves():
    assert all(parse(f"{i} pA", "current") == float(f"{i}e-12") for i in range(1, 1000))


@given(
    number=st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-1e6, max_value=1e6
    ),
    choice=st.sampled_from([(k, u) for k, kind in KINDS.items() for u in kind.units]),
)
def test_every_unit_is_rounded_once(number, choice):
    kind, unit = choice
    factor, power = KINDS[kind].units[unit]
    exact = Fraction(Decimal(str(number))) * factor * Fraction(10) ** power
    exact += Fraction(KINDS[kind].zeros.get(unit, 0))
    if exact < KINDS[kind].least:
        with pytest.raises(QuantityError, match="below what there can be"):
            parse(f"{number:f} {unit}", kind)
    else:
        assert parse(f"{number:f} {unit}", kind) == float(exact)


@given(
    a=st.decimals(places=3, min_value=-273, max_value=1000),
    b=st.decimals(places=3, min_value=-273, max_value=1000),
)
def test_degrees_differ_by_as_many_kelvin(a, b):
    difference_K = parse(f"{a:f} degC", "temperature") - parse(f"{b:f} degC", "temperature")
    assert difference_K == pytest.approx(float(a - b), abs=1e-9)


@given(text=st.text(max_size=40), kind=st.sampled_from(sorted(KINDS)))
def test_no_text_does_anything_but_be_read_or_refused(text, kind):
    try:
        value = parse(text, kind)
    except QuantityError as refused:
        assert str(refused)
    else:
        assert math.isfinite(value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_example_would_do(kind):
    assert math.isfinite(parse(KINDS[kind].example, kind))
