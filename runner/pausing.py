"""A pause: the step is set aside at rest, and started again with what of it has passed."""

from dataclasses import replace
from datetime import datetime

from runner.messages import StartStep, StepPaused
from runner.waiting import with_known_end

PAUSED_KIND, RESUMED_KIND = "paused", "resumed"  # of events


class Pausing:
    """Where a plan stands as to pauses. Pure: it is told what happens, and touches nothing.

    A step is on, or set aside, or none is: between two steps a pause holds up the next.

    Attributes
    ----------
    message
        With which the present step was started last.
    paused
        Of the step that is set aside; None for none.
    is_between
        True while the next step waits for the end of a pause.
    """

    def __init__(self) -> None:
        self.message: StartStep | None = None
        self.paused: StepPaused | None = None
        self.is_between = False

    @property
    def is_on(self) -> bool:
        """True while a step is on that could be set aside."""
        return self.message is not None and self.paused is None

    @property
    def word(self) -> str:
        """What to call it."""
        return "paused" if self.is_between or self.paused is not None else ""

    def begun(self, message: StartStep) -> None:
        """Note that a step was started, for the first time or again."""
        self.message, self.paused, self.is_between = message, None, False

    def set_aside(self, paused: StepPaused) -> None:
        """Note that the step rests."""
        self.paused = paused

    def ended(self) -> None:
        """Note that the step is over."""
        self.message = self.paused = None

    def between_steps(self) -> None:
        """Note that the next step waits."""
        self.is_between = True

    def go_on(self) -> None:
        """Note that it waits no longer."""
        self.is_between = False


def again(message: StartStep | None, paused: StepPaused, now: datetime) -> StartStep:
    """Return what starts a step again after a pause.

    Parameters
    ----------
    message
        With which it was started before.
    now
        What is left of a wait for a time of day is counted from here.
    """
    if message is None or message.index != paused.index:
        raise ValueError(f"step {paused.index + 1} is paused, and was not started")
    step, passed = message.step, paused.passed
    if step.wait is not None and step.wait.trigger == "time":
        # The message holds the time that was left when it was started: it is known anew.
        step = with_known_end(replace(step, until=step.until[:-1]), now)
        passed = None if passed is None else replace(passed, elapsed_s=0.0)
    return replace(message, step=step, passed=passed)
