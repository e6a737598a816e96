"""The live part of a run: readings and frames, stamped and recorded as they come."""

import asyncio
import math
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cameras.protocol import FrameSource
from cameras.records import Frame
from runner.audience import NOBODY, Audience
from runner.blanking import RhythmMeter
from runner.bus_show import BusShow, Show
from runner.cell import GuardedCell
from runner.clock import HostClock
from runner.continuing import Continuation
from runner.control import Control
from runner.experiment import Experiment
from runner.filming import Filming
from runner.frame_stamper import FrameStamper
from runner.header import CAMERA
from runner.image_stops import ImageStop
from runner.image_watch import ImageWatch
from runner.live_state import LiveState, Watcher
from runner.live_tracking import LiveTracking
from runner.messages import (
    Block,
    EndKind,
    Finished,
    HolderTerms,
    LevelsKnown,
    Passed,
    SegmentEnded,
    StartStep,
    StepEnded,
    StepPaused,
    Tripped,
)
from runner.pausing import Pausing, again
from runner.plan import Ending, ExitCode, Plan
from runner.reading_record import ReadingRecord
from runner.run_notes import RunNotes
from runner.tracking import Seen
from runner.waiting import Waiting, with_known_end
from session.recorder import Recorder
from session.records import FrameHeader

REST_READINGS = 10  # at which a cell is looked at before a run that died is gone on with
SIGHT_S = 60.0  # for which a step whose rules are on images waits until its tracks are followed


