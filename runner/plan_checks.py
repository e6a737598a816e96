"""What a plan's own words ask of the run: times of day, and what is stored."""

from collections.abc import Iterator
from datetime import datetime

from correlate.gitt_guard import LONGEST_SHARE, SHORTEST_REST
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


def titrations(experiment: Experiment) -> Iterator[Finding]:
    """See for which diffusivities the formula of a titration can hold at all.

    A pulse is short against L2/D, and a rest long: of both together only the ratio is known
    beforehand, and the window of diffusivities in which both are.
    """
    square_m2 = experiment.cell.working_thickness_m**2
    for i, step in enumerate(experiment.steps):
        if step.name != "gitt":
            continue
        pulse_s = max(s.longest_s for s in step.segments if s.current_A)
        rest_s = min(s.longest_s for s in step.segments if not s.current_A)
        largest = LONGEST_SHARE * square_m2 / pulse_s  # m2/s, for a pulse that is short
        smallest = SHORTEST_REST * square_m2 / rest_s  # for a rest that is long
        fits = smallest <= largest
        what = f"step {i + 1}: pulse and rest of the titration"
        pulse = f"a pulse of {pulse_s:g} s is {LONGEST_SHARE:g} L2/D up to D = {largest:.2g} m2/s"
        rest = f"a rest of {rest_s:g} s is {SHORTEST_REST:g} L2/D from D = {smallest:.2g} m2/s on"
        advice = (
            ": between these the formula can hold"
            if fits
            else ": no D is between these, so no pulse will be valid by the formula; rest for "
            f"{pulse_s * SHORTEST_REST / LONGEST_SHARE:g} s or longer, or shorten the pulse"
        )
        yield Finding(
            severity=Severity.OK if fits else Severity.WARN,
            what=what,
            arithmetic=f"{pulse}, {rest}{advice}",
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
