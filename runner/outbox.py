"""What a guardian has to say, said by a thread: a runner that does not listen holds up nobody.

A pipe that nobody reads is full after a few seconds, and then whoever writes to it waits.
A guardian that waits holds no limits.
"""

import threading
from array import array
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from potentiostat.records import SAMPLE_DTYPE, Reading, packed
from runner.messages import Block, FromGuardian

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MOST_BLOCKS = 50_000  # kept for a runner that does not listen: a quarter of an hour at 50 Hz
GATHER_S = 0.03  # between messages: readings that come faster go together
LAST_WORDS_S = 60.0
MOST_SINGLE = 16  # readings that are kept as one block from the beginning

Charges = tuple[float, float | None]
"""Charge of the instrument at a reading, and of the cell where the holder is known, C."""


class Single:
    """Readings of a quick instrument, one a turn, on their way to become a block.

    Parameters
    ----------
    first
        Number of the first turn.
    """

    def __init__(self, first: int, step: int) -> None:
        self.first = self.last = first
        self.step = step
        self._rows = bytearray()
        self._charge_C, self._ionic_C = array("d"), array("d")

    def add(self, sequence: int, reading: Reading, charges: Charges) -> None:
        """Take the reading of one more turn."""
        self.last = sequence
        self._rows += packed(reading)
        charge_C, ionic_C = charges
        self._charge_C.append(charge_C)
        if ionic_C is not None:
            self._ionic_C.append(ionic_C)

    def takes(self, sequence: int, step: int) -> bool:
        """Tell whether a turn goes on with these."""
        goes_on = sequence == self.last + 1 and step == self.step
        return goes_on and len(self._charge_C) < MOST_SINGLE

    def block(self) -> Block:
        """Return all as a block."""
        return Block(
            sequence=self.last,
            first=self.first,
            samples=np.frombuffer(self._rows, SAMPLE_DTYPE),
            step=self.step,
            charge_C=np.array(self._charge_C),
            ionic_C=np.array(self._ionic_C) if self._ionic_C else None,
            exchanges=(),
        )


class Outgoing(Protocol):
    """Takes messages for the runner."""

    def put(self, message: FromGuardian) -> None:
        """Have a message said, without waiting."""
        ...

    def put_reading(self, sequence: int, step: int, reading: Reading, charges: Charges) -> None:
        """Have one reading said, as the block of a turn that it is."""
        single = Single(sequence, step)
        single.add(sequence, reading, charges)
        self.put(single.block())

    def close(self) -> None:
        """Say what waits, and end."""
        ...


class Outbox(Outgoing):
    """Says messages in their order, and never makes the caller wait.

    Readings that nobody took for too long are given up, oldest first; the numbers of the
    blocks tell the runner that some are missing. All other messages are kept.

    Parameters
    ----------
    connection
        Pipe to the runner; only sent on from here.
    gather_s
        For which readings wait for more of them after each message; 0 in virtual time.
        Whatever else is to be said waits for nothing.
    """

    def __init__(
        self, connection: "Connection[FromGuardian, object]", *, gather_s: float = GATHER_S
    ) -> None:
        self._connection = connection
        self._gather_s = gather_s
        self._waiting: deque[FromGuardian | Single] = deque()
        self._single: Single | None = None  # the last that waits, while it may grow
        self._lock = threading.RLock()  # a condition's own way to it takes twice as long
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._hurry = False  # something waits that is no reading
        self._resting = False
        self._thread = threading.Thread(target=self._speak, name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: FromGuardian) -> None:
        """Have a message said."""
        with self._changed:
            self._single = None
            self._append(message)
            self._hurry = self._hurry or not isinstance(message, Block)
            # To wake the thread for each reading would cost more than the reading.
            if self._hurry or not self._resting:
                self._changed.notify()

    def put_reading(self, sequence: int, step: int, reading: Reading, charges: Charges) -> None:
        """Have one reading said, as the block of a turn that it is."""
        with self._lock:
            single = self._single
            if single is None or not single.takes(sequence, step):
                single = self._single = Single(sequence, step)
                self._append(single)
            single.add(sequence, reading, charges)
            if not self._resting:
                self._changed.notify()

    def _append(self, message: FromGuardian | Single) -> None:
        if len(self._waiting) >= MOST_BLOCKS:
            self._give_up_oldest()
        self._waiting.append(message)

    def close(self, timeout_s: float = LAST_WORDS_S) -> None:
        """Say what waits and end, unless nobody listens for so long."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _give_up_oldest(self) -> None:
        for i, message in enumerate(self._waiting):
            if isinstance(message, Block | Single):
                del self._waiting[i]
                return

    def _speak(self) -> None:
        # A runner that is gone cannot listen; its silence is handled where we hear it.
        with suppress(OSError):
            while (messages := self._take()) is not None:
                for message in gathered(messages):
                    self._connection.send(message)
                self._rest()

    def _rest(self) -> None:
        """Let readings gather, until something else is to be said."""
        with self._changed:
            self._resting = self._gather_s > 0
            if self._resting:
                self._changed.wait_for(lambda: self._hurry or self._closed, self._gather_s)
            self._resting = False

    def _take(self) -> list[FromGuardian] | None:
        """Wait for messages and take all; None once there are none left to come."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            messages = list(self._waiting)
            self._waiting.clear()
            self._single = None
            self._hurry = False
        return [m.block() if isinstance(m, Single) else m for m in messages] or None


def gathered(messages: list[FromGuardian]) -> list[FromGuardian]:
    """Return the same in fewer: blocks that follow each other in one step become one."""
    found: list[FromGuardian] = []
    together: list[Block] = []
    for message in messages:
        alike = isinstance(message, Block) and (
            not together
            or (message.step, message.first) == (together[-1].step, together[-1].sequence + 1)
        )
        if together and not alike:
            found.append(_joined(together))
            together = []
        if isinstance(message, Block):
            together.append(message)
        else:
            found.append(message)
    if together:
        found.append(_joined(together))
    return found


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        sequence=blocks[-1].sequence,
        first=blocks[0].first,
        samples=_rows_of(blocks),
        step=blocks[0].step,
        charge_C=np.concatenate([b.charge_C for b in blocks]),
        ionic_C=_joined_ionic(blocks),
        exchanges=tuple(e for b in blocks for e in b.exchanges),
        temperatures=tuple(t for b in blocks for t in b.temperatures),
    )


def _joined_ionic(blocks: list[Block]) -> NDArray[np.float64] | None:
    known = [b.ionic_C for b in blocks if b.ionic_C is not None]
    return np.concatenate(known) if len(known) == len(blocks) else None  # one holder for all


def _rows_of(blocks: list[Block]) -> NDArray[np.void]:
    """Return all samples, shape (n,), by their bytes.

    To join arrays of records, NumPy compares their fields one by one: for as many blocks as
    come from a quick instrument, that would keep the guardian from its readings.
    """
    rows = np.empty(sum(len(b.samples) for b in blocks), blocks[0].samples.dtype)
    rows.view(np.uint8)[:] = np.frombuffer(
        b"".join([b.samples.tobytes() for b in blocks]), np.uint8
    )
    return rows
