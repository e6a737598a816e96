"""The events of a run in words: what its plan, its guardian and its operator did, and when."""

import math
from dataclasses import asdict

from potentiostat.segments import Step
from potentiostat.technique_data import step_to_data
from runner.continuing import Continuation, Gap
from runner.control import Order
from runner.format import held_text, with_sigma
from runner.image_stops import ImageStop
from runner.messages import (
    LevelsKnown,
    Passed,
    SegmentEnded,
    StartStep,
    StepEnded,
    StepPaused,
    Tripped,
)
from runner.moderation import Moderated
from runner.note_text import NOTE
from runner.pausing import PAUSED_KIND, RESUMED_KIND
from runner.position import CONTINUED, continued_data
from session.recorder import Recorder
from session.session_link import LINK

ORDER = "order"  # kind of the event of an operator's word
IMAGE_STOP = "image_stop"  # of a step's end by an image
MODERATED = "moderated"  # of another share of a step's current
SMALL_SEGMENTS = 100  # of a step that is kept as data with the event of its beginning


class RunNotes:
    """Records what happens in a run as events of its session.

    Parameters
    ----------
    recorder
        Open.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    # --- the plan ------------------------------------------------------------------------

    async def started(self, t_ns: int, message: StartStep, until: list[str]) -> None:
        """Record that a step begins, and by which rules it may end."""
        step, passed = message.step, message.passed
        gone_on = "" if passed is None else f", gone on with after {passed.elapsed_s:.4g} s"
        small = len(step.segments) <= SMALL_SEGMENTS
        await self._recorder.event(
            t_ns,
            "step_started",
            "runner",
            f"step {message.index + 1}: {step.name} at {held_text(step)}{gone_on}",
            {
                "step": message.index,
                "name": step.name,
                "held": held_text(step),
                "current_A": None if math.isnan(step.current_A) else step.current_A,
                "until": until,
                "technique": step_to_data(step) if small else None,
                "passed": _data(passed),
            },
        )

    async def levels(self, levels: LevelsKnown) -> None:
        """Record what the levels of a step count from."""
        await self._recorder.event(
            levels.t_ns,
            "levels_known",
            "guardian",
            f"step {levels.index + 1}: its levels count from what is known now",
            {"step": levels.index, **asdict(levels.known)},
        )

    async def segment(self, ended: SegmentEnded) -> None:
        """Record that a segment is over."""
        await self._recorder.event(
            ended.t_ns,
            "segment_ended",
            "guardian",
            f"step {ended.index + 1}: {ended.segment} ended: {ended.reason}",
            {
                "step": ended.index,
                "segment": ended.segment,
                "reason": ended.reason,
                "latency_ns": ended.latency_ns,
            },
        )

    async def ended(self, ended: StepEnded, step: Step) -> None:
        """Record that a step is over, and why."""
        await self._recorder.event(
            ended.t_ns,
            "step_ended",
            "guardian",
            f"step {ended.index + 1}: {step.name} ended: {ended.reason}",
            {
                "step": ended.index,
                "name": step.name,
                "kind": ended.kind.value,
                "reason": ended.reason,
                "latency_ns": ended.latency_ns,
            },
        )

    async def tripped(self, tripped: Tripped) -> None:
        """Record that the guardian took the cell to safety."""
        state = "not confirmed" if tripped.state is None else tripped.state.value
        await self._recorder.event(
            tripped.t_ns,
            "made_safe",
            "guardian",
            f"{tripped.reason}; safe state: {state}",
            {"kind": tripped.kind.value, "state": state},
        )

    # --- the run before ------------------------------------------------------------------

    async def continued(self, t_ns: int, before: Continuation, gap: Gap) -> None:
        """Record where a run that died is gone on with, before the first reading."""
        await self._recorder.attributes(LINK, before.attributes(gap))
        await self._recorder.event(
            t_ns,
            CONTINUED,
            "runner",
            f"goes on from {before.link.path}",
            continued_data(before.position),
        )

    async def gap(self, t_ns: int, before: Continuation, gap: Gap) -> None:
        """Record the rest between the last reading of the run that died and the first of this."""
        attributes = before.attributes(gap)
        await self._recorder.attributes(LINK, attributes)  # now that the voltage is known
        leak = with_sigma(*gap.leak_C, "C")
        flow = with_sigma(before.position.flow_C, before.position.flow_sigma_C, "C")
        await self._recorder.event(
            t_ns,
            "gap",
            "runner",
            f"{gap.seconds:.1f} s at rest since the last reading of {before.link.path}; "
            f"unread until the cell was safe: {flow}; taken by the holder since: {leak}",
            attributes,
        )

    # --- the operator ----------------------------------------------------------------------

    async def paused(self, paused: StepPaused) -> None:
        """Record that a step is set aside."""
        await self._recorder.event(
            paused.t_ns,
            PAUSED_KIND,
            "guardian",
            f"step {paused.index + 1}: paused, at rest at 0 A",
            {
                "step": paused.index,
                "passed": _data(paused.passed),
                "latency_ns": paused.latency_ns,
            },
        )

    async def resumed(self, t_ns: int, message: StartStep, rested_s: float) -> None:
        """Record that a step that was set aside begins again."""
        await self._recorder.event(
            t_ns,
            RESUMED_KIND,
            "runner",
            f"step {message.index + 1}: resumed after {rested_s:.4g} s at rest",
            {
                "step": message.index,
                "passed": _data(message.passed),
                "rested_s": rested_s,
            },
        )

    async def order(self, t_ns: int, order: Order) -> None:
        """Record what the operator said, and by whom."""
        if order.word == NOTE:
            await self._recorder.event(t_ns, NOTE, order.source, order.text, {})
            return
        text = f"{order.word}, by {order.source}"
        await self._recorder.event(t_ns, ORDER, order.source, text, {"word": order.word})

    # --- images and readings ---------------------------------------------------------------

    async def image_stop(self, stop: ImageStop) -> None:
        """Record why a step ends by an image."""
        await self._recorder.event(stop.t_ns, IMAGE_STOP, "runner", stop.reason, stop.data())

    async def moderated(self, moderated: Moderated) -> None:
        """Record that another share of a step's current flows."""
        await self._recorder.event(
            moderated.t_ns, MODERATED, "runner", moderated.reason, moderated.data()
        )

    async def missing(self, t_ns: int, missing: int) -> None:
        """Record that readings were not taken in time."""
        await self._recorder.event(
            t_ns,
            "gap",
            "guardian",
            f"{missing} readings or blocks of them were not taken in time and are lost",
            {"missing": missing},
        )


def _data(passed: Passed | None) -> dict[str, object] | None:
    return None if passed is None else asdict(passed)
