"""What a whole stack tells of a specimen: its own texture, and the front's width."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from correlate.edge import EdgeFit, step_shape
from correlate.film import FIRST_WIDTH_PX
from correlate.front_line import FrontModel


def learn_model(
    model: FrontModel,
    lines: NDArray[np.float64],
    dx: NDArray[np.float64],
    fits: Sequence[EdgeFit | str],
) -> FrontModel:
    """Learn the specimen's own texture and the front's width from all frames.

    Parameters
    ----------
    model
        What the fits were made with.
    lines, dx
        Column sums, shape (n_frames, width), and what brings them onto the reference.
    fits
        Of the front in each line; a reason where there is none.
    """
    film, width = model.film, lines.shape[1]
    position = np.arange(width, dtype=np.float64)
    seen, expected = np.zeros(width), np.zeros(width)
    aligned, weight = np.zeros(81), np.zeros(81)
    offsets = np.arange(-40, 41)
    found = [fit for fit in fits if isinstance(fit, EdgeFit)]
    if not found:
        return model
    for line, shift, fit in zip(lines, dx, fits, strict=True):
        if isinstance(fit, str):
            continue
        at = np.arange(width) + shift
        inside = (at > film.first_px) & (at < film.last_px)
        shape = step_shape(at, fit.position_px, model.width_px)
        expected_line = fit.left + (fit.right - fit.left) * shape
        seen += np.interp(position, at, np.where(inside, line, 0.0))
        expected += np.interp(position, at, np.where(inside, expected_line, 0.0))
        scaled = (line - fit.left) / (fit.right - fit.left)
        near = inside & (np.abs(at - fit.position_px) < 40)
        if near.sum() > 40:
            there = np.interp(offsets, at[near] - fit.position_px, scaled[near])
            aligned += there
            weight += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        texture = np.where(expected > 0.2 * expected.max(), seen / expected, 1.0)
    # The lines were laid upon each other with the error of their places.
    jitter = float(np.mean([fit.sigma_px**2 for fit in found]))
    chi2 = float(np.median([fit.chi2 for fit in found]))
    return replace(
        model,
        texture=texture,
        width_px=_width_of(aligned / np.maximum(weight, 1), offsets, jitter),
        excess=math.sqrt(max(chi2, 1.0)),
    )


def _width_of(profile: NDArray[np.float64], offsets: NDArray[np.int_], jitter: float) -> float:
    near = np.abs(offsets) <= 15
    x, y = offsets[near].astype(float), profile[near]

    def model(
        x: NDArray[np.float64], x0: float, w: float, a: float, b: float, /
    ) -> NDArray[np.float64]:
        return a + (b - a) * step_shape(x, x0, abs(w))

    try:
        found, _ = optimize.curve_fit(model, x, y, p0=(0.0, FIRST_WIDTH_PX, 0.0, 1.0))
    except RuntimeError:
        return FIRST_WIDTH_PX
    return math.sqrt(min(max(float(found[1]) ** 2 - jitter, 0.3**2), 8.0**2))
