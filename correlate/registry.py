"""Tracker names to trackers, through entry points; other distributions may add theirs."""

import difflib
from importlib.metadata import entry_points
from typing import Any

GROUP = "lamella.trackers"


class UnknownTracker(ValueError):
    """There is no tracker of that name."""


def tracker_names() -> tuple[str, ...]:
    """Return the names of all registered trackers, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def tracker_class(name: str) -> Any:
    """Return the tracker class of a name.

    Raises
    ------
    UnknownTracker
        No tracker is registered under that name.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    known = tracker_names()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise UnknownTracker(f"no tracker is called {name!r}; {hint}")
