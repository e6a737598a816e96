"""Plays the steps of an experiment one after the other: decides, and holds no physics."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from potentiostat.records import RangeSpec
from potentiostat.technique import Step
from runner.control import Wish
from runner.messages import EndKind, StartStep, StepEnded


class ExitCode(IntEnum):
    """How a command ends, as the shell sees it."""

    DONE = 0
    LIMIT = 1  # ended for safety, or by a limit that the plan did not foresee
    REFUSED = 2  # the input was refused
    FAILED = 3  # an instrument or camera failed
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the plan ended."""

    code: ExitCode
    reason: str


def choose_range(current_A: float, ranges: Sequence[RangeSpec]) -> RangeSpec:
    """Return the smallest range that holds ``current_A`` with a tenth to spare.

    Raises
    ------
    ValueError
        No range of the instrument is large enough.
    """
    fitting = [r for r in ranges if abs(current_A) <= 0.9 * r.full_scale_A]
    if not fitting:
        largest = max(r.full_scale_A for r in ranges)
        raise ValueError(
            f"{current_A:.4g} A is beyond the largest range of the instrument, {largest:.4g} A"
        )
    return min(fitting, key=lambda r: r.full_scale_A)


class Plan:
    """The steps, which of them is on, and what comes next.

    Parameters
    ----------
    steps
        In order.
    range_A
        One current range for the whole run: changing it would push a glitch into
        the cell.
    """

    def __init__(self, steps: Sequence[Step], *, range_A: float) -> None:
        self._steps = tuple(steps)
        self._range_A = range_A
        self.index = -1
        self.ending: Ending | None = None
        self._wish_obeyed = Wish.NOTHING

    @property
    def step(self) -> Step | None:
        """The step that is on, or None before the first and after the last."""
        return self._steps[self.index] if 0 <= self.index < len(self._steps) else None

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._steps)

    def next_step(self) -> StartStep | None:
        """Move on; None when the plan is done."""
        self.index = self._following()
        step = self.step
        if step is None:
            if self.ending is None:
                self.ending = Ending(code=ExitCode.DONE, reason="completed")
            return None
        return StartStep(index=self.index, step=step, range_A=self._range_A)

    def _following(self) -> int:
        """After a stop, only the last step is left, and only if it is a rest."""
        after = self.index + 1
        if self._wish_obeyed is Wish.STOP:
            last = len(self._steps) - 1
            rests_at_end = self._steps[last].is_rest
            return last if rests_at_end and self.index < last else len(self._steps)
        return after

    def obey(self, wish: Wish) -> str | None:
        """Take the operator's wish; return why the present step must end, or None."""
        if wish <= self._wish_obeyed:
            return None
        self._wish_obeyed = wish
        names = {Wish.STOP: "stopped", Wish.ABORT: "aborted", Wish.HALT: "halted"}
        reason = f"{names[wish]} by the operator"
        self.ending = Ending(code=ExitCode.INTERRUPTED, reason=reason)
        return reason

    def refuse_more(self, ending: Ending) -> None:
        """Let no further step begin, for a reason that is not the operator's."""
        self._wish_obeyed = Wish.HALT
        self.ending = ending

    @property
    def must_close(self) -> bool:
        """True once no further step may begin."""
        return self._wish_obeyed >= Wish.ABORT

    def judge(self, ended: StepEnded) -> None:
        """Note an end that the plan did not foresee."""
        if ended.kind in (EndKind.CONDITION, EndKind.COMMAND, EndKind.HELD):
            return
        code = ExitCode.LIMIT if ended.kind is EndKind.LIMIT else ExitCode.FAILED
        self.ending = Ending(code=code, reason=ended.reason)
