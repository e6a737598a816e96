"""What a person watching a run wants to know."""

from collections.abc import Callable
from dataclasses import dataclass, field

from runner.image_rules import ImageRule
from runner.messages import StepEnded


@dataclass(slots=True)
class LiveState:
    """What a person watching the run wants to know; written by the run alone."""

    steps: int
    step: int = -1
    step_name: str = ""
    step_elapsed_s: float = 0.0
    step_longest_s: float = 0.0
    elapsed_s: float = 0.0
    planned_s: float = 0.0
    voltage_V: float = float("nan")
    current_A: float = float("nan")
    charge_C: float = 0.0
    samples: int = 0
    frames: int = 0
    dropped: int = 0
    dose_e_m2: float = 0.0
    clock_sigma_ns: float = float("nan")
    ended: list[StepEnded] = field(default_factory=list)
    held: str = ""  # the rule that holds the plan until the operator says so
    waits: bool = False  # for the operator's word, as the plan asks
    rules: tuple[ImageRule, ...] = ()  # on images, by which the present step may end
    untracked: int = 0  # frames that trackers left out, as they were slower than the camera
    moderated: str = ""  # by what the step's current is less than the plan's
    unseen: str = ""  # why the next step, whose rules are on images, is not begun yet
    ring_fill: float = 0.0  # share of the recorder's ring that waits for the disk
    paused: str = ""  # "pausing" until the cell rests, then "paused"
    temperature_K: float | None = None  # NaN where it is not known; None where nobody asks


Watcher = Callable[[LiveState], None]
"""Called after every block of readings; must return at once."""
