"""The techniques: each is a function that returns a step. No hardware in sight.

So they can be built, stored, compared and repeated like any other data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from potentiostat.limits import Condition
from potentiostat.multisine import Sines
from potentiostat.segments import (
    CLAMP_RATIO,
    OCV,
    RAMP_STEP_V,
    Level,
    Ramp,
    Reference,
    References,
    Segment,
    Step,
    Wait,
    resolve,
)

__all__ = [
    "CLAMP_RATIO", "OCV", "RAMP_STEP_V", "Level", "Ramp", "Reference", "References", "Segment",
    "Step", "Wait", "after", "chronoamperometry", "chronopotentiometry",
    "cyclic_voltammetry", "galvanostatic_cycling", "impedance", "intermittent_titration",
    "linear_sweep", "open_circuit", "pulses", "repeat", "resolve", "sequence", "staircase", "wait",
]  # fmt: skip


def after(duration_s: float) -> Condition:
    """Return the condition that ends something after a time."""
    return Condition(quantity="t", relation=">", value=duration_s, text=f"t > {duration_s:g} s")


def _fallen(current_A: float) -> Condition:
    text = f"|I| < {current_A:g} A"
    return Condition(quantity="|I|", relation="<", value=current_A, text=text, confirm=3)


def _hold(name: str, level: Level, until: Sequence[Condition]) -> Segment:
    return Segment(name=name, voltage=level, until=tuple(until))


def _rest(duration_s: float, until: Sequence[Condition] = ()) -> Segment:
    return Segment(name="rest", current_A=0.0, until=(*until, after(duration_s)))


def _sweep(
    name: str, start: Level, to: Level, rate_V_s: float, longest_V: float, step_V: float
) -> Segment:
    """Return a ramp; its span bounds it in time, whatever the rest voltage will be."""
    same = start.versus == to.versus
    span_V = abs(to.volts - start.volts) if same else longest_V
    return Segment(
        name=name,
        voltage=start,
        ramp=Ramp(to=to, rate_V_s=rate_V_s, step_V=step_V),
        until=(after(1.5 * (span_V + step_V) / rate_V_s + 1.0),),
    )


# --- the techniques ------------------------------------------------------------------------


def open_circuit(duration_s: float, until: Sequence[Condition] = ()) -> Step:
    """Rest at 0 A with the voltage clamped (OCV)."""
    return Step(name="ocv", segments=(_rest(duration_s),), until=tuple(until))


def wait(what: Wait, longest_s: float, until: Sequence[Condition] = ()) -> Step:
    """Rest at 0 A until something happens, at most for a time."""
    return Step(name="wait", segments=(_rest(longest_s),), until=tuple(until), wait=what)


def chronopotentiometry(
    current_A: float, until: Sequence[Condition], *, versus: Reference = "zero"
) -> Step:
    """Hold a current (CP)."""
    held = Segment(name="cp", current_A=current_A, current_versus=versus)
    return Step(name="cp", segments=(held,), until=tuple(until))


def chronoamperometry(voltage: Level, duration_s: float, until: Sequence[Condition] = ()) -> Step:
    """Hold a voltage (CA)."""
    return Step(
        name="ca", segments=(_hold("ca", voltage, (after(duration_s),)),), until=tuple(until)
    )


def linear_sweep(
    start: Level,
    to: Level,
    rate_V_s: float,
    *,
    step_V: float = RAMP_STEP_V,
    window_V: float,
    until: Sequence[Condition] = (),
) -> Step:
    """Move the voltage evenly from one level to another (LSV; a staircase with high stairs)."""
    return Step(
        name="lsv",
        segments=(_sweep("lsv", start, to, rate_V_s, window_V, step_V),),
        until=tuple(until),
    )


def cyclic_voltammetry(
    levels: tuple[Level, Level, Level, Level],
    rate_V_s: float,
    *,
    cycles: int,
    vertex_hold_s: float | tuple[float, float] = 0.0,
    step_V: float = RAMP_STEP_V,
    window_V: float,
    until: Sequence[Condition] = (),
) -> Step:
    """Sweep between two vertices and end at a fourth level (CV; CVA with a hold at each).

    Parameters
    ----------
    levels
        Beginning, first vertex, second vertex, end.
    vertex_hold_s
        At both vertices, or at the first and at the second.
    """
    holds_s = vertex_hold_s if isinstance(vertex_hold_s, tuple) else (vertex_hold_s,) * 2
    start, first, second, end = levels
    way = [start, *([first, second] * cycles), end]
    segments: list[Segment] = []
    for i in range(len(way) - 1):
        segments.append(_sweep(f"sweep {i + 1}", way[i], way[i + 1], rate_V_s, window_V, step_V))
        if holds_s[i % 2] > 0 and i < len(way) - 2:
            segments.append(_hold(f"hold {i + 1}", way[i + 1], (after(holds_s[i % 2]),)))
    return Step(name="cv", segments=tuple(segments), until=tuple(until))


def galvanostatic_cycling(  # noqa: PLR0913 - as many as the technique has
    current_A: float,
    limit_V: float,
    *,
    longest_s: float,
    hold_s: float,
    hold_until_A: float = 0.0,
    hold_until: Sequence[Condition] = (),
    rest_s: float = 0.0,
    relaxed: Condition | None = None,
    until: Sequence[Condition] = (),
) -> Step:
    """Charge or discharge to a voltage, then hold it while the current falls (GCPL, CC-CV).

    Parameters
    ----------
    hold_until
        Further conditions that end the hold, such as a slope of the current.
    relaxed
        Ends the rest.
    """
    relation: Literal[">", "<"] = ">" if current_A > 0 else "<"
    reached = Condition(
        quantity="V", relation=relation, value=limit_V, text=f"V {relation} {limit_V:g} V"
    )
    fallen = () if hold_until_A == 0 else (_fallen(hold_until_A),)
    segments = [
        Segment(name="cc", current_A=current_A, until=(reached, after(longest_s))),
        _hold("cv", Level(volts=limit_V), (*fallen, *hold_until, after(hold_s))),
    ]
    if rest_s > 0:
        segments.append(_rest(rest_s, () if relaxed is None else (relaxed,)))
    return Step(name="gcpl", segments=tuple(segments), until=tuple(until))


def intermittent_titration(
    current_A: float,
    *,
    pulse_s: float,
    rest_s: float,
    pulses: int,
    relaxed: Condition | None = None,
    until: Sequence[Condition] = (),
) -> Step:
    """Pulse and rest, many times (GITT)."""
    stop = () if relaxed is None else (relaxed,)
    segments: list[Segment] = []
    for i in range(pulses):
        segments.append(
            Segment(name=f"pulse {i + 1}", current_A=current_A, until=(after(pulse_s),))
        )
        segments.append(_rest(rest_s, stop))
    return Step(name="gitt", segments=tuple(segments), until=tuple(until))


def staircase(
    start: Level,
    step_V: float,
    *,
    count: int,
    hold_s: float,
    hold_until_A: float = 0.0,
    name: str = "pitt",
    until: Sequence[Condition] = (),
) -> Step:
    """Hold a row of voltages, each until its current has fallen (PITT)."""
    segments = []
    for i in range(count):
        level = replace(start, volts=start.volts + i * step_V)
        stop: tuple[Condition, ...] = (after(hold_s),)
        if hold_until_A > 0:
            stop = (_fallen(hold_until_A), *stop)
        segments.append(_hold(f"level {i + 1}", level, stop))
    return Step(name=name, segments=tuple(segments), until=tuple(until))


def impedance(
    sines: Sines,
    *,
    voltage: Level | None = None,
    current_A: float = 0.0,
    settle_s: float,
    periods: int,
    until: Sequence[Condition] = (),
) -> Step:
    """Shake a held voltage (PEIS) or current (GEIS) with many sines at once.

    Parameters
    ----------
    voltage
        For a potentiostatic measurement; None for a galvanostatic one at ``current_A``.
    settle_s
        For which the level is held before.
    periods
        Of the slowest sine.
    """
    held_A = current_A if voltage is None else None
    shaken = Segment(
        name="sines",
        current_A=held_A,
        voltage=voltage,
        sines=sines,
        until=(after(periods / sines.base_Hz),),
    )
    before = Segment(name="settle", current_A=held_A, voltage=voltage, until=(after(settle_s),))
    segments = (before, shaken) if settle_s > 0 else (shaken,)
    name = "geis" if voltage is None else "peis"
    return Step(name=name, segments=segments, until=tuple(until))


def pulses(
    on_A: float,
    *,
    on_s: float,
    off_A: float = 0.0,
    off_s: float,
    count: int,
    until: Sequence[Condition] = (),
) -> Step:
    """Switch between two currents."""
    segments: list[Segment] = []
    for i in range(count):
        segments.append(Segment(name=f"on {i + 1}", current_A=on_A, until=(after(on_s),)))
        segments.append(Segment(name=f"off {i + 1}", current_A=off_A, until=(after(off_s),)))
    return Step(name="pulses", segments=tuple(segments), until=tuple(until))


def repeat(steps: Sequence[Step], times: int) -> tuple[Step, ...]:
    """Return a row of steps several times over; loops nest by repeating the result."""
    return tuple(steps) * times


def sequence(name: str, steps: Sequence[Step], until: Sequence[Condition] = ()) -> Step:
    """Return one step that plays the segments of several without a rest between them.

    What ends a step of one segment ends its segment here.

    Raises
    ------
    ValueError
        A step of several segments has conditions of its own: they would have to count
        from its beginning, and there is none any more.
    """
    segments: list[Segment] = []
    for step in steps:
        if step.until and len(step.segments) > 1:
            raise ValueError(
                f"{step.name} has {len(step.segments)} segments and conditions for all of them; "
                "put the conditions on its segments, or play it as a step of its own"
            )
        segments += [replace(s, until=(*step.until, *s.until)) for s in step.segments]
    return Step(name=name, segments=tuple(segments), until=tuple(until))
