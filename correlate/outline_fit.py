"""The outline of an object in one frame, by maximum likelihood of Poisson counts.

Model: ``m = I_in + (I_out - I_in) Phi((s - d) / w)``, for a pixel at a signed distance s from
an outline that moves outwards by d. The level inside changes smoothly along the object's
axis, that outside linearly over the field around it; place, both levels and the width of the
edge are fitted together, and the covariance of the place allows for all of them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from correlate.edge_model import MIN_LEVEL, EdgeModel
from correlate.edge_search import PIXEL_VARIANCE
from correlate.inner_level import end_basis, level_basis, unevenness
from correlate.outline import Outline
from correlate.outline_pixels import grouped
from correlate.surroundings import Surroundings, surroundings

Float = NDArray[np.float64]
STEPS = 10
SETTLED_SIGMAS, SETTLED_PX = 0.05, 0.002  # of a last step, root mean square
ROUNDS = 8
CENTRED_PX = 0.35  # an outline nearer to the edge is not moved again
REACH_WIDTHS, REACH_PX = 4.5, 2.0
STIFF_PX = 6.0  # by which a knot may leave its neighbours for nothing: none of an edge's own
LEVEL_PX = 10.0  # between knots of the level inside, at least
LEVEL_SIGMAS = 8.0  # in which the contrast stands out between two such knots
HELD_PX = 0.05  # the same where nothing is looked at
MIN_WIDTH_PX = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of an edge before a frame is looked at.

    Parameters
    ----------
    width_px, width_sigma_px
        Of the edge, Gaussian sigma, without the pixel's own.
    stretch
        Only move and stretch the outline as a whole.
    without
        Stretches along the axis, as fractions of its length, which take no part.
    uneven
        By how much the level inside may change in the ends, of itself.
    """

    width_px: float
    width_sigma_px: float
    stretch: bool = False
    without: tuple[tuple[float, float], ...] = ()
    uneven: float = 0.0

    def loose(self, outline: Outline) -> NDArray[np.bool_]:
        """Tell which control points lie where nothing is looked at."""
        place = outline.places(outline.control)
        loose = np.zeros(outline.knots, dtype=bool)
        for low, high in self.without:
            loose |= (place >= low) & (place <= high)
        return loose


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineFit:
    """An outline in a frame.

    Parameters
    ----------
    outline
        Where it stands.
    moves
        Outward movement of its points by the numbers that were fitted, shape (n, p).
    covariance
        Of these numbers, shape (p, p), for counts.
    to_spline
        How these numbers follow a movement of the knots, shape (p, knots).
    width_px
        Of the edge.
    inside, outside
        Levels in the mean.
    contrast_sigma
        Of their difference.
    uneven
        By how much the level inside changes along the axis, of itself.
    around
        The box.
    parts, inverse
        Derivatives of the model, and the covariance of all numbers.
    settled
        Whether the fit came to an end.
    """

    outline: Outline
    moves: Float
    covariance: Float
    to_spline: Float
    width_px: float
    inside: float
    outside: float
    contrast_sigma: float
    uneven: float
    around: Surroundings
    parts: EdgeModel
    inverse: Float
    settled: bool

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which pixels of the box took part."""
        return self.parts.pixels.used

    @property
    def share(self) -> Float:
        """Of the outside in each pixel of the box."""
        return self.parts.in_box()

    @property
    def model(self) -> Float:
        """Expected counts of the pixels of the box."""
        return self.parts.model()

    @property
    def sigma_px(self) -> Float:
        """Of each point's place, shape (n,)."""
        return _spread(self.moves, self.covariance)

    def weights(self, gradient: Float) -> Float:
        """Return by how much a quantity follows each pixel of the box.

        Parameters
        ----------
        gradient
            Of the quantity, by the outward movement of each point, shape (n,).
        """
        p = self.moves.shape[1]
        return self.parts.spread(self.inverse[:p].T @ (gradient @ self.moves)) / self.parts.model()


def fit_outline(image: NDArray[np.generic], outline: Outline, look: Look) -> OutlineFit | str:
    """Fit an outline in a frame, or say why there is none.

    Parameters
    ----------
    image
        Counts or grey levels, shape (height, width).
    outline
        Where to begin, within some widths of the edge.
    look
        What is known of the edge.
    """
    width = look.width_px
    fit: OutlineFit | str = "the object has left the field"
    for _ in range(ROUNDS):
        wide = math.hypot(max(width, look.width_px), PIXEL_VARIANCE**0.5)
        at = surroundings(outline, (image.shape[0], image.shape[1]), REACH_WIDTHS * wide + REACH_PX)
        if at is None:
            return "the object has left the field"
        moved = _Climb(at.cut(image), at, outline, look, width).climb()
        if isinstance(moved, str):
            return moved
        fit, away = moved
        # Where nothing is looked at, it goes along with what is beside.
        outline, width = fit.outline.bridged(look.loose(outline)), fit.width_px
        if _rms(away) < CENTRED_PX:
            return replace(fit, outline=outline)
    return "the fit did not settle"


