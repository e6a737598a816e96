"""Tracker names to trackers, through entry points; other distributions may add theirs."""

import difflib
from importlib.metadata import entry_points
from typing import Any

from correlate.trackers.protocol import Options

GROUP = "lamella.trackers"
# Looked up once: what is installed is on disk, and an experiment may be read on an event loop.
_REGISTERED = {entry.name: entry for entry in entry_points(group=GROUP)}


class UnknownTracker(ValueError):
    """There is no tracker of that name."""


def tracker_names() -> tuple[str, ...]:
    """Return the names of all registered trackers, sorted."""
    return tuple(sorted(_REGISTERED))


def tracker_class(name: str) -> Any:
    """Return the tracker class of a name.

    Raises
    ------
    UnknownTracker
        No tracker is registered under that name.
    """
    if (entry := _REGISTERED.get(name)) is None:
        raise UnknownTracker(why_unknown(name))
    return entry.load()


def tracker_options(name: str) -> Options:
    """Return what a tracker may be told; nothing for most.

    Raises
    ------
    UnknownTracker
        No tracker is registered under that name.
    """
    options: Options = getattr(tracker_class(name), "options", {})
    return options


def why_unknown(name: str) -> str:
    """Say that no tracker has a name, and which one may be meant; empty for one that is there."""
    known = tracker_names()
    if name in known:
        return ""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"no tracker is called {name!r}; {hint}"
