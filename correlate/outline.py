"""A closed outline: a periodic cubic B-spline, and the two ways in which it may move.

An outline stays within one family of curves however often it is moved, so nothing of one
frame is handed to the next but a place to start from.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
SAMPLE_PX = 0.7  # between points at which a curve is looked at
MIN_KNOTS = 8


@dataclass(frozen=True)
class Outline:
    """A closed curve.

    Parameters
    ----------
    control
        Control points (x, y) in px, counter-clockwise as x to y goes, shape (knots, 2).
    per_knot
        Points that are looked at for each of them.
    """

    control: Float
    per_knot: int

    @classmethod
    def through(cls, points: Float, spacing_px: float) -> "Outline":
        """Return the curve with evenly spaced knots that is nearest to points.

        Parameters
        ----------
        points
            (x, y) along a closed line, dense, shape (n, 2).
        spacing_px
            Between knots.
        """
        closed = np.vstack([points, points[:1]])
        at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
        knots = max(round(at[-1] / spacing_px), MIN_KNOTS)
        per_knot = max(math.ceil(at[-1] / knots / SAMPLE_PX), 2)
        even = np.arange(knots * per_knot) * at[-1] / (knots * per_knot)
        dense = np.column_stack([np.interp(even, at, closed[:, i]) for i in range(2)])
        basis = _basis(knots, per_knot, 0)
        return cls(np.linalg.solve(basis.T @ basis, basis.T @ dense), per_knot)

    @property
    def knots(self) -> int:
        """How many control points there are."""
        return len(self.control)

    @cached_property
    def points(self) -> Float:
        """Points of the curve (x, y), shape (n, 2)."""
        return np.asarray(_basis(self.knots, self.per_knot, 0) @ self.control)

    @cached_property
    def normals(self) -> Float:
        """Unit normals at the points, outwards, shape (n, 2)."""
        return _normals(_basis(self.knots, self.per_knot, 1) @ self.control)

    @cached_property
    def lengths_px(self) -> Float:
        """Length of curve that each point stands for, shape (n,)."""
        along = _basis(self.knots, self.per_knot, 1) @ self.control
        return np.asarray(np.hypot(along[:, 0], along[:, 1]) / self.per_knot)

    @property
    def around_px(self) -> float:
        """Length of the curve."""
        return float(self.lengths_px.sum())

    @cached_property
    def spline(self) -> Float:
        """How far points move outwards where control points do, shape (n, knots)."""
        turned = self.normals @ self._knot_normals.T
        return np.asarray(_basis(self.knots, self.per_knot, 0) * turned)

    @cached_property
    def stretches(self) -> Float:
        """The same for the ways to move and to stretch a body, shape (n, 5).

        Along x and y in px; then stretched along the axis, across it, and turned, each by so
        much that the furthest point moves by about 1 px.
        """
        fields = np.stack([m @ self._from_middle for m in self._motions()])
        moves = np.einsum("fin,ni->nf", fields, self.normals)
        return np.column_stack([self.normals, moves])

    @cached_property
    def axis(self) -> tuple[Float, Float]:
        """Unit vector of the largest second moment of the area, and the area's middle."""
        p, q = self.points, np.roll(self.points, -1, axis=0)
        cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
        middle = ((p + q) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
        p, q = p - middle, q - middle
        cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
        mixed = 2 * p[:, :, None] * p[:, None, :] + 2 * q[:, :, None] * q[:, None, :]
        mixed = mixed + p[:, :, None] * q[:, None, :] + q[:, :, None] * p[:, None, :]
        _, vectors = np.linalg.eigh((mixed * cross[:, None, None]).sum(axis=0) / 24)
        axis = vectors[:, 1]
        return axis if axis[np.argmax(np.abs(axis))] > 0 else -axis, middle

    def moved(self, by_px: Float) -> "Outline":
        """Return the curve with each control point moved along its normal, shape (knots,)."""
        return Outline(self.control + by_px[:, None] * self._knot_normals, self.per_knot)

    def stretched(self, by: Float) -> "Outline":
        """Return the curve moved and stretched by five numbers, as of ``stretches``."""
        _, middle = self.axis
        matrix = np.eye(2) + sum(b * m for b, m in zip(by[2:], self._motions(), strict=True))
        return Outline((self.control - middle) @ matrix.T + middle + by[:2], self.per_knot)

    def shifted(self, dx: float, dy: float) -> "Outline":
        """Return the curve elsewhere."""
        return Outline(self.control + np.array([dx, dy]), self.per_knot)

    def respaced(self, spacing_px: float) -> "Outline":
        """Return nearly the same curve with its knots evenly spaced again."""
        return Outline.through(self.points, spacing_px)

    def places(self, points: Float) -> Float:
        """Return where points lie along the axis, 0 at one end and 1 at the other."""
        axis, middle = self.axis
        along = (self.points - middle) @ axis
        return np.asarray(((points - middle) @ axis - along.min()) / np.ptp(along))

    def bridge(self, loose: NDArray[np.bool_]) -> Float:
        """Return how all control points follow if some lie on straight lines between the others.

        Shape (knots, knots).
        """
        if not np.any(loose) or np.all(loose):
            return np.eye(self.knots)
        at, fixed = np.arange(self.knots), np.flatnonzero(~loose)
        follow = np.zeros((self.knots, self.knots))
        for knot, one in zip(fixed, np.eye(len(fixed)), strict=True):
            follow[:, knot] = np.interp(at, fixed, one, period=self.knots)
        return follow

    def bridged(self, loose: NDArray[np.bool_]) -> "Outline":
        """Return the curve with some control points on straight lines between the others."""
        if not np.any(loose):
            return self
        return Outline(self.bridge(loose) @ self.control, self.per_knot)

    @cached_property
    def _from_middle(self) -> Float:
        return np.asarray((self.points - self.axis[1]).T)

    def _motions(self) -> tuple[Float, Float, Float]:
        """Return the matrices that stretch along, across, and turn."""
        axis, _ = self.axis
        across = np.array([-axis[1], axis[0]])
        half_long = max(float(np.max(np.abs(axis @ self._from_middle))), 1.0)
        half_wide = max(float(np.max(np.abs(across @ self._from_middle))), 1.0)
        return (
            np.outer(axis, axis) / half_long,
            np.outer(across, across) / half_wide,
            np.array([[0.0, -1.0], [1.0, 0.0]]) / half_long,
        )

    @cached_property
    def _knot_normals(self) -> Float:
        return _normals((np.roll(self.control, -1, axis=0) - np.roll(self.control, 1, axis=0)) / 2)


def _normals(along: Float) -> Float:
    size = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
    return np.asarray(np.column_stack([along[:, 1], -along[:, 0]]) / size[:, None])


@lru_cache(maxsize=32)
def _basis(knots: int, per_knot: int, derivative: int) -> Float:
    """Return the periodic cubic B-spline at evenly spaced points, shape (points, knots).

    A derivative is per knot interval.
    """
    t = np.arange(per_knot) / per_knot
    if derivative == 0:
        parts = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    else:
        parts = [-3 * (1 - t) ** 2, 9 * t**2 - 12 * t, -9 * t**2 + 6 * t + 3, 3 * t**2]
    basis = np.zeros((knots, per_knot, knots))
    rows = np.arange(knots)
    for offset, part in zip((-1, 0, 1, 2), parts, strict=True):
        basis[rows, :, (rows + offset) % knots] = part / 6
    return basis.reshape(knots * per_knot, knots)
