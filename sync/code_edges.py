"""Edges that a record has seen: each at a time of its own, around one delay.

A blanker obeys late, and not always equally late. The times of its edges are unknowns that
two records share; what one record says of them is kept as an information matrix, so that
edges which fell into dead time say nothing, and the other record's word counts.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SEEN_RATIO = 1e-3  # of the information of the best edge
GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 61)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a record says of the shifts of all edges: a Gaussian, in information form.

    Parameters
    ----------
    information
        Of the shifts, with all else fitted, shape (k, k), 1/s^2.
    pull
        Information times the shifts that fit best, shape (k,), 1/s.
    """

    information: Floats
    pull: Floats

    def free(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Return which edges were seen, and each one's own shift and its variance."""
        diagonal = np.diag(self.information)
        seen = np.flatnonzero(diagonal > SEEN_RATIO * max(float(diagonal.max()), 1e-300))
        covariance = np.linalg.pinv(self.information[np.ix_(seen, seen)], hermitian=True)
        return seen, covariance @ self.pull[seen], np.diag(covariance).copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all edges have in common, and each one's own shift given that.

    Parameters
    ----------
    value, covariance
        Delay, and its rate of change where that was asked for.
    shift_s, shift_covariance
        Of each edge, as likely as can be.
    """

    value: Floats
    covariance: Floats
    shift_s: Floats
    shift_covariance: Floats


def columns(edges_s: Floats, *, with_rate: bool) -> Floats:
    """Return what a delay, and a rate of it about the middle, do to each edge, shape (k, m)."""
    ones = np.ones(len(edges_s))
    if not with_rate:
        return ones[:, None]
    return np.stack([ones, edges_s - 0.5 * (edges_s[0] + edges_s[-1])], axis=1)


def common_shift(seen: Seen, basis: Floats, jitter_s: float) -> Common:
    """Find what edges that scatter by ``jitter_s`` have in common."""
    mixed = np.eye(len(seen.pull)) + jitter_s**2 * seen.information
    weight = np.linalg.solve(mixed, seen.information)
    normal = basis.T @ weight @ basis
    covariance = np.linalg.inv(normal)
    value = covariance @ (basis.T @ np.linalg.solve(mixed, seen.pull))
    mean = basis @ value
    rest = np.linalg.solve(mixed, seen.pull - seen.information @ mean)
    moved = np.linalg.solve(mixed, basis)
    return Common(
        value=np.asarray(value, np.float64),
        covariance=np.asarray(covariance, np.float64),
        shift_s=mean + jitter_s**2 * rest,
        shift_covariance=jitter_s**2 * np.linalg.inv(mixed) + moved @ covariance @ moved.T,
    )


def scatter_of(seen: Seen, basis: Floats, most_s: float) -> float:
    """Return the most likely scatter of the edges beyond what noise makes, at most ``most_s``."""
    index, shift, variance = seen.free()
    if len(index) <= basis.shape[1] + 1:
        return 0.0
    own = basis[index]
    best, least = 0.0, math.inf
    for sigma_s in GRID * most_s:
        total = variance + sigma_s**2
        normal = own.T @ (own / total[:, None])
        rest = shift - own @ np.linalg.solve(normal, own.T @ (shift / total))
        # Restricted likelihood: what the common part took is paid for.
        cost = float(np.sum(np.log(total)) + np.sum(rest**2 / total) + np.linalg.slogdet(normal)[1])
        if cost < least - 1e-9:
            best, least = float(sigma_s), cost
    return best


def difference(
    first: Seen, second: Seen, basis: Floats, jitter_s: float
) -> tuple[Floats, Floats, float]:
    """Return by how much the first record is later, its covariance, and the misfit.

    The edges' own shifts are the same in both. The misfit is the chi-squared in a degree of
    freedom of the edges that both have seen, about the difference.
    """
    total = first.information + second.information
    mixed = np.eye(len(total)) + jitter_s**2 * total
    sides = (first, second)
    blocks = [side.information @ basis for side in sides]
    shared = [np.linalg.solve(mixed, block) for block in blocks]
    normal = np.block(
        [
            [
                (basis.T @ blocks[i] if i == j else 0.0) - jitter_s**2 * blocks[i].T @ shared[j]
                for j in range(2)
            ]
            for i in range(2)
        ]
    )
    pulled = jitter_s**2 * np.linalg.solve(mixed, first.pull + second.pull)
    right = np.concatenate(
        [basis.T @ side.pull - block.T @ pulled for side, block in zip(sides, blocks, strict=True)]
    )
    covariance = np.linalg.inv(normal)
    value = covariance @ right
    m = basis.shape[1]
    part = np.hstack([np.eye(m), -np.eye(m)])
    found = part @ value
    misfit = _misfit(first, second, basis @ found)
    return found, part @ covariance @ part.T * max(1.0, misfit), misfit


def _misfit(first: Seen, second: Seen, expected: Floats) -> float:
    mine, shift, variance = first.free()
    other, other_shift, other_variance = second.free()
    both, i, j = np.intersect1d(mine, other, return_indices=True)
    if len(both) < 3:
        return 1.0
    rest = shift[i] - other_shift[j] - expected[both]
    return float(np.sum(rest**2 / (variance[i] + other_variance[j])) / (len(both) - 1))
