"""What goes wrong with a simulated film: each fault begins at a time that a test chooses."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFaults:
    """Faults, and when they begin, from the beginning of the world; infinite for never.

    Parameters
    ----------
    silent_after_s
        No more frames are sent.
    frozen_after_s
        The same picture is sent again and again, with new stamps.
    late_after_s, late_by_s
        Frames are sent so long after they were taken.
    hidden_after_s, hidden_for_s
        For so long no object is to be seen: as many electrons, each anywhere.
    jump_after_s, jump_m
        The stage jumps along x.
    """

    silent_after_s: float = math.inf
    frozen_after_s: float = math.inf
    late_after_s: float = math.inf
    late_by_s: float = 2.0
    hidden_after_s: float = math.inf
    hidden_for_s: float = math.inf
    jump_after_s: float = math.inf
    jump_m: float = 300e-9

    def moved_m(self, t_s: float) -> float:
        """Return by how much the stage has jumped."""
        return self.jump_m if t_s >= self.jump_after_s else 0.0

    def held_back_ns(self, t_s: float) -> int:
        """Return how long a frame of this time is held back."""
        return round(self.late_by_s * 1e9) if t_s >= self.late_after_s else 0


class FaultyFilm:
    """Makes of a picture what the camera sends.

    Parameters
    ----------
    seed
        Of where electrons fall when no object is to be seen.
    """

    def __init__(self, faults: FilmFaults, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._last: NDArray[np.uint8] | None = None

    def sent(self, index: int, t_s: float, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return what is sent of a frame of this time; None for nothing."""
        faults = self._faults
        if t_s >= faults.silent_after_s:
            return None
        if t_s >= faults.frozen_after_s and self._last is not None:
            return self._last
        if 0 <= t_s - faults.hidden_after_s < faults.hidden_for_s:
            rng = np.random.default_rng([self._seed, 8, index])
            pixels = rng.permutation(pixels.ravel()).reshape(pixels.shape)
        self._last = pixels
        return pixels
