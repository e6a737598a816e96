"""Who is shown a run as it goes on: every call returns at once, whoever looks."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from session.records import FrameHeader

if TYPE_CHECKING:
    from runner.acquisition import LiveState


class Audience(Protocol):
    """Is shown readings, frames and events; must never wait."""

    def begin(self, state: "LiveState", start_ns: int) -> None:
        """Take the state, which the run goes on to write, and the host time of its start."""
        ...

    def readings(self, rows: NDArray[np.void], ionic_C: NDArray[np.float64] | None) -> None:
        """See readings, SESSION_SAMPLE_DTYPE, shape (n,), and the ionic charge at each in C.

        That charge is None without a calibration of the holder.
        """
        ...

    def frame(self, stamps: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """See a frame, shape (height, width); whoever keeps it, keeps a slot of the ring."""
        ...

    def event(self, t_ns: int, kind: str, source: str, message: str) -> None:
        """See an event that is recorded."""
        ...


class _Nobody:
    def begin(self, state: "LiveState", start_ns: int) -> None:
        pass

    def readings(self, rows: NDArray[np.void], ionic_C: NDArray[np.float64] | None) -> None:
        pass

    def frame(self, stamps: FrameHeader, pixels: NDArray[np.generic]) -> None:
        pass

    def event(self, t_ns: int, kind: str, source: str, message: str) -> None:
        pass


NOBODY: Audience = _Nobody()
