"""Why images ended a step, in a report: what was seen and foreseen, and what came true."""

import base64
import math
from typing import Any

import numpy as np

from runner.image_rules import DOSE, KIND_OF, ImageRule, ImageRuleError, parse_image_rule
from runner.report_frames import grey_of
from runner.report_numbers import axis_unit, largest, number, numbers, seconds, value_text
from runner.report_tracks import marks_content, valid_column
from runner.view_marks import rule_mark
from session.reader import Event, Session
from session.tables import Table

IMAGE_STOP = "image_stop"
SIDE_PX, QUALITY = 300, 60
BEFORE, AFTER = (10, 4), (3, 15)  # frames shown before and after the one that decided
SHOWN_S = 8.0  # of the quantity, before and after
UNITS = {"length": "m", "speed": "m/s", "area": "m^2", "fraction": "1"}


def stops_content(session: Session, camera: str | None, origin_ns: int) -> list[dict[str, Any]]:
    """Return a card for each stop by an image; see `runner.image_stops.ImageStop.data`."""
    return [
        _stop(session, camera, origin_ns, event)
        for event in session.events()
        if event.kind == IMAGE_STOP
    ]


def _stop(session: Session, camera: str | None, origin_ns: int, event: Event) -> dict[str, Any]:
    data = event.data
    rule = _rule(str(data.get("rule", "")))
    unit = "" if rule is None else _unit(rule)
    foreseen = data.get("prediction")
    told: dict[str, Any] = foreseen if isinstance(foreseen, dict) else {}
    found: dict[str, Any] = {
        "t": (event.t_ns - origin_ns) / 1e9,
        "rule": str(data.get("rule", "")),
        "why": event.message,
        "facts": [
            *_fact(
                "what the image said",
                {"met": "the rule is met"}.get(str(data["watch"])) or f"it is {data['watch']}",
            ),
            *_fact("what followed", _THEN.get(str(data["then"]))),
            *_fact("seen", _text(data, "value", "sigma", unit)),
            *_fact("in frame", str(data["frame"]) if number(data["frame"]) != -1 else None),
            *_fact("age of that frame", _seconds(data.get("age_s"))),
            *_fact("velocity", _text(told, "velocity", "velocity_sigma", _rate(unit))),
            *_fact("looked ahead by", _seconds(told.get("lookahead_s"))),
            *_fact("of it after-flow", _seconds(data.get("after_flow_s"))),
            *_fact("foreseen", _text(told, "value", "sigma", unit)),
        ],
    }
    if rule is None or rule.quantity == DOSE or not session.has(f"tracks/{rule.track}"):
        return found
    table = session.table(f"tracks/{rule.track}")
    if rule.quantity not in table or camera is None:
        return found
    row = _row_of(session, camera, data)
    found["facts"] += _came_true(table, rule, row, told, unit)
    found["chart"] = _chart(table, rule, event, told, row, origin_ns)
    found["strip"] = _strip(session, camera, rule, row, origin_ns)
    return found


_THEN = {
    "next": "the step ended, and the next began",
    "hold": "the plan was held, at rest, until the operator says so",
    "safe": "the run ended in the safe state",
}


def _rule(text: str) -> ImageRule | None:
    try:
        return parse_image_rule(text)
    except ImageRuleError:
        return None


def _unit(rule: ImageRule) -> str:
    return "e/m^2" if rule.quantity == DOSE else UNITS[KIND_OF[rule.quantity]]


def _rate(unit: str) -> str:
    return "m/s" if unit == "m" else f"{'' if unit == '1' else unit}/s"


def _fact(name: str, value: str | None) -> list[dict[str, str]]:
    return [] if value is None else [{"name": name, "value": value}]


def _text(data: Any, value: str, sigma: str, unit: str) -> str | None:
    known = number(data.get(value))
    spread = number(data.get(sigma))
    if known is None:
        return None
    return value_text(known, math.nan if spread is None else spread, unit)


def _seconds(value: object) -> str | None:
    known = number(value, 3)
    return None if known is None else f"{known:.2f} s"


def _row_of(session: Session, camera: str, data: Any) -> int:
    """Return the row of the frame that decided; the last one before where none is named."""
    index = session.frame_table(camera)["index"]
    rows = np.flatnonzero(index <= max(int(str(data["frame"])), int(index[0])))
    return int(rows[-1])


