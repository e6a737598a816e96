"""Readings of a Keysight B2900 in blocks, and what begins and marks them.

The acquire action has one arm layer with one trigger layer in it: `:TRIG:ACQ:COUN`
readings follow each arm event, which is `:INIT:ACQ` itself or an edge on a line of the
digital port (`:ARM:ACQ:SOUR EXTn`). While an edge is waited for the trace buffer tells
whether readings have come: nothing that would block the instrument is asked before.

Readings come as float64 (`:FORM REAL,64`), with all digits of their times.

Not yet confirmed on an instrument: the trace buffer filling beside the array that
`:FETC:ARR?` gives, and the line's polarity.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import EDGE_WAIT_S, known_numbers, reply_within_s
from potentiostat.errors import ReplyError
from potentiostat.protocol import TriggerLines
from potentiostat.scpi import Link
from potentiostat.settings import Settings

ORDER = ":OUTP:ON:AUTO 0;:INIT:ACQ"  # one message: not even a power cycle gets between
EMPTY_TRACE = ":TRAC:FEED:CONT NEV;:TRAC:CLE;:TRAC:FEED:CONT NEXT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """How the acquire action stands: readings, begun by an edge, with a pulse."""

    count: int = 1
    edge: bool = False
    pulse: bool = False


ONE_READING = Trigger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Readings as they came, one column for each element that was asked for."""

    values: NDArray[np.float64]
    output_on: bool
    sent_ns: int
    received_ns: int
    untriggered: bool


class KeysightTrigger:
    """The acquire action of one channel.

    Parameters
    ----------
    link, settings
        Of the instrument.
    now_ns
        Host clock.
    columns
        Elements of a reading.
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
        columns: int,
        block: int,
        lines: TriggerLines,
        aperture_s: float,
    ) -> None:
        self._link = link
        self._settings = settings
        self._now_ns = now_ns
        self._columns = columns
        self._lines = lines
        self._aperture_s = aperture_s
        self._usual = Trigger(count=block, edge=lines.exposure_in is not None)
        self._now: Trigger | None = None
        self._to_mark = False

    @property
    def plain(self) -> bool:
        """True when one reading comes for one question, with no lines at all."""
        return self._usual == ONE_READING and self._lines.mark_out is None

    def prepare(self) -> None:
        """Give the lines their functions, and make readings binary."""
        settings, lines = self._settings, self._lines
        self._now = None
        settings.set_word(":FORM", "REAL,64")
        settings.set_word(":FORM:BORD", "SWAP")
        if lines.exposure_in is not None:
            settings.set_word(f":SOUR:DIG:EXT{lines.exposure_in}:FUNC", "TINP")
            settings.set_word(f":SOUR:DIG:EXT{lines.exposure_in}:POL", "POS")
            settings.send(":TRAC:FEED:CONT NEV")
            settings.set_integer(":TRAC:POIN", self._usual.count)
            settings.set_word(":TRAC:FEED", "SENS")
        if lines.mark_out is not None:
            settings.set_word(f":SOUR:DIG:EXT{lines.mark_out}:FUNC", "TOUT")
            settings.set_word(":TRIG:ACQ:TOUT:SIGN", f"EXT{lines.mark_out}")
        self._use(ONE_READING)

    def _use(self, wanted: Trigger) -> None:
        """Bring the acquire action to what is wanted; only what differs is sent."""
        was, settings = self._now, self._settings
        if was == wanted:
            return
        self._now = None  # until all of it was read back
        if was is None or was.count != wanted.count:
            settings.set_integer(":TRIG:ACQ:COUN", wanted.count)
        if was is None or was.edge != wanted.edge:
            word = f"EXT{self._lines.exposure_in}" if wanted.edge else "AINT"
            settings.set_word(":ARM:ACQ:SOUR", word)
        if was is None or was.pulse != wanted.pulse:
            settings.set_flag(":TRIG:ACQ:TOUT", on=wanted.pulse)
        self._now = wanted

    def mark(self) -> None:
        """Note that the set-point has changed: the next reading tells it on the line."""
        self._to_mark = self._lines.mark_out is not None

    def read_one(self) -> Fetched:
        """Take one reading at once, whatever begins the others."""
        self._use(ONE_READING)
        return self._fetch(1, self._order(), untriggered=False)

    def read(self) -> Fetched:
        """Take a block of readings.

        The first reading after a change of the set-point comes alone and at once, with its
        pulse. An edge that does not come is waited for a while; then the block is taken
        without it.
        """
        if self._to_mark:
            self._to_mark = False
            self._use(Trigger(pulse=True))
            return self._fetch(1, self._order(), untriggered=self._usual.edge)
        usual = self._usual
        self._use(usual)
        if not usual.edge:
            return self._fetch(usual.count, self._order(), untriggered=False)
        began_ns = self._now_ns()
        self._settings.send(f"{EMPTY_TRACE};{ORDER}")
        while self._settings.number(":TRAC:POIN:ACT?") == 0:
            if self._now_ns() - began_ns > EDGE_WAIT_S * 1e9:
                self._settings.send(":ABOR:ACQ")
                self._use(replace(usual, edge=False))
                return self._fetch(usual.count, self._order(), untriggered=True)
        return self._fetch(usual.count, began_ns, untriggered=False)

    def _order(self) -> int:
        """Have readings taken now; return when that was asked for."""
        began_ns = self._now_ns()
        self._settings.send(ORDER)
        return began_ns

    def _fetch(self, count: int, began_ns: int, *, untriggered: bool) -> Fetched:
        size = 8 * count * self._columns
        within_s = reply_within_s(count, self._aperture_s, edge=False)
        values = np.full((count, self._columns), math.nan)
        try:
            block = self._link.query_block(":FETC:ARR?", size, within_s=within_s)
            received_ns = block.received_ns
            values = known_numbers(np.frombuffer(block.data, "<f8").reshape(values.shape))
        except ReplyError:
            received_ns = self._now_ns()
        return Fetched(
            values=values,
            output_on=self._settings.flag(":OUTP?"),
            sent_ns=began_ns,
            received_ns=received_ns,
            untriggered=untriggered,
        )
