"""Has a file's n-th write, sync or resize fail, HDF5's own too: `failing_calls.c` in Python."""

import ctypes
import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


class Call(IntFlag):
    """Which calls count."""

    WRITE = 1
    SYNC = 2
    RESIZE = 4
    ANY = 7


class How(IntEnum):
    """What becomes of the call."""

    COUNT = 0
    FAIL = 1
    SHORT = 2
    KILL = 3
    KILL_HALF = 4
    SLOW = 5


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A call that fails.

    Parameters
    ----------
    ending
        Of the name of the file.
    number
        The error, or how slow the call is in milliseconds.
    stays
        All calls after it fail, too.
    """

    ending: str
    calls: Call
    how: How
    number: int = 0
    stays: bool = False

    def __str__(self) -> str:
        what = {
            How.FAIL: errno.errorcode.get(self.number, "?"),
            How.SLOW: f"{self.number} ms slower",
        }.get(self.how, self.how.name.lower().replace("_", " "))
        calls = "any" if self.calls == Call.ANY else (self.calls.name or "?").lower()
        return f"{self.ending:11} {calls:6} {what}{' from then on' if self.stays else ''}"


class FailingCalls:
    """The library that stands before the C library in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.count.restype = ctypes.c_long

    def arm(self, fault: Fault, at: int) -> None:
        """Begin to count; the call number ``at`` has the fault."""
        ending = fault.ending.encode()
        self._library.arm(
            ending, fault.calls, fault.how, fault.number, ctypes.c_long(at), fault.stays
        )

    def count(self) -> int:
        """Return how many calls were made since `arm`."""
        return int(self._library.count())


def load() -> FailingCalls:
    """Start this program anew with the library before the C library, unless it is there."""
    if "failing_calls" not in os.environ.get("LD_PRELOAD", ""):
        built = Path(tempfile.mkdtemp()) / "failing_calls.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-o", built, _SOURCE, "-ldl"],
            check=True,
        )
        environment = os.environ | {"LD_PRELOAD": str(built)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    return FailingCalls()
