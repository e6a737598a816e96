"""Whether instrument, holder and readings can do what a plan asks, with the arithmetic shown."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from potentiostat.calibration import HolderCalibration
from potentiostat.limits import MIN_SLOPE_READINGS, Condition
from potentiostat.noise import current_sigma_A, voltage_sigma_V
from potentiostat.records import RangeSpec
from potentiostat.registry import potentiostat_class
from potentiostat.segments import Segment, Step
from runner.experiment import Experiment
from runner.findings import Finding, Severity, at_least, ok
from runner.format import in_unit
from runner.holder_record import load_holder
from session.errors import SessionRefused

TYPICAL_STRAY_F = 150e-12
READ_OVERHEAD_S = 0.01  # of a reading and a set-point, beside the integration
CLEAR_OF_NOISE, LOST_IN_NOISE = 3.0, 1.0  # times the noise
HOLDER_WARN, HOLDER_REFUSE = 0.2, 1.0  # leakage of a measured holder, as a share of the current
SHARE_WARN, SHARE_REFUSE = 0.1, 1.0  # of the stray capacitance beside that of the film
SETTLED_WARN, SETTLED_REFUSE = 10.0, 3.0  # settling times in a part of a step
READ_WARN, READ_REFUSE = 10.0, 3.0  # readings in it
SLOPE_READINGS = MIN_SLOPE_READINGS / 0.9  # a slope is known once so much of its window is full


Judged = tuple[float, Finding]
"""A finding, and by how many times there is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """How a plan's instrument reads in the range of the run.

    Parameters
    ----------
    each_s
        From one reading to the next, as far as it is known before.
    voltage_sigma_V
        Of one reading; NaN where the driver does not say.
    """

    each_s: float
    voltage_sigma_V: float
    current_sigma_A: float
    range: RangeSpec

    @classmethod
    def of(cls, experiment: Experiment, used: RangeSpec) -> "Readings":
        """Return what is known of them from driver and settings."""
        settings = experiment.potentiostat
        window_s = settings.nplc / settings.line_frequency_Hz
        noise = getattr(potentiostat_class(settings.driver), "noise", None)
        own_A = 0.0 if noise is None else noise.current_A * math.sqrt(0.02 / window_s)
        return cls(
            each_s=2 * window_s + READ_OVERHEAD_S,
            voltage_sigma_V=math.nan
            if noise is None
            else voltage_sigma_V(
                noise_V_at_1_plc=noise.voltage_V, window_s=window_s, step_V=noise.voltage_step_V
            ),
            current_sigma_A=current_sigma_A(
                0.0,
                feedback_ohm=1 / used.full_scale_A,
                window_s=window_s,
                resolution_A=used.resolution_A,
                own_A=own_A,
            ),
            range=used,
        )


def budget(experiment: Experiment, used: RangeSpec) -> Iterator[Finding]:
    """Compare a plan with what its instrument and its measured holder can do."""
    holder, problem = _named_holder(experiment)
    if problem is not None:
        yield problem
    readings = Readings.of(experiment, used)
    if holder is not None:
        yield from _holder(experiment, holder, used)
    yield from _film(experiment, holder)
    yield from _slope_limits(experiment, readings)
    steps = list(enumerate(experiment.steps))
    yield from _tightest(_setpoint(i, step, readings) for i, step in steps)
    for what, each_s, warn, refuse in (
        ("settling of the range", used.settling_s, SETTLED_WARN, SETTLED_REFUSE),
        ("readings", readings.each_s, READ_WARN, READ_REFUSE),
    ):
        yield from _tightest(
            _shortest(i, step, what, each_s, warn=warn, refuse=refuse) for i, step in steps
        )
    yield from _tightest(
        _threshold(i, condition, readings) for i, step in steps for condition in _conditions(step)
    )


def _tightest(looked: Iterable[Judged | None]) -> Iterator[Finding]:
    """Return all that matters; where nothing does, the one that comes closest."""
    found = [judged for judged in looked if judged is not None]
    matters = [finding for _, finding in found if finding.severity is not Severity.OK]
    yield from matters
    if found and not matters:
        yield min(found, key=lambda judged: judged[0])[1]


