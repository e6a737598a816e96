"""Looks an experiment over without touching hardware, with the arithmetic shown."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from potentiostat.errors import UnknownInstrument
from potentiostat.multisine import Sines
from potentiostat.noise import current_sigma_A
from potentiostat.protocol import Potentiostat
from potentiostat.records import RangeSpec
from potentiostat.registry import potentiostat_class
from potentiostat.technique import Step
from runner.budget import CLEAR_OF_NOISE, TYPICAL_STRAY_F, budget, expected
from runner.check_blanking import blanking_code
from runner.check_blocks import check_blocks, reading_s
from runner.check_temperature import check_temperature
from runner.config import MOCK
from runner.experiment import Experiment
from runner.findings import Finding, Severity, ok
from runner.format import in_unit
from runner.holder_record import HOUR_S, HolderRecord
from runner.image_checks import image_findings
from runner.keep_checks import keep_findings
from runner.plan_checks import stored, titrations, waits
from runner.problems import ExperimentError, Problem, find_line, spelled
from runner.record_settings import held_frames
from session.errors import SessionRefused

__all__ = ["CheckReport", "Finding", "Severity", "check", "refuse_unfit", "render_check"]

OFFSET_FACTOR = 5.0  # a set-point below this many source offsets cannot be trusted
LEAK_WARN, LEAK_REFUSE = 0.01, 1.0  # shares of the current that is asked for
SWEEP_WARN, SWEEP_REFUSE = 0.1, 0.9  # shares of the limit of the current
BYTES_PER_SAMPLE = 130
SETTLINGS_PER_PERIOD = 100  # of the fastest sine: at 100 the phase is late by 1.6 degrees at most
READINGS_PER_PERIOD = 20  # at 20 a staircase is 0.4 % smaller than its sine
UNCORRECTED_HIGHEST_HZ = 0.01  # without a calibration: 150 pF are 0.1 Tohm there


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All findings."""

    title: str
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """True when the experiment must not be run as it stands."""
        return any(f.severity is Severity.REFUSE for f in self.findings)


def check(experiment: Experiment) -> CheckReport:
    """Look an experiment over.

    Raises
    ------
    ExperimentError
        There is no such driver.
    """
    findings = [
        *_cell(experiment),
        *check_blocks(experiment, _driver(experiment)),
        *_model(experiment),
        *check_temperature(experiment, _driver(experiment)),
        *_steps(experiment, _ranges(experiment)),
        *_camera(experiment),
        *_node(experiment),
        *expected(experiment),
        *waits(experiment, datetime.now().astimezone()),
        *titrations(experiment),
        *stored(experiment),
        *image_findings(experiment),
        *keep_findings(experiment),
    ]
    return CheckReport(title=experiment.title, findings=tuple(findings))


def refuse_unfit(experiment: Experiment) -> None:
    """Raise ExperimentError with all findings that forbid the run."""
    problems = [
        Problem(
            key=spelled(f.key),
            line=find_line(experiment.text, f.key),
            what=f"{f.what}: {f.arithmetic}",
        )
        for f in check(experiment).findings
        if f.severity is Severity.REFUSE
    ]
    if problems:
        raise ExperimentError(experiment.title, problems)


def _driver(experiment: Experiment) -> type[Potentiostat]:
    try:
        driver: type[Potentiostat] = potentiostat_class(experiment.potentiostat.driver)
    except UnknownInstrument as error:
        key = ("potentiostat", "driver")
        line = find_line(experiment.text, key)
        raise ExperimentError(
            experiment.title, [Problem(key=spelled(key), line=line, what=str(error))]
        ) from error
    return driver


def _ranges(experiment: Experiment) -> tuple[RangeSpec, ...]:
    """Return the ranges of the model that is named, or of the largest of the driver's."""
    driver = _driver(experiment)
    return driver.models.get(experiment.potentiostat.model or "", driver.ranges)


def _model(experiment: Experiment) -> Iterator[Finding]:
    """See that the model is one of the driver's, or that it does not matter which it is."""
    driver, named = _driver(experiment), experiment.potentiostat.model
    key, there = ("potentiostat", "model"), ", ".join(driver.models)
    if named is not None:
        known = named in driver.models
        yield Finding(
            severity=Severity.OK if known else Severity.REFUSE,
            what="model of the instrument",
            arithmetic=named if known else f"{named!r} is none of this driver's: {there}",
            key=key,
        )
        return
    with suppress(ValueError):  # a range that there is not is told of with the steps
        range_A = experiment.range_A(driver.ranges)
        without = [
            name
            for name, ranges in driver.models.items()
            if range_A not in {r.full_scale_A for r in ranges}
        ]
        if without:
            yield Finding(
                severity=Severity.WARN,
                what="model of the instrument",
                arithmetic=f"{', '.join(without)} has no range of {in_unit(range_A, 'A')}; name "
                f'yours, such as model = "{next(n for n in driver.models if n not in without)}"',
                key=key,
            )


