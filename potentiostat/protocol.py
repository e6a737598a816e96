"""The seam every potentiostat driver fills; all of it blocking, on one owner's thread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from potentiostat.limits import Envelope
from potentiostat.records import Apertures, Identity, RangeSpec, Reading
from potentiostat.thermometer import ThermometerSpec

NowNs = Callable[[], int]
"""Reads the host clock in integer nanoseconds; handed in, never global."""


class SafeState(StrEnum):
    """Where a cell may rest. 0 V is not among them."""

    S1 = "S1"  # sourcing 0 A, voltage clamped to the cell's window, still measuring
    S2 = "S2"  # high impedance


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """What the source holds, and the clamp on the other quantity.

    Parameters
    ----------
    mode
        ``"current"`` (galvanostatic) or ``"voltage"`` (potentiostatic).
    level
        A or V. Positive current charges the cell.
    clamp
        Magnitude of the compliance: V when sourcing current, A when sourcing voltage.
    range_A
        Current range, locked for the whole step.
    """

    mode: Literal["current", "voltage"]
    level: float
    clamp: float
    range_A: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockExchange:
    """One question for the instrument's time, with the host stamps around it."""

    sent_ns: int
    device_time_s: float
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerLines:
    """What is wired to the instrument's trigger lines, by their numbers; None for nothing.

    Parameters
    ----------
    exposure_in
        The camera's exposure: each reading begins with its edge. One that does not come
        is waited for in vain only for a while: then the reading is taken all the same, and
        marked UNTRIGGERED, because the limits of a cell are never asked of old readings.
    mark_out
        Gives a pulse at each change of the set-point.
    """

    exposure_in: int | None = None
    mark_out: int | None = None


NO_LINES = TriggerLines()


class Potentiostat(Protocol):
    """One instrument, owned by one thread.

    A driver is made from a link and a clock, and takes ``line_frequency_Hz``, ``nplc``,
    ``block`` (readings that `read` returns at once, `largest_block` at most) and ``lines``
    (of `TriggerLines`, each one of `trigger_lines`) by name.
    """

    model: str  # as in the table of hazards
    ranges: tuple[RangeSpec, ...]
    models: Mapping[str, tuple[RangeSpec, ...]]  # by the name that each answers: its ranges
    apertures: Apertures  # where in a reading voltage and current stand
    off_states: tuple[SafeState, ...]  # rest states that the model has
    input_ohm: float  # of the voltmeter across the cell, as the data sheet guarantees it
    unconfirmed: str  # which of these figures were not read in a data sheet; "" for none
    largest_block: int  # readings that can be fetched at once; 1 for one by one
    trigger_lines: tuple[int, ...]  # their numbers; () where there are none
    thermometer: ThermometerSpec | None  # what it is, of a `Thermometer`; None for none

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, adopt the present state, make it safe, lock the settings."""
        ...

    def apply(self, setpoint: Setpoint) -> None:
        """Source ``setpoint``, read it back, and check the error queue.

        With a cell attached, a change between current and voltage never puts 0 V on it:
        the voltage source comes on at the voltage that the cell has.
        """
        ...

    def read(self) -> NDArray[np.void]:
        """Return new readings, SAMPLE_DTYPE, shape (n,)."""
        ...

    def exchange_clock(self) -> ClockExchange:
        """Ask the instrument for its time."""
        ...

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1 at any time, from any state, as often as one likes."""
        ...

    def rest_at_end(self) -> SafeState:
        """Go to the last state of a run: S2 where the model has it, else S1."""
        ...

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
        ...


@runtime_checkable
class ReadsSingly(Protocol):
    """A potentiostat that also gives its readings as plain numbers, which is quicker."""

    def read_one(self) -> Reading | None:
        """Return the next reading; None where readings come in blocks, and `read` gives them."""
        ...