def _came_true(
    table: Table, rule: ImageRule, row: int, told: Any, unit: str
) -> list[dict[str, str]]:
    """Say what the track of the whole recording has where the stop had taken effect."""
    ahead = number(told.get("lookahead_s"))
    if ahead is None:
        return []
    t_ns = np.asarray(table["t_ns"], np.int64)
    value = valid_column(table, rule.quantity)
    later = np.flatnonzero((t_ns >= t_ns[row] + ahead * 1e9) & np.isfinite(value))
    if not len(later):
        return []
    then = int(later[0])
    sigma = table[f"{rule.quantity}_sigma"][then]
    after_s = (t_ns[then] - t_ns[row]) / 1e9
    text = value_text(float(value[then]), float(sigma), unit)
    return _fact("by the whole recording", f"{text}, {after_s:.2f} s after that frame")


def _chart(
    table: Table, rule: ImageRule, event: Event, told: Any, row: int, origin_ns: int
) -> dict[str, Any]:
    t_ns = np.asarray(table["t_ns"], np.int64)
    near = np.abs(t_ns - event.t_ns) <= SHOWN_S * 1e9
    value, sigma = valid_column(table, rule.quantity), table[f"{rule.quantity}_sigma"]
    factor, unit = axis_unit(_unit(rule), max(largest(value[near]), abs(rule.value)))
    ahead, foreseen = number(told.get("lookahead_s")), number(told.get("value"))
    live = [b for b in _list(event.data.get("frames_before")) if number(b.get("value")) is not None]
    return {
        "name": f"{rule.track}.{rule.quantity}",
        "unit": unit,
        "t": seconds(t_ns[near], origin_ns),
        "value": numbers(value[near] / factor, 6),
        "low": numbers((value - sigma)[near] / factor, 6),
        "high": numbers((value + sigma)[near] / factor, 6),
        "limit": rule.value / factor,
        "live_t": [round((int(str(b["t_ns"])) - origin_ns) / 1e9, 4) for b in live],
        "live": [number(float(str(b["value"])) / factor) for b in live],
        "foreseen_t": None if ahead is None else (int(t_ns[row]) - origin_ns) / 1e9 + ahead,
        "foreseen": None if foreseen is None else foreseen / factor,
        "foreseen_sigma": (number(told.get("sigma")) or 0.0) / factor,
    }


def _list(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list | tuple) else []


def _strip(
    session: Session, camera: str, rule: ImageRule, row: int, origin_ns: int
) -> dict[str, Any]:
    """Return frames before and after, with what tracks and the rule draw on them."""
    stack, table = session.frames(camera), session.frame_table(camera)
    wanted = [row - b for b in BEFORE] + [row] + [row + a for a in AFTER]
    rows = sorted({min(max(r, 0), len(stack) - 1) for r in wanted})
    grey = grey_of(stack, side_px=SIDE_PX)
    middle = table["t_start_ns"] + table["exposure_ns"] // 2
    pixel_m = float(str(table.attributes.get("pixel_size", math.nan)))
    return {
        "t": seconds(middle[rows], origin_ns),
        "index": [int(i) for i in table["index"][rows]],
        "decided": rows.index(row),
        "images": [
            f"data:image/jpeg;base64,{base64.b64encode(grey.jpeg(stack[r], QUALITY)).decode()}"
            for r in rows
        ],
        "marks": marks_content(session, camera, rows),
        "rule": [_rule_line(session, camera, rule, r, pixel_m) for r in rows],
    }


def _rule_line(
    session: Session, camera: str, rule: ImageRule, row: int, pixel_m: float
) -> dict[str, float] | None:
    """Return where the rule's line stands in a frame, as ``x`` or ``y`` in px."""
    table = session.table(f"tracks/{rule.track}")
    values = {n: float(table[n][row]) for n in table.columns if table[n].ndim == 1}
    values |= {n: float(v) for n, v in table.attributes.items() if isinstance(v, int | float)}
    if session.has(f"drift/{camera}"):
        drift = session.table(f"drift/{camera}")
        values |= {f"drift_{n}": float(np.nan_to_num(drift[n][row])) for n in ("dx", "dy")}
    return next(rule_mark(rule, values, pixel_m), None)
