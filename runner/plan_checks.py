"""What a plan's own words ask of the run: times of day, and what is stored."""

from collections.abc import Iterator
from datetime import datetime

from runner.experiment import Experiment
from runner.findings import Finding, Severity, ok
from runner.format import in_unit
from runner.steps import LONGEST_WAIT_S
from runner.waiting import seconds_until


def waits(experiment: Experiment, now: datetime) -> Iterator[Finding]:
    """See that times of day are still to come.

    Parameters
    ----------
    now
        With a zone.
    """
    for i, step in enumerate(experiment.steps):
        if step.wait is None or step.wait.trigger != "time":
            continue
        left_s = seconds_until(step.wait.until, now)
        fits = 0 < left_s <= LONGEST_WAIT_S
        yield Finding(
            severity=Severity.OK if fits else Severity.REFUSE,
            what=f"step {i + 1}: wait until {step.wait.until}",
            arithmetic=f"{left_s:.0f} s from now; it must be 0 to {LONGEST_WAIT_S:.0f} s ahead",
            key=("step", i),
        )


def stored(experiment: Experiment) -> Iterator[Finding]:
    """See that the readings that are stored still tell what each frame saw."""
    camera = experiment.camera
    for i, step in enumerate(experiment.steps):
        record, what = step.record, f"step {i + 1}: readings that are stored"
        if record is None:
            continue
        if camera is None:
            yield ok(what, "thinned; limits and charge see all of them")
            continue
        frame_s = 1 / camera.frame_rate_Hz
        frames = f"a frame comes each {in_unit(frame_s, 's')}"
        if record.average_s > 0:
            fits = record.average_s <= frame_s
            yield Finding(
                severity=Severity.OK if fits else Severity.REFUSE,
                what=what,
                arithmetic=f"means over {in_unit(record.average_s, 's')}, and {frames}"
                + ("" if fits else ": several frames would get one mean as if it were their own"),
                key=("step", i, "average"),
            )
            continue
        often = any(c.quantity == "t" and c.more_than <= frame_s for c in record.changes)
        yield Finding(
            severity=Severity.OK if often else Severity.WARN,
            what=what,
            arithmetic=frames
            + (
                ""
                if often
                else "; a frame without a stored reading has no mean voltage and current (its "
                f'charge stays true): add "dt > {frame_s / 2:.3g} s" where each frame needs them'
            ),
            key=("step", i, "record"),
        )
