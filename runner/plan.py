"""Plays the steps of an experiment one after the other: decides, and holds no physics."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from potentiostat.records import RangeSpec
from potentiostat.segments import Step
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

    One that only measures is none: between its steps every plan rests at a sourced 0 A.

    Raises
    ------
    ValueError
        No range of the instrument is large enough.
    """
    sourcing = [r for r in ranges if r.sources]
    fitting = [r for r in sourcing if abs(current_A) <= 0.9 * r.full_scale_A]
    if not fitting:
        largest = max((r.full_scale_A for r in sourcing), default=0.0)
        raise ValueError(
            f"{current_A:.4g} A is beyond the largest range that the instrument can source, "
            f"{largest:.4g} A"
        )
    return min(fitting, key=lambda r: r.full_scale_A)


def find_back(steps: Sequence[Step], here: int, label: str) -> int | None:
    """Return the nearest step of a label at or before a place; None for none."""
    return next((i for i in range(here, -1, -1) if steps[i].label == label), None)


def longest_s(steps: Sequence[Step]) -> float:
    """Return the longest duration of a plan, with all of its jumps back."""
    lasting = [step.longest_s for step in steps]
    total_s = sum(lasting)
    for here, step in enumerate(steps):
        for condition in step.until:
            if condition.goto_most > 0:
                start = find_back(steps, here, condition.goto)
                again_s = 0.0 if start is None else sum(lasting[start : here + 1])
                total_s += condition.goto_most * again_s
    return total_s


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
        self._file = tuple(steps)
        self._steps = list(steps)
        self._written = list(range(len(self._steps)))  # which step of the file each one is
        self._jumps: Counter[tuple[int, str]] = Counter()
        self._goto: StepEnded | None = None
        self._range_A = range_A
        self.index = -1
        self.ending: Ending | None = None
        self._wish_obeyed = Wish.NOTHING

    def take_up(self, ended: Sequence[StepEnded]) -> list[Step]:
        """Go to where a plan was after these ends of its steps; return the steps.

        Raises
        ------
        ValueError
            They are not of this plan.
        """
        played = []
        for end in ended:
            message = self.next_step()
            if message is None or message.index != end.index:
                raise ValueError(
                    f"step {end.index + 1} ended where the plan has step {self.index + 1}"
                )
            rules = (c for c in message.step.until if c.goto and c.text == end.reason)
            for rule in rules:
                end = replace(end, goto=rule.goto, goto_most=rule.goto_most)  # noqa: PLW2901
            self.judge(end)
            played.append(message.step)
        return played

    @property
    def step(self) -> Step | None:
        """The step that is on, or None before the first and after the last."""
        return self[self.index] if 0 <= self.index < len(self) else None

    def __getitem__(self, index: int) -> Step:
        """Return a step of those played and to be played."""
        return self._steps[index]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._steps)

    def in_file(self, index: int) -> int:
        """Return which step of the file a step of the plan is, jumps and all."""
        return self._written[index]

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
        if self._wish_obeyed is Wish.STOP:
            last = len(self._steps) - 1
            rests_at_end = self._steps[last].is_rest
            return last if rests_at_end and self.index < last else len(self._steps)
        return self._jumped()

    def _jumped(self) -> int:
        """Return the step that the last end asks for.

        A jump back lays the steps of the file from there on once more behind the present
        one, so that each that is played keeps a number of its own.
        """
        ended, self._goto = self._goto, None
        here = self.index
        if ended is None:
            return here + 1
        if ended.goto_most == 0:  # ahead: needs no bound
            after = range(here + 1, len(self))
            return next((i for i in after if self[i].label == ended.goto), here + 1)
        written = self._written[here]
        jump = (written, ended.reason)
        start = find_back(self._file, written, ended.goto)
        if start is not None and self._jumps[jump] < ended.goto_most:
            self._jumps[jump] += 1
            self._steps[here + 1 : here + 1] = self._file[start : written + 1]
            self._written[here + 1 : here + 1] = range(start, written + 1)
        return here + 1

    def obey(self, wish: Wish, why: str = "") -> str | None:
        """Take the operator's wish; return why the present step must end, or None.

        Parameters
        ----------
        why
            Where the wish is not the operator's own.
        """
        if wish <= self._wish_obeyed:
            return None
        self._wish_obeyed = wish
        names = {Wish.STOP: "stopped", Wish.ABORT: "aborted", Wish.HALT: "halted"}
        reason = why or f"{names[wish]} by the operator"
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
        """Note an end that the plan did not foresee, or where a foreseen one leads."""
        if ended.kind is EndKind.CONDITION and ended.goto:
            self._goto = ended
        if ended.kind in (EndKind.CONDITION, EndKind.COMMAND, EndKind.HELD):
            return
        code = ExitCode.LIMIT if ended.kind is EndKind.LIMIT else ExitCode.FAILED
        self.ending = Ending(code=code, reason=ended.reason)
