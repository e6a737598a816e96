"""What a step that waits at rest waits for: a time of day, a frame, or the operator."""

from dataclasses import replace
from datetime import datetime

from potentiostat.segments import Step
from potentiostat.technique import after

SHORTEST_S = 1e-3


def seconds_until(moment: str, now: datetime) -> float:
    """Return the time until a moment; negative when it is past.

    Parameters
    ----------
    moment
        ISO 8601; local time where it names no zone.
    now
        With a zone.
    """
    return (datetime.fromisoformat(moment).astimezone() - now).total_seconds()


def with_known_end(step: Step, now: datetime) -> Step:
    """Return a step that waits for a time of day, with the time that is left."""
    if step.wait is None or step.wait.trigger != "time":
        return step
    left_s = max(seconds_until(step.wait.until, now), SHORTEST_S)
    until = replace(after(left_s), text=f"it is {step.wait.until}")
    return replace(step, until=(*step.until, until))


class Waiting:
    """The trigger that the present step waits for; it is told what happens."""

    def __init__(self) -> None:
        self._trigger = ""

    def begin(self, step: Step) -> None:
        """Note that a step has begun."""
        self._trigger = "" if step.wait is None else step.wait.trigger

    @property
    def for_operator(self) -> bool:
        """True while only the operator's word is waited for."""
        return self._trigger == "operator"

    def came(self, trigger: str) -> str | None:
        """Take a trigger; return why the step ends now, or None."""
        if trigger != self._trigger:
            return None
        self._trigger = ""
        return "a frame has come" if trigger == "frame" else "the operator went on"
