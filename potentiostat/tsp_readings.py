"""Readings of a 2600: what is set for them, what runs on the instrument, and what it prints."""

import math
from dataclasses import dataclass

import numpy as np

from potentiostat.blocks import host_brackets
from potentiostat.errors import ReplyError
from potentiostat.protocol import TriggerLines
from potentiostat.readings import Raw
from potentiostat.tsp import Chunks, read_values
from potentiostat.visa import Block, Reply

EDGE_WAIT_S = 0.5
VOLTAGE_RANGE_V = 20.0
IN_COMPLIANCE = 64  # bit of a buffer's statuses (2600BS-901-01 Rev. C p. 7-34)
OVERFLOW = 9.91e37  # what the instrument says for a reading beyond its range
HEAD = 3  # numbers before those of the readings: time, output, edge
COLUMNS = 4
# `print` is text always; these two are blocks in format.REAL64 (2600BS-901-01 Rev. F p. 9-102).
SEAM = b"\n#0"  # between the two prints of a block

_ONE = (
    "local i, v = smua.measure.iv() "
    "print(i, v, t, smua.source.compliance, smua.source.output, edge)"
)
_MANY = (
    "smua.nvbuffer1.clear() smua.nvbuffer2.clear() "
    "smua.measure.overlappediv(smua.nvbuffer1, smua.nvbuffer2) waitcomplete() "
    "printnumber(t, smua.source.output, edge and 1 or 0) "
    "printbuffer(1, {count}, smua.nvbuffer1.readings, smua.nvbuffer2.readings, "
    "smua.nvbuffer1.timestamps, smua.nvbuffer1.statuses)"
)


_SAFE = (
    "function lamella_safe() "
    "if smua.source.func == 0 then smua.source.leveli = 0 end "
    "smua.source.offmode = 2 smua.source.output = 0 end"
)
_HOLD = "function lamella_hold(s) while trigger.wait(s) do lamella_read() end lamella_safe() end"

# The timer has microseconds for 2.8 minutes only (2600S-901-01 Rev. A p. 12-131): it is set
# to zero again and again, and the sum is kept.
_CLOCK = (
    "lamella_t0 = lamella_t0 or 0 "
    "function lamella_t() local t = timer.measure.t() "
    "if t > 60 then timer.reset() lamella_t0 = lamella_t0 + t t = 0 end "
    "return lamella_t0 + t end"
)
CLOCK_START = "lamella_t0 = 0 timer.reset()"
CLOCK = "lamella_t()"

