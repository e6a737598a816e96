"""Looks whether the rules on images of an experiment name what there is."""

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from correlate.registry import UnknownTracker, tracker_class
from potentiostat.calibration import LARGEST_STRAY_F
from runner.config import MOCK
from runner.findings import Finding, Severity
from runner.format import in_unit
from runner.image_rules import CONFIDENCE_SIGMAS, DOSE, ImageRule

if TYPE_CHECKING:
    from runner.config import ExperimentTable, TrackTable
    from runner.experiment import Experiment

Key = tuple[str | int, ...]


def check_image_rules(tables: "ExperimentTable") -> list[tuple[Key, str]]:
    """Return what is wrong with the rules on images of all steps."""
    return [
        (("step", i, "until", j), f"{rule.text!r}: {what}")
        for i, step in enumerate(tables.step)
        for j, rule in enumerate(step.until)
        if isinstance(rule, ImageRule)
        for what in _wrong(rule, tables)
    ]


def _wrong(rule: ImageRule, tables: "ExperimentTable") -> Iterator[str]:
    if tables.camera is None:
        yield "there is no camera; add a [camera]"
        return
    if rule.quantity == DOSE:
        return
    names = {track.name: track for track in tables.track}
    wrong = missing_track(rule.track, names) or untold_quantity(rule.quantity, names[rule.track])
    if wrong:
        yield wrong


def missing_track(name: str, names: "Mapping[str, TrackTable]") -> str:
    """Return what is wrong where no track has a name; empty where one has."""
    if name in names:
        return ""
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names) or 'none'}"
    return f"no [[track]] is called {name!r}; {hint}"


def untold_quantity(quantity: str, track: "TrackTable") -> str:
    """Return what is wrong where a tracker does not tell a quantity; empty where it does."""
    try:
        known = getattr(tracker_class(track.tracker), "quantities", None)
    except UnknownTracker:
        return ""  # said of the track itself
    if known is None or quantity in known:
        return ""
    return f"the tracker {track.tracker!r} does not tell {quantity}; it tells {', '.join(known)}"


def image_findings(experiment: "Experiment") -> Iterator[Finding]:
    """Say by which images a run may end a step, and refuse those that cannot be followed."""
    trackers = {track.name: track.tracker for track in experiment.tracks}
    potentiostat = experiment.potentiostat
    followed = [rule for rules in experiment.image_rules for rule in rules if rule.track]
    if followed and potentiostat.calibration is None and potentiostat.resource != MOCK:
        yield Finding(
            severity=Severity.WARN,
            what="stops by images",
            arithmetic="the stray capacitance of the holder is not known: what it feeds into the "
            f"cell after a stop is taken for that of {in_unit(LARGEST_STRAY_F, 'F')}, so stops "
            "come early; name a calibration under [potentiostat]",
            key=("potentiostat", "calibration"),
        )
    for i, rules in enumerate(experiment.image_rules):
        for rule in rules:
            why = not_followed(rule.track, trackers, experiment)
            yield Finding(
                severity=Severity.REFUSE if why else Severity.OK,
                what=f"step {i + 1}: {rule.text}",
                arithmetic=why or _how(rule),
                key=("step", i, "until"),
            )


def not_followed(track: str, trackers: Mapping[str, str], experiment: "Experiment") -> str:
    """Return why a run cannot follow a track, or the dose where it is empty, by images."""
    if experiment.camera is not None and experiment.camera.is_node:
        return (
            "what a camera node sees comes too late to stop by; take it out, or have the camera "
            "on this computer"
        )
    if track and not hasattr(tracker_class(trackers[track]), "begin"):
        return f"the tracker {trackers[track]!r} needs all frames of a recording"
    return ""


def _how(rule: ImageRule) -> str:
    if rule.quantity == DOSE:
        return f"{_THEN[rule.action]}; counted at the end of each exposure"
    return (
        f"{_THEN[rule.action]}, once {rule.confirm} of {rule.of} frames foresee it within "
        f"{CONFIDENCE_SIGMAS:g} sigma"
    )


_THEN = {"next": "goes to the next step", "hold": "rests and asks", "safe": "ends the run"}
