"""What a look at an experiment finds: one thing each, with its arithmetic."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    severity: Severity
    what: str
    arithmetic: str
    key: tuple[str | int, ...] = ()


def ok(what: str, arithmetic: str) -> Finding:
    """Return a finding that stands in no way."""
    return Finding(severity=Severity.OK, what=what, arithmetic=arithmetic)


def at_least(ratio: float, *, warn: float, refuse: float) -> Severity:
    """Return how much it matters that a ratio is small."""
    if ratio < refuse:
        return Severity.REFUSE
    return Severity.WARN if ratio < warn else Severity.OK