# Autozero triples the time of a reading; filter and rel would smear or shift it.
_LOCKED = (
    ("sense", 0.0),  # two wires
    ("source.autorangei", 0.0),
    ("source.autorangev", 0.0),
    ("source.highc", 0.0),
    ("source.delay", 0.0),
    ("measure.autorangei", 0.0),
    ("measure.autorangev", 0.0),
    ("source.rangev", VOLTAGE_RANGE_V),  # the meter's range is locked to it in part
    ("measure.rangev", VOLTAGE_RANGE_V),
    ("measure.filter.enable", 0.0),
    ("measure.rel.enablei", 0.0),
    ("measure.rel.enablev", 0.0),
    ("measure.autozero", 0.0),
    ("measure.delay", 0.0),
    ("measure.interval", 0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Readings, and whether an edge began them."""

    raw: Raw
    triggered: bool


def lock_readings(
    tsp: Chunks, *, nplc: float, line_frequency_Hz: float, block: int, lines: TriggerLines
) -> None:
    """Set all that readings depend on but the range, and define what runs on the instrument.

    Raises
    ------
    InstrumentError
        A setting was not taken.
    """
    tsp.do("errorqueue.clear() localnode.showerrors=0")
    tsp.set_number("format.asciiprecision", 16)
    if tsp.number("localnode.linefreq") != line_frequency_Hz:
        tsp.set_number("localnode.linefreq", line_frequency_Hz)
    for name, value in (*_LOCKED, ("measure.nplc", nplc), ("measure.count", float(block))):
        tsp.set_number(f"smua.{name}", value)
    if block > 1:
        _lock_buffers(tsp)
    for line, mode in ((lines.exposure_in, "TRIG_RISINGA"), (lines.mark_out, "TRIG_RISINGM")):
        if line is not None:
            tsp.do(f"digio.trigger[{line}].mode=digio.{mode}")
    tsp.do(_CLOCK)
    tsp.do(reading_function(block, edge_in=lines.exposure_in))
    for function in (_SAFE, _HOLD) if tsp.has_lease else ():
        tsp.do(function)


def _lock_buffers(tsp: Chunks) -> None:
    tsp.do("format.data=format.REAL64 format.byteorder=format.LITTLEENDIAN")
    for buffer in ("smua.nvbuffer1", "smua.nvbuffer2"):
        tsp.do(f"{buffer}.clear()")
        for name, value in (
            ("appendmode", 0.0),
            ("collecttimestamps", 1.0),
            ("timestampresolution", 1e-6),
        ):
            tsp.set_number(f"{buffer}.{name}", value)


def reading_function(count: int, *, edge_in: int | None) -> str:
    """Return the text of ``lamella_read``: one line for one reading, or a block for more.

    Parameters
    ----------
    edge_in
        Digital line whose edge begins the readings; one that came before is none of theirs.
    """
    edge = "local edge = true"
    if edge_in is not None:
        trigger = f"digio.trigger[{edge_in}]"
        edge = f"{trigger}.clear() local edge = {trigger}.wait({EDGE_WAIT_S:g})"
    body = _ONE if count == 1 else _MANY.format(count=count)
    return f"function lamella_read() {edge} local t = {CLOCK} {body} end"


def block_bytes(count: int) -> int:
    """Return how long a block of readings is, without its header and line end."""
    return 8 * HEAD + len(SEAM) + 8 * COLUMNS * count


def parse_line(reply: Reply) -> Taken:
    """Read one printed reading; one that makes no sense is not a number."""
    try:
        current_A, voltage_V, time_s, compliance, output, edge = read_values(reply.text, 6)
    except ReplyError:  # nothing is known, of the output neither
        current_A = voltage_V = time_s = math.nan
        compliance, output, edge = 0.0, 1.0, 1.0
    if math.isnan(current_A) and reply.text.startswith("9.91"):
        current_A = math.inf
    if output != 1:
        current_A = voltage_V = math.nan
    raw = Raw(
        read_start_ns=np.array([reply.sent_ns]),
        read_end_ns=np.array([reply.received_ns]),
        voltage_V=np.array([voltage_V]),
        current_A=np.array([current_A]),
        device_time_s=np.array([time_s]),
        compliance=np.array([compliance == 1]),
    )
    return Taken(raw=raw, triggered=edge == 1)


def parse_block(block: Block) -> Taken:
    """Read a block of readings.

    Raises
    ------
    ReplyError
        It is put together otherwise.
    """
    head, seam = 8 * HEAD, len(SEAM)
    if block.data[head : head + seam] != SEAM:
        raise ReplyError("a block of readings in another form")
    began_s, output, edge = np.frombuffer(block.data, "<f8", HEAD)
    table = np.frombuffer(block.data, "<f8", offset=head + seam).reshape(-1, COLUMNS)
    values = table[:, :2].copy()
    values[np.abs(values) >= OVERFLOW * (1 - 1e-6)] = math.inf
    if output != 1:
        values[:] = math.nan
    # The buffer counts from its first reading; the timer tells when that began.
    time_s = began_s + table[:, 2] - table[0, 2]
    start_ns, end_ns = host_brackets(time_s, sent_ns=block.sent_ns, received_ns=block.received_ns)
    raw = Raw(
        read_start_ns=start_ns,
        read_end_ns=end_ns,
        voltage_V=values[:, 1],
        current_A=values[:, 0],
        device_time_s=time_s,
        compliance=(table[:, 3].astype(np.int64) & IN_COMPLIANCE) != 0,
    )
    return Taken(raw=raw, triggered=bool(edge == 1))
