"""Plays a code with the beam during a run, and leaves the beam as it was found.

The player commands the microscope's blanker and records between which stamps of the host
each edge came. It touches neither the cell nor the plan: a microscope that is lost ends the
code, not the run. A code only lowers the dose: a beam that is found blanked stays so.
"""

import asyncio
import math
import statistics
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cameras.microscope import BlankCommand, Microscope, MicroscopeLost, MicroscopeState
from runner.blanking_settings import BlankingSettings, Rhythm, plan_code
from runner.clock import HostClock
from runner.microscope_watch import watch_microscope
from session.recorder import Recorder
from sync.code import CodePlan

BEAM = "beam"
BLANKER = "blanker"
TRIES = 3  # to let the beam on again
LOOK_S = 0.5  # between two looks whether frames and readings have come
KEPT_READINGS = 100
MEASURED_FRAMES, MEASURED_READINGS = 10, 10  # with fewer, periods are not measured yet


@dataclass(slots=True)
class RhythmMeter:
    """Measures when frames and readings are taken; written by the acquisition.

    The periods are means over the whole run: a dropped frame is counted by its number.
    """

    _first: tuple[int, int] = (0, 0)
    _last: tuple[int, int] = (0, 0)
    _frames: int = 0
    _exposure_ns: int = 0
    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_READINGS))
    _reading_ns: int | None = None
    _aperture_s: float = math.nan

    def frame(self, index: int, start_ns: int, exposure_ns: int) -> None:
        """Take a frame: its number, its stamp, and how long it was exposed."""
        if self._frames == 0:
            self._first = (index, start_ns)
        self._last = (index, start_ns)
        self._frames += 1
        self._exposure_ns = exposure_ns

    def reading(self, t_ns: int, aperture_s: float) -> None:
        """Take a reading: its time, and its aperture."""
        if self._reading_ns is not None:
            self._intervals_s.append((t_ns - self._reading_ns) / 1e9)
        self._reading_ns = t_ns
        self._aperture_s = aperture_s

    def rhythm(self) -> Rhythm | None:
        """Return what was measured; None while there is too little."""
        count = self._last[0] - self._first[0]
        length_ns = self._last[1] - self._first[1]
        if self._frames < MEASURED_FRAMES or count <= 0 or length_ns <= 0:
            return None
        if len(self._intervals_s) < MEASURED_READINGS:
            return None
        period_s = length_ns / count / 1e9
        return Rhythm(
            frame_period_s=period_s,
            duty=self._exposure_ns / 1e9 / period_s if self._exposure_ns > 0 else 1.0,
            # A step of the plan takes longer than a reading: the usual interval counts.
            sample_interval_s=statistics.median(self._intervals_s),
            aperture_s=self._aperture_s,
        )


class Unplayed(Exception):
    """A code was not begun; the message says why."""