def _named_holder(experiment: Experiment) -> tuple[HolderCalibration | None, Finding | None]:
    try:
        record = load_holder(experiment)
    except (OSError, ValueError, SessionRefused) as error:
        problem = Finding(
            severity=Severity.REFUSE,
            what="open-holder calibration",
            arithmetic=f"{experiment.potentiostat.calibration} cannot be used: {error}; run "
            "lamella calibrate on the empty holder",
            key=("potentiostat", "calibration"),
        )
        return None, problem
    return (None if record is None else record.calibration), None


def _holder(
    experiment: Experiment, holder: HolderCalibration, used: RangeSpec
) -> Iterator[Finding]:
    """Compare the leakage of the holder with the smallest current of the plan."""
    key = ("potentiostat", "calibration")
    if not math.isclose(holder.range_A, used.full_scale_A, rel_tol=1e-6):
        yield Finding(
            severity=Severity.WARN,
            what="range of the open-holder calibration",
            arithmetic=f"measured in {in_unit(holder.range_A, 'A')}, the run uses "
            f"{in_unit(used.full_scale_A, 'A')}: the zero of a range is its own",
            key=key,
        )
    top_V = experiment.cell.window_V[1]
    leak_A = abs(holder.conductance_S) * top_V
    draws = (
        f"{top_V:g} V x {in_unit(abs(holder.conductance_S), 'S')} "
        f"({in_unit(_ohm(holder), 'ohm')}) = {in_unit(leak_A, 'A')}"
    )
    held_A = [abs(s.current_A or 0.0) for step in experiment.steps for s in step.segments]
    smallest_A = min((a for a in held_A if a > 0), default=math.nan)
    if math.isfinite(smallest_A):
        share = leak_A / smallest_A
        severity = Severity.WARN if share > HOLDER_WARN else Severity.OK
        yield Finding(
            severity=Severity.REFUSE if share > HOLDER_REFUSE else severity,
            what="leakage of the holder against the smallest current",
            arithmetic=f"{draws}, {100 * share:.3g} % of {in_unit(smallest_A, 'A')}",
            key=key,
        )
    for i, step in enumerate(experiment.steps):
        for c in _conditions(step):
            never = c.quantity == "|I|" and c.relation == "<" and 0 < c.value < leak_A
            if never and step.holds_voltage:
                yield Finding(
                    severity=Severity.REFUSE,
                    what=f"step {i + 1}: leakage of the holder against {c.text}",
                    arithmetic=f"{draws}: at a held voltage the current does not fall below it",
                    key=("step", i),
                )


def _ohm(holder: HolderCalibration) -> float:
    return math.inf if holder.conductance_S == 0 else 1 / abs(holder.conductance_S)


def _film(experiment: Experiment, holder: HolderCalibration | None) -> Iterator[Finding]:
    """Compare what a sweep drives into the stray capacitance with what it drives into the film.

    Both are a capacitance times the rate: the film's is its charge over its window.
    """
    swept = [i for i, s in enumerate(experiment.steps) if any(p.ramp for p in s.segments)]
    low_V, high_V = experiment.cell.window_V
    film_F = experiment.cell.capacity_C / (high_V - low_V)
    if not swept or not math.isfinite(film_F):
        return
    stray_F = TYPICAL_STRAY_F if holder is None else holder.capacitance_F
    share = stray_F / film_F
    severity = Severity.WARN if share > SHARE_WARN else Severity.OK
    yield Finding(
        severity=Severity.REFUSE if share > SHARE_REFUSE else severity,
        what="sweeps: stray capacitance beside the film",
        arithmetic=f"{in_unit(stray_F, 'F')} ({'typical' if holder is None else 'measured'}) "
        f"against {in_unit(experiment.cell.capacity_C, 'C')} / {high_V - low_V:.3g} V = "
        f"{in_unit(film_F, 'F')}: {100 * share:.2g} % of the expected current, at any rate",
        key=("step", swept[0]),
    )


