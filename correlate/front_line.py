"""Follows a front from frame to frame: its place, its width and its roughness.

The same steps serve a stack and a live stream. Counts stay where they were counted; what
moves is the model.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from correlate.edge import EdgeFit, fit_edges
from correlate.film import MIN_SIGNIFICANCE, REACH_PX, Film
from correlate.sums import FrameSums

JUMP_PX = 5.0  # from one frame to the next, at most
JUMP_SIGMAS = 8.0
SEEN_SIGNIFICANCE = 4.0  # of the step in one frame, where its place is expected
WIDTH_SIGNIFICANCE = 25.0  # below, a frame cannot tell a width
LOST_FRAMES = 5  # without a front before it is looked for everywhere
FOLLOW_SHARE = 0.3  # a weighted step: one noisy frame must not lead the next astray
SEGMENT_SIGNIFICANCE = 10.0  # aimed at in each stretch of the front
MAX_SEGMENTS = 32
MIN_SEGMENTS = 4
FEWEST_PX = 12  # of a line that a step can be fitted to


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontModel:
    """What is known of a front before a frame is looked at.

    Parameters
    ----------
    film
        In which it moves.
    texture
        Relative brightness of the specimen by reference column.
    width_px
        Of the step, Gaussian sigma.
    rises
        +1 where the film is brighter on the right of the front, -1 where darker.
    excess
        Standard deviation of a count over that of Poisson: grey levels are no counts.
    """

    film: Film
    texture: NDArray[np.float64]
    width_px: float
    rises: int
    excess: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontShape:
    """Width and roughness of a front in one frame, in px; NaN where it cannot tell.

    Parameters
    ----------
    width_px, width_sigma_px
        Of the step across, Gaussian sigma.
    roughness_px, roughness_sigma_px
        Root-mean-square deviation of the front from straight, less the noise's share.
    """

    width_px: float = math.nan
    width_sigma_px: float = math.nan
    roughness_px: float = math.nan
    roughness_sigma_px: float = math.nan


@dataclass(slots=True)
class FrontFollower:
    """Fits the front in one frame after the other.

    Parameters
    ----------
    model
        What is known of the front.
    place_px
        Where it stands at first, in reference coordinates.
    """

    model: FrontModel
    place_px: float
    _lost: int = field(default=0, init=False)

    def columns(self, shift_px: float) -> slice:
        """Return the columns of a frame in which the front is looked for.

        Parameters
        ----------
        shift_px
            What brings the frame's columns onto the reference.
        """
        film = self.model.film
        low = max(self.place_px - REACH_PX, film.first_px) - shift_px
        high = min(self.place_px + REACH_PX, film.last_px) - shift_px
        return slice(max(math.ceil(low), 0), max(math.floor(high) + 1, 0))

    def fit(self, line: NDArray[np.float64], shift_px: float) -> EdgeFit | str:
        """Fit the front in a frame's column sums, or say why it cannot be found.

        Parameters
        ----------
        line
            Column sums, shape (width,).
        shift_px
            What brings the frame's columns onto the reference.
        """
        part = self.columns(shift_px)
        if part.stop > len(line):
            part = slice(part.start, len(line))
        if part.stop - part.start < FEWEST_PX:
            return self._miss("the front has left the field", line, shift_px)
        fit = self._at(line[None, part], part, shift_px, self.place_px)
        if fit.significance < SEEN_SIGNIFICANCE * self.model.excess:
            return self._miss("no step stands out where the front should be", line, shift_px)
        if not fit.converged:
            return self._miss("the fit did not settle", line, shift_px)
        sigma = fit.sigma_px * self.model.excess
        if abs(fit.position_px - self.place_px) > max(JUMP_SIGMAS * sigma, 1.2 * JUMP_PX):
            return self._miss("a jump beyond what the front can move", line, shift_px)
        self._lost = 0
        self.place_px += FOLLOW_SHARE * (fit.position_px - self.place_px)
        return replace(fit, sigma_px=sigma)

    def shape(self, sums: FrameSums, found: tuple[float, float], shift_px: float) -> FrontShape:
        """Return width and roughness of a front that was found.

        Parameters
        ----------
        found
            Its position in px, and its significance.
        """
        position_px = found[0]
        part = self.columns(shift_px)
        at = np.arange(part.start, part.stop) + shift_px
        if len(at) < FEWEST_PX or part.stop > sums.rows.shape[1]:
            return FrontShape()
        significance = found[1] / self.model.excess
        width, width_sigma = math.nan, math.nan
        if significance > WIDTH_SIGNIFICANCE:
            free = fit_edges(
                at,
                sums.line(part)[None, :],
                position_px,
                self.model.width_px,
                texture=self._shade(at),
                free_width=True,
            ).line(0)
            if free.converged:
                width, width_sigma = free.width_px, free.width_sigma_px * self.model.excess
        count = int(min((significance / SEGMENT_SIGNIFICANCE) ** 2, MAX_SEGMENTS))
        roughness = math.nan, math.nan
        if count >= MIN_SEGMENTS:
            segments = fit_edges(
                at,
                sums.lines(count, part),
                position_px,
                self.model.width_px,
                texture=self._shade(at),
                sign=self.model.rises,
                reach_px=REACH_PX / 2,
            )
            good = segments.converged
            roughness = roughness_of(
                segments.position_px[good], segments.sigma_px[good] * self.model.excess
            )
        return FrontShape(
            width_px=width,
            width_sigma_px=width_sigma,
            roughness_px=roughness[0],
            roughness_sigma_px=roughness[1],
        )

    # --- the parts -------------------------------------------------------------------------

    def _at(
        self, counts: NDArray[np.float64], part: slice, shift_px: float, place: float | None
    ) -> EdgeFit:
        at = np.arange(part.start, part.stop) + shift_px
        return fit_edges(
            at,
            counts,
            place,
            self.model.width_px,
            texture=self._shade(at),
            sign=self.model.rises,
            reach_px=JUMP_PX,
        ).line(0)

    def _shade(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        texture = self.model.texture
        return np.asarray(np.interp(at, np.arange(len(texture)), texture), dtype=np.float64)

    def _miss(self, reason: str, line: NDArray[np.float64], shift_px: float) -> str:
        """Note a frame without a front; after some, look for it in the whole film."""
        self._lost += 1
        if self._lost < LOST_FRAMES:
            return reason
        film = self.model.film
        first = max(math.ceil(film.first_px - shift_px), 0)
        last = min(math.floor(film.last_px - shift_px) + 1, len(line))
        best, place = 0.0, self.place_px
        for start in range(first, last, int(REACH_PX)):
            part = slice(start, min(start + 2 * int(REACH_PX), last))
            if part.stop - part.start >= 2 * FEWEST_PX:
                fit = self._at(line[None, part], part, shift_px, None)
                if fit.converged and fit.significance > best:
                    best, place = fit.significance, fit.position_px
        if best > MIN_SIGNIFICANCE * self.model.excess:
            self.place_px, self._lost = place, 0
        return reason


def roughness_of(
    position_px: NDArray[np.float64], sigma_px: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the rms deviation of a front from straight, and its sigma.

    The variance about a fitted straight line, less the mean square of the sigmas; the sigma
    is that of a variance of n normal values, ``sqrt(2 / (n - 2))`` of it.
    """
    n = len(position_px)
    if n < MIN_SEGMENTS:
        return math.nan, math.nan
    x = np.arange(n)
    residual = position_px - np.polyval(np.polyfit(x, position_px, 1), x)
    seen = float(residual @ residual) / (n - 2)
    own = float(np.mean(sigma_px**2))
    variance, spread = seen - own, math.sqrt(2 / (n - 2)) * max(seen, own)
    roughness = math.sqrt(max(variance, 0.0))
    # Near zero the square root is no straight line: the sigma is at most its own.
    return roughness, min(spread / max(2 * roughness, 1e-12), math.sqrt(spread))
