"""Velocities by running sums are those of a line fitted in every window."""

import numpy as np
import pytest

from correlate import kinematics
from correlate.kinematics import windowed_velocity
from correlate.line import weighted_line


@pytest.mark.parametrize("chunk", [50, 4096])
def test_running_sums_fit_the_same_lines(monkeypatch, chunk):
    monkeypatch.setattr(kinematics, "CHUNK_ROWS", chunk)
    rng = np.random.default_rng(1)
    count, window_s = 600, 0.2
    t_ns = 10**15 + np.cumsum(rng.integers(2_000_000, 3_000_000, count))
    sigma = rng.uniform(0.5, 2.0, count) * 1e-10
    position = 1e-7 + 1e-9 * np.arange(count) / 400 + 1.5 * sigma * rng.standard_normal(count)
    position[rng.random(count) < 0.1] = np.nan
    position[200:330] = np.nan  # longer than a window
    velocity, error = windowed_velocity(t_ns, position, sigma, window_s)
    seconds = (t_ns - t_ns[0]) / 1e9
    for i in range(count):
        near = np.abs(seconds - seconds[i]) <= window_s / 2
        rows = np.flatnonzero(near & np.isfinite(position))
        if len(rows) < 3:
            assert np.isnan(velocity[i])
            assert np.isnan(error[i])
            continue
        line = weighted_line(seconds[rows], position[rows], sigma[rows])
        assert velocity[i] == pytest.approx(line.slope, rel=1e-6)
        assert error[i] == pytest.approx(line.slope_sigma, rel=1e-6)
