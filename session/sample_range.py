"""Some of the readings of a long session, without reading the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from session.columns import check_rows, count_rows, read_column
from session.errors import SessionRefused
from session.schema import SAMPLES
from session.tables import Table, read_some_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRange:
    """Which readings are wanted; None where all are.

    Parameters
    ----------
    from_ns, to_ns
        Host times, the second one not included.
    steps
        Of the plan.
    columns
        Names, beside ``t_ns``.
    """

    from_ns: int | None = None
    to_ns: int | None = None
    steps: int | Sequence[int] | None = None
    columns: Sequence[str] | None = None

    def read(self, group: h5py.Group) -> Table:
        """Read them.

        Stamps and steps are looked at as a whole: a stamp may go back where a clock did.

        Raises
        ------
        SessionRefused
            There is no such column, or the table is damaged.
        """
        check_rows(group, SAMPLES)
        there = [column.name for column in SAMPLES.rows if column.name in group]
        unknown = [name for name in self.columns or () if name not in there]
        if unknown:
            raise SessionRefused(
                f"samples have no column {unknown[0]!r}; there is {', '.join(there)}"
            )
        names = ["t_ns", *(n for n in there if n != "t_ns" and n in (self.columns or there))]
        return read_some_rows(group, SAMPLES.path, self._rows(group), names)

    def _rows(self, group: h5py.Group) -> NDArray[np.bool_]:
        rows = np.ones(count_rows(group, SAMPLES), np.bool_)
        if self.from_ns is not None or self.to_ns is not None:
            t_ns = read_column(group["t_ns"], len(rows))
            if self.from_ns is not None:
                rows &= t_ns >= self.from_ns
            if self.to_ns is not None:
                rows &= t_ns < self.to_ns
        if self.steps is not None:
            rows &= np.isin(read_column(group["step"], len(rows)), np.atleast_1d(self.steps))
        return rows
