"""What of the frames is stored and how: the table ``[record]`` of an experiment file."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.limits import Condition, Seen
from runner.config import ExperimentTable
from runner.findings import Finding, Severity, ok
from runner.format import in_unit
from runner.problems import Key
from runner.rules import RuleError, parse_rule
from session.capture import frames_held
from session.records import Capture
from session.ring import HOLDING_BYTES

KINDS = (
    "step_started",
    "segment_ended",
    "step_ended",
    "made_safe",
    "gap",
    "frame_fault",
    "beam_blank",
    "image_stop",
    "moderated",
)
RULE_KIND = "capture"
_OF_A_READING = ("V", "I", "|I|")
_KEYS = ("before", "after", "idle_rate")

_Found = list[tuple[Key, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """How frames are stored.

    Parameters
    ----------
    compression
        A word of `session.codecs.Compression`.
    capture
        Where not all frames are stored; None for all.
    rules
        On single readings, each of which makes an event of kind ``RULE_KIND``.
    """

    compression: str = "none"
    capture: Capture | None = None
    rules: tuple[Condition, ...] = ()


def record_settings(tables: ExperimentTable) -> RecordSettings:
    """Return how frames are stored."""
    table = tables.record
    if table is None:
        return RecordSettings()
    rules = tuple(rule for rule in map(_rule, table.on) if isinstance(rule, Condition))
    kinds = tuple(kind for kind in table.on if kind in KINDS)
    capture = None
    if table.before is not None and table.after is not None and table.idle_rate is not None:
        capture = Capture(
            before_s=table.before,
            after_s=table.after,
            idle_rate_Hz=table.idle_rate,
            kinds=(*kinds, *([RULE_KIND] if rules else [])),
        )
    return RecordSettings(compression=table.compression, capture=capture, rules=rules)


def _rule(text: str) -> Condition | str:
    """Return the rule that a text of ``on`` is, or what is wrong with it; empty for a kind."""
    if text in KINDS:
        return ""
    try:
        rule = parse_rule(text)
    except RuleError as error:
        return f"{text!r} is no event ({', '.join(KINDS)}) and no rule: {error}"
    if not isinstance(rule, Condition) or rule.quantity not in _OF_A_READING:
        return f"{text!r}: a rule here is on {', '.join(_OF_A_READING)}, such as '|I| > 50 pA'"
    if rule.action != "next" or rule.confirm != 1:
        return f"{text!r}: nothing can follow here; it stores frames"
    return rule


def check_record(tables: ExperimentTable) -> _Found:
    """Return what is wrong with the table."""
    table = tables.record
    if table is None:
        return []
    if tables.camera is None or tables.camera.driver == "node":
        return [(("record",), "is about frames that come here, and none do; leave it out")]
    found: _Found = [
        (("record", "on"), wrong)
        for wrong in map(_rule, table.on)
        if isinstance(wrong, str) and wrong
    ]
    named = [key for key in _KEYS if getattr(table, key) is not None]
    if not named and not table.on:
        return found
    found += [
        (("record", key), "is missing; before, after, idle_rate and on go together")
        for key in _KEYS
        if key not in named
    ]
    if not table.on:
        found.append((("record", "on"), "is missing; it names the events"))
    for key in named:
        if getattr(table, key) < 0:
            found.append((("record", key), "cannot be negative"))
    if table.idle_rate is not None and table.idle_rate >= tables.camera.frame_rate:
        found.append((("record", "idle_rate"), "is no less than the camera's frame_rate"))
    if tables.blanker is not None:
        found.append((("record",), "leaves frames out, and [blanker] needs them all"))
    return found


def held_frames(settings: RecordSettings, frame_rate_Hz: float, frame_bytes: int) -> Finding | None:
    """Say what memory the frames before an event take.

    Parameters
    ----------
    frame_bytes
        0 where it is known only once the camera has answered.
    """
    if settings.capture is None:
        return None
    before_s, held = settings.capture.before_s, frames_held(settings.capture, frame_rate_Hz)
    what, key = "memory for frames before an event", ("record", "before")
    arithmetic = f"{before_s:g} s x {frame_rate_Hz:g} Hz: {held} frames"
    most = HOLDING_BYTES / (held + 16)
    if not frame_bytes:
        return ok(what, f"{arithmetic}, each at most {in_unit(most, 'B', 3)}")
    arithmetic += f" of {in_unit(frame_bytes, 'B', 3)} = {in_unit(held * frame_bytes, 'B', 3)}"
    fits = frame_bytes <= most
    return Finding(
        severity=Severity.OK if fits else Severity.REFUSE,
        what=what,
        arithmetic=arithmetic
        + f"; {in_unit(HOLDING_BYTES, 'B', 3)} may be held"
        + ("" if fits else ": a shorter time, a lower frame rate or smaller frames will do"),
        key=key,
    )


class Watch:
    """Looks for readings at which frames are to be stored: once when a rule begins to hold."""

    def __init__(self, rules: tuple[Condition, ...]) -> None:
        self._rules = rules
        self._holds = [False] * len(rules)

    def look(self, rows: NDArray[np.void]) -> Iterator[tuple[int, str]]:
        """Yield when, and which rule; rows of ``SESSION_SAMPLE_DTYPE``, shape (n,)."""
        for row in rows if self._rules else ():
            seen = Seen(
                voltage_V=float(row["voltage"]),
                current_A=float(row["current"]),
                charge_C=0.0,
                elapsed_s=0.0,
            )
            for number, rule in enumerate(self._rules):
                held, self._holds[number] = self._holds[number], rule.met(seen)
                if self._holds[number] and not held:
                    yield int(row["t_ns"]), rule.text
