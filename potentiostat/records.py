"""What a potentiostat says: one row for each reading, alike in memory and on the wire."""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLE_DTYPE = np.dtype(
    [
        ("read_start_ns", "<i8"),  # host clock, before the query was sent
        ("read_end_ns", "<i8"),  # host clock, after the reply was in
        ("device_time_s", "<f8"),  # raw, as the instrument says it, uncorrected
        ("aperture_s", "<f8"),  # host seconds over which the reading integrates
        ("voltage_V", "<f8"),
        ("current_A", "<f8"),  # positive charges the cell
        ("voltage_sigma_V", "<f8"),  # random part, 1 sigma
        ("current_sigma_A", "<f8"),
        ("setpoint", "<f8"),  # A or V, by the source mode of the step
        ("range_A", "<f8"),
        ("status", "<u4"),  # Status bits
    ]
)


class Reading(NamedTuple):
    """One row of `SAMPLE_DTYPE` as plain numbers, for who looks at one after the other."""

    read_start_ns: int
    read_end_ns: int
    device_time_s: float
    aperture_s: float
    voltage_V: float
    current_A: float
    voltage_sigma_V: float
    current_sigma_A: float
    setpoint: float
    range_A: float
    status: int


_ROW = struct.Struct("<qq8dI")  # SAMPLE_DTYPE: it is packed in half the time that NumPy takes


def packed(reading: Reading) -> bytes:
    """Return a reading as the bytes of a row of SAMPLE_DTYPE."""
    return _ROW.pack(*reading)


def rows_of(readings: Iterable[Reading]) -> NDArray[np.void]:
    """Return readings as rows of SAMPLE_DTYPE, shape (n,)."""
    return np.frombuffer(bytearray(b"".join(map(packed, readings))), SAMPLE_DTYPE)


def readings_of(samples: NDArray[np.void]) -> list[Reading]:
    """Return the rows of samples, shape (n,), as plain numbers."""
    return [Reading(*row) for row in samples.tolist()]


class Status(IntFlag):
    """Flags of a reading; 0 is a good one at a held current."""

    COMPLIANCE = 1  # the source is held by its clamp, not by its set-point
    OVERFLOW = 2  # beyond the measuring range; the value is not a number
    INVALID = 4  # garbage or not a number: no limit is evaluated on it
    SETTLING = 8  # within the settling time after a change of level or range
    POTENTIOSTATIC = 16  # the set-point is a voltage
    UNTRIGGERED = 32  # the edge that should have begun it did not come
    TOLD = 64  # no meter read the current: it is what a source gives, or none, of an open cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answered: the parts of the identity string."""

    maker: str
    model: str
    serial: str
    firmware: str
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Apertures:
    """Where in a reading its voltage and its current were integrated.

    In shares of the reading's ``aperture_s``, from its middle: -0.25 with a width of 0.5 is
    the first half. Pairs are for a held current and for a held voltage.

    Parameters
    ----------
    order
        In words, for who reads a file.
    confirmed
        True when a manual says so.
    width
        Share over which each of the two is integrated.
    """

    order: str
    confirmed: bool = True
    width: float = 1.0
    voltage_offset: tuple[float, float] = (0.0, 0.0)
    current_offset: tuple[float, float] = (0.0, 0.0)


TOGETHER = Apertures(order="together")
UNKNOWN_ORDER = Apertures(order="unknown", confirmed=False)  # taken as the whole reading
VOLTAGE_FIRST = Apertures(
    order="voltage, then current",
    confirmed=False,
    width=0.5,
    voltage_offset=(-0.25, -0.25),
    current_offset=(0.25, 0.25),
)
SOURCE_FIRST = Apertures(
    order="what is sourced, then what is measured",
    width=0.5,
    voltage_offset=(0.25, -0.25),
    current_offset=(-0.25, 0.25),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSpec:
    """One current range of a model, with its data-sheet accuracy (1 year, as a limit).

    Parameters
    ----------
    full_scale_A
        Largest current of the range.
    gain_ratio, offset_A
        Accuracy limit: ``gain_ratio * abs(I) + offset_A``.
    resolution_A
        Smallest step of a reading.
    settling_s
        Time after a change until readings are taken as settled.
    settles_to
        Share of a step that is left after that time, as the data sheet says.
    source_gain_ratio, source_offset_A
        The same limit for the current source; NaN where the data sheet was not read.
    sources
        False for a range that only measures.
    """

    full_scale_A: float
    gain_ratio: float
    offset_A: float
    resolution_A: float
    settling_s: float
    source_gain_ratio: float = math.nan
    source_offset_A: float = math.nan
    sources: bool = True
    settles_to: float = 1e-3

    @property
    def group_delay_s(self) -> float:
        """By which a current that is read lags the one that flows: a first-order range.

        From the settling of the data sheet, which is a limit: the true delay may be less.
        """
        return self.settling_s / -math.log(self.settles_to)
