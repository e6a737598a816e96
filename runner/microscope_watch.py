"""Watches a microscope during a run: what changes becomes an event of the session."""

import math
from collections.abc import Mapping
from dataclasses import asdict

from cameras.microscope import BlankCommand, Microscope, MicroscopeLost, MicroscopeState
from runner.clock import HostClock
from runner.plain import plain
from session.recorder import Recorder

MICROSCOPE = "microscope"
INTERVAL_S = 1.0

# Smaller changes are read-out noise, and would fill the session with events.
SMALLEST: Mapping[str, float] = {
    "x_m": 1e-9,
    "y_m": 1e-9,
    "z_m": 1e-9,
    "a_rad": 1e-5,
    "b_rad": 1e-5,
}
SMALLEST_RATIO: Mapping[str, float] = {
    "magnification": 1e-6,
    "pixel_size_m": 1e-6,
    "beam_current_A": 0.01,
}

Value = float | bool | None
Values = dict[str, Value]


async def watch_microscope(
    recorder: Recorder,
    microscope: Microscope,
    clock: HostClock,
    *,
    interval_s: float = INTERVAL_S,
) -> None:
    """Read the state again and again, and record it when it changed; never returns by itself.

    A microscope that does not answer is told once, and asked again: it is no reason to
    end a run. Each event holds the whole state and the host clock around its reading.

    Parameters
    ----------
    recorder
        Open.
    microscope
        Entered.
    clock
        Of the run.
    """
    known: Values | None = None
    lost = False
    with clock.party():
        next_ns = clock.now_ns()
        while True:
            before_ns = clock.now_ns()
            try:
                state = await microscope.state()
            except MicroscopeLost as error:
                if not lost:
                    await recorder.event(
                        clock.now_ns(), MICROSCOPE, MICROSCOPE, str(error), {"lost": True}
                    )
                lost = True
            else:
                stamps = (before_ns, clock.now_ns())
                values = _flat(state)
                if news := _news(known, values, back=lost):
                    await _record(recorder, stamps, values, news)
                    known = values
                lost = False
            next_ns = max(next_ns + round(interval_s * 1e9), clock.now_ns())
            await clock.sleep_until(next_ns)


async def set_beam_blanked(
    recorder: Recorder, microscope: Microscope, *, blanked: bool
) -> BlankCommand:
    """Blank or unblank the beam, and record between which stamps it happened.

    Raises
    ------
    MicroscopeLost
        It does not answer or refuses: the beam may be either.
    """
    command = await microscope.blank(on=blanked)
    await recorder.event(
        command.done_ns,
        "beam_blank",
        MICROSCOPE,
        "beam blanked" if blanked else "beam on",
        asdict(command),
    )
    return command


async def _record(
    recorder: Recorder, stamps: tuple[int, int], values: Values, news: list[str]
) -> None:
    await recorder.event(
        stamps[1],
        MICROSCOPE,
        MICROSCOPE,
        ", ".join(news),
        {"read_start_ns": stamps[0], "read_end_ns": stamps[1], **plain(values)},
    )


def _flat(state: MicroscopeState) -> Values:
    values: Values = {k: v for k, v in asdict(state).items() if k != "stage"}
    return values | asdict(state.stage)


def _news(known: Values | None, values: Values, *, back: bool) -> list[str]:
    """Return what changed, in words; at first, and after a loss, that it is there."""
    if known is None:
        return ["the microscope answers"]
    news = ["the microscope answers again"] if back else []
    for name, value in values.items():
        if _differs(name, known[name], value):
            news.append(f"{name}: {_text(known[name])} to {_text(value)}")
    return news


def _differs(name: str, before: Value, now: Value) -> bool:
    if not (isinstance(before, float) and isinstance(now, float)):
        return before != now
    if math.isnan(before) or math.isnan(now):
        return math.isnan(before) != math.isnan(now)
    limit = SMALLEST.get(name, SMALLEST_RATIO.get(name, 0.0) * abs(before))
    return abs(now - before) > limit


def _text(value: Value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "unknown"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
