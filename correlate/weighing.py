"""How much each mode of a frame counts in a registration, and what its groups can tell.

A mode is weighted by what it can tell, ``S / (S (N1 + N2) + N1 N2)`` for a scene of power S in
two noises (the maximum-likelihood processor of Hannan and Thomson, 1973).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.mode_groups import ModeGroups
from correlate.modes import Modes, Power, Powers, Spectrum
from correlate.scene_power import scene_power
from correlate.sensor import Parts
from correlate.witnesses import inverse

SEEN_SIGMAS = 3.0  # a mean power that noise alone would not make


@dataclass(frozen=True, slots=True)
class Reference:
    """What frames are registered onto: modes of averaged frames, and where they stood."""

    modes: Spectrum
    turns: Spectrum | None  # mean phases of the detector in the reference; 1 where None
    level: float
    count: int = 1

    def with_frame(self, spectrum: Spectrum, turn: Spectrum, still: Spectrum) -> "Reference":
        """Return the mean of this and one frame more.

        Parameters
        ----------
        turn, still
            Phases that bring the frame onto the reference, and those of no shift.
        """
        turned = times(spectrum, turn)
        return Reference(
            _mean(self.modes, turned, self.count),
            _mean(self.turns or still, turn, self.count),
            self.level,
            self.count + 1,
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each mode counts, and what comes of it.

    Parameters
    ----------
    weight
        Of each mode.
    expected
        Correlation of a perfect copy.
    pattern
        Cross-power of the detector's own pattern, for turns of 1.
    bright
        See `Modes.brightness`.
    information, scatter
        Of each group, what a shift adds to its score and the score's covariance by noise, as
        the modes of the reference tell it, shape (n, 2, 2).
    values
        What each group adds to ``expected``, (n,).
    covariance_px2
        Of a shift, as the smooth power of the scene tells it, (2, 2); NaN where there is none.
    level, count
        Brightness of the frame, and frames in the reference, for which all this holds.
    """

    weight: Powers
    expected: float
    pattern: Powers
    bright: NDArray[np.float64]
    information: NDArray[np.float64]
    scatter: NDArray[np.float64]
    values: NDArray[np.float64]
    covariance_px2: NDArray[np.float64]
    level: float
    count: int


