"""Looks over how an experiment's readings come: in blocks, and with the camera's exposures.

While a block is read nobody judges it: what a block costs is the time in which a limit is
passed and nothing is done.
"""

import math
from collections.abc import Iterator

from potentiostat.blocks import EDGE_REPLY_S, EDGE_WAIT_S, refuse_unknown_block
from potentiostat.errors import UnsafeRequest
from potentiostat.protocol import Potentiostat, TriggerLines
from potentiostat.technique import Step
from runner.budget import READ_OVERHEAD_S, TYPICAL_STRAY_F
from runner.experiment import Experiment
from runner.findings import Finding, Severity
from runner.format import in_unit
from runner.messages import LEASE_S

LONGEST_BLOCK_S = LEASE_S / 2


def block_s(experiment: Experiment) -> float:
    """Return how long a block of readings takes, once it has begun."""
    potentiostat = experiment.potentiostat
    each_s = 2 * potentiostat.nplc / potentiostat.line_frequency_Hz + READ_OVERHEAD_S
    return potentiostat.block * each_s


def reading_s(experiment: Experiment) -> float:
    """Return the time from one set-point to the next, where each block may have its own."""
    camera = experiment.camera
    if experiment.potentiostat.lines.exposure_in is None or camera is None:
        return block_s(experiment)
    # Each begins with an exposure: the next one that begins after the last block's end.
    period_s = 1 / camera.frame_rate_Hz
    return math.ceil(block_s(experiment) / period_s) * period_s


def check_blocks(experiment: Experiment, driver: type[Potentiostat]) -> Iterator[Finding]:
    """Yield what is to be said of the block and of the trigger lines."""
    unknown = list(_unknown(experiment, driver))
    yield from unknown
    if unknown:
        return
    yield from _exposures(experiment)
    if experiment.potentiostat.block > 1 or experiment.potentiostat.lines.exposure_in is not None:
        yield _reaction(experiment)
    if experiment.potentiostat.block == 1:
        return
    for index, step in enumerate(experiment.steps):
        yield from _moved(experiment, index, step)
        yield from _without_contact(experiment, index, step)


def _unknown(experiment: Experiment, driver: type[Potentiostat]) -> Iterator[Finding]:
    """Ask for one thing after the other, so that each is named at its own key."""
    potentiostat = experiment.potentiostat
    lines = potentiostat.lines
    for key, block, asked in (
        ("block", potentiostat.block, TriggerLines()),
        ("exposure_line", 1, TriggerLines(exposure_in=lines.exposure_in)),
        ("mark_line", 1, lines),
    ):
        if key == "mark_line" and lines.mark_out is None:
            continue
        try:
            refuse_unknown_block(
                driver.model,
                block=block,
                largest=driver.largest_block,
                lines=asked,
                known=driver.trigger_lines,
            )
        except UnsafeRequest as error:
            yield Finding(
                severity=Severity.REFUSE,
                what=key.replace("_", " "),
                arithmetic=str(error),
                key=("potentiostat", key),
            )
            return


def _exposures(experiment: Experiment) -> Iterator[Finding]:
    line, camera = experiment.potentiostat.lines.exposure_in, experiment.camera
    if line is None or camera is None:
        return
    period_s = 1 / camera.frame_rate_Hz
    slow = period_s > EDGE_WAIT_S
    every = round(reading_s(experiment) / period_s)
    yield Finding(
        severity=Severity.REFUSE if slow else Severity.OK,
        what="readings begin with exposures",
        arithmetic=f"an exposure each {in_unit(period_s, 's')}, and its edge is awaited for "
        f"{in_unit(EDGE_WAIT_S, 's')} at most; "
        + (
            f"at least {1 / EDGE_WAIT_S:g} Hz are needed"
            if slow
            else f"{in_unit(block_s(experiment), 's')} of reading: {_ordinal(every)} exposure "
            f"begins one, on line {line}"
        ),
        key=("potentiostat", "exposure_line"),
    )


def _ordinal(every: int) -> str:
    return "each" if every == 1 else f"one of {every}"


