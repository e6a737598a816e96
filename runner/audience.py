"""Who is shown a run as it goes on: every call returns at once, whoever looks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from runner.tracking import Seen
from session.messages import Event
from session.records import FrameHeader

if TYPE_CHECKING:
    from runner.live_state import LiveState


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

    def event(self, event: Event) -> None:
        """See an event that is recorded."""
        ...

    def seen(self, seen: Seen) -> None:
        """See what trackers see in a frame; only where a rule asks for it."""
        ...


class Shielded:
    """Stands before an audience: one that fails is shown no more, and the run goes on.

    Parameters
    ----------
    audience
        None for nobody.
    say
        Told why it is shown no more.
    """

    def __init__(self, audience: Audience | None, say: Callable[[str], None]) -> None:
        self._audience = audience
        self._say = say

    def _show(self, show: Callable[[Audience], None]) -> None:
        if self._audience is None:
            return
        try:
            show(self._audience)
        except Exception as error:  # noqa: BLE001 - whatever it is, the cell comes first
            self._audience = None
            self._say(f"warning: the view shows no more ({type(error).__name__}: {error})")

    def begin(self, state: "LiveState", start_ns: int) -> None:
        """Take the state."""
        self._show(lambda audience: audience.begin(state, start_ns))

    def readings(self, rows: NDArray[np.void], ionic_C: NDArray[np.float64] | None) -> None:
        """See readings."""
        self._show(lambda audience: audience.readings(rows, ionic_C))

    def frame(self, stamps: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """See a frame."""
        self._show(lambda audience: audience.frame(stamps, pixels))

    def event(self, event: Event) -> None:
        """See an event."""
        self._show(lambda audience: audience.event(event))

    def seen(self, seen: Seen) -> None:
        """See what trackers see in a frame."""
        self._show(lambda audience: audience.seen(seen))


NOBODY: Audience = Shielded(None, lambda _text: None)
