"""The grammar of ``until`` and ``record``: one comparison of one quantity with one value."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from potentiostat.limits import SLOPE_WINDOW_S, Action, Condition, Quantity
from potentiostat.segments import Change
from runner.quantities import QuantityError, parse, parse_fraction

_KIND_OF: dict[Quantity, str] = {
    "V": "voltage",
    "I": "current",
    "|I|": "current",
    "Q": "charge",
    "|Q|": "charge",
    "Q_ionic": "charge",
    "|Q_ionic|": "charge",
    "Q_half": "charge",
    "|Q_half|": "charge",
    "Q_run": "charge",
    "t": "time",
    "dV/dt": "scan_rate",
    "|dV/dt|": "scan_rate",
    "dI/dt": "current_rate",
    "|dI/dt|": "current_rate",
    "T": "temperature",
}
_EXAMPLES = "V > 4.2 V, |I| < 1 pA, Q > 3 nC, |dV/dt| < 1 mV/h over 60 s, T > 320 K or t > 120 s"
_RULE = re.compile(
    r"\s*(?P<name>[A-Za-z_|][\w.(),\s|/]*?)\s*(?P<relation>[<>]=?|==?)\s*(?P<value>.*?)"
    r"(?:\s+over\s+(?P<window>[^,]+?))?(?:\s*,\s*(?P<times>\S+)\s+times)?"
    r"(?:\s*,\s*then\b\s*(?P<action>.*?))?\s*"
)
_ACTIONS: dict[str, Action] = {"next step": "next", "hold": "hold", "safe state": "safe"}
_GO_TO = re.compile(r"go to (?P<label>[A-Za-z][\w-]*)(?: up to (?P<most>\S+) times?)?")
MOST_CONFIRMS = 1000
MOST_JUMPS = 1000

OfCell = Literal["dx", "dSoC", "x", "SoC"]
_OF_CELL: dict[str, OfCell] = {"dx": "dx", "dSoC": "dSoC", "x": "x", "SoC": "SoC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRule:
    """A rule in shares of the cell's own charge, which the rule alone does not know.

    Parameters
    ----------
    condition
        On a charge, whose value is still the share.
    """

    quantity: OfCell
    condition: Condition

    def of_cell(
        self, *, capacity_C: float, soc: float, charge_per_x_C: float, x0: float
    ) -> Condition:
        """Return the condition on the instrument's charge; NaN where the cell is not known."""
        share, relation = self.condition.value, self.condition.relation
        match self.quantity:
            case "dx":
                return replace(self.condition, quantity="|Q|", value=share * charge_per_x_C)
            case "dSoC":
                return replace(self.condition, quantity="|Q|", value=share * capacity_C)
            case "SoC":
                value = (share - soc) * capacity_C
                return replace(self.condition, quantity="Q_run", value=value)
            case "x":  # falls while the cell is charged
                return replace(
                    self.condition,
                    quantity="Q_run",
                    value=(x0 - share) * charge_per_x_C,
                    relation="<" if relation == ">" else ">",
                )


class RuleError(ValueError):
    """A rule cannot be understood; says at which place."""


def parse_rule(text: object) -> Condition | CellRule:
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
    if name not in _KIND_OF and name not in _OF_CELL:
        raise RuleError(_unknown(text, name, match.start("name") + 1))
    quantity: Quantity = "Q_run" if name in _OF_CELL else name  # type: ignore[assignment]
    try:
        value = (
            parse_fraction(match["value"])
            if name in _OF_CELL
            else parse(match["value"], _KIND_OF[quantity])
        )
    except QuantityError as error:
        column = match.start("value") + 1
        hint = "; did you mean t?" if name == "T" and _is_time(match["value"]) else ""
        raise RuleError(f"{text!r}, column {column}: {error}{hint}") from error
    action, goto, most = _action(text, match)
    condition = Condition(
        quantity=quantity,
        relation=relation,  # type: ignore[arg-type]
        value=value,
        text=" ".join(text.split()),
        confirm=_times(text, match),
        window_s=_window_s(text, match, is_slope="/dt" in name),
        action=action,
        goto=goto,
        goto_most=most,
    )
    return CellRule(quantity=_OF_CELL[name], condition=condition) if name in _OF_CELL else condition


def _is_time(value: str) -> bool:
    try:
        parse(value, "time")
    except QuantityError:
        return False
    return True


def _action(text: str, match: re.Match[str]) -> tuple[Action, str, int]:
    """Return what follows, the label that it goes to, and how many times at most."""
    if match["action"] is None:
        return "next", "", 0
    written = " ".join(match["action"].split())
    if written in _ACTIONS:
        return _ACTIONS[written], "", 0
    column = match.start("action") + 1
    jump = _GO_TO.fullmatch(written)
    if jump is None:
        raise RuleError(
            f"{text!r}, column {column}: {written!r} is nothing that can follow; write "
            f"{', '.join(f'then {name}' for name in _ACTIONS)} or then go to NAME up to 5 times"
        )
    most = jump["most"]
    if most is None:
        return "goto", jump["label"], 0
    if not most.isdecimal() or not 1 <= int(most) <= MOST_JUMPS:
        raise RuleError(
            f"{text!r}, column {column}: {most!r} times cannot be; write 1 to {MOST_JUMPS}"
        )
    return "goto", jump["label"], int(most)


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


_CHANGE = re.compile(r"\s*d(?P<name>[EVIQt])\s*>\s*(?P<value>.*?)\s*")
_CHANGE_KINDS = {"E": "voltage", "V": "voltage", "I": "current", "Q": "charge", "t": "time"}
_CHANGE_EXAMPLES = "dE > 1 mV, dI > 1 pA, dQ > 1 pC or dt > 1 s"


def parse_change(text: object) -> Change:
    """Read one rule of what is stored, such as ``"dE > 1 mV"``.

    Raises
    ------
    RuleError
        It is none.
    """
    match = _CHANGE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise RuleError(f"{text!r} is no rule of what is stored; write {_CHANGE_EXAMPLES}")
    try:
        value = parse(match["value"], _CHANGE_KINDS[match["name"]])
    except QuantityError as error:
        raise RuleError(f"{text!r}, column {match.start('value') + 1}: {error}") from error
    if value <= 0:
        raise RuleError(f"{text!r}: the change must be more than nothing")
    name: Literal["V", "I", "Q", "t"] = "V" if match["name"] == "E" else match["name"]  # type: ignore[assignment]
    return Change(quantity=name, more_than=value)


def _unknown(text: str, name: str, column: int) -> str:
    if "." in name or "(" in name or name == "dose":
        return (
            f"{text!r}, column {column}: rules on what the images show have no place "
            f"here; write for example {_EXAMPLES}"
        )
    near = {"v": "V", "i": "I", "q": "Q"}.get(name)
    hint = f"did you mean {near}?" if near else f"write for example {_EXAMPLES}"
    return f"{text!r}, column {column}: {name!r} is not known; {hint}"
