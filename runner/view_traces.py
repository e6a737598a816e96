"""Traces of a whole run in bounded memory, and as they cross to a page.

What is old is thinned to the least and the largest of its neighbours, so that no spike is
lost to the eye, and what is new is kept as it came.
"""

import struct
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

COLUMNS = 5  # t_s, voltage_V, current_A, charge_C, ionic_C
CAPACITY = 16_384
MOST_AT_ONCE = 400  # rows in one block: a page draws no more between two pictures
MOST_MISSED = 4_096  # rows for a page that had fallen behind

Rows = NDArray[np.float64]


class Kind(IntEnum):
    """What a binary message holds: its first byte."""

    MORE = 1  # rows that follow those before
    ALL = 2  # rows in place of those before
    FRAME = 3


def thinned(rows: Rows) -> Rows:
    """Return half of the rows: of each four the extremes of every column, in their order.

    Parameters
    ----------
    rows
        Shape (n, columns), time first; n a multiple of four. NaN is no extreme.

    Returns
    -------
    Shape (n / 2, columns). Times are those of the first and the third of each four.
    """
    fours = rows.reshape(-1, 4, rows.shape[1])
    low, high = np.fmin.reduce(fours, axis=1), np.fmax.reduce(fours, axis=1)
    rises = fours[:, 0] <= fours[:, 3]
    pairs = np.stack((np.where(rises, low, high), np.where(rises, high, low)), axis=1)
    pairs[:, :, 0] = fours[:, ::2, 0]
    return np.asarray(pairs.reshape(-1, rows.shape[1]), np.float64)


def at_most(rows: Rows, count: int) -> Rows:
    """Return rows thinned until there are no more than ``count``, 4 or more."""
    while len(rows) > count:
        whole = len(rows) - len(rows) % 4
        rows = np.concatenate((thinned(rows[:whole]), rows[whole:]))
    return rows


class Traces:
    """Rows of t_s, voltage_V, current_A, charge_C and ionic_C (NaN where unknown).

    Attributes
    ----------
    total
        Rows that were ever added: a reader remembers how many it has seen.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity % 8:
            raise ValueError(f"a capacity of {capacity} rows cannot be halved; 8 times n will do")
        self._rows = np.empty((capacity, COLUMNS))
        self._count = 0
        self._as_they_came = 0  # so many of the last rows were never thinned
        self.total = 0

    def add(self, rows: Rows) -> None:
        """Take rows, shape (n, 5); they are copied."""
        capacity = len(self._rows)
        kept = at_most(rows, capacity // 2)
        while len(kept) > capacity - self._count:
            self._thin_older()
        stop = self._count + len(kept)
        self._rows[self._count : stop] = kept
        self._count = stop
        self.total += len(rows)
        came = self._as_they_came + len(rows) if len(kept) == len(rows) else 0
        self._as_they_came = min(came, self._count)

    def _thin_older(self) -> None:
        """Make room: thin the older half of the memory to a quarter."""
        half = len(self._rows) // 2
        fewer, newer = thinned(self._rows[:half]), self._rows[half : self._count].copy()
        self._count = len(fewer) + len(newer)
        self._rows[: len(fewer)] = fewer
        self._rows[len(fewer) : self._count] = newer
        self._as_they_came = min(self._as_they_came, len(newer))

    def since(self, total: int) -> Rows | None:
        """Return the rows that came after a total, a view; None where some were thinned."""
        new = self.total - total
        if new > self._as_they_came:
            return None
        return self._rows[self._count - new : self._count]

    def all(self) -> Rows:
        """Return all rows, a view, shape (n, 5)."""
        return self._rows[: self._count]


def trace_message(kind: Kind, rows: Rows) -> bytes:
    """Return rows as a page takes them.

    A byte of kind, three of nothing, the number of rows, then the columns one by one: times
    as 64-bit floats, the others as 32-bit floats, all little-endian and aligned.
    """
    head = struct.pack("<B3xI", kind, len(rows))
    values = np.ascontiguousarray(rows[:, 1:].T, dtype="<f4")
    return head + rows[:, 0].astype("<f8").tobytes() + values.tobytes()