def _slope_limits(experiment: Experiment, readings: Readings) -> Iterator[Finding]:
    """See that limits on slopes can be held, and that the plan itself keeps them."""
    envelope = experiment.envelope
    limits = (envelope.voltage_rate_max_V_s, envelope.current_rate_max_A_s)
    if not any(math.isfinite(limit) for limit in limits):
        return
    count = envelope.rate_window_s / readings.each_s
    yield Finding(
        severity=at_least(count, warn=2 * SLOPE_READINGS, refuse=SLOPE_READINGS),
        what="limits on slopes: readings in their window",
        arithmetic=f"{envelope.rate_window_s:g} s / {in_unit(readings.each_s, 's')} = {count:.3g}; "
        f"{SLOPE_READINGS:.2g} are needed",
        key=("limits", "rate_window"),
    )
    for sigma, limit, unit, name in (
        (readings.voltage_sigma_V, limits[0], "V/s", "voltage_rate"),
        (readings.current_sigma_A, limits[1], "A/s", "current_rate"),
    ):
        noise = slope_sigma(sigma, envelope.rate_window_s, readings.each_s)
        if math.isfinite(limit) and math.isfinite(noise):
            yield _against_noise(f"limit {name}", limit, noise, unit, ("limits", name))[1]
    for i, step in enumerate(experiment.steps):
        for asked, limit, unit in zip(_own_slopes(step), limits, ("V/s", "A/s"), strict=True):
            if asked >= limit:
                yield Finding(
                    severity=Severity.REFUSE,
                    what=f"step {i + 1}: its own slope against the limit",
                    arithmetic=f"it asks for {in_unit(asked, unit)}; the limit is "
                    f"{in_unit(limit, unit)}",
                    key=("step", i),
                )


def _own_slopes(step: Step) -> tuple[float, float]:
    """Return the steepest voltage and current that a step asks for, in V/s and A/s."""
    volts, amperes = 0.0, 0.0
    for segment in step.segments:
        if segment.ramp is not None:
            volts = max(volts, segment.ramp.rate_V_s)
        if segment.sines is not None:
            steepest = 2 * math.pi * segment.sines.each * sum(segment.sines.frequencies_Hz)
            if segment.voltage is None:
                amperes = max(amperes, steepest)
            else:
                volts = max(volts, steepest)
    return volts, amperes


def slope_sigma(sigma: float, window_s: float, each_s: float) -> float:
    """Return the sigma of a straight line's slope through the readings of a window."""
    return sigma * math.sqrt(12 * each_s / window_s) / window_s


def _conditions(step: Step) -> tuple[Condition, ...]:
    """Return every condition of a step once; a long technique repeats its own."""
    return tuple(dict.fromkeys([*step.until, *(c for s in step.segments for c in s.until)]))


def _threshold(index: int, condition: Condition, readings: Readings) -> Judged | None:
    """Compare the threshold of a rule with the noise of what it looks at."""
    key = ("step", index, "until")
    quantity = condition.quantity.strip("|")
    if condition.needs_slope:
        count = condition.window_s / readings.each_s
        if count < SLOPE_READINGS:
            return 0.0, Finding(
                severity=Severity.REFUSE,
                what=f"step {index + 1}: readings in the window of {condition.text}",
                arithmetic=f"{condition.window_s:g} s / {in_unit(readings.each_s, 's')} = "
                f"{count:.3g}; {SLOPE_READINGS:.2g} are needed, or it is never met",
                key=key,
            )
        sigma = readings.voltage_sigma_V if quantity == "dV/dt" else readings.current_sigma_A
        noise = slope_sigma(sigma, condition.window_s, readings.each_s)
        unit = "V/s" if quantity == "dV/dt" else "A/s"
    elif quantity == "I":
        noise, unit = readings.current_sigma_A, "A"
    else:
        return None
    if condition.value == 0 or not math.isfinite(noise):
        return None
    what = f"step {index + 1}: {condition.text}"
    return _against_noise(what, abs(condition.value), noise, unit, key)


def _against_noise(
    what: str, value: float, noise: float, unit: str, key: tuple[str | int, ...]
) -> Judged:
    ratio = value / noise
    severity = at_least(ratio, warn=CLEAR_OF_NOISE, refuse=LOST_IN_NOISE)
    return ratio, Finding(
        severity=severity,
        what=f"{what} against the noise",
        arithmetic=f"{in_unit(value, unit)} is {ratio:.3g} times {in_unit(noise, unit)}"
        + (
            ""
            if severity is Severity.OK
            else f"; below {CLEAR_OF_NOISE:g} times chance decides: more NPLC or a longer window "
            "help"
        ),
        key=key,
    )


