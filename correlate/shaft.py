"""The free end of a straight, round-ended shaft, by maximum likelihood of its counts.

Model of a pixel at s along the axis and t across it: ``m = T [b + (a - b) S]``, with T the
specimen's own brightness there, a and b the levels on and beside the shaft, and S the share
of the pixel that the shaft covers: an error function of the distance from the outline of a
strip of radius r whose end at s0 is a half-circle. The place s0 and both levels are fitted
to Poisson counts at once; the sigma is that of the inverse Fisher information.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from correlate.edge import BROAD, fit_edges
from correlate.edge_search import PIXEL_VARIANCE

STEPS, WHOLE_STEPS = 24, 8
CONVERGED_SIGMAS = 0.02
SETTLED_SIGMAS = 0.1
# A half-circle ends like a step: this far behind its apex, and this soft, of its radius.
CAP_MEAN, CAP_SPREAD = 1 - math.pi / 4, math.sqrt(2 / 3 - (math.pi / 4) ** 2)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A straight shaft without its end.

    Parameters
    ----------
    x_px, y_px
        A point on its middle line, from which places along it are counted.
    turn_rad
        Its direction, from the x axis towards that of growing rows.
    radius_px, soft_px
        Half of its width; Gaussian sigma of its outline, without the pixel's own.
    turn_sigma_rad, radius_sigma_px
        Standard uncertainties; NaN for a radius that was not fitted.
    """

    x_px: float
    y_px: float
    turn_rad: float
    radius_px: float
    soft_px: float
    turn_sigma_rad: float = 0.0
    radius_sigma_px: float = math.nan

    @property
    def wide_px(self) -> float:
        """Gaussian sigma of the outline as pixels see it."""
        return math.sqrt(self.soft_px**2 + PIXEL_VARIANCE)

    def along(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return places along and across the axis."""
        cosine, sine = math.cos(self.turn_rad), math.sin(self.turn_rad)
        x, y = x - self.x_px, y - self.y_px
        return x * cosine + y * sine, y * cosine - x * sine

    def place(self, s_px: float) -> tuple[float, float]:
        """Return x and y of a place along the axis."""
        return (
            self.x_px + s_px * math.cos(self.turn_rad),
            self.y_px + s_px * math.sin(self.turn_rad),
        )

    def cover(self, s: Floats, t: Floats, end_px: float) -> Floats:
        """Return the share of each pixel that the shaft covers, which ends at ``end_px``."""
        return self._cover(s, t, end_px)[0]

    def _cover(self, s: Floats, t: Floats, end_px: float) -> tuple[Floats, Floats]:
        """Return the cover, and its derivative by the end."""
        beyond = np.maximum(s - (end_px - self.radius_px), 0.0)
        away = np.hypot(beyond, t)
        z = (self.radius_px - away) / self.wide_px
        bell = np.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * self.wide_px)
        return special.ndtr(z), bell * beyond / np.maximum(away, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFit:
    """The end of a shaft in one frame.

    Parameters
    ----------
    end_px, sigma_px
        Place of the apex along the axis; the sigma allows for unknown levels.
    on, beside
        Levels on the shaft and beside it, in the units of counts over brightness.
    significance
        Of a step there, in standard deviations of no step.
    converged
        False when the search ran away or did not settle.
    chi2
        Mean square of what is left over by the variance of counts; NaN where it was not fitted.
    weight
        Change of the place for a relative change of each pixel's brightness, shape (n,).
    """

    end_px: float
    sigma_px: float
    on: float
    beside: float
    significance: float
    converged: bool
    weight: Floats
    chi2: float = math.nan


def fit_end(
    axis: Axis,
    s: Floats,
    t: Floats,
    counts: Floats,
    shade: Floats,
    start_px: float,
    *,
    rises: int,
    reach_px: float,
) -> EndFit:
    """Fit the end of a shaft.

    Parameters
    ----------
    axis
        The shaft.
    s, t
        Places of pixels along and across it, shape (n,).
    counts
        Of these pixels.
    shade
        Brightness of the specimen without the shaft, per pixel.
    start_px
        Where the end is expected.
    rises
        +1 for a shaft that is brighter than what is beside it, -1 for a darker one.
    reach_px
        Places up to this far from the expected one are looked at.
    """
    # First as a step in the sums across: it tells whether there is one, and about where.
    near = np.abs(t) < axis.radius_px + axis.wide_px
    index = np.floor(s[near]).astype(np.intp)
    index -= int(index.min())
    size = np.bincount(index)
    x = np.bincount(index, weights=s[near]) / np.maximum(size, 1)
    sums = np.bincount(index, weights=counts[near]).astype(np.float64)
    lit = np.bincount(index, weights=shade[near]).astype(np.float64)
    full = size > 0.5 * np.median(size)
    back_px = CAP_MEAN * axis.radius_px
    step = fit_edges(
        x[full],
        sums[None, full],
        start_px - back_px,
        math.hypot(axis.soft_px, CAP_SPREAD * axis.radius_px),
        texture=lit[full],
        sign=-rises,
        reach_px=reach_px,
    ).line(0)
    width = math.hypot(axis.soft_px, CAP_SPREAD * axis.radius_px)
    rough = EndFit(
        end_px=step.position_px + back_px,
        sigma_px=step.sigma_px,
        on=step.left,
        beside=step.right,
        significance=step.significance,
        converged=step.converged,
        weight=np.zeros(len(s)),
    )
    if not step.converged:
        return rough
    fitted = _climb(axis, s, t, counts, shade, rough)
    if step.sigma_px > BROAD * math.hypot(width, math.sqrt(PIXEL_VARIANCE)):
        # The likelihood is no parabola: its mean and spread stand.
        return replace(rough, weight=fitted.weight)
    return fitted


def _climb(axis: Axis, s: Floats, t: Floats, counts: Floats, shade: Floats, at: EndFit) -> EndFit:
    """Climb to the top of the likelihood of all pixels."""
    end, on, beside = at.end_px, at.on, at.beside
    sigma, settled = math.inf, False
    gain, model = np.zeros((3, len(s))), np.ones(len(s))
    for number in range(STEPS):
        cover, slope = axis._cover(s, t, end)  # noqa: SLF001 - of this module
        model = np.maximum(shade * (beside + (on - beside) * cover), 1e-3)
        gradient = shade * np.stack([(on - beside) * slope, cover, 1 - cover])
        weighted = gradient / model
        fisher = weighted @ gradient.T
        scale = np.sqrt(np.maximum(np.diag(fisher), 1e-300))
        correlation = fisher / np.outer(scale, scale)
        if not np.linalg.det(correlation) > 1e-9:
            return at
        inverse = np.linalg.inv(correlation) / np.outer(scale, scale)
        gain = inverse @ weighted
        change = gain @ (counts - model)
        if number >= WHOLE_STEPS:
            change = 0.4 * change  # scoring may step over the top, to and fro
        move = min(max(float(change[0]), -2 * axis.wide_px), 2 * axis.wide_px)
        end, on, beside = end + move, on + float(change[1]), beside + float(change[2])
        sigma = math.sqrt(inverse[0, 0])
        settled = abs(move) < SETTLED_SIGMAS * sigma
        if abs(move) < CONVERGED_SIGMAS * sigma:
            break
    inside = float(s.min()) < end < float(s.max())
    return EndFit(
        end_px=end,
        sigma_px=sigma,
        on=on,
        beside=beside,
        significance=at.significance,
        converged=inside and settled,
        weight=gain[0] * model,
        chi2=float(np.mean((counts - model) ** 2 / model)),
    )
