"""Camera names to drivers, through entry points; other distributions may add theirs."""

import difflib
from importlib.metadata import entry_points
from typing import Any

from cameras.errors import UnknownCamera

GROUP = "lamella.cameras"


def camera_names() -> tuple[str, ...]:
    """Return the names of all registered cameras, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def camera_class(name: str) -> Any:
    """Return the camera class of a name.

    Raises
    ------
    UnknownCamera
        No camera is registered under that name.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    known = camera_names()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise UnknownCamera(f"no camera driver is called {name!r}; {hint}")
