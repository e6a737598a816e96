"""Follows one object's outline from frame to frame, and says how well its size is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from correlate.edge_search import PIXEL_VARIANCE
from correlate.first_outline import first_outline
from correlate.object_shape import Shape, shape_of
from correlate.outline_fit import Look, OutlineFit, fit_outline
from correlate.residuals import Correlation, autocorrelation
from correlate.trackers.protocol import CannotTrack

Float = NDArray[np.float64]
START_WIDTH_PX = 2.0
SPACING_PX = 8.0  # between knots, at least
LOOSE = 1.3  # of it, at which knots are spaced anew
KNOT_WIDTHS = 0.3  # of the edge: a knot's sigma in a frame that is fitted knot by knot
MAX_SIGMA_WIDTHS = 0.8  # of the edge: a place's sigma, beyond which it is not found
ROUND = 0.9  # of the half width: knots that are further apart do not follow round ends
LENGTH_WIDTHS = 1.0  # of the edge: the sigma of the length, beyond which ends are not found
MIN_SIGMAS = 6.0  # of the contrast
WIDTH_CHANGES = 0.05  # of itself, from frame to frame
ADOPT = 0.2  # of a frame's width, in the one expected next
LEARN_FRAMES, LEARN_EVERY = 10, 10
MEMORY = 0.1  # of a frame, in how well ends are told
CLEAR = 0.02  # of the other side, in pixels that are all inside or all outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An object in a frame.

    Parameters
    ----------
    shape
        Its numbers.
    fit
        The outline that they come from.
    sigmas
        Of the numbers, by name; NaN for a length whose ends do not stand out.
    shared
        Their parts that all frames share: by texture, and by the outline of the first frames.
    stretched
        Whether the outline of the first frames was only moved and stretched.
    """

    shape: Shape
    fit: OutlineFit
    sigmas: dict[str, float]
    shared: dict[str, float]
    stretched: bool