def _cell(experiment: Experiment) -> Iterator[Finding]:
    cell = experiment.cell
    yield ok(
        "area",
        f"{in_unit(cell.width_m, 'm')} x {in_unit(cell.depth_m, 'm')} = "
        f"{cell.area_m2 * 1e12:.4g} um2",
    )
    if math.isfinite(cell.capacity_C):
        yield ok(
            "capacity of the working film",
            f"{in_unit(cell.capacity_C, 'C')}; 1C = {in_unit(cell.capacity_C / 3600, 'A')}",
        )
    else:
        yield Finding(
            severity=Severity.WARN,
            what="capacity of the working film",
            arithmetic=f"{cell.working_material!r} is not known: C-rates and front speeds "
            "cannot be worked out",
        )
    yield ok("longest duration", f"{experiment.longest_s:.0f} s")


def _steps(experiment: Experiment, ranges: tuple[RangeSpec, ...]) -> Iterator[Finding]:
    try:
        range_A = experiment.range_A(ranges)
    except ValueError as error:
        yield Finding(
            severity=Severity.REFUSE,
            what="current range",
            arithmetic=str(error),
            key=("step",),
        )
        return
    used = next(r for r in ranges if r.full_scale_A == range_A)
    yield ok("current range, locked for the run", in_unit(range_A, "A"))
    for i, step in enumerate(experiment.steps):
        if step.largest_current_A > 0:
            own_A = step.current_A
            current_A = own_A if math.isfinite(own_A) and own_A != 0 else step.largest_current_A
            yield from _galvanostatic(experiment, used, i, current_A)
        yield from _sweeps(experiment, i, step)
        yield from _impedance(experiment, used, i, step)
    yield from budget(experiment, used)
    yield from blanking_code(experiment, used)
    yield from _conditions(experiment)
    yield from _leakage(experiment)


def _galvanostatic(
    experiment: Experiment, used: RangeSpec, index: int, current_A: float
) -> Iterator[Finding]:
    cell, name = experiment.cell, f"step {index + 1}"
    density = current_A / cell.area_m2 / 10  # A/m2 to mA/cm2
    rate = current_A * 3600 / cell.capacity_C
    speed = current_A / cell.charge_per_m_C
    yield ok(
        f"{name}: current",
        f"{in_unit(current_A, 'A')} = {density:.3g} mA/cm2 = {rate:.3g} C; "
        f"the front moves at {in_unit(speed, 'm/s')}",
    )
    zero_A = used.source_offset_A if math.isfinite(used.source_offset_A) else used.offset_A
    ratio = abs(current_A) / zero_A
    yield Finding(
        severity=Severity.OK if ratio >= OFFSET_FACTOR else Severity.REFUSE,
        what=f"{name}: set-point against the zero of the range",
        arithmetic=f"{in_unit(abs(current_A), 'A')} is {ratio:.3g} times "
        f"{in_unit(zero_A, 'A')}; {OFFSET_FACTOR:g} times are needed",
        key=("step", index),
    )
    yield _input_leakage(experiment, index, current_A)
    error_A = used.gain_ratio * abs(current_A) + used.offset_A
    window_s = experiment.potentiostat.nplc / experiment.potentiostat.line_frequency_Hz
    noise_A = current_sigma_A(
        current_A,
        feedback_ohm=1 / used.full_scale_A,
        window_s=window_s,
        resolution_A=used.resolution_A,
    )
    yield ok(
        f"{name}: error and noise of a reading",
        f"± {in_unit(error_A, 'A')} ({100 * error_A / abs(current_A):.2g} %) at most, "
        f"{in_unit(noise_A, 'A')} rms at {experiment.potentiostat.nplc:g} NPLC",
    )


def _input_leakage(experiment: Experiment, index: int, current_A: float) -> Finding:
    """Compare what the voltmeter may draw from the cell with the current that is asked for."""
    ohm = potentiostat_class(experiment.potentiostat.driver).input_ohm
    drawn_A = experiment.cell.window_V[1] / ohm
    ratio = drawn_A / abs(current_A)
    severity = Severity.OK if ratio < LEAK_WARN else Severity.WARN
    return Finding(
        severity=Severity.REFUSE if ratio > LEAK_REFUSE else severity,
        what=f"step {index + 1}: input leakage of the voltmeter",
        arithmetic=f"{experiment.cell.window_V[1]:g} V / {in_unit(ohm, 'ohm')} = "
        f"{in_unit(drawn_A, 'A')}, {100 * ratio:.3g} % of {in_unit(abs(current_A), 'A')}",
        key=("step", index),
    )