def _reaction(experiment: Experiment) -> Finding:
    """Tell what blocks and edges cost: the time until somebody looks at a reading."""
    potentiostat = experiment.potentiostat
    each_s = block_s(experiment) / potentiostat.block
    asked = f"{potentiostat.block} x {in_unit(each_s, 's')}"
    if potentiostat.lines.exposure_in is None:
        blind_s, most_s, times = block_s(experiment), LONGEST_BLOCK_S, 1
        arithmetic = f"{asked} = {in_unit(blind_s, 's')}"
        most = f"{in_unit(most_s, 's')}, half the lease,"
    else:
        # Nobody knows whether the edge has come until the block could have followed it.
        wait_s = EDGE_WAIT_S + EDGE_REPLY_S
        blind_s, most_s, times = wait_s + 2 * block_s(experiment), LEASE_S, 2
        arithmetic = (
            f"{in_unit(wait_s, 's')} for an edge that does not come + 2 x {asked} = "
            f"{in_unit(blind_s, 's')}"
        )
        most = f"{in_unit(most_s, 's')}, the lease,"
    refused = blind_s > most_s * (1 + 1e-9)
    left_s = most_s - (blind_s - times * block_s(experiment))
    return Finding(
        severity=Severity.REFUSE if refused else Severity.OK,
        what="longest time from a limit that is passed to the safe state",
        arithmetic=f"{arithmetic}; {most} is the most"
        + (
            f": a block of {math.floor(left_s / times / each_s)} at {potentiostat.nplc:g} NPLC"
            if refused
            else ""
        ),
        key=("potentiostat", "block"),
    )


def _moved(experiment: Experiment, index: int, step: Step) -> Iterator[Finding]:
    """Refuse a block in a step whose set-point moves: it stands still within a block."""
    longest_s = block_s(experiment)
    ramps = [segment.ramp for segment in step.segments if segment.ramp is not None]
    sines = next((s.sines for s in step.segments if s.sines is not None), None)
    if ramps:
        fastest = max(ramps, key=lambda ramp: ramp.rate_V_s)
        arithmetic = (
            f"the set-point stands still for a block: {in_unit(fastest.rate_V_s, 'V/s')} x "
            f"{in_unit(longest_s, 's')} = steps of {in_unit(fastest.rate_V_s * longest_s, 'V')} "
            f"instead of {in_unit(fastest.step_V, 'V')}"
        )
    elif sines is not None:
        period_s = 1 / sines.frequencies_Hz[-1]
        arithmetic = (
            f"the set-point stands still for a block: {in_unit(longest_s, 's')} of a period of "
            f"{in_unit(period_s, 's')}"
        )
    else:
        return
    yield Finding(
        severity=Severity.REFUSE,
        what=f"step {index + 1}: a moving set-point in blocks",
        arithmetic=f"{arithmetic}; leave block out",
        key=("potentiostat", "block"),
    )


def _without_contact(experiment: Experiment, index: int, step: Step) -> Iterator[Finding]:
    """Compare how far the voltage falls in a block if the contact is lost with what is left.

    Upwards the instrument's clamp holds; downwards nobody does but who reads.
    """
    currents_A = [s.current_A for s in step.segments if s.current_A is not None]
    lowest_A = min(currents_A, default=0.0)
    if lowest_A >= 0:
        return
    fall_V = -lowest_A * block_s(experiment) / TYPICAL_STRAY_F
    low_V = experiment.envelope.voltage_min_V
    yield Finding(
        severity=Severity.REFUSE if fall_V >= low_V else Severity.OK,
        what=f"step {index + 1}: fall of the voltage within a block, should the contact be lost",
        arithmetic=f"{in_unit(-lowest_A, 'A')} x {in_unit(block_s(experiment), 's')} / "
        f"{in_unit(TYPICAL_STRAY_F, 'F')} (typical) = {in_unit(fall_V, 'V')}; the lower limit is "
        f"{in_unit(low_V, 'V')} above 0 V",
        key=("potentiostat", "block"),
    )
