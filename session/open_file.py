"""A session's file, open for reading: damage is refused, and what is just written waited for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py

from session.columns import read_column
from session.errors import HDF5_ERRORS, SessionInUse, SessionRefused
from session.records import NOT_FINISHED
from session.schema import ROOT
from session.structure import is_recorded_now, open_checked

# A flush takes milliseconds; in between the file is whole.
_ATTEMPTS, _PAUSE_S = 25, 0.02
_ATTEMPTS_ALONE = 3
_Read = TypeVar("_Read")


class OpenFile:
    """What stands below ``/entry`` of a session's file.

    Raises
    ------
    SessionRefused
        The file is not a session, or not one to be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        self._entry: h5py.Group = self._file[ROOT]

    @property
    def is_open(self) -> bool:
        """False once it was closed."""
        return bool(self._file)

    def close(self) -> None:
        """Close the file; what was not read yet is out of reach then."""
        self._file.close()

    def refresh(self) -> None:
        """Open the file anew: what was flushed since is there then.

        Raises
        ------
        SessionRefused
            The file is gone, or no session any more.
        """
        self._file.close()
        self._file = _open(self.path)
        self._entry = self._file[ROOT]

    def has(self, path: str) -> bool:
        """Say whether the file holds a group or dataset."""
        with self.reading(path):
            return path in self._entry

    def get(self, path: str, otherwise: object) -> Any:
        """Return a group or dataset, or something else where there is none that opens."""
        return self._entry.get(path, otherwise)

    def at(self, path: str) -> Any:
        """Return a group or dataset, the entry itself for ``""``; to be read within `reading`.

        Raises
        ------
        SessionRefused
            There is none; with what there is.
        """
        if not path:
            return self._entry
        if path not in self._entry:
            parent = self._entry.get(path.rpartition("/")[0], self._entry)
            names = ", ".join(parent) if isinstance(parent, h5py.Group) else ""
            raise SessionRefused(f"{self.path} has no {path!r}; there is {names or 'nothing'}")
        return self._entry[path]

    @property
    def is_finished(self) -> bool:
        """False where the file says that it is not; True where it does not say."""
        try:
            reason = read_column(self._entry["exit_reason"])
        except (*HDF5_ERRORS, AttributeError):  # no text, or no dataset
            return True
        return str(reason) != NOT_FINISHED

    def steadily(self, path: str, read: Callable[[], _Read]) -> _Read:
        """Read; once more where the recorder was just writing what was read."""
        for attempt in range(_ATTEMPTS):
            try:
                with self.reading(path):
                    return read()
            except SessionRefused:
                # Whether it is recorded can be asked of some systems only.
                patience = _ATTEMPTS if is_recorded_now(self.path) else _ATTEMPTS_ALONE
                if not self._file or self.is_finished or attempt + 1 >= patience:
                    raise
                time.sleep(_PAUSE_S)
                self.refresh()
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Turn what h5py says of damage into our own error."""
        if not self._file:
            raise SessionRefused(f"{self.path}: the session was closed; open it again")
        try:
            yield
        except HDF5_ERRORS as error:
            raise SessionRefused(
                f"{self.path}: {path or 'the entry'} is damaged ({error}); `lamella verify` says"
                " what is whole"
            ) from error


def _open(path: Path) -> h5py.File:
    """Open a session; one that is just being flushed is looked at again."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return open_checked(path)
        except SessionInUse:
            raise  # that was waited for already
        except SessionRefused:
            if not is_recorded_now(path):
                raise
            time.sleep(_PAUSE_S)
    return open_checked(path)
