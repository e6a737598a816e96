"""Reads a session: lazily, read-only, and only files that are what they say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import read_attributes
from session.columns import check_rows, check_whole, count_rows
from session.displays import closed_html, session_html
from session.errors import SessionRefused
from session.frames import FrameStack
from session.open_file import OpenFile
from session.provenance import Provenance
from session.records import EVENT_DTYPE, EXCHANGE_DTYPE, NOT_FINISHED, AttributeValue
from session.sample_range import SampleRange
from session.schema import (
    EVENTS,
    EXCHANGES,
    FIT,
    FRAMES,
    SAMPLES,
    find_group,
    is_name,
)
from session.tables import Table, read_rows, read_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; ``t_ns`` is on the host clock."""

    t_ns: int
    kind: str
    source: str
    message: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFitRow:
    """One segment of a clock fit, as the file holds it.

    Parameters
    ----------
    rate
        Host nanoseconds for each device nanosecond.
    count
        Exchanges behind the segment; 0 where the file does not say.
    """

    reference_device_ns: int
    reference_host_ns: int
    rate: float
    rate_sigma: float
    offset_sigma_ns: float
    covariance_ns: float
    bound_ns: float
    valid_from_ns: int
    valid_to_ns: int
    count: int = 0


class Session:
    """A session file, open for reading.

    Examples
    --------
    >>> with Session.open("first_charge.h5") as session:  # doctest: +SKIP
    ...     samples = session.samples()
    ...     frames = session.frames("camera")
    """

    def __init__(self, file: OpenFile) -> None:
        self.path = file.path
        self._file = file

    @classmethod
    def open(cls, path: Path | str) -> "Session":
        """Open a session; one that is being recorded as it stood at its last flush.

        Raises
        ------
        SessionRefused
            The file is not a session, or not one to be trusted.
        """
        return cls(OpenFile(Path(path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session {self.path.name}{'' if self._file.is_open else ', closed'}>"

    def _repr_html_(self) -> str:
        return session_html(self) if self._file.is_open else closed_html(self.path)

    def close(self) -> None:
        """Close the file; frames that were not read yet are out of reach then."""
        self._file.close()

    @property
    def is_finished(self) -> bool:
        """False while it is recorded, and after a recorder was killed."""
        return self.exit_reason != NOT_FINISHED

    def refresh(self) -> None:
        """Look at the file anew: what was flushed since it was opened is there then.

        Frames that were asked for before are out of reach; ask for them again.

        Raises
        ------
        SessionRefused
            The file is gone, or no session any more.
        """
        self._file.refresh()

    # --- what the session says of itself ---

    @property
    def title(self) -> str:
        """What was done, in one line."""
        return self._text("title")

    @property
    def experiment_text(self) -> str:
        """The experiment file, verbatim."""
        return self._text("experiment")

    @property
    def start_time(self) -> str:
        """Wall clock at the start, ISO 8601."""
        return self._text("start_time")

    @property
    def end_time(self) -> str:
        """Wall clock at the end; empty when it was never finished."""
        return self._text("end_time")

    @property
    def exit_reason(self) -> str:
        """Why it ended; ``"not finished"`` when the recorder could not say."""
        return self._text("exit_reason")

    @property
    def simulated(self) -> bool:
        """True for mock hardware."""
        return bool(self._number("simulated"))

    @property
    def host_start_ns(self) -> int:
        """Host clock at `start_time`."""
        return self._number("host_start_ns")

    @property
    def layers(self) -> tuple[str, ...]:
        """The cell's layers, in the order in which lithium crosses them on charge."""
        layers = self.attributes("sample").get("layers", ())
        return tuple(map(str, layers)) if isinstance(layers, tuple) else ()

    @property
    def provenance(self) -> Provenance:
        """What made the session."""
        parts = {
            part: {
                name: str(value)
                for name, value in self.attributes(f"provenance/{part}").items()
                if name != "NX_class"
            }
            for part in ("versions", "host", "files")
        }
        return Provenance(**parts)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras with frames."""
        return self._names("frames")

    @property
    def instruments(self) -> tuple[str, ...]:
        """Names of what measured, cameras too."""
        return self._names("instrument")

    @property
    def tracks(self) -> tuple[str, ...]:
        """Names of the tracks."""
        return self._names("tracks")

    @property
    def correlations(self) -> tuple[str, ...]:
        """Names of what was tested."""
        return self._names("correlation")

    @property
    def clocks(self) -> tuple[str, ...]:
        """Names of the clocks other than the host's."""
        return self._names("clocks")

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the bounded queues whose counters were kept."""
        return self._names("queues")

    def attributes(self, path: str) -> dict[str, AttributeValue]:
        """Return the attributes of a group or dataset below ``/entry``."""
        with self._file.reading(path):
            return read_attributes(self._file.at(path))

    def has(self, path: str) -> bool:
        """Say whether the file holds a group or dataset, below ``/entry``."""
        return self._file.has(path)

    # --- its tables ---

    def samples(
        self,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        step: int | Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> "pd.DataFrame":
        """Return the readings, indexed by host time ``t_ns``, in SI units.

        ``attrs["units"]`` names the unit of each column. Of a long session only what is
        asked for is read, beside the stamps or steps that it is asked by.

        Parameters
        ----------
        from_ns, to_ns
            Host times, the second one not included.
        step
            Step or steps of the plan.
        columns
            Names, beside ``t_ns``; all where None.

        Raises
        ------
        SessionRefused
            There is no such column, or the table is damaged.
        """
        if from_ns is None and to_ns is None and step is None and columns is None:
            return self.table(SAMPLES.path).to_pandas()
        wanted = SampleRange(from_ns=from_ns, to_ns=to_ns, steps=step, columns=columns)
        return self._file.steadily(
            SAMPLES.path, lambda: wanted.read(self._file.at(SAMPLES.path))
        ).to_pandas()

    def sample_columns(self) -> dict[str, NDArray[Any]]:
        """Return the readings as arrays of shape (n,), by the names of the schema."""
        return dict(self.table(SAMPLES.path).columns)

    def frames(self, camera: str) -> FrameStack:
        """Return the frames of a camera, shape (n, height, width), still on disk."""
        where = f"frames/{camera}"

        def read() -> FrameStack:
            group, data = self._file.at(where), self._file.at(f"{where}/data")
            check_rows(group, FRAMES)
            is_data = isinstance(data, h5py.Dataset) and isinstance(group, h5py.Group)
            if not is_data or data.ndim != 3 or data.dtype.kind not in "iuf":
                raise SessionRefused(f"{self.path}: {where}/data holds no frames: {data!r}")
            # A file that was cut may tell of more stamps than frames.
            count = min(count_rows(group, FRAMES), data.shape[0])
            if not self._file.is_finished:
                check_whole(data, count)
            return FrameStack(data, count, self.path)

        return self._file.steadily(where, read)

    def frame_table(self, camera: str) -> Table:
        """Return the stamps of a camera's frames, one row for each."""
        return self.table(f"frames/{camera}")

    def count(self, path: str) -> int:
        """Return how many rows a table below ``/entry`` has, without reading them.

        Raises
        ------
        SessionRefused
            The file has no such table.
        """
        spec = find_group(path)

        def read() -> int:
            group = self._file.at(path)
            if spec is None or not spec.rows or not isinstance(group, h5py.Group):
                raise SessionRefused(f"{self.path}: {path!r} is not a table of the schema")
            check_rows(group, spec)
            return count_rows(group, spec)

        return self._file.steadily(path, read)

    def table(self, path: str) -> Table:
        """Return the columns of a group below ``/entry``, such as ``"tracks/front"``.

        Raises
        ------
        SessionRefused
            The file has no such table.
        """
        spec = find_group(path)

        def read() -> Table:
            group = self._file.at(path)
            if spec is None or not path or not isinstance(group, h5py.Group):
                raise SessionRefused(f"{self.path}: {path!r} is not a table of the schema")
            return read_table(group, spec, path)

        return self._file.steadily(path, read)

    def to_xarray(self, path: str = SAMPLES.path) -> Any:
        """Return a table, or for ``"frames/<camera>"`` its pixels, as xarray has them.

        Pixels stay on disk until they are asked for; needs the extra ``export``.

        Raises
        ------
        SessionRefused
            The file has no such table, or xarray is missing.
        """
        from session.export_xarray import frames_array, table_dataset  # noqa: PLC0415

        group, _, camera = path.partition("/")
        return frames_array(self, camera) if group == "frames" else table_dataset(self, path)

    @property
    def calibration(self) -> Table | None:
        """The open-holder calibration; None when the session has none."""
        return self.table("calibration") if self.has("calibration") else None

    def events(self) -> tuple[Event, ...]:
        """Return the events in the order in which they were recorded."""
        rows = self._file.steadily(
            EVENTS.path, lambda: read_rows(self._file.at(EVENTS.path), EVENTS, EVENT_DTYPE)
        )
        return tuple(
            Event(
                t_ns=int(row["t_ns"]),
                kind=row["kind"],
                source=row["source"],
                message=row["message"],
                data=_details(row["data"]),
            )
            for row in rows
        )

    def clock_exchanges(self, clock: str) -> NDArray[np.void]:
        """Return the raw exchanges with a clock, ``EXCHANGE_DTYPE``, shape (n,)."""
        path = f"clocks/{clock}/exchanges"
        return self._file.steadily(
            path, lambda: read_rows(self._file.at(path), EXCHANGES, EXCHANGE_DTYPE)
        )

    def clock_fits(self, clock: str) -> tuple[ClockFitRow, ...]:
        """Return the segments of a clock's fit; none when it was never fitted."""
        path = f"clocks/{clock}/fit"
        if not self.has(path):
            return ()
        table = self.table(path)
        names = [column.name for column in FIT.rows if column.name in table]
        missing = [c.name for c in FIT.rows if c.required and c.name not in names]
        if missing:
            raise SessionRefused(f"{self.path}: {path} lacks the columns {', '.join(missing)}")
        return tuple(
            ClockFitRow(**{name: table[name][i].item() for name in names})
            for i in range(len(table))
        )

    def _text(self, name: str) -> str:
        with self._file.reading(name):
            found = self._file.at(name)
            if not isinstance(found, h5py.Dataset) or found.ndim:
                raise SessionRefused(f"{self.path}: {name} is no text")
            return str(found.asstr(errors="replace")[()])

    def _number(self, name: str) -> int:
        value = self.attributes("").get(name)
        if not isinstance(value, int):
            raise SessionRefused(f"{self.path}: entry@{name} is {value!r}, and no whole number")
        return value

    def _names(self, path: str) -> tuple[str, ...]:
        with self._file.reading(path):
            group = self._file.get(path, ())
            if isinstance(group, h5py.Dataset):
                raise SessionRefused(f"{self.path}: {path!r} is a dataset, and no group")
            names = [n for n in group if is_name(n) and isinstance(group[n], h5py.Group)]
            return tuple(names)


def _details(text: str) -> Mapping[str, object]:
    try:
        details = json.loads(text)
    except ValueError:
        return {"text": text}
    return details if isinstance(details, dict) else {"value": details}
