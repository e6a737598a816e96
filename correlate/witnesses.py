"""Tells drift and real motion apart: groups of modes as witnesses of one shift.

Each group tells by how much it would move the shift. What it cannot know, as the window that
moves with the specimen tells it that, is taken out; then the groups are weighed by noise. Where
they go on to disagree by more than noise, something in the scene moves or changes by itself.
Grains that are exchanged for others add to each group what noise does, only more. Where parts
move, none is believed to better than what all disagree by, and one that is alone in what it says
no better than it is away from the others. This is a random-effects mean (Paule and Mandel,
J. Res. Natl. Bur. Stand. 87, 377 (1982)), with outliers bounded, and a variance for each.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
REMEMBERED = 16  # frames, over which a disagreement is averaged
FIRST = 4  # after so many it is judged
LEAST_SHARE = 1e-4  # of the largest group's information, below which one tells nothing
LEAST_VALUE = 2  # of a correlation, in units of the noise in it
LEAST_SEEN = 0.05  # of the scatter: where less of the scene is in a group, it is noise
RIDGE = 0.03  # of noise in directions that a group does not tell
FAITH_SIGMAS = 3.0  # by which a group's scene is less than the reference's by no chance
LEAST_FAITH = 0.5  # of the reference's scene: below, a group shows another one
LEAST_FADED = 0.1  # of the scene of the last frames, that is taken to be in one
# Of a squared distance in two dimensions: the most that one group counts, its mean with
# that bound, its variance, and what chance makes of the largest once in a thousand.
BOUND, BOUND_MEAN, BOUND_VARIANCE, LARGEST = 6.0, 1.90, 3.0, 14.0
GRID = np.concatenate([[0.0], np.logspace(-7, 3, 31)])


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """What groups of modes can tell.

    Parameters
    ----------
    told
        Slope of each group's score against the shift, where the window goes along, shape
        (n, 2, 2), in 1/px^2.
    window
        Against the window's own place, where the specimen stays.
    scatter
        Covariance of the score by noise.
    values
        What each adds to the correlation, where the scene is as in the reference, shape (n,).
    from_reference
        Share of the scatter's variance that comes from the reference, and so is in every
        frame the same.
    """

    told: Floats
    window: Floats
    scatter: Floats
    values: Floats
    from_reference: float

    @classmethod
    def of(
        cls,
        information: Floats,
        window: Floats,
        scatter: Floats,
        values: Floats,
        from_reference: float,
    ) -> Self:
        """Return those of the groups that tell something; the others tell 0 at no weight.

        Parameters
        ----------
        information
            Slope of each group's score against the shift, where the window stays.
        """
        size = np.trace(scatter, axis1=1, axis2=2)
        seen = np.trace(information, axis1=1, axis2=2)
        tells = (
            (size > LEAST_SHARE * size.max(initial=0.0))
            & (seen > LEAST_SEEN * size)
            & (values > LEAST_VALUE)
        )
        ridge = np.where(tells, RIDGE * size, 1.0)[:, None, None] * np.eye(2)
        use = tells[:, None, None]
        return cls(
            told=np.where(use, information - window, 0.0),
            window=np.where(use, window, 0.0),
            scatter=np.where(use, scatter, 0.0) + ridge,
            values=np.where(tells, values, 0.0),
            from_reference=from_reference,
        )

    @cached_property
    def tells(self) -> NDArray[np.bool_]:
        """Which groups tell something, shape (n,)."""
        return np.asarray(self.values > 0)

    @cached_property
    def expected(self) -> Floats:
        """What a group adds to the correlation; 1 where that is nothing."""
        return np.where(self.tells, self.values, 1.0)

    @cached_property
    def total(self) -> float:
        """What all groups add."""
        return float(self.values.sum())

    @cached_property
    def chance(self) -> Floats:
        """By how much what a frame adds is below what is expected by chance, in shares."""
        return np.asarray(FAITH_SIGMAS / np.sqrt(self.expected))

    @cached_property
    def precision(self) -> Floats:
        """Inverse of the scatter."""
        return inverse(self.scatter)

    @cached_property
    def undoubted(self) -> "Weighed":
        """The weights where nobody is doubted."""
        return Weighed.of(self.told, self.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """How much each score counts in the mean of all.

    Parameters
    ----------
    told
        Slopes of the scores, shape (n, 2, 2).
    weight
        Of each score in what all tell, shape (n, 2, 2).
    covariance_px2
        Of their mean; infinite where nothing tells.
    """

    told: Floats
    weight: Floats
    covariance_px2: Floats

    @classmethod
    def of(cls, told: Floats, precision: Floats) -> Self:
        """Weigh groups by the inverse of their covariance."""
        weight = told.transpose(0, 2, 1) @ precision
        return cls(
            told=told,
            weight=weight,
            covariance_px2=inverse(np.sum(weight @ told, axis=0)),
        )

    def mean_px(self, scores: Floats) -> Floats:
        """Return the shift that all tell; 0 where they tell nothing."""
        if not np.all(np.isfinite(self.covariance_px2)):
            return np.zeros(2)
        return np.asarray(self.covariance_px2 @ np.einsum("gij,gj->i", self.weight, scores))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the last frames showed of each group.

    Parameters
    ----------
    apart
        Mean of what its score was away from the others', in the unit of scores, shape (n, 2).
    value
        Mean of what it added to the correlation, over that of the reference's scene, (n,).
    frames
        In these means; at most 16 count.
    doubt_px2
        Variance that is added to what it tells, (n,).
    unrest
        Share of the scatter that is added to it.
    """

    apart: Floats
    value: Floats
    frames: int
    doubt_px2: Floats
    unrest: float = 0.0

    @cached_property
    def doubts(self) -> bool:
        """True where groups disagreed by more than noise."""
        return self.unrest > 0 or bool(np.any(self.doubt_px2))

    @classmethod
    def of_nothing(cls, count: int) -> Self:
        """Return the memory of so many groups before a frame was seen."""
        return cls(
            apart=np.zeros((count, 2)),
            value=np.ones(count),
            frames=0,
            doubt_px2=np.zeros(count),
        )

    def begun_anew(self) -> Self:
        """Return what is believed of each group, with all frames forgotten."""
        return replace(self, frames=0)

    def scaled(self, before: Witnesses, after: Witnesses) -> Self:
        """Return the memory in the unit of other witnesses, whose weights are others."""
        ratio = np.trace(after.scatter, axis1=1, axis2=2) / np.trace(
            before.scatter, axis1=1, axis2=2
        )
        known = before.tells & after.tells
        return replace(self, apart=np.where(known[:, None], self.apart * ratio[:, None], 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What all groups tell together.

    Parameters
    ----------
    step_px
        To be added to the shift at which they were asked, (x, y).
    covariance_px2
        Of it, shape (2, 2); infinite where nothing tells.
    memory
        With this frame.
    """

    step_px: Floats
    covariance_px2: Floats
    memory: Memory


def agree(witnesses: Witnesses, memory: Memory, scores: Floats, values: Floats) -> Agreed:
    """Weigh what groups of modes tell of a frame.

    Parameters
    ----------
    scores
        Of each group at a shift, without what the window's place adds, shape (n, 2).
    values
        What each adds to the correlation there, shape (n,).
    """
    kept = min(memory.frames + 1, REMEMBERED)
    value = memory.value + (values / witnesses.expected - memory.value) / kept
    faith = np.minimum(value + witnesses.chance / math.sqrt(kept), 1.0)
    faith[faith < LEAST_FAITH] = 0.0
    faith *= _faded(witnesses, values, value)
    weighed = _weighed(witnesses, memory, faith)
    step = weighed.mean_px(scores)
    apart = memory.apart + (scores - weighed.told @ step - memory.apart) / kept
    unrest, doubt = memory.unrest, memory.doubt_px2
    if kept >= FIRST:
        share = witnesses.from_reference
        unrest, doubt = doubts(apart, (1 - share) / kept + share, witnesses, weighed.told, doubt)
    return Agreed(
        step_px=step,
        covariance_px2=weighed.covariance_px2,
        memory=Memory(
            apart=apart,
            value=value,
            frames=memory.frames + 1,
            doubt_px2=doubt,
            unrest=unrest,
        ),
    )


def _weighed(witnesses: Witnesses, memory: Memory, faith: Floats) -> Weighed:
    """Return the weights of groups that show so much of the reference's scene."""
    if not memory.doubts and np.all(faith[witnesses.tells] == 1.0):
        return witnesses.undoubted
    told = witnesses.told * faith[:, None, None]
    if not memory.doubts:
        return Weighed.of(told, witnesses.precision)
    moved = memory.doubt_px2[:, None, None] * (told @ told.transpose(0, 2, 1))
    return Weighed.of(told, inverse((1 + memory.unrest) * witnesses.scatter + moved))


def _faded(witnesses: Witnesses, values: Floats, value: Floats) -> float:
    """Return how much less of the scene is in a frame than in the last ones; 1 by chance."""
    expected, lately = witnesses.total, float(witnesses.values @ value)
    if expected <= 0 or lately <= 0:
        return 1.0
    now = float(values @ witnesses.tells) + FAITH_SIGMAS * math.sqrt(expected)
    return min(max(now / lately, LEAST_FADED), 1.0)


def doubts(
    apart: Floats, share: float, witnesses: Witnesses, told: Floats, before: Floats
) -> tuple[float, Floats]:
    """Return by how much groups disagree beyond noise.

    Where grains are exchanged for others, those add to each group what noise does, in the
    same proportions; where parts of the scene move, groups are off by pixels. What explains
    the scores with less of a spread is believed.

    Parameters
    ----------
    apart
        Mean scores away from the others, shape (n, 2).
    share
        Of a frame's scatter, that they still have by noise.
    told
        What a shift adds to their scores, shape (n, 2, 2); 0 for those that tell nothing.
    before
        Doubt of the frame before, shape (n,).

    Returns
    -------
    unrest, doubt_px2
        See `Memory`.
    """
    tells = witnesses.tells & (told[:, 0, 0] + told[:, 1, 1] != 0)
    n = np.count_nonzero(tells)
    distance = tells * np.einsum("gi,gij,gj->g", apart, witnesses.precision, apart) / share
    excess = float(np.minimum(distance, BOUND).sum()) - BOUND_MEAN * (n - 1)
    if excess <= math.sqrt(BOUND_VARIANCE * n) and distance.max(initial=0.0) < LARGEST:
        return 0.0, np.zeros(len(apart))
    noise = share * witnesses.scatter
    spread = told @ told.transpose(0, 2, 1)
    seen = apart[tells], noise[tells]
    unrest, as_noise = _explained(*seen, witnesses.scatter[tells])
    common, as_shifts = _explained(*seen, spread[tells])
    if as_noise < as_shifts:
        common, noise = 0.0, noise + unrest * witnesses.scatter
    else:
        unrest = 0.0
    own = _alone(apart, noise, told, spread, np.maximum(common, before))
    return unrest, np.where(tells, np.maximum(common, own), 0.0)


def _explained(apart: Floats, noise: Floats, more: Floats) -> tuple[float, float]:
    """Return how often a covariance is to be added to explain scores, and what spread they have.

    Returns
    -------
    times, spread
        The spread is the logarithm of all determinants.
    """
    each = noise + GRID[:, None, None, None] * more
    bounded = np.minimum(_distances(apart, each), BOUND).sum(axis=1)
    times = _zero_of(bounded - BOUND_MEAN * (len(apart) - 1))
    whole = noise + times * more
    determinant = whole[:, 0, 0] * whole[:, 1, 1] - whole[:, 0, 1] ** 2
    return times, float(np.sum(np.log(np.maximum(determinant, 1e-300))))


def _alone(apart: Floats, noise: Floats, told: Floats, spread: Floats, doubt_px2: Floats) -> Floats:
    """Return the variance by which each group is away from the mean of all others, (n,).

    One that outweighs the others is not near to them because their mean is its own.
    """
    weight = told.transpose(0, 2, 1) @ inverse(noise + doubt_px2[:, None, None] * spread)
    information, pull = weight @ told, weight @ apart[:, :, None]
    others = inverse(information.sum(axis=0) - information)
    # One that is alone contradicts nobody.
    alone = ~np.all(np.isfinite(others), axis=(1, 2))
    others[alone] = 0.0
    away = apart - (told @ (others @ (pull.sum(axis=0) - pull)))[:, :, 0]
    away[alone] = 0.0
    inverted = inverse(noise + told @ others @ told.transpose(0, 2, 1))
    distance = np.einsum("gi,gij,gj->g", away, inverted, away)
    each = np.einsum("gij,gji->g", inverted, spread)
    return np.asarray(np.maximum(distance - 2.0, 0.0) / np.maximum(each, 1e-30))


def _zero_of(excess: Floats) -> float:
    """Return where an excess that falls with the doubt is 0, between those of the grid."""
    below = np.flatnonzero(excess <= 0)
    k = int(below[0]) if len(below) else len(excess) - 1
    if k == 0 or excess[k] > 0:
        return float(GRID[k])
    share = excess[k - 1] / (excess[k - 1] - excess[k])
    return float(GRID[k - 1] + share * (GRID[k] - GRID[k - 1]))


def _distances(apart: Floats, covariance: Floats) -> Floats:
    """Return squared distances in sigmas."""
    return np.asarray(np.einsum("gi,...gij,gj->...g", apart, inverse(covariance), apart))


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of symmetric matrices (..., 2, 2); infinite where there is none."""
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (a * c - b * b)
        found = np.stack([c * scale, -b * scale, -b * scale, a * scale], axis=-1)
    return found.reshape(matrix.shape)
