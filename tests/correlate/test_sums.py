"""Sums over neighbouring pixels are those that plain NumPy gives, whatever the type."""

import numpy as np
import pytest

from correlate.sums import frame_sums


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("bin_px", [1, 2, 4])
def test_sums_are_those_of_numpy(dtype, bin_px):
    top = 60000 if dtype == np.uint16 else 200  # 4 of them are beyond 16 bits
    pixels = np.random.default_rng(1).integers(0, top, (14, 22)).astype(dtype)
    sums = frame_sums(pixels, bin_px)
    rows = 14 // bin_px * bin_px
    kept = pixels[:rows].astype(float)
    columns = 22 // bin_px * bin_px
    squares = kept[:, :columns].reshape(rows // bin_px, bin_px, columns // bin_px, bin_px)
    np.testing.assert_allclose(sums.image(bin_px), squares.sum(axis=(1, 3)))
    np.testing.assert_allclose(sums.line(), kept.sum(axis=0))
    np.testing.assert_allclose(sums.line(slice(3, 9)), kept[:, 3:9].sum(axis=0))
    each = rows // bin_px // 3 * bin_px
    lines = sums.lines(3)
    np.testing.assert_allclose(lines[0], kept[:each].sum(axis=0))
    assert (sums.low, sums.high) == (pixels.min(), pixels.max())
    if bin_px == 2:
        wide = frame_sums(pixels[:12], 4).image(4)
        np.testing.assert_allclose(frame_sums(pixels[:12], 2).image(4), wide)
