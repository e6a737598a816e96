"""The grammar of ``until``: one comparison of one quantity with one value."""

import re

from potentiostat.limits import Condition, Quantity
from runner.quantities import QuantityError, parse

_KIND_OF: dict[Quantity, str] = {
    "V": "voltage",
    "I": "current",
    "Q": "charge",
    "t": "time",
}
_EXAMPLES = "V > 4.2 V, I < 1 pA, Q > 3 nC or t > 120 s"
_RULE = re.compile(r"\s*(?P<name>[A-Za-z_][\w.(),\s]*?)\s*(?P<relation>[<>]=?|==?)\s*(?P<value>.*)")


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
    )


def _unknown(text: str, name: str, column: int) -> str:
    if "." in name or "(" in name or name == "dose":
        return (
            f"{text!r}, column {column}: rules on what the images show are not part of "
            f"this version; a step ends on {_EXAMPLES}"
        )
    near = {"v": "V", "i": "I", "q": "Q", "T": "t"}.get(name)
    hint = f"did you mean {near}?" if near else f"write for example {_EXAMPLES}"
    return f"{text!r}, column {column}: {name!r} is not known; {hint}"
