"""Looks whether what steps keep by less current names what there is, and can be kept."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner.findings import Finding, Severity
from runner.format import in_unit
from runner.image_checks import missing_track, not_followed, untold_quantity
from runner.image_rules import CONFIDENCE_SIGMAS

if TYPE_CHECKING:
    from runner.config import ExperimentTable
    from runner.config_steps import StepTable
    from runner.experiment import Experiment
    from runner.problems import Key
    from runner.steps import CellTerms

EXAMPLE = 'cp = { current = "20 pA" }'


def check_keep_rules(tables: "ExperimentTable", cell: "CellTerms") -> list[tuple["Key", str]]:
    """Return what is wrong with what steps keep."""
    found: list[tuple[Key, str]] = []
    names = {track.name: track for track in tables.track}
    for i, step in enumerate(tables.step):
        found += [((*("step", i), key), what) for key, what in _wrong_step(step, cell)]
        for j, rule in enumerate(step.keep):
            if tables.camera is None:
                what = "there is no camera; add a [camera]"
            else:
                what = missing_track(rule.track, names) or untold_quantity(
                    rule.quantity, names[rule.track]
                )
            if what:
                found.append((("step", i, "keep", j), f"{rule.text!r}: {what}"))
    return found


def _wrong_step(step: "StepTable", cell: "CellTerms") -> Iterator[tuple[str, str]]:
    if step.keep and step.cp is None:
        yield "keep", f"belongs to a step that holds one current, {EXAMPLE}"
        return
    if step.least is not None and not step.keep:
        yield "least", 'belongs to a step with keep = ["front.velocity < 20 nm/s"]'
        return
    if step.cp is None or not step.keep:
        return
    if step.cp.current.versus != "zero":
        yield "keep", f"needs a current that is known beforehand, {EXAMPLE}"
        return
    current_A = abs(cell.amperes(step.cp.current))
    if step.least is not None and not 0 < step.least < current_A:
        yield (
            "least",
            f"is {in_unit(step.least, 'A')}; more than nothing and less than the step's "
            f"{in_unit(current_A, 'A')} will do",
        )


def keep_findings(experiment: "Experiment") -> Iterator[Finding]:
    """Say what steps keep by less current, and refuse what cannot be followed."""
    trackers = {track.name: track.tracker for track in experiment.tracks}
    for i, (keep, step) in enumerate(zip(experiment.keeps, experiment.steps, strict=True)):
        for rule in keep.rules:
            why = not_followed(rule.track, trackers, experiment)
            least_A = keep.least_share * step.current_A
            yield Finding(
                severity=Severity.REFUSE if why else Severity.OK,
                what=f"step {i + 1}: keeps {rule.text}",
                arithmetic=why
                or f"begins with {in_unit(least_A, 'A')}, and gives up to "
                f"{in_unit(step.current_A, 'A')} where that keeps it within "
                f"{CONFIDENCE_SIGMAS:g} sigma",
                key=("step", i, "keep"),
            )
