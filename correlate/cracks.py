"""Finds cracks across a dark object: lines that were not there, and are bright at once."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
LINE_PX = 3  # looked for
NEAR_PX, FAR_PX = 5, 12  # of what a line is compared with, on both sides
CORE = 0.6  # of the half width, that is looked at
PLACES = 200  # along the object, at which its own lines are remembered
MEMORY = 0.1  # of a frame, in what is remembered
MIN_SIGMAS = 8.0
MIN_CONTRAST = 0.1  # of a line against both its sides
CONFIRM_FRAMES = 2
SAME_PLACE = 0.05  # of the length


@dataclass(slots=True)
class CrackWatch:
    """Looks at one frame after the other until a crack is there.

    Attributes
    ----------
    frame
        Number of the first frame that shows the crack; -1 for none yet.
    place
        Of the crack along the object, 0 to 1; NaN for none.
    """

    frame: int = -1
    place: float = math.nan
    _seen: list[tuple[int, float]] = field(default_factory=list)
    _own: Float | None = None

    def look(
        self, number: int, x: Float, y: Float, counts: Float, size: tuple[float, float]
    ) -> bool:
        """Look at a frame; return whether a crack is known.

        Parameters
        ----------
        number
            Of the frame.
        x, y
            Along the axis from one end, and across it from the middle; shape (n,), px.
        counts
            Of these pixels.
        size
            Length and width of the object, px.
        """
        if self.frame >= 0:
            return True
        length = size[0]
        at, contrast, sigma = _lines(x, y, counts, size)
        if not len(at):
            return False
        own = np.zeros(PLACES) if self._own is None else self._own
        places = (np.arange(PLACES) + 0.5) / PLACES
        new = contrast - np.interp(at / length, places, own)
        i = int(np.argmax(new / sigma))
        place = float(at[i] / length)
        if self._own is not None and new[i] > max(MIN_SIGMAS * sigma[i], MIN_CONTRAST):
            self._seen = [s for s in self._seen if abs(s[1] - place) < SAME_PLACE]
            self._seen.append((number, place))
            if len(self._seen) >= CONFIRM_FRAMES:
                self.frame, self.place = self._seen[0]
                return True
            return False
        self._seen.clear()
        share = 1.0 if self._own is None else MEMORY
        self._own = own + share * (np.interp(places, at / length, contrast) - own)
        return False


def _lines(
    x: Float, y: Float, counts: Float, size: tuple[float, float]
) -> tuple[Float, Float, Float]:
    """Return places along an object, contrast of a bright line there, and its sigma."""
    length, width = size
    middle_part = np.abs(y) < CORE * width / 2
    x, core = x[middle_part], counts[middle_part]
    n = math.floor(length - width)  # without its round ends
    first = width / 2
    if n < 2 * FAR_PX + LINE_PX:
        return np.empty(0), np.empty(0), np.empty(0)
    k = np.floor(x - first).astype(int)
    used = (k >= 0) & (k < n)
    total, pixels = np.bincount(k[used], core[used], n), np.bincount(k[used], minlength=n)
    box = np.ones(LINE_PX)
    line, line_px = np.convolve(total, box, "same"), np.convolve(pixels, box, "same")
    sums = np.concatenate([[0.0], np.cumsum(total)]), np.concatenate([[0.0], np.cumsum(pixels)])
    middle: NDArray[np.intp] = np.arange(FAR_PX, n - FAR_PX)

    def side(low: int, high: int) -> tuple[Float, Float]:
        count = sums[1][middle + high] - sums[1][middle + low]
        return (sums[0][middle + high] - sums[0][middle + low]), np.maximum(count, 1)

    left, right = side(-FAR_PX, -NEAR_PX + 1), side(NEAR_PX, FAR_PX)
    base = np.maximum(np.maximum(left[0] / left[1], right[0] / right[1]), 1e-6)
    level = line[middle] / np.maximum(line_px[middle], 1)
    contrast = level / base - 1
    relative = 1 / np.maximum(line[middle], 1) + 1 / np.maximum(np.minimum(left[0], right[0]), 1)
    sigma = np.sqrt(relative) * np.maximum(contrast + 1, 0.1)
    at = middle + 0.5 + first
    return np.asarray(at), np.asarray(contrast, np.float64), np.asarray(sigma, np.float64)


def rotated(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    axis: tuple[float, float],
    middle: tuple[float, float],
) -> tuple[Float, Float]:
    """Return pixels along and across an axis through a middle."""
    x, y = columns - middle[0], rows - middle[1]
    return axis[0] * x + axis[1] * y, axis[0] * y - axis[1] * x