class BlankingPlayer:
    """Plays codes with a microscope's blanker.

    Parameters
    ----------
    settings
        What to play.
    recorder
        Open.
    microscope
        Entered.
    clock
        Of the run.
    measured
        Returns when frames and readings are taken; None while that is not known.
    """

    def __init__(
        self,
        settings: BlankingSettings,
        *,
        recorder: Recorder,
        microscope: Microscope,
        clock: HostClock,
        measured: Callable[[], Rhythm | None],
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._microscope = microscope
        self._clock = clock
        self._measured = measured
        self.playing = False

    async def run(self) -> None:
        """Play as the settings say; ends by itself after a single code."""
        with self._clock.party():
            next_ns = self._clock.now_ns() + round(self._settings.after_s * 1e9)
            while True:
                await self._clock.sleep_until(next_ns)
                begun_ns = self._clock.now_ns()
                try:
                    plan = await self._ready()
                    await self.play(plan)
                except Unplayed as error:
                    await self._note("code_refused", str(error))
                if math.isinf(self._settings.every_s):
                    return
                next_ns = begun_ns + round(self._settings.every_s * 1e9)

    async def _ready(self) -> CodePlan:
        """Wait until the run's rhythm is known; return the code that suits it.

        Raises
        ------
        Unplayed
            None suits.
        """
        while (rhythm := self._measured()) is None:
            await self._clock.sleep_until(self._clock.now_ns() + round(LOOK_S * 1e9))
        try:
            return plan_code(self._settings, rhythm)
        except ValueError as error:
            raise Unplayed(
                f"code not played with frames every {rhythm.frame_period_s:.6g} s and readings "
                f"every {rhythm.sample_interval_s:.4g} s as measured: {error}"
            ) from error

    async def play(self, plan: CodePlan) -> None:
        """Play a code once, and record its edges; the beam is on afterwards.

        Whatever happens, the beam is let on again, and the edges that were made are kept.

        Raises
        ------
        Unplayed
            The beam is blanked already, or the microscope does not say.
        """
        await self._refuse_unknown_beam()
        code = plan.code
        start_ns = self._clock.now_ns()
        done: list[BlankCommand] = []
        why = "an error of this program"
        self.playing = True
        try:
            for i, at_ns in enumerate(code.edges_ns(start_ns)):
                await self._clock.sleep_until(int(at_ns))
                done.append(await self._microscope.blank(on=i % 2 == 0))
            # The last edge has let the beam on; the last chip is still to last.
            await self._clock.sleep_until(start_ns + round(code.length_s * 1e9))
            why = ""
        except MicroscopeLost as error:
            why = str(error)
        except asyncio.CancelledError:
            why = "the run ended"
            raise
        finally:
            await _to_the_end(self._leave_as_found(plan, start_ns, done, why))
            self.playing = False

    async def _refuse_unknown_beam(self) -> None:
        try:
            blanked = (await self._microscope.state()).beam_blanked
        except MicroscopeLost as error:
            raise Unplayed(f"code not played: {error}") from error
        if blanked is None:
            raise Unplayed(
                "code not played: the microscope does not say whether its beam is blanked, so it "
                "could not be left as it was found"
            )
        if blanked:
            raise Unplayed("code not played: the beam is blanked, and a code must not let it on")

    async def _leave_as_found(
        self, plan: CodePlan, start_ns: int, done: list[BlankCommand], why: str
    ) -> None:
        """Let the beam on where the code ended before its end, and record what was played."""
        sure = not why
        tried = 0
        while not sure and tried < TRIES:
            tried += 1
            # A command that failed may have moved the blanker all the same.
            with suppress(MicroscopeLost):
                command = await self._microscope.blank(on=False)
                if len(done) % 2:
                    done.append(command)
                sure = True
        played = f"code of {plan.edges} edges, chips of {plan.code.chip_ns / 1e9:.6g} s, played"
        message = played if not why else f"{played} in part ({len(done)} edges): {why}"
        await self._note(
            BEAM,
            message,
            {
                "order": plan.code.order,
                "chip_ns": plan.code.chip_ns,
                "repeats": plan.code.repeats,
                "start_ns": start_ns,
                "edges": plan.edges,
                "complete": not why,
                "sent_ns": [command.sent_ns for command in done],
                "done_ns": [command.done_ns for command in done],
                "left_on": sure,
                "seen_share": plan.seen_share,
                "notes": list(plan.notes),
            },
        )
        if not sure:
            await self._note(
                "beam_left",
                f"the beam may be blanked still: letting it on failed {TRIES} times ({why}); look "
                "at the microscope",
                {"blanked": None},
            )

    async def _note(self, kind: str, message: str, data: dict[str, object] | None = None) -> None:
        await self._recorder.event(self._clock.now_ns(), kind, BLANKER, message, data)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end, even where this task is cancelled meanwhile."""
    task = asyncio.create_task(work, name="runner.leave_beam")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class _Undisturbed:
    """A microscope for the watcher: not asked, and as it was, while a code plays.

    The beam's changes stand in the code's own event, and a question between two commands
    would make the edges late.
    """

    def __init__(self, microscope: Microscope, player: BlankingPlayer | None) -> None:
        self._microscope = microscope
        self._player = player
        self._last: MicroscopeState | None = None

    async def state(self) -> MicroscopeState:
        """Read what it is set to."""
        if self._player is not None and self._player.playing and self._last is not None:
            return self._last
        state = await self._microscope.state()
        if self._player is not None and self._player.playing:  # a code began meanwhile
            state = replace(state, beam_blanked=False)
        self._last = state
        return state


@asynccontextmanager
async def beside_the_run(
    microscope: Microscope | None,
    blanking: BlankingSettings | None,
    *,
    recorder: Recorder,
    clock: HostClock,
    measured: Callable[[], Rhythm | None],
) -> AsyncIterator[None]:
    """Watch the microscope, and blank its beam, while the context lasts.

    Parameters
    ----------
    microscope
        Entered; None for none, and then nothing happens.
    blanking
        What to play; None for nothing.
    """
    if microscope is None:
        yield
        return
    player = None
    if blanking is not None:
        player = BlankingPlayer(
            blanking, recorder=recorder, microscope=microscope, clock=clock, measured=measured
        )
    watched: Microscope = _Undisturbed(microscope, player)  # type: ignore[assignment]
    tasks = [
        asyncio.create_task(watch_microscope(recorder, watched, clock), name="runner.microscope")
    ]
    if player is not None:
        tasks.append(asyncio.create_task(player.run(), name="runner.blanking"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    # What went wrong beside the run is told, and is no reason to lose it.
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            await recorder.event(
                clock.now_ns(), "microscope", "runner", f"{type(error).__name__}: {error}", {}
            )
