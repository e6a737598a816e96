"""What the runner and the guardian say to each other; plain data over a pipe."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, TriggerLines
from potentiostat.records import Apertures, Identity, RangeSpec
from potentiostat.segments import NOTHING_KNOWN, References, Step
from potentiostat.thermometer import TemperatureReading, ThermometerSpec
from runner.clock import ClockSpec

LEASE_S = 2.0  # real seconds without a sign of the runner until the cell is made safe


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderTerms:
    """What the holder takes of the instrument's current, from its calibration."""

    capacitance_F: float
    conductance_S: float
    offset_A: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a run that died had counted and held: a run that continues it goes on from there.

    Parameters
    ----------
    charge_C, charge_ionic_C
        Since the first run began; the second is NaN where it is not known.
    levels
        What was held and read last, for levels that count from it.
    """

    charge_C: float = 0.0
    charge_ionic_C: float = 0.0
    levels: References = NOTHING_KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardianSettings:
    """What a guardian needs to open one instrument and keep a cell safe.

    Parameters
    ----------
    driver, resource
        Registered driver name and VISA resource name.
    envelope
        Hard limits, checked at every reading.
    cell_attached
        False only for an open holder: then a voltage may be sourced.
    lease_s
        Real seconds without a sign of the runner until the cell is made safe.
    exchange_interval_s
        Time between questions for the instrument's clock, on the host clock.
    holder
        What the holder draws, for conditions on the ionic charge; None where unknown.
    block
        Readings that the instrument gives at once.
    lines
        What is wired to its trigger lines.
    stop_on_short
        Take the cell to safety when its voltage falls suddenly at a held current.
    asks_temperature
        A sensor is wired to the instrument, and is asked about once a second.
    carried
        From where charge is counted and levels are known.
    """

    driver: str
    resource: str
    clock: ClockSpec
    envelope: Envelope
    cell_attached: bool = True
    nplc: float = 1.0
    line_frequency_Hz: float = 50.0
    lease_s: float = LEASE_S
    exchange_interval_s: float = 1.0
    holder: HolderTerms | None = None
    block: int = 1
    lines: TriggerLines = NO_LINES
    stop_on_short: bool = False
    asks_temperature: bool = False
    carried: Carried = Carried()


# --- from the runner -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What of a step has passed before it is gone on with.

    Parameters
    ----------
    segment
        Number of the segment that was on.
    elapsed_s, charge_C, charge_ionic_C
        Since the step began.
    segment_elapsed_s, segment_charge_C, segment_charge_ionic_C
        Since that segment began.
    half_charge_C
        Since the direction changed.
    known
        What the step's levels count from.
    """

    segment: int = 0
    elapsed_s: float = 0.0
    charge_C: float = 0.0
    charge_ionic_C: float = 0.0
    segment_elapsed_s: float = 0.0
    segment_charge_C: float = 0.0
    segment_charge_ionic_C: float = 0.0
    half_charge_C: float = 0.0
    known: References = NOTHING_KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class StartStep:
    """Play the segments of a step until they are over or one of its conditions is met.

    Parameters
    ----------
    passed
        For a step that a run before this one was in.
    share
        Of its held currents, that is let flow until `Moderate` says otherwise.
    """

    index: int
    step: Step
    range_A: float
    passed: Passed | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse more current than the plan's."""
        check_share(self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderate:
    """Let another share of the held current of a step flow; nothing where it is not on.

    Raises
    ------
    ValueError
        It is more than all, or nothing: the first would exceed the plan, the other is a rest.
    """

    index: int
    share: float

    def __post_init__(self) -> None:
        """Refuse more current than the plan's."""
        check_share(self.share)


def check_share(share: float) -> None:
    """Raise ValueError for what is no share of a current."""
    if not 0 < share <= 1:
        raise ValueError(f"{share!r} is no share of a current: more than 0, 1 at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndStep:
    """End the present step now and rest at 0 A."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseStep:
    """Set the present step aside and rest at 0 A, until it is started again or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """The runner lives and has dealt with block ``sequence``."""

    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Bring the cell to its last state and let go."""

    reason: str


FromRunner = StartStep | Moderate | EndStep | PauseStep | Renew | Finish

# --- from the guardian -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The instrument answers, and the cell rests safely."""

    identity: Identity
    ranges: tuple[RangeSpec, ...]
    apertures: Apertures
    off_states: tuple[SafeState, ...]
    t_ns: int
    thermometer: ThermometerSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Readings, SAMPLE_DTYPE, with the charge of each and the step they belong to.

    Parameters
    ----------
    sequence, first
        Numbers of the last and the first of the guardian's turns that it holds.
    charge_C, ionic_C
        Charge of the instrument and of the cell since the guardian connected, shape (n,);
        the second as it is counted live, None without a calibration of the holder.
    temperatures
        What the thermometer said meanwhile, good or not.
    """

    sequence: int
    first: int
    samples: NDArray[np.void]
    step: int
    charge_C: NDArray[np.float64]
    exchanges: tuple[ClockExchange, ...]
    temperatures: tuple[TemperatureReading, ...] = ()
    ionic_C: NDArray[np.float64] | None = None


class EndKind(StrEnum):
    """Why a step ended."""

    CONDITION = "condition"  # one of its own end conditions
    HELD = "held"  # one of them that asks for the operator before the plan goes on
    COMMAND = "command"  # the runner asked
    LIMIT = "limit"  # a hard limit: the plan did not foresee it
    FAULT = "fault"  # the instrument or the link
    LEASE = "lease"  # the runner was silent for too long


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelsKnown:
    """What the levels of a step count from; said where any of them counts from something."""

    index: int
    known: References
    t_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEnded:
    """A segment is over and the next one of its step is on."""

    index: int
    segment: str
    reason: str
    t_ns: int
    latency_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """A step is over and the cell rests in S1.

    Parameters
    ----------
    goto, goto_most
        Label of the step that follows by the rule that ended this one, and how many times
        at most; "" for the next.
    """

    index: int
    kind: EndKind
    reason: str
    t_ns: int
    latency_ns: int
    goto: str = ""
    goto_most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPaused:
    """A step is set aside and the cell rests in S1.

    Parameters
    ----------
    passed
        What of it has passed, to start it again with; None where it had not begun.
    """

    index: int
    passed: Passed | None
    t_ns: int
    latency_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped:
    """The guardian took the cell to safety by itself and will not arm again."""

    kind: EndKind
    reason: str
    state: SafeState | None
    t_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The link is closed.

    Parameters
    ----------
    state
        Where the cell was left; None when that could not be confirmed.
    """

    state: SafeState | None
    reason: str
    t_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The instrument could not be opened; nothing was switched on."""

    error: str


FromGuardian = (
    Connected
    | Block
    | LevelsKnown
    | SegmentEnded
    | StepEnded
    | StepPaused
    | Tripped
    | Finished
    | Refused
)
