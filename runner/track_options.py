"""What a tracker is told beside its name: read by the tracker's own list of options."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from correlate.registry import tracker_options, why_unknown
from correlate.trackers.protocol import Option
from runner.config import TrackTable
from runner.problems import Key
from runner.quantities import QuantityError, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSettings:
    """One tracker, the name of its track, and what the tracker is told, in SI units."""

    name: str
    tracker: str
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options of one tracker, as they were given.

    Parameters
    ----------
    values
        By name, lengths in m.
    problems
        What is wrong, by name.
    """

    values: Mapping[str, float | str]
    problems: Mapping[str, str]


def read_options(tracker: str, given: Mapping[str, object]) -> ReadOptions:
    """Read what a tracker is told.

    Parameters
    ----------
    tracker
        Registered name; with nothing given, its module is not loaded.
    given
        Values as they are written in an experiment file.

    Raises
    ------
    UnknownTracker
        There is no such tracker, and something is given.
    """
    if not given:
        return ReadOptions(values={}, problems={})
    known = tracker_options(tracker)
    values: dict[str, float | str] = {}
    problems: dict[str, str] = {}
    for name, raw in given.items():
        if name not in known:
            problems[name] = _not_known(tracker, name, tuple(known))
            continue
        try:
            values[name] = _read(known[name], raw)
        except ValueError as error:
            problems[name] = str(error)
    return ReadOptions(values=values, problems=problems)


def read_pairs(tracker: str, pairs: Sequence[str]) -> Mapping[str, float | str]:
    """Read options as they are written on a command line, ``key=value`` each.

    Raises
    ------
    UnknownTracker
        There is no such tracker.
    QuantityError
        A pair is none, or is not what the tracker may be told.
    """
    given: dict[str, object] = {}
    known = tracker_options(tracker)
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not (name and equals and text):
            raise QuantityError(f"{pair!r} is no option; write key=value, such as min_size=20nm")
        is_number = name in known and known[name].kind == "number"
        given[name] = _bare(text) if is_number else text
    found = read_options(tracker, given)
    if found.problems:
        raise QuantityError("; ".join(f"{name}: {what}" for name, what in found.problems.items()))
    return found.values


def check_tracks(tracks: Sequence[TrackTable]) -> list[tuple[Key, str]]:
    """Say which trackers are not there, and what they cannot be told."""
    found: list[tuple[Key, str]] = []
    for number, track in enumerate(tracks):
        if why := why_unknown(track.tracker):
            found.append((("track", number, "tracker"), why))
            continue
        options = read_options(track.tracker, track.model_extra or {})
        found += [(("track", number, name), what) for name, what in options.problems.items()]
    return found


def _not_known(tracker: str, name: str, known: Sequence[str]) -> str:
    if not known:
        return f"is not known here; the tracker {tracker} takes name and tracker alone"
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"{tracker} takes {', '.join(known)}"
    return f"is not known here; {hint}"


def _read(option: Option, raw: object) -> float | str:
    match option.kind:
        case "length":
            length_m = parse(raw, "length")
            if length_m < 0:
                raise QuantityError(f"{raw!r} is less than nothing; 20 nm would do")
            return length_m
        case "number":
            if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
                raise QuantityError(f"{raw!r} is no plain number, such as {_example(option)}")
            return float(raw)
        case "word":
            if raw not in option.words:
                near = difflib.get_close_matches(str(raw), option.words, 1)
                hint = f"did you mean {near[0]!r}?" if near else ""
                words = ", ".join(option.words)
                raise QuantityError(f"{raw!r} is none of {words}{'; ' if hint else ''}{hint}")
            return str(raw)


def _example(option: Option) -> str:
    default = float(option.default)
    return f"{default:g}" if math.isfinite(default) else "3"


def _bare(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
