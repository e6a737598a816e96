"""Names to drivers, through entry points; other distributions may add theirs."""

import difflib
from importlib.metadata import entry_points
from typing import Any

from cameras.errors import UnknownCamera

GROUP = "lamella.cameras"


def camera_names() -> tuple[str, ...]:
    """Return the names of all registered cameras, sorted."""
    return registered_names(GROUP)


def camera_class(name: str) -> Any:
    """Return the camera class of a name.

    Raises
    ------
    UnknownCamera
        No camera is registered under that name.
    """
    found, hint = registered(GROUP, name)
    if found is None:
        raise UnknownCamera(f"no camera driver is called {name!r}; {hint}")
    return found


def registered_names(group: str) -> tuple[str, ...]:
    """Return all names of a group of entry points, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def registered(group: str, name: str) -> tuple[Any, str]:
    """Return what is registered under a name, or None and what to say of it."""
    for entry in entry_points(group=group):
        if entry.name == name:
            return entry.load(), ""
    known = registered_names(group)
    near = difflib.get_close_matches(name, known, 1)
    return None, f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
