"""How well the clocks are known, and whether a queue ever was full, in a report."""

import math
from typing import Any

import numpy as np

from runner.format import in_unit
from runner.report_numbers import axis_unit, largest, number, numbers, seconds
from runner.summary import RunSummary
from session.reader import ClockFitRow, Session

POINTS = 1500
_COUNTERS = ("written", "dropped", "unused", "waits", "tracked", "left_out")


def clocks_content(session: Session, summary: RunSummary, origin_ns: int) -> dict[str, Any]:
    """Return each clock's fit with what its exchanges leave, and what else told of it."""
    said = [f"coded beam: {code.verdict}" for code in summary.codes]
    if summary.edges is not None:
        said.append(f"edges of trigger lines: {summary.edges.verdict}")
    return {
        "clocks": [_clock(session, name, origin_ns) for name in session.clocks],
        "frames": _frame_times(session, origin_ns),
        "said": said,
    }


def _clock(session: Session, name: str, origin_ns: int) -> dict[str, Any]:
    fits = session.clock_fits(name)
    exchanges = session.clock_exchanges(name) if session.has(f"clocks/{name}/exchanges") else None
    found: dict[str, Any] = {"name": name, "rows": [_row(fit) for fit in fits]}
    if exchanges is None or not len(exchanges) or not fits:
        return found
    host = (exchanges["t0_ns"] + exchanges["t3_ns"]) // 2
    device = (exchanges["t1_ns"] + exchanges["t2_ns"]) // 2
    trip = (exchanges["t3_ns"] - exchanges["t0_ns"]) - (exchanges["t2_ns"] - exchanges["t1_ns"])
    left_ns = np.full(len(host), math.nan)
    for fit in fits:
        inside = (device >= fit.valid_from_ns) & (device <= fit.valid_to_ns)
        since = (device - fit.reference_device_ns).astype(np.float64)
        fitted = fit.rate * since + float(fit.reference_host_ns - origin_ns)
        left_ns[inside] = ((host - origin_ns).astype(np.float64) - fitted)[inside]
    rows = np.flatnonzero(np.isfinite(left_ns))
    rows = rows[:: max(1, math.ceil(len(rows) / POINTS))]
    if not len(rows):
        return found
    left_s, half_s = left_ns[rows] / 1e9, np.maximum(trip[rows], 0) / 2e9
    factor, unit = axis_unit("s", largest(left_s))
    return found | {
        "t": seconds(host[rows], origin_ns),
        "left": numbers(left_s / factor, 5),
        "low": numbers((left_s - half_s) / factor, 5),
        "high": numbers((left_s + half_s) / factor, 5),
        "unit": unit,
    }


def _row(fit: ClockFitRow) -> dict[str, str]:
    return {
        "from": f"{(fit.valid_to_ns - fit.valid_from_ns) / 1e9:.0f} s of its time",
        "exchanges": str(fit.count or "-"),
        "rate": f"{fit.rate:.9f} ± {fit.rate_sigma:.1e}",
        "offset": f"± {in_unit(fit.offset_sigma_ns / 1e9, 's', 3)}",
        "bound": f"± {in_unit(fit.bound_ns / 1e9, 's', 3)}",
    }


def _frame_times(session: Session, origin_ns: int) -> dict[str, Any] | None:
    """Return 1 sigma of the frames' times, and where frames were lost."""
    camera = next((c for c in session.cameras if len(session.frame_table(c))), None)
    if camera is None:
        return None
    table = session.frame_table(camera)
    sigma_s = np.asarray(table["t_sigma_ns"], np.float64) / 1e9
    if not np.any(np.isfinite(sigma_s)):
        return None
    rows = np.arange(len(sigma_s))[:: max(1, math.ceil(len(sigma_s) / POINTS))]
    factor, unit = axis_unit("s", largest(sigma_s))
    return {
        "t": seconds(table["t_start_ns"][rows], origin_ns),
        "sigma": numbers(sigma_s[rows] / factor, 5),
        "unit": unit,
    }


def queues_content(session: Session) -> list[dict[str, str]]:
    """Return the counters of each bounded queue, in words."""
    if not session.has("queues"):
        return []
    found = []
    for name in session.queues:
        known = session.attributes(f"queues/{name}")
        most = known.get("high_water")
        slots = known.get("slots")
        room = "" if slots is None else f" of {slots}"
        counts = [f"{known[c]} {c.replace('_', ' ')}" for c in _COUNTERS if number(known.get(c))]
        if (slowest_us := number(known.get("slowest_us"))) is not None:
            counts.append(f"{in_unit(slowest_us / 1e6, 's', 3)} for the slowest frame")
        found.append(
            {
                "name": name,
                "counts": ", ".join(counts) or "nothing passed",
                "most": "" if most is None else f"{most}{room}",
            }
        )
    return found
