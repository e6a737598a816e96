"""The grammar of what a step keeps: by how much its current is reduced for what a tracker sees.

``whisker.velocity < 20 nm/s``, ``density(wire.diameter) < 2 mA/cm^2``: the current of the step
is what it never exceeds, and less of it flows where more would go beyond the value.
"""

import re
from dataclasses import dataclass

from runner.quantities import QuantityError, parse

LEAST_SHARE = 0.1  # of the step's current, unless the step says what least it is reduced to
VELOCITY = "velocity"
ACROSS = ("diameter", "area")  # of which a current density is one: round, or as large as seen
EXAMPLES = "whisker.velocity < 20 nm/s, density(whisker.diameter) < 2 mA/cm^2"
_NAME = r"[A-Za-z][\w-]*"
_RULE = re.compile(
    rf"\s*(?:density\(\s*(?P<of>{_NAME})\.(?P<across>{_NAME})\s*\)"
    rf"|(?P<track>{_NAME})\.(?P<quantity>{_NAME}))\s*<\s*(?P<value>.*?)\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRule:
    """What is kept below a value, by less current.

    Parameters
    ----------
    track
        Its name.
    quantity
        Column of the track: ``velocity``, or that across which the current is dense.
    value
        SI: m/s, or A/m^2.
    """

    track: str
    quantity: str
    value: float
    text: str

    @property
    def is_density(self) -> bool:
        """True where the current is divided by an area."""
        return self.quantity != VELOCITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """All that a step keeps, and the least share of its current to which that may reduce it."""

    rules: tuple[KeepRule, ...] = ()
    least_share: float = LEAST_SHARE


class KeepRuleError(ValueError):
    """It cannot be understood; says at which place."""


def parse_keep_rule(text: object) -> KeepRule:
    """Read one rule of what a step keeps.

    Raises
    ------
    KeepRuleError
        It is none; the message says where and what would do.
    """
    match = _RULE.fullmatch(text) if isinstance(text, str) else None
    if match is None or not isinstance(text, str):
        raise KeepRuleError(
            f"{text!r} is nothing that a step can keep; write for example {EXAMPLES}"
        )
    is_density = match["across"] is not None
    quantity = match["across"] if is_density else match["quantity"]
    place = match.start("across" if is_density else "quantity")
    if quantity not in (ACROSS if is_density else (VELOCITY,)):
        hint = f"density(...{quantity})" if quantity in ACROSS else EXAMPLES
        raise KeepRuleError(
            f"{text!r}, column {place + 1}: {quantity!r} cannot be kept by less current; "
            f"write for example {hint}"
        )
    try:
        value = parse(match["value"], "current_density" if is_density else "speed")
    except QuantityError as error:
        raise KeepRuleError(f"{text!r}, column {match.start('value') + 1}: {error}") from error
    if not value > 0:
        raise KeepRuleError(
            f"{text!r}, column {match.start('value') + 1}: must be more than nothing; a step is "
            "ended by a rule in until"
        )
    return KeepRule(
        track=match["of"] or match["track"],
        quantity=quantity,
        value=value,
        text=" ".join(text.split()),
    )
