"""The sum of sines: its frequencies, its peak, and that it repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.multisine import Sines, multisine


@given(
    lowest=st.floats(1e-3, 1.0),
    factor=st.integers(1, 200),
    points=st.integers(1, 10),
    peak=st.floats(1e-15, 1e-2),
)
def test_the_peak_is_what_was_asked_for_and_never_more(lowest, factor, points, peak):
    sines = multisine(lowest, lowest * factor, per_decade=points, peak=peak)
    t_s = np.linspace(0, 1 / lowest, 40 * factor, endpoint=False)
    values = np.array([sines.value(t) for t in t_s])
    assert np.max(np.abs(values)) <= peak * (1 + 1e-9)
    assert np.max(np.abs(values)) > 0.95 * peak
    assert sines.frequencies_Hz[0] == lowest
    assert sines.frequencies_Hz[-1] == pytest.approx(lowest * factor)
    assert list(sines.harmonics) == sorted(set(sines.harmonics))


def test_each_sine_has_the_amplitude_that_it_says():
    sines = multisine(0.01, 0.2, per_decade=5, peak=1e-12)
    t_s = np.arange(1000) / 1000 * 100
    spectrum = np.fft.rfft([sines.value(t) for t in t_s]) / 500
    assert np.abs(spectrum[list(sines.harmonics)]) == pytest.approx(sines.each)
    others = np.delete(np.abs(spectrum), list(sines.harmonics))
    assert np.max(others) < 1e-9 * sines.each


def test_its_phases_keep_it_low():
    # All in step, 7 sines would peak at 7 times each.
    sines = multisine(0.01, 0.2, per_decade=5, peak=1.0)
    assert len(sines.harmonics) == 7
    assert sines.each > 1 / 5.2


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (1e-3, 2.0)])
def test_frequencies_that_cannot_be(low, high):
    with pytest.raises(ValueError, match="frequenc"):
        multisine(low, high, per_decade=5, peak=1.0)


def test_a_single_sine_is_a_cosine():
    sines = Sines(base_Hz=0.5, harmonics=(1,), peak=2.0)
    assert abs(sines.value(0.0)) == pytest.approx(2.0, rel=0.03)