def _sweeps(experiment: Experiment, index: int, step: Step) -> Iterator[Finding]:
    """Compare what the stray capacitance takes in a sweep with the limit of the current."""
    rates = [segment.ramp.rate_V_s for segment in step.segments if segment.ramp is not None]
    if not rates:
        return
    taken_A = TYPICAL_STRAY_F * max(rates)
    limit_A = experiment.envelope.current_max_A
    severity = Severity.WARN if taken_A > SWEEP_WARN * limit_A else Severity.OK
    yield Finding(
        severity=Severity.REFUSE if taken_A > SWEEP_REFUSE * limit_A else severity,
        what=f"step {index + 1}: current into the stray capacitance",
        arithmetic=f"{in_unit(TYPICAL_STRAY_F, 'F')} (typical) x {in_unit(max(rates), 'V/s')} = "
        f"{in_unit(taken_A, 'A')}; the limit is {in_unit(limit_A, 'A')}",
        key=("step", index),
    )


def _impedance(
    experiment: Experiment, used: RangeSpec, index: int, step: Step
) -> Iterator[Finding]:
    """Compare the fastest sine with what range, readings and stray capacitance permit."""
    sines = next((s.sines for s in step.segments if s.sines is not None), None)
    if sines is None:
        return
    name, key = f"step {index + 1}", ("step", index)
    highest_Hz = sines.frequencies_Hz[-1]
    potentiostat = experiment.potentiostat
    each_reading_s = reading_s(experiment)
    for what, each_s, needed in (
        ("settling of the range", used.settling_s, SETTLINGS_PER_PERIOD),
        ("readings", each_reading_s, READINGS_PER_PERIOD),
    ):
        found = 1 / (highest_Hz * each_s)
        yield Finding(
            severity=Severity.OK if found >= needed * (1 - 1e-9) else Severity.REFUSE,
            what=f"{name}: highest frequency against the {what}",
            arithmetic=f"a period of {in_unit(1 / highest_Hz, 's')} holds {found:.3g} of "
            f"{in_unit(each_s, 's')}; {needed} are needed: at most "
            f"{in_unit(1 / (needed * each_s), 'Hz')}",
            key=key,
        )
    stray_ohm = 1 / (2 * math.pi * highest_Hz * TYPICAL_STRAY_F)
    unknown = potentiostat.calibration is None and potentiostat.resource != MOCK
    galvanostatic = not step.holds_voltage
    refused = galvanostatic and unknown and highest_Hz > UNCORRECTED_HIGHEST_HZ
    yield Finding(
        severity=Severity.REFUSE if refused else Severity.OK,
        what=f"{name}: stray capacitance across the cell",
        arithmetic=f"{in_unit(TYPICAL_STRAY_F, 'F')} (typical) is {in_unit(stray_ohm, 'ohm')} at "
        f"{in_unit(highest_Hz, 'Hz')}"
        + (
            f"; without an open-holder calibration it cannot be taken out: at most "
            f"{in_unit(UNCORRECTED_HIGHEST_HZ, 'Hz')}, or name a calibration"
            if refused
            else ""
        ),
        key=key,
    )
    if galvanostatic:
        yield _sine_against_noise(experiment, used, sines, each_reading_s, index)


def _sine_against_noise(
    experiment: Experiment, used: RangeSpec, sines: Sines, each_reading_s: float, index: int
) -> Finding:
    noise_A = current_sigma_A(
        sines.peak,
        feedback_ohm=1 / used.full_scale_A,
        window_s=experiment.potentiostat.nplc / experiment.potentiostat.line_frequency_Hz,
        resolution_A=used.resolution_A,
    )
    step = experiment.steps[index]
    readings = step.segments[-1].longest_s / each_reading_s
    after_A = noise_A * math.sqrt(2 / readings)
    ratio = sines.each / after_A
    return Finding(
        severity=Severity.OK if ratio > CLEAR_OF_NOISE else Severity.WARN,
        what=f"step {index + 1}: each sine against the noise",
        arithmetic=f"{in_unit(sines.each, 'A')} is {ratio:.3g} times {in_unit(after_A, 'A')}, the "
        f"noise of {readings:.0f} readings",
        key=("step", index),
    )


