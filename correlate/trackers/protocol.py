"""The contract of every tracker: a stack of frames in, one row for each frame out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Frames = Callable[[], Iterable[NDArray[np.generic]]]
"""Starts a fresh pass over the frames, in order; a tracker may make several."""


class CannotTrack(ValueError):
    """The frames do not hold what the tracker looks for; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a tracker may be told in an experiment file, beside its name.

    Parameters
    ----------
    kind
        A length in m, a plain number, or one of some words.
    default
        What holds where nothing is given, in SI units; NaN for what the tracker finds itself.
    words
        Those that a word may be.
    about
        What it is, in a line.
    """

    kind: Literal["length", "number", "word"]
    default: float | str
    words: tuple[str, ...] = ()
    about: str = ""


Options = Mapping[str, Option]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    """What is known of the scene before looking at it.

    Parameters
    ----------
    shape
        Height and width of a frame in px.
    pixel_size_m
        Edge of a pixel in the specimen; NaN where unknown.
    film_thickness_m
        Thickness of the working film across the stack; NaN where unknown.
    depth_m
        Thickness of the specimen along the beam; NaN where unknown.
    options
        What the tracker was told, by name, in SI units.
    """

    shape: tuple[int, int]
    pixel_size_m: float = float("nan")
    film_thickness_m: float = float("nan")
    depth_m: float = float("nan")
    options: Mapping[str, float | str] = field(default_factory=dict)

    def number(self, name: str, known: Options) -> float:
        """Return what was given for an option that is a length or a number, or its default."""
        return float(self.options.get(name, known[name].default))

    def word(self, name: str, known: Options) -> str:
        """Return what was given for an option that is a word, or its default."""
        return str(self.options.get(name, known[name].default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What a tracker found; every column has one row for each frame.

    Parameters
    ----------
    columns
        Quantities by name, each with its ``_sigma``; NaN where not valid.
    units
        Of the columns.
    valid
        Whether the frame could be used.
    reasons
        Why frames were not valid, with their counts.
    attributes
        What belongs to the whole track.
    drift
        Columns of the drift that the tracker used.
    """

    columns: Mapping[str, NDArray[np.float64]]
    units: Mapping[str, str]
    valid: NDArray[np.bool_]
    reasons: Mapping[str, int]
    attributes: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class Tracker(Protocol):
    """Finds one thing in every frame.

    A class that can be told more has ``options``, a mapping of names to `Option`.

    Attributes
    ----------
    quantities
        Columns that a rule may ask for.
    """

    quantities: tuple[str, ...]

    def __init__(self, settings: SceneSettings) -> None:
        """Take what is known of the scene."""
        ...

    def track(self, frames: Frames) -> Track:
        """Go through all frames.

        Raises
        ------
        CannotTrack
            The frames do not hold what the tracker looks for.
        """
        ...


class Following(Protocol):
    """Goes on with what a tracker has learned."""

    def track(self, frames: Frames) -> Track:
        """Go through more frames, each once, and return their rows."""
        ...


@runtime_checkable
class LiveTracker(Protocol):
    """A tracker that can go on from frame to frame, without starting again."""

    def begin(self, frames: Frames) -> Following:
        """Learn from first frames.

        Raises
        ------
        CannotTrack
            The frames do not hold what the tracker looks for.
        """
        ...
