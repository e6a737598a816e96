"""Adds results to a session after the run; raw data are never touched."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import ArrayLike

from session.attributes import check_attributes, write_attributes
from session.checks import as_column, check_columns
from session.columns import GrowingTable, count_rows, write_table
from session.errors import SessionRefused
from session.layout import ensure_group
from session.migrations import is_newer
from session.records import EVENT_DTYPE, AttributeValue
from session.schema import ROOT, SCHEMA_VERSION, find_group, is_name
from session.seal import NEW, is_sealed, seal, seal_one
from session.spec import Group
from session.structure import open_checked
from session.tables import version_of
from session.writer import event_json

# No valid name ends like this or `NEW`, so readers pass over what a crash may leave.
_OLD = "~old"


class SessionEditor:
    """A session file, open for results.

    Each change is whole or not there: a table is written under another name first and
    then takes the place of the old one.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._entry: h5py.Group = file[ROOT]
        self._is_sealed = is_sealed(self._entry)

    @classmethod
    def open(cls, path: Path | str) -> "SessionEditor":
        """Open a session for results.

        Raises
        ------
        SessionRefused
            The file is not a session, not one to be trusted, or in use.
        """
        file = open_checked(Path(path), "r+")
        if is_newer(version := version_of(file)):
            file.close()
            raise SessionRefused(
                f"{path} is of version {version} of the schema and this program of"
                f" {SCHEMA_VERSION}: it reads it, and writes nothing into it; a newer Lamella will"
            )
        return cls(Path(path), file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def put_table(
        self,
        path: str,
        columns: Mapping[str, ArrayLike],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        units: Mapping[str, str] | None = None,
    ) -> None:
        """Write a table of results, in place of the one that is there.

        Parameters
        ----------
        path
            Below ``/entry``: ``"tracks/front"``, ``"ledger"``, ``"clocks/camera/fit"``,
            ``"correlation/lag"`` and so on.
        columns
            Arrays by name; of shape (n,) for the columns of the schema.
        units
            Units of columns that the schema does not know; a ``_sigma`` takes that of
            its quantity by itself.

        Raises
        ------
        SessionRefused
            The schema has no such results, or columns are missing, unknown, of
            different lengths or of another type.
        """
        spec = find_group(path)
        if spec is None or not spec.results or not _is_path(path):
            raise SessionRefused(
                f"{self.path}: {path!r} takes no results; 'tracks/<name>', 'ledger',"
                " 'drift/<camera>' or another table of results will do"
            )
        arrays = check_columns(path, spec, columns)
        check_attributes(path, attributes or {})
        parent_path, _, name = path.rpartition("/")
        parent = self._ensure(parent_path) if parent_path else self._entry
        _discard(parent, name + NEW)
        group = parent.create_group(name + NEW)
        write_table(group, spec, arrays, units or {})
        if not spec.signal and spec.axes:
            _name_signal(group, spec, list(arrays))
        write_attributes(group, attributes or {})
        self._seal(group)
        self._file.flush()
        _discard(parent, name + _OLD)
        if name in parent:
            parent.move(name, name + _OLD)
        parent.move(name + NEW, name)
        _discard(parent, name + _OLD)
        self._seal_one(parent)
        self._file.flush()

    def update_columns(self, path: str, columns: Mapping[str, ArrayLike]) -> None:
        """Write provisional columns again, such as ``t_ns`` of the samples.

        Parameters
        ----------
        path
            ``"samples"`` or ``"frames/<camera>"``.
        columns
            Arrays of shape (n,), one value for each row that is there.

        Raises
        ------
        SessionRefused
            A column is raw, or of another length or type.
        """
        spec = find_group(path)
        provisional = {c.name: c for c in spec.rows if c.provisional} if spec else {}
        if spec is None or not provisional or path not in self._entry:
            raise SessionRefused(
                f"{self.path}: {path!r} has no columns that may be rewritten;"
                " 'samples' and 'frames/<camera>' have"
            )
        group = self._entry[path]
        count = count_rows(group, spec)
        arrays = {}
        for name, values in columns.items():
            if name not in provisional:
                raise SessionRefused(
                    f"{self.path}: {path}/{name} stays as it was recorded; only"
                    f" {', '.join(provisional)} may be rewritten"
                )
            arrays[name] = as_column(path, name, values, provisional[name].dtype)
            if arrays[name].shape != (count,):
                raise SessionRefused(
                    f"{self.path}: {path}/{name} of shape {arrays[name].shape} given;"
                    f" it has {count} rows"
                )
        for name, values in arrays.items():
            group[name][:count] = values
            self._seal(group[name])
        self._file.flush()

    def put_attributes(self, path: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Write attributes on a group that takes more than the schema names.

        Raises
        ------
        SessionRefused
            The group takes none, or a value cannot be stored.
        """
        spec = find_group(path)
        if spec is None or not spec.free_attributes or not _is_path(path):
            raise SessionRefused(
                f"{self.path}: {path!r} takes no further attributes; 'sample',"
                " 'instrument/<name>' or a table of results will do"
            )
        check_attributes(path, attributes)
        group = self._ensure(path)
        write_attributes(group, attributes)
        self._seal(group)
        self._file.flush()

    def add_event(
        self,
        t_ns: int,
        kind: str,
        source: str,
        message: str,
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Append an event; those that are there stay."""
        events = GrowingTable(self._entry["events"], EVENT_DTYPE)
        row = (t_ns, kind, source, message.replace("\0", ""), event_json(data))
        events.append(np.array([row], dtype=EVENT_DTYPE))
        events.commit()
        self._seal(self._entry["events"])
        self._file.flush()

    def _ensure(self, path: str) -> h5py.Group:
        parts = path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        new = [name for name in above if name not in self._entry]
        group = ensure_group(self._entry, path)
        if new:
            self._seal(self._entry[new[0]])
            self._seal_one(self._entry[new[0]].parent)
        return group

    def _seal_one(self, group: h5py.Group) -> None:
        if self._is_sealed:
            seal_one(group)

    def _seal(self, target: h5py.Group | h5py.Dataset) -> None:
        if self._is_sealed:
            seal(target)


def _name_signal(group: h5py.Group, spec: Group, names: list[str]) -> None:
    plotted = [
        name for name in names if name not in ("t_ns", "valid") and not name.endswith("_sigma")
    ]
    if plotted:
        group.attrs["signal"] = plotted[0]


def _discard(parent: h5py.Group, name: str) -> None:
    if name in parent:
        del parent[name]


def _is_path(path: str) -> bool:
    return all(is_name(part) for part in path.split("/"))