def _conditions(experiment: Experiment) -> Iterator[Finding]:
    potentiostat = experiment.potentiostat
    if potentiostat.calibration is not None or potentiostat.resource == MOCK:
        return
    if math.isfinite(experiment.envelope.charge_ionic_max_C):
        yield Finding(
            severity=Severity.REFUSE,
            what="a limit of the ionic charge",
            arithmetic="needs an open-holder calibration; name one under [potentiostat], or "
            "take it out: the limit of the charge holds by itself",
            key=("limits", "charge_ionic"),
        )
    for i, step in enumerate(experiment.steps):
        if any(c.quantity in ("Q_ionic", "|Q_ionic|") for c in step.until):
            yield Finding(
                severity=Severity.REFUSE,
                what=f"step {i + 1}: a rule on the ionic charge",
                arithmetic="needs an open-holder calibration; name one under [potentiostat], or "
                "write the rule on Q",
                key=("step", i, "until"),
            )


def _leakage(experiment: Experiment) -> Iterator[Finding]:
    potentiostat = experiment.potentiostat
    if potentiostat.calibration is not None:
        yield _calibration_file(potentiostat.calibration)
        return
    if potentiostat.resource == MOCK:
        yield ok("open-holder calibration", "measured on the simulated holder first")
        return
    yield Finding(
        severity=Severity.WARN,
        what="open-holder calibration",
        arithmetic="none is named: the ionic charge will be unknown; run lamella calibrate "
        "on the empty holder",
    )


def _calibration_file(path: Path) -> Finding:
    """Look at the age of the calibration that is named."""
    what, key = "open-holder calibration", ("potentiostat", "calibration")
    try:
        record = HolderRecord.read(path)
    except SessionRefused as error:
        return Finding(severity=Severity.REFUSE, what=what, arithmetic=str(error), key=key)
    now = datetime.now(UTC)
    doubt = record.doubt(now)
    if doubt is not None:
        return Finding(severity=Severity.WARN, what=what, arithmetic=doubt, key=key)
    age_h = (record.age_s(now) or 0.0) / HOUR_S
    return ok(what, f"{age_h:.1f} h old, believed for {record.valid_for_s / HOUR_S:.3g} h")


def _camera(experiment: Experiment) -> Iterator[Finding]:
    camera = experiment.camera
    if camera is None:
        return
    dose = camera.dose_rate_e_m2_s * experiment.longest_s / 1e20
    limit = experiment.dose_limit_e_m2
    beyond = limit is not None and dose > limit / 1e20
    yield Finding(
        severity=Severity.WARN if beyond else Severity.OK,
        what="dose of the whole plan",
        arithmetic=f"{camera.dose_rate_e_m2_s / 1e20:.4g} e/A2/s x "
        f"{experiment.longest_s:.0f} s = {dose:.4g} e/A2"
        + ("" if limit is None else f"; the limit is {limit / 1e20:.4g} e/A2"),
        key=("limits", "dose"),
    )
    frame_bytes = camera.height * camera.width if camera.driver == MOCK else 0
    held = held_frames(experiment.record, camera.frame_rate_Hz, frame_bytes)
    if held is not None:
        yield held
    if camera.driver == MOCK:
        frames = camera.frame_rate_Hz * experiment.longest_s
        size = frames * camera.height * camera.width
        yield ok(
            "size of the session",
            f"{frames:.0f} frames of {camera.width} x {camera.height} px: {in_unit(size, 'B', 3)}",
        )


def _node(experiment: Experiment) -> Iterator[Finding]:
    camera, bus = experiment.camera, experiment.bus
    if camera is None or bus is None or not camera.is_node:
        return
    name, host = camera.options.node, camera.options.host
    yield ok(
        "camera node",
        f"{name} of session {camera.node_session}, lab {bus.lab}, by the broker at "
        f"{bus.host}:{bus.port}; its pixels stay there, headers and tracks come here",
    )
    yield Finding(
        severity=Severity.OK if host else Severity.WARN,
        what="clock of the camera node",
        arithmetic=f"asked over UDP at {host}, over MQTT where that is blocked"
        if host
        else "is asked over MQTT, whose queues may differ by milliseconds; name its computer as "
        "host under [camera] to ask it over UDP",
        key=("camera", "host"),
    )
    yield ok(
        "dose of the camera node",
        "counts by the run's clock from the first exposure on, as if the beam were always on",
    )


def render_check(report: CheckReport) -> Table:
    """Return the findings for a terminal."""
    table = Table(title=report.title, title_justify="left")
    for name in ("", "what", "how"):
        table.add_column(name)
    colour = {Severity.OK: "green", Severity.WARN: "yellow", Severity.REFUSE: "red"}
    for finding in report.findings:
        style = colour[finding.severity]
        table.add_row(f"[{style}]{finding.severity.value}[/]", finding.what, finding.arithmetic)
    return table
