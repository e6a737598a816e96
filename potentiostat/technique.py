"""Techniques as data: what is held, in which order, and until when. No hardware in sight.

A step is a row of segments that follow each other without a rest; its own conditions
end all of it. Every technique is a function that returns such a step, so they can be
built, stored, compared and repeated like any other data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from potentiostat.limits import Condition, Envelope
from potentiostat.multisine import Sines
from potentiostat.protocol import Setpoint

MAX_SEGMENTS = 10_000
CLAMP_RATIO = 0.9  # of limit and range: noise on a clamped current must not look like a breach


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A voltage, counted from 0 or from the cell's own rest voltage before the step."""

    volts: float
    versus_ocv: bool = False


OCV = Level(volts=0.0, versus_ocv=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A voltage that moves evenly, as a staircase of small steps.

    Parameters
    ----------
    to
        Where it ends.
    rate_V_s
        Magnitude.
    """

    to: Level
    rate_V_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One level, held or moved until the first of its conditions.

    Parameters
    ----------
    current_A
        For a galvanostatic segment; None for a potentiostatic one.
    voltage
        For a potentiostatic segment; None for a galvanostatic one.
    ramp
        Moves the voltage, and ends the segment when it has arrived.
    sines
        Shake the current or the voltage about its level.
    until
        End conditions; charge and time count from the segment's beginning.
    """

    name: str
    current_A: float | None = None
    voltage: Level | None = None
    ramp: Ramp | None = None
    sines: Sines | None = None
    until: tuple[Condition, ...] = ()

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of what is asked for; 0 for a potentiostatic segment."""
        if self.current_A is None:
            return 0.0
        return abs(self.current_A) + (0.0 if self.sines is None else self.sines.peak)

    @property
    def longest_s(self) -> float:
        """Longest possible duration in s, infinite where nothing bounds it."""
        return min(
            (c.value for c in self.until if c.quantity == "t" and c.relation == ">"),
            default=math.inf,
        )

    def setpoint(self, envelope: Envelope, range_A: float, ocv_V: float) -> Setpoint:
        """Return what is held at its beginning.

        Parameters
        ----------
        ocv_V
            Rest voltage of the cell; may be NaN where no level is counted from it.
        """
        if self.current_A is not None:
            return Setpoint(
                mode="current",
                level=self.current_A,
                clamp=envelope.voltage_max_V,
                range_A=range_A,
            )
        return Setpoint(
            mode="voltage",
            level=resolve(self.voltage or OCV, ocv_V),
            clamp=CLAMP_RATIO * min(envelope.current_max_A, range_A),
            range_A=range_A,
        )


def resolve(level: Level, ocv_V: float) -> float:
    """Return a level in V against 0."""
    return level.volts + (ocv_V if level.versus_ocv else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan.

    Parameters
    ----------
    name
        Technique, as in the experiment file.
    segments
        One after the other, without a rest between them.
    until
        Conditions that end the whole step, counted from its beginning.
    """

    name: str
    segments: tuple[Segment, ...]
    until: tuple[Condition, ...] = field(default=())

    @property
    def current_A(self) -> float:
        """Current of the first segment; NaN where a voltage is held."""
        current_A = self.segments[0].current_A
        return math.nan if current_A is None else current_A

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of its galvanostatic segments; 0 where there is none."""
        return max(s.largest_current_A for s in self.segments)

    @property
    def holds_voltage(self) -> bool:
        """True when any segment is potentiostatic."""
        return any(s.voltage is not None for s in self.segments)

    @property
    def needs_ocv(self) -> bool:
        """True when a level is counted from the cell's rest voltage."""
        levels = [s.voltage for s in self.segments]
        levels += [s.ramp.to for s in self.segments if s.ramp is not None]
        return any(level is not None and level.versus_ocv for level in levels)

    @property
    def is_rest(self) -> bool:
        """True for open circuit."""
        return all(s.current_A == 0.0 and s.sines is None for s in self.segments)

    @property
    def longest_s(self) -> float:
        """Longest possible duration in s, infinite where nothing bounds it."""
        own = min(
            (c.value for c in self.until if c.quantity == "t" and c.relation == ">"),
            default=math.inf,
        )
        return min(own, sum(s.longest_s for s in self.segments))


def after(duration_s: float) -> Condition:
    """Return the condition that ends something after a time."""
    return Condition(quantity="t", relation=">", value=duration_s, text=f"t > {duration_s:g} s")


def _hold(name: str, level: Level, until: Sequence[Condition]) -> Segment:
    return Segment(name=name, voltage=level, until=tuple(until))


def _rest(duration_s: float, until: Sequence[Condition] = ()) -> Segment:
    return Segment(name="rest", current_A=0.0, until=(*until, after(duration_s)))


def _sweep(name: str, start: Level, to: Level, rate_V_s: float, longest_V: float) -> Segment:
    """Return a ramp; its span bounds it in time, whatever the rest voltage will be."""
    same = start.versus_ocv == to.versus_ocv
    span_V = abs(to.volts - start.volts) if same else longest_V
    return Segment(
        name=name,
        voltage=start,
        ramp=Ramp(to=to, rate_V_s=rate_V_s),
        until=(after(1.5 * span_V / rate_V_s + 1.0),),
    )


# --- the techniques ------------------------------------------------------------------------


def open_circuit(duration_s: float, until: Sequence[Condition] = ()) -> Step:
    """Rest at 0 A with the voltage clamped (OCV)."""
    return Step(name="ocv", segments=(_rest(duration_s),), until=tuple(until))


def chronopotentiometry(current_A: float, until: Sequence[Condition]) -> Step:
    """Hold a current (CP)."""
    return Step(name="cp", segments=(Segment(name="cp", current_A=current_A),), until=tuple(until))


def chronoamperometry(voltage: Level, duration_s: float, until: Sequence[Condition] = ()) -> Step:
    """Hold a voltage (CA)."""
    return Step(
        name="ca", segments=(_hold("ca", voltage, (after(duration_s),)),), until=tuple(until)
    )


def linear_sweep(
    start: Level, to: Level, rate_V_s: float, *, window_V: float, until: Sequence[Condition] = ()
) -> Step:
    """Move the voltage evenly from one level to another (LSV)."""
    return Step(
        name="lsv",
        segments=(_sweep("lsv", start, to, rate_V_s, window_V),),
        until=tuple(until),
    )


def cyclic_voltammetry(
    levels: tuple[Level, Level, Level, Level],
    rate_V_s: float,
    *,
    cycles: int,
    vertex_hold_s: float = 0.0,
    window_V: float,
    until: Sequence[Condition] = (),
) -> Step:
    """Sweep between two vertices and end at a fourth level (CV; CVA with a hold at each).

    Parameters
    ----------
    levels
        Beginning, first vertex, second vertex, end.
    """
    start, first, second, end = levels
    way = [start, *([first, second] * cycles), end]
    segments: list[Segment] = []
    for i in range(len(way) - 1):
        segments.append(_sweep(f"sweep {i + 1}", way[i], way[i + 1], rate_V_s, window_V))
        if vertex_hold_s > 0 and i < len(way) - 2:
            segments.append(_hold(f"hold {i + 1}", way[i + 1], (after(vertex_hold_s),)))
    return Step(name="cv", segments=tuple(segments), until=tuple(until))


def galvanostatic_cycling(
    current_A: float,
    limit_V: float,
    *,
    longest_s: float,
    hold_s: float,
    hold_until_A: float,
    rest_s: float = 0.0,
    until: Sequence[Condition] = (),
) -> Step:
    """Charge or discharge to a voltage, then hold it while the current falls (GCPL, CC-CV)."""
    relation: Literal[">", "<"] = ">" if current_A > 0 else "<"
    reached = Condition(
        quantity="V", relation=relation, value=limit_V, text=f"V {relation} {limit_V:g} V"
    )
    fallen = Condition(
        quantity="|I|",
        relation="<",
        value=hold_until_A,
        text=f"|I| < {hold_until_A:g} A",
        confirm=3,
    )
    segments = [
        Segment(name="cc", current_A=current_A, until=(reached, after(longest_s))),
        _hold("cv", Level(volts=limit_V), (fallen, after(hold_s))),
    ]
    if rest_s > 0:
        segments.append(_rest(rest_s))
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
        level = Level(volts=start.volts + i * step_V, versus_ocv=start.versus_ocv)
        stop: tuple[Condition, ...] = (after(hold_s),)
        if hold_until_A > 0:
            text = f"|I| < {hold_until_A:g} A"
            fallen = Condition(
                quantity="|I|", relation="<", value=hold_until_A, text=text, confirm=3
            )
            stop = (fallen, *stop)
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
