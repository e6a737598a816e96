"""Groups of modes add up to what all modes tell."""

import numpy as np
import pytest

from correlate.mode_groups import ModeGroups
from correlate.modes import Modes
from correlate.window import Band


def spectra(modes, seed):
    rng = np.random.default_rng(seed)
    image = rng.poisson(9.0, (modes.shape[0] // modes.bin_px, modes.shape[1] // modes.bin_px))
    return modes.of(image.astype(np.float32), 0.3, -0.2)


@pytest.mark.parametrize(("shape", "bin_px"), [((64, 80), 1), ((200, 130), 2), ((96, 400), 4)])
def test_values_and_slopes_add_up_to_the_whole_correlation(shape, bin_px):
    band = Band(left_px=20.0, right_px=30.0)
    modes = Modes(shape, bin_px, 2.0, band)
    cross = tuple(a * np.conj(b) for a, b in zip(spectra(modes, 1), spectra(modes, 2), strict=True))
    values, slopes = ModeGroups(modes).of(cross, 0.4, -0.7)
    value, slope, _ = modes.moments(cross, 0.4, -0.7)
    scale = float(sum(np.abs(part).sum() for part in cross))
    assert values.sum() == pytest.approx(value, abs=1e-5 * scale)
    assert slopes.sum(axis=0) == pytest.approx(slope, abs=1e-5 * scale)
    # Columns tell nothing along y, rows nothing along x.
    assert slopes[-2, 1] == 0 == slopes[-1, 0]


def test_a_slope_is_that_of_the_group_and_information_its_curvature():
    modes = Modes((90, 120), 1, 2.0, None)
    groups, step = ModeGroups(modes), 1e-2
    powers = tuple(np.abs(part) ** 2 for part in spectra(modes, 3))
    cross = tuple(power.astype(np.complex64) for power in powers)
    told = groups.information(powers)
    for axis, (x, y) in enumerate(((step, 0.0), (0.0, step))):
        after, before = groups.of(cross, x, y), groups.of(cross, -x, -y)
        slope = (after[0] - before[0]) / (2 * step)
        assert slope == pytest.approx(groups.of(cross, 0.0, 0.0)[1][:, axis], rel=1e-2, abs=30)
        curve = (after[1] - before[1]) / (2 * step)
        assert -curve == pytest.approx(told[:, :, axis], rel=0.02, abs=1e-4 * told.max())
    assert groups.total(powers) == pytest.approx(groups.of(cross, 0.0, 0.0)[0], rel=1e-4)


def test_noise_widens_what_it_is_told_of_only():
    modes = Modes((64, 64), 1, 2.0, None)
    groups = ModeGroups(modes)
    powers = tuple(np.abs(part) ** 2 for part in spectra(modes, 4))
    plain = groups.information(powers)
    told = groups.information(powers, np.array([[2.0, 8.0], [3.0, 1.0], [1.0, 5.0]]))
    assert told[:-2, 0, 0] == pytest.approx(2 * plain[:-2, 0, 0])
    assert told[:-2, 0, 1] == pytest.approx(4 * plain[:-2, 0, 1])
    assert told[:-2, 1, 1] == pytest.approx(8 * plain[:-2, 1, 1])
    assert told[-2, 0, 0] == pytest.approx(3 * plain[-2, 0, 0])
    assert told[-1, 1, 1] == pytest.approx(5 * plain[-1, 1, 1])
