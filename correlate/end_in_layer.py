"""The layer around the end of a shaft, which comes on with it.

What the layer adds is a part of the background over which the end is fitted: where it is placed
wrongly, its own edge is taken for the end of the shaft, or draws it there.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from correlate.shaft import Axis

STEP_PX = 1.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer around a shaft.

    Parameters
    ----------
    strong, weak
        Relative brightness of shaft and layer beside the background, with their signs.
    thick_px
        Of the layer.
    """

    strong: float
    weak: float
    thick_px: float

    def around(self, axis: Axis, s: Floats, t: Floats, end_px: float, before: Floats) -> Floats:
        """Return what the layer of a shaft that ends at a place adds to the brightness.

        Parameters
        ----------
        before
            What a layer adds that was there already, shape as s and t.
        """
        wide = replace(axis, radius_px=axis.radius_px + self.thick_px)
        near = self.weak * wide.cover(s, t, end_px + self.thick_px)
        return np.where(np.abs(near) > np.abs(before), near, before)

    def likely_end(
        self,
        axis: Axis,
        s: Floats,
        t: Floats,
        counts: Floats,
        shade: Floats,
        before: Floats,
        expected_px: float,
        reach_px: float,
    ) -> float:
        """Return about where a shaft ends, the layer around it with it, by least squares.

        Parameters
        ----------
        counts, shade
            Of pixels at s along the axis and t across it: what was counted, and what would be
            without shaft and layer, shape (n,).
        before
            See `around`.
        expected_px, reach_px
            Places so far from the expected one are looked at.
        """
        near = np.abs(t) < axis.radius_px + self.thick_px
        s, t, before = s[near], t[near], before[near]
        bright, weight = counts[near] / shade[near], shade[near]
        count = math.ceil(reach_px / STEP_PX)
        places = expected_px + STEP_PX * np.arange(-count, count + 1)
        misfit = np.empty(len(places))
        for k, place in enumerate(places.tolist()):
            cover = axis.cover(s, t, place)
            model = 1 + self.around(axis, s, t, place, before) * (1 - cover) + self.strong * cover
            misfit[k] = float(weight @ (bright - model) ** 2)
        best = int(np.argmin(misfit))
        if not 0 < best < len(places) - 1:
            return float(places[best])
        low, middle, high = misfit[best - 1 : best + 2]
        bend = low - 2 * middle + high
        return float(places[best] + (0.5 * STEP_PX * (low - high) / bend if bend > 0 else 0.0))