class OutlineFollower:
    """Fits an outline in one frame after the other.

    Parameters
    ----------
    first
        Frames in which the object stands still, within some px of each other.
    dark
        Whether it is darker than what is around it.

    Raises
    ------
    CannotTrack
        There is no object, or it is not to be measured even in all of them together.
    """

    def __init__(self, first: Sequence[NDArray[np.generic]], *, dark: bool = True) -> None:
        self._sign = 1.0 if dark else -1.0
        total = np.sum([np.asarray(f, dtype=np.float64) for f in first], axis=0)
        outline = first_outline(total / len(first), dark=dark)
        self._look = Look(width_px=START_WIDTH_PX, width_sigma_px=START_WIDTH_PX)
        fit = fit_outline(total, outline, self._look)
        if isinstance(fit, OutlineFit):
            # Once more, with as many knots as these counts can place.
            spaced = fit.outline.respaced(self._spacing(fit))
            fit = fit_outline(total, spaced, replace(self._look, uneven=fit.uneven))
        if isinstance(fit, str) or not self._found(fit):
            why = fit if isinstance(fit, str) else "it stands out too little"
            raise CannotTrack(f"the outline of the object cannot be fitted: {why}")
        own = max(fit.width_px * WIDTH_CHANGES, 0.02)
        self._look = Look(width_px=fit.width_px, width_sigma_px=own, uneven=fit.uneven)
        self._uneven = fit.uneven
        self.outline = fit.outline
        self._first = fit.covariance
        self._inside, self._outside = Correlation(), Correlation()
        # Texture that one frame's noise hides is seen in the sum of the first.
        texture = Correlation(), Correlation()
        _learn_residuals(total, fit, texture)
        self._texture = texture[0].beyond() / len(first), texture[1].beyond() / len(first)
        self._excess: dict[str, float] = {}
        self._frames = 0
        # How ill the ends are told in a frame, by the width of the edge.
        slope = shape_of(fit.outline).gradients["length"] @ fit.moves
        alone = math.sqrt(float(slope @ fit.covariance @ slope) * len(first))
        self._blur = alone / math.hypot(fit.width_px, PIXEL_VARIANCE**0.5)
        self.without: tuple[tuple[float, float], ...] = ()
        spacing = self._spacing(fit, len(first))
        half = min(fit.moves.shape[0], shape_of(fit.outline).values["diameter"]) / 2
        self._stretch = spacing > max(ROUND * half, SPACING_PX)
        self._spacing_px = spacing
        if not self._stretch:
            self.outline = self.outline.respaced(spacing)

    @property
    def width_px(self) -> float:
        """Of the edge, as it is expected in the next frame."""
        return self._look.width_px

    @property
    def excess(self) -> float:
        """Spread of single counts over that of Poisson's."""
        centre = self._inside.lags.shape[0] // 2
        seen = float(self._inside.lags[centre, centre])
        return math.sqrt(max(seen, 1.0))

    def fit(self, image: NDArray[np.generic]) -> Measured | str:
        """Return the object in a frame, or why it is not found.

        Parameters
        ----------
        image
            Counts or grey levels, shape (height, width).
        """
        if not self._stretch and self._loose():
            self.outline = self.outline.respaced(self._spacing_px)
        look = Look(
            width_px=self._look.width_px,
            width_sigma_px=self._look.width_sigma_px,
            stretch=self._stretch,
            without=self.without,
            uneven=self._look.uneven,
        )
        fit = fit_outline(image, self.outline, look)
        if isinstance(fit, str):
            return fit
        if not self._found(fit):
            return "the object does not stand out"
        self.outline = fit.outline
        width = (1 - ADOPT) * self._look.width_px + ADOPT * fit.width_px
        self._uneven += ADOPT * (fit.uneven - self._uneven)
        self._look = Look(
            width_px=width,
            width_sigma_px=max(width * WIDTH_CHANGES, 0.02),
            # A change that went into an end is seen no more, and is there still.
            uneven=max(self._look.uneven, self._uneven),
        )
        shape = shape_of(fit.outline)
        if self._frames < LEARN_FRAMES or self._frames % LEARN_EVERY == 0:
            self._learn(image, fit, shape)
        self._frames += 1
        sigmas = {name: self._sigma(name, slope, fit) for name, slope in shape.gradients.items()}
        wide = math.hypot(self._look.width_px, PIXEL_VARIANCE**0.5)
        # In the mean of frames: one by one, those would be left whose ends seem near.
        share = max(1 / (self._frames + 1), MEMORY)
        self._blur += share * (sigmas["length"][0] / wide - self._blur)
        if self._blur > LENGTH_WIDTHS:
            # Beyond its edge's own width, a place is not as it would be by its curvature.
            sigmas["length"] = math.nan, math.nan
        return Measured(
            shape=shape,
            fit=fit,
            sigmas={name: sigma for name, (sigma, _) in sigmas.items()},
            shared={name: shared for name, (_, shared) in sigmas.items()},
            stretched=self._stretch,
        )

    def _found(self, fit: OutlineFit) -> bool:
        wide = math.hypot(fit.width_px, PIXEL_VARIANCE**0.5)
        contrast = self._sign * (fit.outside - fit.inside)
        # Places in a crack are not known, and need not be.
        sigma = float(np.quantile(fit.sigma_px, 0.8))
        return (
            fit.settled
            and contrast > MIN_SIGMAS * fit.contrast_sigma
            and sigma < MAX_SIGMA_WIDTHS * wide
        )

    def _spacing(self, fit: OutlineFit, share: int = 1) -> float:
        """Return how far knots must be apart to be placed in a share of the counts."""
        wide = math.hypot(fit.width_px, PIXEL_VARIANCE**0.5)
        level = max(0.5 * (fit.inside + fit.outside), 1e-6)
        per_px = (fit.outside - fit.inside) ** 2 / (2 * math.sqrt(math.pi) * wide * level) / share
        return max(SPACING_PX, 1 / max(per_px * (KNOT_WIDTHS * wide) ** 2, 1e-9))

    def _loose(self) -> bool:
        lengths = self.outline.lengths_px
        apart = self.outline.per_knot * lengths
        return bool(apart.mean() > LOOSE * self._spacing_px or lengths.max() > 2.5 * lengths.min())

    def _sigma(self, name: str, slope: Float, fit: OutlineFit) -> tuple[float, float]:
        """Return the sigma of a number, and its part that all frames share."""
        by_number = slope @ fit.moves
        own = float(by_number @ fit.covariance @ by_number)
        variance = own * self._excess.get(name, 1.0) ** 2
        shared = max(variance - own, 0.0)
        if self._stretch:
            # What the first frames did not know of the outline; a stretch puts part of it right.
            left = slope @ fit.outline.spline - by_number @ fit.to_spline
            first = float(left @ self._first @ left)
            variance, shared = variance + first, shared + first
        return math.sqrt(max(variance, 0.0)), math.sqrt(max(shared, 0.0))

    def _learn(self, image: NDArray[np.generic], fit: OutlineFit, shape: Shape) -> None:
        """Learn how residuals hang together, and by how much that widens each sigma."""
        _learn_residuals(image, fit, (self._inside, self._outside))
        at, share, model = fit.around, fit.share, fit.model
        lags = [
            np.maximum(one.beyond(), texture)
            for one, texture in zip((self._inside, self._outside), self._texture, strict=True)
        ]
        kinds = (
            (lags[0], (1 - share) * np.sqrt(max(fit.inside, 1e-9) / model)),
            (lags[1], share * np.sqrt(max(fit.outside, 1e-9) / model)),
        )
        for name, slope in shape.gradients.items():
            follows = fit.weights(slope) * np.sqrt(model)
            own = float(follows @ follows)
            more = sum(
                float(np.sum(hang * autocorrelation((follows * part).reshape(at.shape))))
                for hang, part in kinds
            )
            if own > 0:
                self._excess[name] = math.sqrt(max(1 + more / own, 0.25))


def _learn_residuals(
    image: NDArray[np.generic], fit: OutlineFit, kinds: tuple[Correlation, Correlation]
) -> None:
    """Let two correlations learn from the pixels inside, and from those outside."""
    at, share, model = fit.around, fit.share, fit.model
    residual = ((at.cut(image) - model) / np.sqrt(model)).reshape(at.shape)
    used = fit.used.astype(np.float64)
    kinds[0].learn(residual, ((share < CLEAR) * used).reshape(at.shape))
    kinds[1].learn(residual, ((share > 1 - CLEAR) * used).reshape(at.shape))


def stacked(
    frames: Sequence[NDArray[np.generic]], shifts: Sequence[tuple[float, float]]
) -> list[NDArray[np.generic]]:
    """Return frames moved by whole pixels to where the first stands.

    Parameters
    ----------
    shifts
        (dx, dy) that bring each frame back, px; NaN for those that are left out.
    """
    return [
        np.roll(frame, (round(dy), round(dx)), axis=(0, 1))
        for frame, (dx, dy) in zip(frames, shifts, strict=True)
        if math.isfinite(dx + dy)
    ]
