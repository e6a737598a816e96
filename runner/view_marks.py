"""What a live view says of tracks, and what it draws of them and of their rules on the frame."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from runner.format import scientific, with_sigma
from runner.image_rules import DOSE, KIND_OF, TIP_DISTANCE, ImageRule
from runner.track_marks import marks_of
from runner.tracking import Found, Seen

Mark = dict[str, object]

_BRACKETS = re.compile(r"\(.*\)")
_UNITS = {"length": "m", "speed": "m/s"}


def track_lines(seen: Seen | None, rules: Sequence[ImageRule]) -> list[str]:
    """Return a line for each rule of the present step, or each track where it has none."""
    if seen is None:
        return []
    asked = [r for r in rules if r.quantity != DOSE and r.track in seen.tracks]
    if asked:
        return list(dict.fromkeys(_line(r.track, r.quantity, seen.tracks[r.track]) for r in asked))
    return [
        f"{name}: {'followed' if found.valid else found.reason}"
        for name, found in seen.tracks.items()
    ]


def _line(track: str, quantity: str, found: Found) -> str:
    if not found.valid:
        return f"{track}: {found.reason}"
    value = found.values.get(quantity, math.nan)
    sigma = found.values.get(f"{quantity}_sigma", math.nan)
    kind = KIND_OF[quantity]
    if kind == "area":  # a prefix would be squared
        return f"{track}.{quantity} {scientific(value, sigma)} m²"
    return f"{track}.{quantity} {with_sigma(value, sigma, _UNITS.get(kind, '')).strip()}"


def marks(seen: Seen | None, rules: Sequence[ImageRule], pixel_m: float) -> list[Mark]:
    """Return what to draw, in px of the newest frame that was looked at: not of the reference.

    ``x_px`` alone is an upright line, ``y_px`` alone a level one, both are a place. ``what``
    is ``"seen"`` for what moves, ``"edge"`` for what holds for the whole track, and ``"rule"``
    for where a rule on a position or on a distance draws its line.
    """
    if seen is None:
        return []
    found = [f for f in seen.tracks.values() if f.valid]
    return [mark for f in found for mark in _seen(f)] + [
        mark
        for rule in rules
        if rule.track in seen.tracks and seen.tracks[rule.track].valid
        for mark in _rule(rule, seen.tracks[rule.track].values, pixel_m)
    ]


def _seen(found: Found) -> Iterator[Mark]:
    values = found.values
    for mark in marks_of(values):
        at = {
            f"{axis}_px": values[name] - values.get(f"drift_d{axis}", 0.0)
            for axis, name in (("x", mark.x), ("y", mark.y))
            if name
        }
        if all(math.isfinite(place) for place in at.values()):
            stands = (mark.x or mark.y) in found.attributes
            yield {"what": "edge" if stands else "seen", "thing": mark.thing, **at}


def _rule(rule: ImageRule, values: Mapping[str, float], pixel_m: float) -> Iterator[Mark]:
    text = _BRACKETS.sub("", rule.comparison)  # between what: the picture shows it
    for at in rule_mark(rule, values, pixel_m):
        yield {"what": "rule", **{f"{axis}_px": place for axis, place in at.items()}, "text": text}


def rule_mark(
    rule: ImageRule, values: Mapping[str, float], pixel_m: float
) -> Iterator[dict[str, float]]:
    """Yield where a rule draws its line in a frame, as ``x`` or ``y`` in px of that frame.

    Parameters
    ----------
    values
        Columns, attributes and drift, as `runner.tracking.Found` has them.
    """
    for axis in "xy":
        place = _rule_place(rule, values, axis, rule.value / pixel_m)
        if math.isfinite(at := place - values.get(f"drift_d{axis}", 0.0)):
            yield {axis: at}


def _rule_place(rule: ImageRule, values: Mapping[str, float], axis: str, value_px: float) -> float:
    """Return where a rule's line stands along an axis, in the reference; NaN where nowhere."""
    if rule.quantity == TIP_DISTANCE:
        edge_px = values.get(f"target_{axis}_px", math.nan)
        return edge_px + math.copysign(value_px, values.get(f"tip_{axis}_px", math.nan) - edge_px)
    if rule.quantity != "position":
        return math.nan
    if axis == "x" and "x_interface_px" in values:  # a front's depth counts from there, leftwards
        return values["x_interface_px"] - value_px
    return value_px if f"interface_{axis}_px" in values else math.nan
