"""The tables of a session as other programs want them: flat, labelled, in wall-clock time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.reader import Session
from session.schema import NO_STAMP, find_group
from session.tables import Table

if TYPE_CHECKING:
    import pandas as pd

UTC_NAME = "utc"
TIME_NAME = "session_time_s"
# The host stamp by which the rows of a table are placed in time, first that is there.
_HOST_STAMPS = ("t_ns", "t_start_ns", "t0_ns", "valid_from_ns")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS = 1_000_000_000
_MOST_NS = 2**61  # 73 years: what is further from 0 is no time of a host clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportColumn:
    """One column: its name in the session, its heading outside, its data, shape (n,)."""

    name: str
    label: str
    unit: str
    meaning: str
    data: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTable:
    """One table, with its times beside the raw stamps.

    Parameters
    ----------
    path
        Below ``/entry``, such as ``"tracks/front"``.
    name
        For a file: the path with ``_`` for ``/``.
    left_out
        Columns of more than one dimension, which have no place in rows.
    """

    path: str
    name: str
    columns: tuple[ExportColumn, ...]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns[0].data) if self.columns else 0

    def column(self, name: str) -> ExportColumn | None:
        """Return the column of that name in the session; None when there is none."""
        return next((c for c in self.columns if c.name == name), None)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the columns under their headings; what was never stamped is missing."""
        import pandas as pd  # noqa: PLC0415 - half a second that few calls need

        return pd.DataFrame({c.label: _series(c) for c in self.columns})


def table_paths(session: Session) -> tuple[str, ...]:
    """Return where the tables with one value for each row are, below ``/entry``."""
    return tuple(path for path in _candidates(session) if session.has(path))


def export_table(session: Session, path: str) -> ExportTable:
    """Read a table and place its rows in time.

    Raises
    ------
    SessionRefused
        The session has no such table; the message names those that it has.
    """
    known = table_paths(session)
    if path not in known:
        raise SessionRefused(
            f"{session.path} has no table {path!r}; there is {', '.join(known) or 'none'}"
        )
    table = session.table(path)
    flat = {name: values for name, values in table.columns.items() if values.ndim == 1}
    rows = min(map(len, flat.values()), default=0)
    columns = [*_times(table, session, rows), *_columns(table, flat, rows)]
    return ExportTable(
        path=path,
        name=path.replace("/", "_"),
        columns=tuple(columns),
        left_out=tuple(name for name in table.columns if name not in flat),
    )


def start_utc_ns(session: Session) -> int | None:
    """Return the start in nanoseconds since 1970, None where the time zone is unknown."""
    try:
        moment = datetime.fromisoformat(session.start_time)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    passed = moment - _EPOCH  # in integers: a float would lose microseconds
    return (passed.days * 86_400 + passed.seconds) * _NS + passed.microseconds * 1_000


def describe_columns(table: ExportTable) -> list[dict[str, str]]:
    """Return heading, name, unit and meaning of each column, as plain values."""
    return [
        {"label": c.label, "column": c.name, "unit": c.unit, "meaning": c.meaning}
        for c in table.columns
    ]


def _candidates(session: Session) -> Iterator[str]:
    yield "samples"
    yield "events"
    yield "temperature"
    for camera in session.cameras:
        yield f"frames/{camera}"
        yield f"frame_samples/{camera}"
        yield f"drift/{camera}"
    for track in session.tracks:
        yield f"tracks/{track}"
    yield "ledger"
    for clock in session.clocks:
        yield f"clocks/{clock}/exchanges"
        yield f"clocks/{clock}/fit"


def _times(table: Table, session: Session, rows: int) -> Iterator[ExportColumn]:
    name = next((name for name in _HOST_STAMPS if name in table), None)
    if name is None:
        return
    stamps, begin = table[name][:rows].astype(np.int64), session.host_start_ns
    if abs(begin) >= _MOST_NS:
        raise SessionRefused(f"{session.path}: host_start_ns is {begin}, which is no time")
    known = (stamps > -_MOST_NS) & (stamps < _MOST_NS)
    passed = np.where(known, stamps, begin) - begin
    start = start_utc_ns(session)
    if start is not None:
        moments = (passed + start).astype("datetime64[ns]")
        yield ExportColumn(
            name=UTC_NAME,
            label="UTC",
            unit="",
            meaning=f"{name} as wall clock: start_time plus what the host clock counted",
            data=np.where(known, moments, np.datetime64("NaT", "ns")),
        )
    yield ExportColumn(
        name=TIME_NAME,
        label=label_of(TIME_NAME, "s").replace("_", " "),
        unit="s",
        meaning=f"{name} since start_time",
        data=np.where(known, passed / _NS, np.nan),
    )


def _columns(table: Table, flat: Mapping[str, NDArray[Any]], rows: int) -> Iterator[ExportColumn]:
    spec = find_group(table.path)
    meanings = {} if spec is None else {c.name: c.meaning for c in spec.columns}
    taken: set[str] = set()
    for name, values in flat.items():
        unit = table.units.get(name, "")
        label = label_of(name, unit)
        if label in taken:  # x / m stands for x_m already
            label = f"{name} / {unit}"
        taken.add(label)
        yield ExportColumn(
            name=name,
            label=label,
            unit=unit,
            meaning=meanings.get(name, ""),
            data=values[:rows],
        )


def label_of(name: str, unit: str) -> str:
    """Return a heading such as ``current / A``; the unit is not said twice."""
    return f"{name.removesuffix(f'_{unit}')} / {unit}" if unit else name


def _series(column: ExportColumn) -> Any:
    import pandas as pd  # noqa: PLC0415 - as above

    values = column.data
    if values.dtype.kind == "M":
        return pd.Series(values).dt.tz_localize("UTC")
    if values.dtype == np.dtype("<i8") and np.any(values == NO_STAMP):
        return pd.Series(values, dtype="Int64").mask(values == NO_STAMP)
    return pd.Series(values)