class Weighing:
    """What weights follow from: the modes that are looked at, noise, and pattern.

    Parameters
    ----------
    modes
        That are looked at.
    noise, shared
        Variances of a frame like the reference, and what of them is the detector's pattern.
    """

    def __init__(self, modes: Modes, noise: Parts, shared: Parts) -> None:
        self._modes, self._noise, self._shared = modes, noise, shared
        self.groups = ModeGroups(modes)

    def weigh(
        self,
        reference: Reference,
        level: float,
        first: Power | None,
        bright: NDArray[np.float64],
    ) -> Weights:
        """Return the weights for a frame as bright as told.

        Parameters
        ----------
        first
            A frame in sums over ``bin_px``, that tells where it is bright.
        bright
            What is taken where there is no such frame.
        """
        noise = self.powers(self._noise, level, reference)
        weight: list[Power] = []
        told: list[Power] = []
        for scene, n in zip(self.scene(reference), noise, strict=True):
            own = n / reference.count
            w = scene / np.maximum(own * n + scene * (own + n), np.float32(1e-30))
            weight.append(np.asarray(w, dtype=np.float32))
            told.append(weight[-1] * scene)
        weights: Powers = (weight[0], weight[1], weight[2])
        smooth: Powers = (told[0], told[1], told[2])
        if first is not None:
            bright = self._modes.brightness(first, times(reference.modes, weights))
        # Neighbouring modes tell the same, so noise counts more than in independent ones.
        crowd = self._modes.crowding
        uneven = np.array(crowd)[:, None] * bright
        groups = self.groups
        plain = groups.information(smooth).sum(axis=0)
        scattered = groups.information(smooth, uneven).sum(axis=0)
        raw, scatter = self._raw(reference, weights, noise)
        values = groups.total(raw)
        raw, scatter = self._raw(reference, weights, noise)
        values = groups.total(raw)
        pattern = self.powers(self._shared, level, reference)
        return Weights(
            weight=weights,
            expected=max(float(values.sum()), 0.0),
            pattern=times_powers(weights, pattern),
            bright=bright,
            information=groups.information(raw),
            scatter=groups.information(scatter, uneven),
            values=values,
            covariance_px2=_covariance(plain, scattered),
            level=level,
            count=reference.count,
        )

    def powers(self, variances: Parts, level: float, reference: Reference) -> Powers:
        """Return noise powers of a frame as bright as told: variances go with the mean."""
        scale = level / reference.level if level > 0 and reference.level > 0 else 1.0
        flat, columns, rows = self._modes.noise(variances * scale)
        return np.float32(flat) * np.ones((1, 1), np.float32), columns, rows

    def scene(self, reference: Reference, sigmas: float = SEEN_SIGMAS) -> Powers:
        """Return the power of the scene in each mode, smooth, as the reference tells it."""
        powers, scatter = self._of_scene(reference)
        return scene_power(powers, scatter, sigmas)

    def _of_scene(self, reference: Reference) -> tuple[Powers, Powers]:
        """Return the power of each mode less that of noise and pattern, and those."""
        noise = self.powers(self._noise - self._shared, reference.level, reference)
        pattern = self.powers(self._shared, reference.level, reference)
        powers: list[Power] = []
        scatter: list[Power] = []
        for k, modes in enumerate(reference.modes):
            turned = 1.0 if reference.turns is None else np.abs(reference.turns[k]) ** 2
            own = noise[k] / np.float32(reference.count) + pattern[k] * turned
            powers.append(np.asarray(np.abs(modes) ** 2 - own, dtype=np.float32))
            scatter.append(own)
        return (powers[0], powers[1], powers[2]), (scatter[0], scatter[1], scatter[2])

    def _raw(self, reference: Reference, weights: Powers, noise: Powers) -> tuple[Powers, Powers]:
        """Return what each mode tells, and what noise adds to its square, unsmoothed.

        A crystal's peak is far above the smooth power of its surroundings.
        """
        powers, _ = self._of_scene(reference)
        told: list[Power] = []
        scatter: list[Power] = []
        for w, power, n in zip(weights, powers, noise, strict=True):
            own = n / reference.count
            told.append(w * power)
            scattered = w**2 * ((n + own) * np.maximum(power, 0) + n * own)
            scatter.append(np.asarray(scattered, dtype=np.float32))
        return (told[0], told[1], told[2]), (scatter[0], scatter[1], scatter[2])


def times(modes: Spectrum, factors: Powers | Spectrum) -> Spectrum:
    """Return modes, each times a factor."""
    a, b, c = (np.asarray(m * f, np.complex64) for m, f in zip(modes, factors, strict=True))
    return a, b, c


def times_powers(powers: Powers, factors: Powers) -> Powers:
    """Return powers, each times a factor."""
    a, b, c = (p * f for p, f in zip(powers, factors, strict=True))
    return a, b, c


def _mean(before: Spectrum, added: Spectrum, n: int) -> Spectrum:
    """Return the mean of n spectra and one more."""
    old, new = np.float32(n / (n + 1)), np.float32(1 / (n + 1))
    a, b, c = (x * old + y * new for x, y in zip(before, added, strict=True))
    return a, b, c


def _covariance(
    information: NDArray[np.float64], scatter: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the covariance ``H^-1 G H^-1`` of the estimator."""
    if not np.all(np.isfinite(information)) or np.linalg.det(information) <= 0:
        return np.full((2, 2), np.nan)
    inverted = inverse(information)
    return np.asarray(inverted @ scatter @ inverted)
