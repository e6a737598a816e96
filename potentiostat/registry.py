"""Driver names to drivers, through entry points; other distributions may add theirs."""

import difflib
from importlib.metadata import entry_points
from typing import Any

from potentiostat.errors import UnknownInstrument

GROUP = "lamella.potentiostats"


def potentiostat_names() -> tuple[str, ...]:
    """Return the names of all registered drivers, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def potentiostat_class(name: str) -> Any:
    """Return the driver class of a name.

    Raises
    ------
    UnknownInstrument
        No driver is registered under that name.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    known = potentiostat_names()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise UnknownInstrument(f"no potentiostat driver is called {name!r}; {hint}")
