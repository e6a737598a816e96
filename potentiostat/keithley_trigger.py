"""Readings of the Keithley 2400 family in blocks, and what begins and marks them.

The trigger model (2400 user's manual, section 11) is one arm layer with one trigger layer
in it: ``:TRIG:COUN`` readings follow each arm event. That event is `:INIT` itself or the
falling edge on a line of the trigger link. While an edge is waited for the instrument obeys
nothing but `:ABOR` (p. 11-13), and an edge that came before would count (p. 18-120): so
each reading that waits first clears what is latched.

On GPIB the readings come as float32 (`:FORM:DATA SRE`), which RS-232 has not; on a socket
stands whoever turns one into the other, so it is treated as RS-232. The readings of a
float32 block are 16 bytes long instead of about 56.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import known_numbers, reply_within_s, text_table
from potentiostat.errors import NoReply, ReplyError
from potentiostat.protocol import TriggerLines
from potentiostat.scpi import Link
from potentiostat.settings import Settings

ABORT = ":ABOR"
ELEMENTS = ("VOLT", "CURR", "TIME", "STAT")
TIME_DECIMALS = 3  # the timer counts milliseconds


def is_binary(resource: str) -> bool:
    """Tell whether an instrument can send float32 over a link to that resource."""
    return resource.upper().startswith("GPIB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """How the trigger model stands.

    Parameters
    ----------
    count
        Readings in a block.
    edge
        True when an edge on a line begins a block.
    pulse
        True when the source gives a pulse as it begins a reading.
    binary
        True when readings come as float32.
    """

    count: int = 1
    edge: bool = False
    pulse: bool = False
    binary: bool = False


ONE_READING = Trigger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Readings as they came: one column for each of `ELEMENTS`, shape (n, 4)."""

    values: NDArray[np.float64]
    sent_ns: int
    received_ns: int
    untriggered: bool


class KeithleyTrigger:
    """The trigger model of one instrument.

    Parameters
    ----------
    link, settings
        Of the instrument.
    now_ns
        Host clock.
    block
        Readings that are fetched at once.
    lines
        What is wired to the trigger link.
    aperture_s
        Integration time of a reading.
    """

    def __init__(
        self,
        link: Link,
        settings: Settings,
        *,
        now_ns: Callable[[], int],
        block: int,
        lines: TriggerLines,
        aperture_s: float,
    ) -> None:
        self._link = link
        self._settings = settings
        self._now_ns = now_ns
        self._lines = lines
        self._aperture_s = aperture_s
        self._usual = Trigger(
            count=block,
            edge=lines.exposure_in is not None,
            binary=block > 1 and is_binary(link.resource),
        )
        self._now: Trigger | None = None
        self._to_mark = False

    @property
    def plain(self) -> bool:
        """True when one reading comes for one question, with no lines at all."""
        return self._usual == ONE_READING and self._lines.mark_out is None

    def prepare(self) -> None:
        """Bring the trigger model from wherever it stands to one reading at a time."""
        settings, lines = self._settings, self._lines
        self._now = None
        settings.send(":ARM:COUN 1")
        if self._usual.binary:
            settings.set_word(":FORM:BORD", "SWAP")
        if lines.exposure_in is not None:
            settings.set_number(":ARM:ILIN", lines.exposure_in)
        if lines.mark_out is not None:
            settings.set_number(":TRIG:OLIN", lines.mark_out)
        self.use(ONE_READING)

    def use(self, wanted: Trigger) -> None:
        """Bring the trigger model to what is wanted; only what differs is sent."""
        was, settings = self._now, self._settings
        if was == wanted:
            return
        self._now = None  # until all of it was read back
        if was is None or was.count != wanted.count:
            settings.set_number(":TRIG:COUN", wanted.count)
        if was is None or was.edge != wanted.edge:
            settings.set_word(":ARM:SOUR", "TLIN" if wanted.edge else "IMM")
        if was is None or was.pulse != wanted.pulse:
            settings.set_word(":TRIG:OUTP", "SOUR" if wanted.pulse else "NONE")
        if was is None or was.binary != wanted.binary:
            settings.set_word(":FORM:DATA", "SRE" if wanted.binary else "ASC")
        self._now = wanted

    def mark(self) -> None:
        """Note that the set-point has changed: the next reading tells it on the line."""
        self._to_mark = self._lines.mark_out is not None

    def read(self) -> Fetched:
        """Take a block of readings.

        The first reading after a change of the set-point comes alone and at once, with its
        pulse. An edge that does not come is waited for a while; then the block is taken
        without it.
        """
        if self._to_mark:
            self._to_mark = False
            self.use(Trigger(pulse=True))
            return self._fetch(untriggered=self._usual.edge)
        self.use(self._usual)
        try:
            return self._fetch(untriggered=False)
        except NoReply:
            if not self._usual.edge:
                raise
        self.use(replace(self._usual, edge=False))
        return self._fetch(untriggered=True)

    def _fetch(self, *, untriggered: bool) -> Fetched:
        now = self._now or ONE_READING
        command = ":TRIG:CLE;:READ?" if now.edge else ":READ?"
        within_s = reply_within_s(now.count, self._aperture_s, edge=now.edge)
        if now.binary:
            return self._fetch_binary(command, now.count, within_s, untriggered=untriggered)
        reply = self._link.query(command, within_s=within_s, abort=ABORT)
        return Fetched(
            values=text_table(reply.text, rows=now.count, columns=len(ELEMENTS)),
            sent_ns=reply.sent_ns,
            received_ns=reply.received_ns,
            untriggered=untriggered,
        )

    def _fetch_binary(
        self, command: str, count: int, within_s: float, *, untriggered: bool
    ) -> Fetched:
        began_ns = self._now_ns()
        try:
            block = self._link.query_block(
                command, 4 * count * len(ELEMENTS), within_s=within_s, abort=ABORT
            )
        except ReplyError:
            return Fetched(
                values=np.full((count, len(ELEMENTS)), math.nan),
                sent_ns=began_ns,
                received_ns=self._now_ns(),
                untriggered=untriggered,
            )
        values = np.frombuffer(block.data, "<f4").astype(np.float64)
        values = known_numbers(values.reshape(count, len(ELEMENTS)))
        # Exact again: up to 2**14 s a float32 is nearer to its millisecond than to any other.
        values[:, 2] = np.round(values[:, 2], TIME_DECIMALS)
        return Fetched(
            values=values,
            sent_ns=block.sent_ns,
            received_ns=block.received_ns,
            untriggered=untriggered,
        )
