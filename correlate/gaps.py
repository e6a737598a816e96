"""What cracks have to do with an outline: where they are looked for, and what they leave."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from correlate.cracks import Core, Crack
from correlate.object_shape import Shape
from correlate.outline_follower import Measured

Float = NDArray[np.float64]


def core_of(pixels: NDArray[np.generic], found: Measured, excess: float) -> Core:
    """Return the pixels of an object that was found, along and across its axis."""
    fit, shape = found.fit, found.shape
    inside = np.flatnonzero(fit.share < 0.9)
    x = inside % fit.around.shape[1] + fit.around.left - shape.middle[0]
    y = inside // fit.around.shape[1] + fit.around.top - shape.middle[1]
    along = fit.outline.points - np.array(shape.middle)
    start = float(np.min(along @ np.array(shape.axis)))
    return Core(
        x=shape.axis[0] * x + shape.axis[1] * y - start,
        y=shape.axis[0] * y - shape.axis[1] * x,
        counts=fit.around.cut(pixels)[inside],
        length_px=shape.values["length"],
        width_px=shape.values["diameter"],
        outside=fit.outside,
        excess=excess,
    )


def without_gaps(
    found: Measured, cracks: Sequence[Crack]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return values and sigmas of what is left without the gaps of cracks."""
    values, sigmas = dict(found.shape.values), dict(found.sigmas)
    if math.isnan(sigmas["length"]):
        values["length"] = math.nan
    for crack in cracks:
        if not math.isfinite(crack.gap_px):
            continue
        wide = width_at(found.shape, found.fit.outline.points, crack.place)
        parts = {"length": 1.0, "area": wide, "volume": math.pi / 4 * wide**2}
        for name, part in parts.items():
            values[name] -= part * crack.gap_px
            sigmas[name] = math.hypot(sigmas[name], part * crack.gap_sigma_px)
    return values, sigmas


def width_at(shape: Shape, points: Float, place: float) -> float:
    """Return how wide an outline is at a place along its axis."""
    away = points - np.array(shape.middle)
    x, y = away @ np.array(shape.axis), away @ np.array([-shape.axis[1], shape.axis[0]])
    at = x.min() + place * (x.max() - x.min())
    near = np.abs(x - at) < 2.0
    if not np.any(near):
        return shape.values["diameter"]
    return float(y[near].max() - y[near].min())
