"""Errors of HDF5 that h5py has nobody to tell: what was to be written when an object went.

HDF5 keeps the values of a small dataset until the last one who holds it lets go, and h5py lets
go as Python collects the object, where no exception can go anywhere. HDF5 ends the process when
such a file is closed: so somebody has to hear of it first.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_WHERE = "h5py._objects.ObjectID"


class SwallowedErrors:
    """Hears of such errors in this process while it is entered; all others go where they went."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._before = sys.unraisablehook

    def __enter__(self) -> Self:
        self._before = sys.unraisablehook
        sys.unraisablehook = self._hear
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.unraisablehook = self._before

    def check(self) -> None:
        """Raise the first of them.

        Raises
        ------
        OSError
            There was one: what was to be written is not in the file.
        """
        if self._first is not None:
            raise OSError(self._first)

    def _hear(self, unraisable: "UnraisableHookArgs") -> None:
        if _WHERE not in f"{unraisable.object}":
            self._before(unraisable)
        elif self._first is None:
            self._first = f"as it let go of an object: {unraisable.exc_value}"
