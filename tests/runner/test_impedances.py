"""What the range of a meter does to an impedance, from what a session says of it."""

import numpy as np
import pytest

from runner.impedances import _apart_s, _group_delay_s, _stray_share

TAU_S, EVERY_S, WINDOW_S = 0.022, 0.05, 0.02
ROWS = np.arange(40)


class Told:
    def __init__(self, **attributes):
        self._attributes = {
            "nplc": 1.0,
            "line_frequency_Hz": 50.0,
            "range_full_scale_A": (1e-12, 1e-10),
            "range_settling_s": (2.0, 2.3 * TAU_S),
        } | attributes

    def attributes(self, path):
        return self._attributes


class Held:
    def __init__(self, voltage):
        self.voltage = voltage


def columns(aperture_s=2 * WINDOW_S):
    return {
        "t_ns": np.round(ROWS * EVERY_S * 1e9).astype(np.int64),
        "aperture_s": np.full(len(ROWS), aperture_s),
        "range": np.full(len(ROWS), 1e-10),
    }


@pytest.mark.parametrize("told", [Told(), Told(range_group_delay_s=(0.87, TAU_S))])
def test_the_group_delay_is_that_of_the_range_that_was_used(told):
    assert _group_delay_s(told, columns(), ROWS) == pytest.approx(TAU_S)


def test_the_most_of_the_stray_capacitance_is_what_a_first_order_range_shows():
    # By hand: charges given at each change of level, seen through a first-order lag.
    t_s = np.arange(0, 40 * EVERY_S, 1e-5)
    seen = np.zeros(len(t_s))
    for k in range(40):
        after = t_s >= k * EVERY_S
        seen[after] += EVERY_S / TAU_S * np.exp(-(t_s[after] - k * EVERY_S) / TAU_S)
    last = (t_s >= 39 * EVERY_S + WINDOW_S) & (t_s < 39 * EVERY_S + 2 * WINDOW_S)
    most = float(np.mean(seen[last]))
    found = _stray_share(Told(), Held(3.9), columns(), ROWS)
    assert 2 * found.value == pytest.approx(most, rel=0.01)
    assert found.sigma == pytest.approx(most / 12**0.5, rel=0.01)


def test_all_of_it_is_read_at_a_held_current_and_nothing_by_a_meter_that_does_not_lag():
    found = _stray_share(Told(), Held(None), columns(), ROWS)
    assert (found.value, found.sigma) == (1.0, 0.0)
    at_once = Told(range_group_delay_s=(0.0, 0.0))
    found = _stray_share(at_once, Held(3.9), columns(), ROWS)
    assert (found.value, found.sigma) == (0.0, 0.0)


def test_a_reading_of_one_window_has_both_at_once():
    assert _apart_s(Told(), columns(0.5 * WINDOW_S), ROWS) == 0.0
    assert _apart_s(Told(), columns(), ROWS) == pytest.approx(WINDOW_S)
