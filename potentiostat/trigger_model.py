"""Readings of a Keithley 2450, 2460 or 2470 in blocks, and what begins and marks them.

A trigger model of building blocks is set once (2450 reference manual, p. 6-128): clear the
buffer, wait for a digital line where one is wired, measure, and branch back until the block
is full. Each `:INIT` runs it. Commands are obeyed while it runs, so the number of readings
in the buffer tells whether the edge has come; an edge from before the start does not count
(p. 6-148). A change of the set-point is told by `*TRG`, which a line can be made to repeat
(p. 6-153).

Not yet confirmed on an instrument: the polarity of lines, and that older firmware knows
``:TRIG:LOAD "Empty"``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import EDGE_WAIT_S, reply_within_s, text_table
from potentiostat.protocol import TriggerLines
from potentiostat.scpi import Link
from potentiostat.settings import Settings

ABORT = ":ABOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Readings as they came, one column for each element that was asked for."""

    values: NDArray[np.float64]
    sent_ns: int
    received_ns: int


class TriggerModel:
    """The trigger model of one instrument.

    Parameters
    ----------
    link, settings
        Of the instrument.
    now_ns
        Host clock.
    buffer
        Where readings go, in quotes.
    elements
        Of a reading, in their order.
    block
        Readings that are fetched at once.
    lines
        What is wired to the digital port.
    aperture_s
        Integration time of a reading.
    """

    def __init__(
        self,
        link: Link,
        settings: Settings,
        *,
        now_ns: Callable[[], int],
        buffer: str,
        elements: str,
        block: int,
        lines: TriggerLines,
        aperture_s: float,
    ) -> None:
        self._link = link
        self._settings = settings
        self._now_ns = now_ns
        self._buffer = buffer
        self._columns = len(elements.split(","))
        self._lines = lines
        self.block = block
        self._within_s = reply_within_s(block, aperture_s, edge=False)
        self._fetch = f"*WAI;:TRAC:DATA? 1,{block},{buffer},{elements}"

    @property
    def plain(self) -> bool:
        """True when one reading comes for one question, and begins by itself."""
        return self.block == 1 and self._lines.exposure_in is None

    def prepare(self) -> None:
        """Set the lines' functions and the building blocks."""
        settings, line = self._settings, self._lines.exposure_in
        if (mark := self._lines.mark_out) is not None:
            settings.set_word(f":DIG:LINE{mark}:MODE", "TRIG,OUT")
            settings.set_word(f":TRIG:DIG{mark}:OUT:STIM", "COMM")
        if self.plain:
            return
        settings.send(':TRIG:LOAD "Empty"')
        settings.send(f":TRIG:BLOC:BUFF:CLE 1,{self._buffer}")
        measure = 2
        if line is not None:
            settings.set_word(f":DIG:LINE{line}:MODE", "TRIG,IN")
            settings.set_word(f":TRIG:DIG{line}:IN:EDGE", "RIS")
            settings.send(f":TRIG:BLOC:WAIT 2,DIG{line}")
            measure = 3
        settings.send(f":TRIG:BLOC:MEAS {measure},{self._buffer}")
        settings.send(f":TRIG:BLOC:BRAN:COUN {measure + 1},{self.block},{measure}")

    def mark(self) -> None:
        """Tell on the line that the set-point has changed."""
        if self._lines.mark_out is not None:
            self._settings.send("*TRG")

    def read(self) -> Fetched | None:
        """Take a block of readings; None where its edge does not come for a while."""
        began_ns = self._now_ns()
        # The old readings first: those that are counted below are of this run.
        self._settings.send(f":TRAC:CLE {self._buffer};:INIT")
        if self._lines.exposure_in is not None:
            while self._settings.number(f":TRAC:ACT? {self._buffer}") == 0:
                if self._now_ns() - began_ns > EDGE_WAIT_S * 1e9:
                    self._settings.send(ABORT)
                    return None
        reply = self._link.query(self._fetch, within_s=self._within_s, abort=ABORT)
        return Fetched(
            values=text_table(reply.text, rows=self.block, columns=self._columns),
            sent_ns=began_ns,
            received_ns=reply.received_ns,
        )
