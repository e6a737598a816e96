"""What a live view says of tracks, and what it draws of them and of their rules on the frame."""

import math
from collections.abc import Iterator, Mapping, Sequence

from runner.format import with_sigma
from runner.image_rules import DOSE, KIND_OF, ImageRule
from runner.tracking import Found, Seen

Mark = dict[str, object]

_UNITS = {"length": "m", "speed": "m/s"}


def track_lines(seen: Seen | None, rules: Sequence[ImageRule]) -> list[str]:
    """Return a line for each rule of the present step, or each track where it has none."""
    if seen is None:
        return []
    asked = [r for r in rules if r.quantity != DOSE and r.track in seen.tracks]
    if asked:
        return [_line(r.track, r.quantity, seen.tracks[r.track]) for r in asked]
    return [
        f"{name}: {'followed' if found.valid else found.reason}"
        for name, found in seen.tracks.items()
    ]


def _line(track: str, quantity: str, found: Found) -> str:
    if not found.valid:
        return f"{track}: {found.reason}"
    value = found.values.get(quantity, math.nan)
    sigma = found.values.get(f"{quantity}_sigma", math.nan)
    return f"{track}.{quantity} {with_sigma(value, sigma, _UNITS.get(KIND_OF[quantity], ''))}"


def marks(seen: Seen | None, rules: Sequence[ImageRule], pixel_m: float) -> list[Mark]:
    """Return what to draw, in px of the newest frame that was looked at: not of the reference.

    A front, and the place that a rule on its position names, are upright lines (``x_px``); a
    tip is a place (``x_px``, ``y_px``).
    """
    if seen is None:
        return []
    return [mark for found in seen.tracks.values() if found.valid for mark in _seen(found)] + [
        mark
        for rule in rules
        if rule.track in seen.tracks and seen.tracks[rule.track].valid
        for mark in _rule(rule, seen.tracks[rule.track].values, pixel_m)
    ]


def _seen(found: Found) -> Iterator[Mark]:
    values = found.values
    dx, dy = _drift(values)
    if math.isfinite(x_px := values.get("x_front_px", math.nan) - dx):
        yield {"what": "front", "x_px": x_px}
    x_px, y_px = values.get("tip_x_px", math.nan) - dx, values.get("tip_y_px", math.nan) - dy
    if math.isfinite(x_px + y_px):
        yield {"what": "tip", "x_px": x_px, "y_px": y_px}


def _rule(rule: ImageRule, values: Mapping[str, float], pixel_m: float) -> Iterator[Mark]:
    if rule.quantity != "position":
        return
    x_px = values.get("x_interface_px", math.nan) - rule.value / pixel_m - _drift(values)[0]
    if math.isfinite(x_px):
        yield {"what": "rule", "x_px": x_px, "text": rule.text}


def _drift(values: Mapping[str, float]) -> tuple[float, float]:
    return values.get("drift_dx", 0.0), values.get("drift_dy", 0.0)
