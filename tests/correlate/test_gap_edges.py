"""The edge of an electrode, out of which something grows."""

import numpy as np
import pytest
from scipy import special

from correlate.gap import find_edge

HEIGHT, WIDTH, EDGE_PX = 160, 400, 48.3
TIP_PX = 14.0


def mean_of_frames(contrast, seed):
    """Return a mean of frames with a short stub at the edge."""
    y, x = np.indices((HEIGHT, WIDTH), dtype=np.float64)
    between = special.ndtr((x - EDGE_PX) / 1.4)
    past = np.hypot(np.maximum(x - EDGE_PX - TIP_PX + 10.0, 0.0), y - 78.0)
    stub = special.ndtr((10.0 - past) / 1.4)
    level = 12.0 * (1 - between) + 24.0 * between * (1 + contrast * stub)
    return np.random.default_rng(seed).poisson(24 * level) / 24


@pytest.mark.parametrize("contrast", [0.0, 0.3, -0.3])
def test_what_grows_out_of_an_edge_does_not_draw_it(contrast):
    found = [find_edge(mean_of_frames(contrast, seed), right=False) for seed in range(12)]
    error = np.array([edge.x_px - EDGE_PX for edge in found])
    sigma = np.array([edge.sigma_px for edge in found])
    assert abs(error.mean()) < 3 * error.std(ddof=1) / np.sqrt(len(error)) + 0.004
    assert np.sqrt(np.mean(sigma**2)) < 0.03