class Acquisition:
    """Runs a plan on a cell while a camera films it, and records both.

    Parameters
    ----------
    cell
        Open and resting.
    camera
        Entered but not started; None for none.
    recorder
        Open.
    plan
        Not begun.
    before
        The run that died, with which this one goes on.
    tracking
        Entered; None where no rule is on a track.
    holder
        What it takes of the current; None where it was not measured.
    """

    def __init__(  # noqa: PLR0913 - one argument for each part that it joins
        self,
        experiment: Experiment,
        *,
        cell: GuardedCell,
        camera: FrameSource | None,
        recorder: Recorder,
        plan: Plan,
        clock: HostClock,
        control: Control,
        watcher: Watcher,
        show: Show,
        before: Continuation | None = None,
        audience: Audience = NOBODY,
        tracking: LiveTracking | None = None,
        holder: HolderTerms | None = None,
    ) -> None:
        self._experiment = experiment
        self._cell = cell
        self._recorder = recorder
        self._notes = RunNotes(recorder)
        self._plan = plan
        self._clock = clock
        self._control = control
        self._watcher = watcher
        self._bus = BusShow(show)
        self._audience = audience
        self._pausing = Pausing()
        self._waiting = Waiting()
        self._tracking = tracking
        self._images = ImageWatch(
            experiment,
            plan,
            now_ns=clock.now_ns,
            holder=holder,
            frame_rate_Hz=math.nan if camera is None else camera.info.frame_rate_Hz,
        )
        self._image_stop: ImageStop | None = None  # by which the present step ends
        self._unnoted: ImageStop | None = None  # that is not recorded yet
        self._unseen: tuple[StartStep, int] | None = None  # a step that waits for its tracks
        self._before = before
        self._passed: Passed | None = None  # of the step that is gone on with
        self._start_ns = clock.now_ns()
        self._start_time = datetime.now().astimezone()
        self._step_start_ns = self._start_ns
        self._why_end: str | None = None
        self._cycle = 0
        self._discharged = False
        self.rhythm = RhythmMeter()
        self._readings = ReadingRecord(experiment, recorder, self._notes, self.rhythm)
        filmed = experiment.camera
        self.filming = None
        if camera is not None:
            stamper = FrameStamper(
                camera,
                CAMERA,
                clock=clock,
                recorder=recorder,
                dose_rate_e_m2_s=math.nan if filmed is None else filmed.dose_rate_e_m2_s,
                rhythm=self.rhythm,
            )
            self.filming = Filming(
                camera,
                stamper,
                recorder,
                tracking=tracking,
                now_ns=clock.now_ns,
                show=self._show_frame,
                came=self._frame_came,
            )
        self.state = LiveState(
            steps=len(plan),
            planned_s=experiment.longest_s,
        )
        control.attach(self.state, clock.now_ns)
        audience.begin(self.state, self._start_ns)

    async def run(self) -> Ending:
        """Play the plan to its end, whatever that is."""
        try:
            return await self._play()
        finally:
            self._control.conclude()

    async def _play(self) -> Ending:
        if (filming := self.filming) is None:
            return await self._follow_plan()
        await filming.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(filming.film(), name="runner.film")
            keeper = teller = None
            if self._tracking is not None:
                telling = self._tracking.tell(self._take_seen)
                teller = group.create_task(telling, name="runner.tell")
            if filming.has_clock:
                keeper = group.create_task(filming.keep_time(), name="runner.keep_time")
            ending = await self._follow_plan()
            for task in (keeper, teller):
                if task is not None:
                    task.cancel()
            await filming.end()
        return ending

    # --- the plan ------------------------------------------------------------------

    async def _follow_plan(self) -> Ending:
        if self._before is None:
            await self._go_on()
        else:
            before = self._before
            gap = before.gap(self._start_time, before.position.voltage_V)
            await self._notes.continued(self._start_ns, before, gap)
        self._cell.renew(0)  # last: in virtual time, reading begins with the first step on
        going = self._before is None or await self._take_up(self._before)
        while going and (self._plan.ending is None or self._plan.step is not None):
            match await self._cell.receive():
                case Block() as block:
                    going = await self._deal_with(block)
                case LevelsKnown() as levels:
                    await self._notes.levels(levels)
                case SegmentEnded() as segment:
                    await self._notes.segment(segment)
                case StepEnded() as ended:
                    going = await self._take_end(ended)
                case StepPaused() as paused:
                    await self._note_pause(paused)
                case Tripped() as tripped:
                    await self._note_trip(tripped)
                    going = False
                case Finished():
                    going = False
        await self._readings.flush()
        self._bus.flush()
        self._control.conclude()
        await self._note_orders()
        return self._plan.ending or Ending(
            code=ExitCode.FAILED, reason="the guardian finished by itself"
        )

    async def _deal_with(self, block: Block) -> bool:
        """Take readings, and do what they and the operator ask for; False for no more."""
        await self._take(block)
        await self._clock.settle()
        await self._look_at_images(block)
        self._heed_word()
        self._heed_operator()
        await self._heed_pause()
        await self._note_orders()
        going = not self._may_go_on() or await self._go_on()
        self._cell.renew(block.sequence)
        return going

    async def _take_up(self, before: Continuation) -> bool:
        """Look at the cell at rest, and begin where the run before died; False where it may not."""
        for step in self._plan.take_up(before.position.ended):
            self._count_cycle(step.current_A)
        rest_V: list[float] = []
        first_ns: int | None = None
        while len(rest_V) < REST_READINGS:
            match await self._cell.receive():
                case Block() as block:
                    rest_V += [float(v) for v in block.samples["voltage_V"] if math.isfinite(v)]
                    if first_ns is None and len(block.samples):
                        first_ns = int(block.samples["read_start_ns"][0])
                    await self._take(block)
                    await self._clock.settle()
                    if self._plan.obey(self._control.wish) is not None:
                        return False
                    self._cell.renew(block.sequence)
                case Tripped() as tripped:
                    await self._note_trip(tripped)
                    return False
                case Finished():
                    return False
        voltage_V = sum(rest_V) / len(rest_V)
        unfit = before.unfit_voltage(voltage_V)
        if unfit is not None:
            self._plan.ending = Ending(code=ExitCode.REFUSED, reason=unfit)
            return False
        begun_ns = self._start_ns if first_ns is None else first_ns
        gap = before.gap(self._wall_time(begun_ns), voltage_V)
        await self._notes.gap(begun_ns, before, gap)
        self._passed = before.position.passed
        return await self._go_on()

    async def _take_end(self, ended: StepEnded) -> bool:
        """Note the end of a step and go on; False when there is nothing to go on with."""
        await self._note_end(ended)
        stop, self._image_stop = self._image_stop, None
        holds = stop is not None and stop.action == "hold" and ended.kind is EndKind.COMMAND
        if ended.kind is EndKind.HELD or holds:
            self.state.held = ended.reason
            self._control.take_go_on()  # what was said before is not meant
        if holds:
            return not self._plan.must_close
        if ended.kind in (EndKind.CONDITION, EndKind.COMMAND):
            return await self._go_on()
        return True

    async def _go_on(self) -> bool:
        if self._plan.must_close:
            return False
        if self._control.is_paused:
            self._pausing.between_steps()
            self.state.paused = self._pausing.word
        else:
            await self._begin_next_step()
        return True

    async def _begin_next_step(self) -> None:
        message = self._plan.next_step()
        if message is None:
            return
        if why := self._images.not_seen(message.index):
            self._unseen, self.state.unseen = (message, self._clock.now_ns()), why
            return
        await self._begin(message)

    async def _begin(self, message: StartStep) -> None:
        self._step_start_ns = self._clock.now_ns()
        self._control.take_next()  # what was said before is not meant
        passed, self._passed = self._passed, None
        step = with_known_end(message.step, self._wall_time())
        message = replace(message, step=step, passed=passed)
        self._control.take_go_on()  # what was said before is not meant
        self._waiting.begin(step)
        self.state.waits = self._waiting.for_operator
        self.state.steps = len(self._plan)
        self._count_cycle(step.current_A)
        self.state.step, self.state.step_name = message.index, step.name
        self.state.step_longest_s = step.longest_s
        until = [
            *(condition.text for condition in step.until),
            *(rule.text for rule in self._images.rules(message.index)),
        ]
        await self._notes.started(self._step_start_ns, message, until)
        self.state.rules = self._images.rules(message.index)
        self._cell.start(replace(message, share=self._images.begin(message)))
        self._pausing.begun(message)

    def _wall_time(self, t_ns: int | None = None) -> datetime:
        """Return the time of day: that of the start, and what the run's clock says since."""
        then_ns = self._clock.now_ns() if t_ns is None else t_ns
        return self._start_time + timedelta(seconds=(then_ns - self._start_ns) / 1e9)

    def _count_cycle(self, current_A: float) -> None:
        """Count cycles: one begins with the first charge after a discharge."""
        if current_A > 0 and self._discharged:
            self._cycle += 1
            self._discharged = False
        elif current_A < 0:
            self._discharged = True

    async def _note_end(self, ended: StepEnded) -> None:
        self._why_end = None
        self._images.end()
        self.state.rules, self.state.moderated = (), ""
        self.state.waits = False
        self._waiting = Waiting()
        self._pausing.ended()
        self.state.paused = self._pausing.word
        self._plan.judge(ended)
        self.state.ended.append(ended)
        await self._notes.ended(ended, self._plan[ended.index])

    async def _note_trip(self, tripped: Tripped) -> None:
        if self._plan.ending is None:
            code = ExitCode.LIMIT if tripped.kind is EndKind.LIMIT else ExitCode.FAILED
            self._plan.ending = Ending(code=code, reason=tripped.reason)
        await self._notes.tripped(tripped)

    def _may_go_on(self) -> bool:
        """Tell whether the operator lets a held or paused plan go on, or ends it."""
        if self._pausing.is_between and (self._why_end is not None or not self._control.is_paused):
            self._pausing.go_on()
            self.state.paused, self._why_end = self._pausing.word, None
            return True
        if self._unseen is not None and self._why_end is not None:
            self._unseen, self._why_end, self.state.unseen = None, None, ""
            return True
        if not self.state.held:
            return False
        if self._why_end is None and not self._control.take_go_on():
            return False
        self.state.held = ""
        self._why_end = None
        return True

    def _heed_operator(self) -> None:
        self._why_end = self._plan.obey(self._control.wish, self._control.why) or self._why_end
        if self._control.take_next() and self._why_end is None:
            self._why_end = "next step: the operator went on"
        if self._why_end is not None:
            self._cell.end_step(self._why_end)  # again, until the step has ended

    async def _heed_pause(self) -> None:
        """Set the step aside, again until it is, or take it up again."""
        if self._why_end is not None or self.state.held:
            return
        if self._control.is_paused:
            if self._pausing.is_on:
                self._cell.pause_step()
                self.state.paused = "pausing"
        elif (paused := self._pausing.paused) is not None:
            await self._resume(paused)
        else:
            self.state.paused = self._pausing.word

    async def _note_pause(self, paused: StepPaused) -> None:
        self._pausing.set_aside(paused)
        self._images.end()  # resting on the operator's word, whatever they show
        self.state.moderated = ""
        self.state.paused = self._pausing.word
        await self._notes.paused(paused)

    async def _resume(self, paused: StepPaused) -> None:
        """Start the step that was set aside again, with what of it has passed."""
        message = again(self._pausing.message, paused, self._wall_time())
        now_ns, passed = self._clock.now_ns(), message.passed
        rested_s = (now_ns - paused.t_ns) / 1e9
        self.state.planned_s += rested_s
        self._step_start_ns = now_ns - round(1e9 * (0.0 if passed is None else passed.elapsed_s))
        await self._notes.resumed(now_ns, message, rested_s)
        self._cell.start(replace(message, share=self._images.begin(message)))
        self._pausing.begun(message)
        self.state.paused = self._pausing.word

    async def _note_orders(self) -> None:
        """Record what the operator said, by whom and when."""
        for order in self._control.take_orders():
            t_ns = self._start_ns if order.t_ns is None else order.t_ns
            await self._notes.order(t_ns, order)

    def _heed_word(self) -> None:
        """End a step that waits for the operator, once told to."""
        if self._waiting.for_operator and self._control.take_go_on():
            self._end_wait("operator")

    def _end_wait(self, trigger: str) -> None:
        why = self._waiting.came(trigger)
        if why is not None:
            self.state.waits = False
            self._why_end = self._why_end or why

    # --- what images ask for -----------------------------------------------------------

    async def _look_at_images(self, block: Block) -> None:
        """Heed what images show by now, and that they show nothing."""
        if self._tracking is not None:
            await self._tracking.catch_up(self._clock.now_ns())
            self.state.untracked = self._tracking.counters.left_out
        self._stop_by(self._images.readings(block))
        await self._moderate()
        await self._heed_unseen()
        if (stop := self._unnoted) is not None:
            self._unnoted = None
            await self._notes.image_stop(stop)

    async def _moderate(self) -> None:
        """Let another share of the step's current flow, where images ask for it."""
        if self._pausing.message is None or (moderated := self._images.moderated()) is None:
            return
        self._cell.moderate(self._pausing.message.index, moderated.share)
        self.state.moderated = moderated.reason if moderated.share < 1 else ""
        await self._notes.moderated(moderated)

    def _take_seen(self, seen: Seen) -> None:
        self._stop_by(self._images.seen(seen))
        self._audience.seen(seen)
        self._bus.seen(seen)

    def _stop_by(self, stop: ImageStop | None) -> None:
        """End the step at once; it is recorded with the next readings."""
        if stop is None:
            return
        self._image_stop = self._unnoted = stop
        self._why_end = self._why_end or stop.reason
        self._cell.end_step(stop.reason)
        if stop.action == "safe" and not self._plan.must_close:
            self._plan.refuse_more(Ending(code=ExitCode.LIMIT, reason=stop.reason))

    async def _heed_unseen(self) -> None:
        """Begin a step that waits for its tracks, once they are followed; not for ever."""
        if self._unseen is None or self._why_end is not None:
            return
        message, since_ns = self._unseen
        why = self._images.not_seen(message.index)
        if not why:
            self._unseen, self.state.unseen = None, ""
            await self._begin(message)
        elif self._clock.now_ns() - since_ns > SIGHT_S * 1e9:
            self._why_end = f"step {message.index + 1} was not begun: {why}"
            self._plan.refuse_more(Ending(code=ExitCode.FAILED, reason=self._why_end))

    # --- readings --------------------------------------------------------------------

    async def _take(self, block: Block) -> None:
        step = self._plan[block.step] if block.step >= 0 else None
        rows = await self._readings.take(block, step, cycle=self._cycle)
        if block.temperatures:
            self.state.temperature_K = block.temperatures[-1].temperature_K
        self._show(rows, block.ionic_C)

    def _show(self, rows: NDArray[np.void], ionic_C: NDArray[np.float64] | None) -> None:
        if len(rows) == 0:
            return
        last, state, now_ns = rows[-1], self.state, self._clock.now_ns()
        state.voltage_V, state.current_A = (
            float(last["voltage"]),
            float(last["current"]),
        )
        state.charge_C = float(last["charge"])
        state.samples += len(rows)
        if self.filming is not None:
            state.clock_sigma_ns = self.filming.clock_sigma_ns
        state.elapsed_s = (now_ns - self._start_ns) / 1e9
        if self._pausing.paused is None:
            state.step_elapsed_s = (now_ns - self._step_start_ns) / 1e9
        self._watcher(state)
        self._audience.readings(rows, ionic_C)
        self._bus.samples(rows)

    # --- frames ------------------------------------------------------------------------

    def _show_frame(self, stamps: FrameHeader, frame: Frame) -> None:
        self._bus.frame(stamps)
        self._audience.frame(stamps, frame.pixels)

    def _frame_came(self, stamps: FrameHeader, frame: Frame, fill: float) -> None:
        """Count a frame that was recorded, and do what waited for one."""
        self.state.ring_fill = fill
        self._end_wait("frame")
        self.state.frames += 1
        self.state.dropped += frame.info.dropped_before
        self._count_dose(stamps.dose_per_m2)
        dose_e_m2, now_ns = self.state.dose_e_m2, self._clock.now_ns()
        self._stop_by(self._images.dose(stamps.index, now_ns, dose_e_m2))

    def see_remote(self, frames: int, dropped: int, lit_ns: int) -> None:
        """Take notice of frames whose pixels stay elsewhere, and count their dose."""
        self.state.frames += frames
        self.state.dropped += dropped
        if frames:
            self._end_wait("frame")
        if (camera := self._experiment.camera) is not None:
            self._count_dose(camera.dose_rate_e_m2_s * lit_ns / 1e9)

    def _count_dose(self, dose_e_m2: float) -> None:
        """Hold the limit, which counts what a run before this one has given."""
        before_e_m2 = 0.0 if self._before is None else self._before.position.dose_e_m2
        self.state.dose_e_m2 = before_e_m2 + dose_e_m2
        limit_e_m2 = self._experiment.dose_limit_e_m2
        if limit_e_m2 is not None and self.state.dose_e_m2 > limit_e_m2:
            self._end_for_dose(limit_e_m2)

    def _end_for_dose(self, limit_e_m2: float) -> None:
        if self._plan.must_close:
            return
        self._why_end = f"dose beyond the limit {limit_e_m2 / 1e20:.4g} e/angstrom^2"
        self._plan.refuse_more(Ending(code=ExitCode.LIMIT, reason=self._why_end))