def _setpoint(index: int, step: Step, readings: Readings) -> Judged | None:
    """Compare the smallest current of a step with the noise of one reading."""
    held_A = [
        abs(s.current_A)
        for s in step.segments
        if s.current_A and s.current_versus == "zero" and s.sines is None
    ]
    if not held_A:
        return None
    what, noise_A = f"step {index + 1}: set-point", readings.current_sigma_A
    return _against_noise(what, min(held_A), noise_A, "A", ("step", index))


def _shortest(
    index: int, step: Step, what: str, each_s: float, *, warn: float, refuse: float
) -> Judged | None:
    """Compare the shortest part of a step with what each part of it has to hold."""
    parts = [s for s in step.segments if s.sines is None and (s.current_A or s.voltage)]
    lasting = [(_part_s(step, part), part.name) for part in parts]
    shortest_s, name = min(lasting, default=(math.inf, ""))
    if not math.isfinite(shortest_s):
        return None
    ratio = shortest_s / each_s
    return ratio, Finding(
        severity=at_least(ratio, warn=warn, refuse=refuse),
        what=f"step {index + 1}: shortest part against the {what}",
        arithmetic=f"{name} lasts {in_unit(shortest_s, 's')}, {ratio:.3g} times "
        f"{in_unit(each_s, 's')}; {refuse:g} times are needed",
        key=("step", index),
    )


def _part_s(step: Step, part: Segment) -> float:
    if part.ramp is not None:
        # Each stair is a part of its own, where it is higher than the usual one.
        return part.ramp.step_V / part.ramp.rate_V_s if part.ramp.step_V > 1e-3 else math.inf
    own_s = step.longest_s if len(step.segments) == 1 else math.inf
    return min(part.longest_s, own_s)


def expected(experiment: Experiment) -> Iterator[Finding]:
    """Say how long the plan may last, and how much charge it may pass."""
    if not math.isfinite(experiment.longest_s):
        for i, step in enumerate(experiment.steps):
            if not math.isfinite(step.longest_s):
                yield Finding(
                    severity=Severity.REFUSE,
                    what=f"step {i + 1}: end in time",
                    arithmetic='there is none; write a rule such as "t > 120 s"',
                    key=("step", i, "until"),
                )
        return
    by_charge_s = sum(_expected_s(step) for step in experiment.steps)
    if by_charge_s < 0.999 * sum(step.longest_s for step in experiment.steps):
        yield ok("duration by the rules on charge", f"{by_charge_s:.0f} s")
    charge_C, largest_C = 0.0, 0.0
    for step in experiment.steps:
        for segment in step.segments:
            if segment.current_A and segment.current_versus == "zero":
                lasts_s = min(segment.longest_s, _expected_s(step))
                charge_C += segment.current_A * lasts_s
                largest_C = max(largest_C, abs(charge_C))
    limit_C = experiment.envelope.charge_max_C
    if largest_C > 0:
        yield Finding(
            severity=Severity.OK if largest_C <= limit_C else Severity.WARN,
            what="charge of the held currents",
            arithmetic=f"at most {in_unit(largest_C, 'C')} if no rule on V ends a step before; the "
            f"limit is {in_unit(limit_C, 'C')}",
            key=("limits", "charge"),
        )


def _expected_s(step: Step) -> float:
    """Return when a step of one current ends at the latest by time or charge."""
    if len(step.segments) > 1 or not abs(step.current_A) > 0:
        return step.longest_s
    way = 1.0 if step.current_A > 0 else -1.0
    charges_C = [
        abs(c.value)
        for c in step.until
        if (c.quantity in ("|Q|", "|Q_half|") and c.relation == ">")
        or (c.quantity in ("Q", "Q_half") and c.relation == (">" if way > 0 else "<"))
        if c.value * (1.0 if c.quantity.startswith("|") else way) > 0
    ]
    return min([step.longest_s, *(charge_C / abs(step.current_A) for charge_C in charges_C)])
