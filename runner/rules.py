"""The grammar of ``until``: one comparison of one quantity with one value."""

import re

from potentiostat.limits import SLOPE_WINDOW_S, Action, Condition, Quantity
from runner.quantities import QuantityError, parse

_KIND_OF: dict[Quantity, str] = {
    "V": "voltage",
    "I": "current",
    "|I|": "current",
    "Q": "charge",
    "Q_ionic": "charge",
    "t": "time",
    "dV/dt": "scan_rate",
    "|dV/dt|": "scan_rate",
    "dI/dt": "current_rate",
    "|dI/dt|": "current_rate",
}
_EXAMPLES = "V > 4.2 V, |I| < 1 pA, Q > 3 nC, |dV/dt| < 1 mV/h over 60 s or t > 120 s"
_RULE = re.compile(
    r"\s*(?P<name>[A-Za-z_|][\w.(),\s|/]*?)\s*(?P<relation>[<>]=?|==?)\s*(?P<value>.*?)"
    r"(?:\s+over\s+(?P<window>[^,]+?))?(?:\s*,\s*(?P<times>\S+)\s+times)?"
    r"(?:\s*,\s*then\b\s*(?P<action>.*?))?\s*"
)
_ACTIONS: dict[str, Action] = {"next step": "next", "hold": "hold", "safe state": "safe"}
MOST_CONFIRMS = 1000


class RuleError(ValueError):
    """A rule cannot be understood; says at which place."""


def parse_rule(text: object) -> Condition:
    """Read one end condition, such as ``"V > 4.2 V"``.

    Raises
    ------
    RuleError
        It is none; the message says where and what would do.
    """
    if not isinstance(text, str):
        raise RuleError(f"{text!r} is no rule; write for example {_EXAMPLES}")
    match = _RULE.fullmatch(text)
    if match is None:
        raise RuleError(f"{text!r} is no rule; write for example {_EXAMPLES}")
    name, relation = match["name"].strip(), match["relation"]
    if relation not in ("<", ">"):
        raise RuleError(
            f"{text!r}, column {match.start('relation') + 1}: a rule compares with > or <"
        )
    if name not in _KIND_OF:
        raise RuleError(_unknown(text, name, match.start("name") + 1))
    try:
        value = parse(match["value"], _KIND_OF[name])
    except QuantityError as error:
        column = match.start("value") + 1
        raise RuleError(f"{text!r}, column {column}: {error}") from error
    return Condition(
        quantity=name,
        relation=relation,  # type: ignore[arg-type]
        value=value,
        text=" ".join(text.split()),
        confirm=_times(text, match),
        window_s=_window_s(text, match, is_slope="d" in name),
        action=_action(text, match),
    )


def _action(text: str, match: re.Match[str]) -> Action:
    written = match["action"]
    if written is None:
        return "next"
    known = _ACTIONS.get(" ".join(written.split()))
    if known is None:
        raise RuleError(
            f"{text!r}, column {match.start('action') + 1}: {written!r} is nothing that can "
            f"follow; write {', '.join(f'then {name}' for name in _ACTIONS)}"
        )
    return known


def _times(text: str, match: re.Match[str]) -> int:
    times = match["times"]
    if times is None:
        return 1
    if not times.isdecimal() or not 1 <= int(times) <= MOST_CONFIRMS:
        column = match.start("times") + 1
        raise RuleError(
            f"{text!r}, column {column}: {times!r} times cannot be; write for example "
            "V > 4.2 V, 3 times"
        )
    return int(times)


def _window_s(text: str, match: re.Match[str], *, is_slope: bool) -> float:
    if match["window"] is None:
        return SLOPE_WINDOW_S
    column = match.start("window") + 1
    if not is_slope:
        raise RuleError(
            f"{text!r}, column {column}: only a slope is taken over a time; leave it out, or "
            "write for example V > 4.2 V, 3 times"
        )
    try:
        window_s = parse(match["window"], "time")
    except QuantityError as error:
        raise RuleError(f"{text!r}, column {column}: {error}") from error
    if window_s <= 0:
        raise RuleError(f"{text!r}, column {column}: the time must be more than nothing")
    return window_s


def _unknown(text: str, name: str, column: int) -> str:
    if "." in name or "(" in name or name == "dose":
        return (
            f"{text!r}, column {column}: rules on what the images show are not part of "
            f"this version; a step ends on {_EXAMPLES}"
        )
    near = {"v": "V", "i": "I", "q": "Q", "T": "t"}.get(name)
    hint = f"did you mean {near}?" if near else f"write for example {_EXAMPLES}"
    return f"{text!r}, column {column}: {name!r} is not known; {hint}"
