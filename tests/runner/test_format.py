"""Numbers as people read them."""

import math

import pytest

from runner.format import in_unit, scientific, with_sigma


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (20.01e-12, "A", "20.01 pA"),
        (-3e-9, "C", "-3 nC"),
        (0.0, "V", "0 V"),
        (999.96e-12, "A", "1000 pA"),
        (1e-9, "A", "1 nA"),
        (5e-21, "A", "0.005 aA"),
        (math.nan, "V", "-"),
        (math.inf, "s", "-"),
        (2.4e15, "ohm", "2.4 Pohm"),
    ],
)
def test_value_with_prefix(value, unit, text):
    assert in_unit(value, unit) == text


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (3.5021e-9, 2.1e-11, "3.502 ± 0.021 nC"),
        (-3.5e-9, 0.4e-9, "-3.50 ± 0.40 nC"),
        (1e-13, 3e-12, "0.1 ± 3.0 pC"),
        (3.5e-9, 0.0, "3.50 ± 0.00 nC"),
        (3.6e-9, 123e-9, "4 ± 123 nC"),
        (math.nan, 1.0, "unknown"),
        (3.5e-9, math.nan, "3.5 nC (uncertainty unknown)"),
    ],
)
def test_value_with_uncertainty(value, sigma, text):
    assert with_sigma(value, sigma, "C") == text


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (1.9957e-15, 2.7e-17, "(1.996 ± 0.027)e-15"),
        (1e-15, 1e-16, "(1.00 ± 0.10)e-15"),
        (-2e-16, 3e-15, "(-0.2 ± 3.0)e-15"),
        (5e-16, 0.0, "(5.00 ± 0.00)e-16"),
        (math.nan, 1.0, "unknown"),
        (1e-15, math.inf, "unknown"),
        (0.0, 0.0, "unknown"),
    ],
)
def test_value_with_a_power_of_ten(value, sigma, text):
    assert scientific(value, sigma) == text
