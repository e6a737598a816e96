"""The grammar of image rules: an end of a step by what a tracker sees.

``front.position > 400 nm``, ``distance(whisker.tip, cathode.edge) < 200 nm, 3 of 5 frames``,
``dose > 500 e/angstrom^2``. Nothing of it is ever evaluated as a program.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from potentiostat.limits import Action
from runner.quantities import QuantityError, parse, parse_fraction

DOSE = "dose"
TIP_DISTANCE = "tip_distance"
CONFIRM, OF_FRAMES = 2, 3  # unless the rule says so
CONFIDENCE_SIGMAS = 1.645  # 95 %, one side
MOST_FRAMES = 1000
EXAMPLES = "front.position > 400 nm, distance(whisker.tip, cathode.edge) < 200 nm, 3 of 5 frames"

# What a track may be asked for, and which kind of quantity that is.
KIND_OF: Mapping[str, str] = {
    "position": "length",
    "velocity": "speed",
    "width": "length",
    "roughness": "length",
    "length": "length",
    "diameter": "length",
    TIP_DISTANCE: "length",
    "area": "area",
    "area_swept": "area",
    "residual_area": "area",
    "thickness": "length",
    "grain_scale": "length",
    "strain": "fraction",
    "mean_state": "fraction",
    "active_fraction": "fraction",
    "converted_fraction": "fraction",
    "crystalline_fraction": "fraction",
    "diameter_change": "fraction",
    "length_change": "fraction",
    "volume_change": "fraction",
    "level_change": "fraction",
}
_ACTIONS: dict[str, Action] = {"next step": "next", "hold": "hold", "safe state": "safe"}
_NAME = r"[A-Za-z][\w-]*"
_RULE = re.compile(
    rf"\s*(?:(?P<dose>dose)|distance\(\s*(?P<tip>{_NAME})\.tip\s*,\s*(?P<edge>{_NAME})\.edge\s*\)"
    rf"|(?P<track>{_NAME})\.(?P<quantity>{_NAME}))"
    r"\s*(?P<relation>[<>])\s*(?P<value>[^,]*?)"
    r"(?:\s*,\s*(?P<confirm>\d+)\s+of\s+(?P<of>\d+)\s+frames)?"
    r"(?:\s*,\s*then\b\s*(?P<action>.*?))?\s*"
)
_BEYOND_COMPARISON = re.compile(r",\s*(?:\d+\s+of\s|then\b)")
_LOOKS_LIKE = re.compile(r"\s*(?:dose\b|distance\s*\(|[A-Za-z][\w-]*\.[A-Za-z_])")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """One end condition of a step on what a tracker sees.

    Parameters
    ----------
    track
        Its name; empty for the dose.
    quantity
        Column of the track.
    edge
        What a distance is counted to; empty for any other quantity.
    value
        SI.
    confirm, of
        Of so many valid frames, the last ones, how many must meet it.
    action
        ``"next"`` ends the step, ``"hold"`` rests until the operator says so, ``"safe"``
        ends the run: an image may only stop or reduce.
    """

    track: str
    quantity: str
    edge: str = ""
    relation: Literal[">", "<"]
    value: float
    text: str
    confirm: int = CONFIRM
    of: int = OF_FRAMES
    action: Action = "next"

    @property
    def comparison(self) -> str:
        """Its text without the frames that must say so, and without what follows."""
        return _BEYOND_COMPARISON.split(self.text)[0].strip()


class ImageRuleError(ValueError):
    """A rule cannot be understood; says at which place."""


def looks_like_image_rule(text: object) -> bool:
    """Tell whether a text is meant to be a rule on images, right or wrong."""
    return isinstance(text, str) and _LOOKS_LIKE.match(text) is not None


def parse_image_rule(text: str) -> ImageRule:
    """Read one image rule.

    Raises
    ------
    ImageRuleError
        It is none; the message says where and what would do.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise ImageRuleError(f"{text!r} is no rule on images; write for example {EXAMPLES}")
    track, quantity, edge = match["track"] or match["tip"] or "", match["quantity"], ""
    if match["tip"]:
        quantity, edge = TIP_DISTANCE, match["edge"]
    if match["dose"]:
        quantity = DOSE
    elif quantity not in KIND_OF:
        raise ImageRuleError(
            f"{text!r}, column {match.start('quantity') + 1}: a track has no {quantity!r}; "
            f"rules may ask for {', '.join(KIND_OF)}"
        )
    confirm, of = _frames(text, match)
    return ImageRule(
        track=track,
        quantity=quantity,
        edge=edge,
        relation=match["relation"],  # type: ignore[arg-type]
        value=_value(text, match, DOSE if match["dose"] else KIND_OF[quantity]),
        text=" ".join(text.split()),
        confirm=confirm,
        of=of,
        action=_action(text, match),
    )


def _value(text: str, match: re.Match[str], kind: str) -> float:
    try:
        return parse_fraction(match["value"]) if kind == "fraction" else parse(match["value"], kind)
    except QuantityError as error:
        column = match.start("value") + 1
        raise ImageRuleError(f"{text!r}, column {column}: {error}") from error


def _frames(text: str, match: re.Match[str]) -> tuple[int, int]:
    if match["dose"]:
        return 1, 1  # a dose is counted, not seen
    if match["of"] is None:
        return CONFIRM, OF_FRAMES
    confirm, of = int(match["confirm"]), int(match["of"])
    if not 1 <= confirm <= of <= MOST_FRAMES:
        raise ImageRuleError(
            f"{text!r}, column {match.start('confirm') + 1}: {confirm} of {of} frames cannot be; "
            f"write for example {CONFIRM} of {OF_FRAMES} frames, of {MOST_FRAMES} at most"
        )
    return confirm, of


def _action(text: str, match: re.Match[str]) -> Action:
    if match["action"] is None:
        return "next"
    written = " ".join(match["action"].split())
    if written not in _ACTIONS:
        raise ImageRuleError(
            f"{text!r}, column {match.start('action') + 1}: {written!r} cannot follow from an "
            f"image, which may only stop; write {', '.join(f'then {name}' for name in _ACTIONS)}"
        )
    return _ACTIONS[written]