class _Climb:
    """Fisher scoring around one outline."""

    def __init__(
        self, counts: Float, at: Surroundings, outline: Outline, look: Look, width: float
    ) -> None:
        self.counts, self.at, self.outline, self.look = counts, at, outline, look
        self.moves = outline.stretches if look.stretch else outline.spline
        self.width = width
        self.pixels = px = grouped(counts, at, look.without)
        share = np.zeros(len(px.number))
        share[px.inside :] = 1.0
        share[: px.near] = at.s > 0
        self.share = share
        self.plane, self.along = px.plane, px.along
        low, high = (
            float(px.counts[one].sum()) / max(float(px.number[one].sum()), 1.0)
            for one in (share == 0, share == 1)
        )
        # As many levels along the axis as the counts can tell.
        total, contrast = float(px.counts[share == 0].sum()), abs(high - low) / max(low, MIN_LEVEL)
        told = total * (contrast / LEVEL_SIGMAS) ** 2
        knots = int(min(told, at.length / LEVEL_PX, 200))
        self.levels = level_basis(at.length, knots)
        self.smooth = self.levels.shape[1]
        self.inside = np.full(self.smooth, low)
        if look.uneven > 0 and self.smooth > 1:
            self.levels = np.hstack([self.levels, end_basis(at.length)])
            self.inside = np.append(self.inside, [0.0, 0.0])
        self.outside = np.array([high, 0.0, 0.0])

    def climb(self) -> tuple[OutlineFit, Float] | str:
        """Return the fit and the movement of the outline's points, or why there is none."""
        at, look = self.at, self.look
        p, k = self.moves.shape[1], self.levels.shape[1]
        d, settled = np.zeros(p), False
        prior = np.zeros((p + 4 + k, p + 4 + k))
        if not look.stretch:
            prior[:p, :p] = _stiffness(p)
            held = np.flatnonzero(look.loose(self.outline))
            prior[held, held] += 1 / HELD_PX**2
        prior[p, p] = 1 / look.width_sigma_px**2
        # A level of which no pixel tells stays where it is.
        rows = np.arange(p + 1, p + 1 + k)
        prior[rows, rows] = 1 / max(float(self.outside[0]), 1.0) ** 2
        ends = slice(p + 1 + self.smooth, p + 1 + k)
        prior[ends, ends] += np.eye(k - self.smooth) / max(look.uneven * self.inside[0], 1e-9) ** 2
        inverse = prior
        for taken in range(STEPS):
            fisher, score = self._fisher(d)
            score[p] += (look.width_px - self.width) / look.width_sigma_px**2
            score[ends] -= prior[ends, ends] @ self.inside[self.smooth :]
            inverse = _inverse(fisher + prior)
            step = inverse @ score
            away = self.moves @ step[:p]
            # Steps that leave the edge behind would not come back.
            share = min(1.0, 1.5 * self.wide / max(float(np.abs(away).max()), 1e-9))
            d = d + share * step[:p]
            self.width = max(self.width + share * float(step[p]), MIN_WIDTH_PX)
            self.inside = self.inside + share * step[p + 1 : p + 1 + k]
            self.outside = self.outside + share * step[p + 1 + k :]
            # By its own information: how far a step is in sigmas of all that is fitted.
            far = math.sqrt(max(float(step @ fisher @ step), 0.0) / len(step))
            settled = share * far < SETTLED_SIGMAS or _rms(share * away) < SETTLED_PX
            gone = self.moves @ d
            # What has gone far is looked at again from where it stands now.
            if settled or float(np.abs(gone).max()) > 2 * self.wide:
                break
            if taken > 0 and _rms(gone) > 2 * CENTRED_PX:
                break
        away = self.moves @ d
        outline = self.outline.stretched(d) if look.stretch else self.outline.moved(d)
        levels = self.levels.mean(axis=0)
        slope = np.concatenate([np.zeros(p + 1), -levels, [1.0, 0.0, 0.0]])
        known = slice(p + 1, p + 1 + self.smooth)
        uneven = unevenness(
            self.levels[:, : self.smooth], self.inside[: self.smooth], inverse[known, known]
        )
        fit = OutlineFit(
            outline=outline,
            moves=self.moves if look.stretch else self.moves @ outline.bridge(look.loose(outline)),
            covariance=inverse[:p, :p],
            to_spline=inverse[:p] @ self._cross() if look.stretch else np.eye(p),
            width_px=self.width,
            inside=float(levels @ self.inside),
            outside=float(self.outside[0]),
            contrast_sigma=math.sqrt(max(float(slope @ inverse @ slope), 0.0)),
            uneven=uneven,
            around=at,
            parts=self._parts,
            inverse=inverse,
            settled=settled,
        )
        return fit, away

    def _fisher(self, d: Float) -> tuple[Float, Float]:
        """Return the information about all numbers, and the score."""
        at, n, px = self.at, len(self.moves), self.pixels
        near = slice(px.near)
        self.wide = math.sqrt(self.width**2 + PIXEL_VARIANCE)
        inner, outer = (self.levels @ self.inside)[self.along], self.plane @ self.outside
        z = (at.s - (self.moves @ d)[at.point]) / self.wide
        share = self.share
        share[near] = special.ndtr(z)
        model = np.maximum(inner + (outer - inner) * share, MIN_LEVEL)
        bell = np.exp(-0.5 * z * z) / (self.wide * math.sqrt(2 * math.pi))
        by_place = (inner - outer)[near] * bell
        by_width = by_place * z * (self.width / self.wide)
        self._parts = EdgeModel(
            around=at,
            pixels=px,
            moves=self.moves,
            by_place=by_place,
            by_width=by_width,
            share=share[near].copy(),
            levels=self.levels,
            inside=self.inside,
            outside=self.outside,
        )
        everywhere = px.number / model
        sure = everywhere[near]
        rest = px.counts / model - px.number

        def total(values: Float) -> Float:
            return np.asarray(np.bincount(at.point, values, n), np.float64)

        place_place = self.moves.T @ (self.moves * total(by_place**2 * sure)[:, None])
        place_width = self.moves.T @ total(by_place * by_width * sure)
        self._place_sure = by_place * sure
        in_share, out_share = 1 - share, share
        place_levels = self.moves.T @ self._by_point(by_place * sure * in_share[near])
        outs = self.plane[near] * (by_place * sure * out_share[near])[:, None]
        place_plane = self.moves.T @ np.column_stack([total(o) for o in outs.T])
        levels = self.levels

        def along(values: Float) -> Float:
            which = self.along[: len(values)]
            return np.asarray(np.bincount(which, values, at.length), np.float64)

        width_levels = levels.T @ along(by_width * sure * in_share[near])
        weighted = everywhere * in_share
        level_level = levels.T @ (levels * along(weighted * in_share)[:, None])
        mixed = np.column_stack([along(weighted * out_share * c) for c in self.plane.T])
        level_plane = levels.T @ mixed
        width_plane = self.plane[near].T @ (by_width * sure * out_share[near])
        plane_plane = self.plane.T @ (self.plane * (everywhere * out_share**2)[:, None])
        width_width = float(by_width**2 @ sure)
        fisher = np.block(
            [
                [place_place, place_width[:, None], place_levels, place_plane],
                [
                    place_width[None],
                    np.array([[width_width]]),
                    width_levels[None],
                    width_plane[None],
                ],
                [place_levels.T, width_levels[:, None], level_level, level_plane],
                [place_plane.T, width_plane[:, None], level_plane.T, plane_plane],
            ]
        )
        score = np.concatenate(
            [
                self.moves.T @ total(by_place * rest[near]),
                [float(by_width @ rest[near])],
                levels.T @ along(rest * in_share),
                self.plane.T @ (rest * out_share),
            ]
        )
        return fisher, score

    def _by_point(self, values: Float) -> Float:
        """Return sums over the pixels of each point, of values times the level's basis."""
        shape = len(self.moves), self.at.length
        where = self.at.point, self.along[: self.pixels.near]
        table = sparse.csr_array((values, where), shape=shape)
        return np.asarray(table @ self.levels)

    def _cross(self) -> Float:
        """Return the information that all numbers share with the knots of the outline."""
        parts, at, n = self._parts, self.at, len(self.moves)
        spline = self.outline.spline
        near = self._place_sure

        def with_knots(values: Float) -> Float:
            return np.asarray(np.bincount(at.point, values * near, n) @ spline)

        own = self.moves.T @ (spline * np.bincount(at.point, parts.by_place * near, n)[:, None])
        share = parts.share
        levels = self._by_point(near * (1 - share)).T @ spline
        plane = np.stack([with_knots(share * c) for c in self.plane[: self.pixels.near].T])
        return np.vstack([own, with_knots(parts.by_width)[None], levels, plane])


def _spread(moves: Float, covariance: Float) -> Float:
    """Return the sigma of each point's place."""
    return np.asarray(np.sqrt(np.maximum(np.sum(moves @ covariance * moves, axis=1), 0.0)))


def _stiffness(knots: int) -> Float:
    """Return a weak preference for knots that move alike."""
    bend = (
        2 * np.eye(knots) - np.roll(np.eye(knots), 1, axis=0) - np.roll(np.eye(knots), -1, axis=0)
    )
    return np.asarray((bend.T @ bend / 6 + 1e-3 * np.eye(knots)) / STIFF_PX**2)


def _inverse(matrix: Float) -> Float:
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * np.outer(scale, scale) + 1e-10 * np.eye(len(matrix))
    return np.asarray(np.linalg.inv(scaled) * np.outer(scale, scale))


def _rms(values: Float) -> float:
    return float(np.sqrt(np.mean(values**2)))
