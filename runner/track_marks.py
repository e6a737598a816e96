"""Where on a frame a track may be drawn, as the names of its columns and attributes tell.

A tracker needs nothing else to be drawn in the live view, the report and the movie:

- ``<thing>_x_px`` and ``<thing>_y_px`` together are a place;
- one of them alone is a line through the whole frame, upright for x, level for y;
- ``x_<thing>_px`` (a front's own) and ``x_px_<number>`` (of particles) mean the same;
- ``area_px_<number>`` makes of a place a circle of that area, and ``state_<number>`` tints it.

All in pixels of the reference: the drift brings them onto a frame. Columns move and are
what was seen; attributes hold for the whole track, such as an electrode's edge.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_THING = re.compile(
    r"(?P<thing>[A-Za-z]\w*?)_(?P<axis>[xy])_px"
    r"|(?P<axis2>[xy])_px_(?P<number>\d+)"
    r"|(?P<axis3>[xy])_(?P<thing3>[A-Za-z]\w*?)_px"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A line or a place, by the names of the numbers that say where it is.

    Parameters
    ----------
    thing
        What it is called, such as ``"front"`` or ``"tip"``.
    x, y
        Names of columns or attributes in px; an empty one makes a line.
    sigma
        Name of its standard uncertainty along x, or along y for a level line; may be empty.
    area, state
        Names of what makes a place a circle, and of what tints it; may be empty.
    """

    thing: str
    x: str = ""
    y: str = ""
    sigma: str = ""
    area: str = ""
    state: str = ""


def marks_of(names: Iterable[str]) -> tuple[Mark, ...]:
    """Return what a track with these columns and attributes draws, in their order."""
    known = list(names)
    found: dict[str, dict[str, str]] = {}
    for name in known:
        match = _THING.fullmatch(name)
        if match is None or "sigma" in name:
            continue
        thing = match["thing"] or match["number"] or match["thing3"]
        axis = match["axis"] or match["axis2"] or match["axis3"]
        found.setdefault(thing, {})[axis] = name
    return tuple(
        Mark(
            thing=thing,
            x=axes.get("x", ""),
            y=axes.get("y", ""),
            sigma=_sigma_of(axes.get("x", "") or axes["y"], known),
            area=_known(f"area_px_{thing}", known),
            state=_known(f"state_{thing}", known),
        )
        for thing, axes in found.items()
    )


def _sigma_of(name: str, known: list[str]) -> str:
    return _known(f"{name}_sigma", known) or _known(f"{name.removesuffix('_px')}_sigma_px", known)


def _known(name: str, known: list[str]) -> str:
    return name if name in known else ""
