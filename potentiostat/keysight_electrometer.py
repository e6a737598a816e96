"""What a Keysight B298x electrometer says: its ranges, its readings, and rows made of them.

A reading holds the elements VOLT, CURR, TIME, STAT and SOUR; by the function one of the
first two is no number. With the function CURR the cell has the level of the source. With
VOLT the level less the reading is the voltage of the cell, and no current flows.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import host_brackets
from potentiostat.errors import ReplyError
from potentiostat.protocol import Setpoint
from potentiostat.readings import Raw, ReadingNoise, sample_rows
from potentiostat.records import RangeSpec
from potentiostat.scpi import Link, read_numbers

INPUT_OHM = 2e14  # of the open input
VOLTAGE_STEP_V = 7e-4  # of the source in its 20 V range
OVERFLOW_BIT = 8192
ELEMENTS = "VOLT,CURR,TIME,STAT,SOUR"
COLUMNS = len(ELEMENTS.split(","))

# One message: not even a power cycle gets between the order and the reading.
ACQUIRE = ":OUTP:ON:AUTO 0;:INIT:ACQ;:FETC:ARR?"
STATE = ":OUTP?;:INP?"
READING = f"{ACQUIRE};{STATE}"

# B2983A data sheet p. 10 for 2 pA to 2 nA, and the settling of 20 nA. The larger ones are
# not yet confirmed. What settles a current is the meter that closes the loop.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=5e-7 * full,
        settling_s=settling,
        settles_to=0.1,
        source_gain_ratio=gain,
        source_offset_A=offset,
    )
    for full, gain, offset, settling in (
        (2e-12, 0.010, 3e-15, 16.0),
        (2e-11, 0.005, 3e-15, 1.4),
        (2e-10, 0.005, 5e-15, 1.4),
        (2e-9, 0.002, 3e-13, 0.013),
        (2e-8, 0.002, 3e-12, 0.013),
        (2e-7, 0.002, 3e-11, 0.013),
        (2e-6, 0.002, 3e-10, 0.013),
    )
)
# Not yet confirmed. A level that is held may be off by half a step; an open one is read.
HELD = ReadingNoise(voltage_V=2e-5, voltage_step_V=VOLTAGE_STEP_V)
OPEN = ReadingNoise(voltage_V=2e-5, voltage_step_V=2e-5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Readings as they came.

    Parameters
    ----------
    values
        Shape (n, 5), columns as `ELEMENTS`; NaN where a reply made no sense.
    sent_ns, received_ns
        Host stamps around the exchange.
    live
        Whether output and input were on afterwards; None where the reply did not tell.
    """

    values: NDArray[np.float64]
    sent_ns: int
    received_ns: int
    live: bool | None

    @property
    def cell_V(self) -> NDArray[np.float64]:
        """Voltage of the cell at an open input."""
        found_V: NDArray[np.float64] = self.values[:, 4] - self.values[:, 0]
        return found_V


def take(link: Link, block: int) -> Taken:
    """Take a reading, or a block of them."""
    if block > 1:
        return _take_block(link, block)
    reply = link.query(READING)
    values, live = np.full((1, COLUMNS), math.nan), None
    try:
        elements, *switches = reply.text.split(";")
        live = both_on(switches)
        values[0] = read_numbers(elements, COLUMNS)
    except ReplyError:
        pass  # a row of NaN says so
    return Taken(values=values, sent_ns=reply.sent_ns, received_ns=reply.received_ns, live=live)


def _take_block(link: Link, block: int) -> Taken:
    found = link.query_block(ACQUIRE, 8 * COLUMNS * block)
    values = np.frombuffer(found.data, "<f8").reshape(-1, COLUMNS).copy()
    values[np.abs(values) > 9e37] = math.nan
    return Taken(
        values=values,
        sent_ns=found.sent_ns,
        received_ns=found.received_ns,
        live=both_on(link.query(STATE).text.split(";")),
    )


def both_on(switches: list[str]) -> bool:
    """Read the state of output and input.

    Raises
    ------
    ReplyError
        It is not told.
    """
    words = [switch.strip() for switch in switches]
    if len(words) != 2 or not set(words) <= {"0", "1"}:
        raise ReplyError(f"{words} is not the state of output and input")
    return words == ["1", "1"]


def rows_of(
    taken: Taken,
    *,
    closed: bool,
    setpoint: Setpoint,
    spec: RangeSpec,
    window_s: float,
    settled_ns: int,
) -> NDArray[np.void]:
    """Return readings as SAMPLE_DTYPE rows, shape (n,).

    Parameters
    ----------
    closed
        The input is an ammeter.
    """
    volt_V, current_A, time_s, status, level_V = taken.values.T
    told = np.isfinite(status)  # without its flags a reading cannot be trusted
    if closed:
        beyond = (np.where(told, status, 0).astype(np.int64) & OVERFLOW_BIT) != 0
        voltage_V, current_A = level_V, np.where(beyond, math.inf, current_A)
    else:
        voltage_V, current_A = taken.cell_V, np.where(np.isfinite(volt_V), 0.0, math.nan)
    start_ns, end_ns = host_brackets(time_s, sent_ns=taken.sent_ns, received_ns=taken.received_ns)
    rows = sample_rows(
        Raw(
            read_start_ns=start_ns,
            read_end_ns=end_ns,
            voltage_V=np.where(told, voltage_V, math.nan),
            current_A=np.where(told, current_A, math.nan),
            device_time_s=time_s,
            compliance=np.zeros(len(time_s), np.bool_),
        ),
        setpoint=setpoint,
        spec=spec,
        noise=HELD if closed else OPEN,
        window_s=window_s,
        aperture_s=window_s,
        settled_ns=settled_ns,
    )
    if not closed:  # what the open input may draw
        drawn_A = np.where(np.isfinite(volt_V), np.abs(volt_V) / INPUT_OHM, 0.0)
        rows["current_sigma_A"] = drawn_A + OPEN.voltage_V / INPUT_OHM
    return rows


def lag_s(spec: RangeSpec) -> float:
    """Return the time constant of a range, at most: if its settling means that to 10 %."""
    return spec.group_delay_s
