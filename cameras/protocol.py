"""The seam every frame source fills."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cameras.options import CameraOptions
from cameras.records import CameraInfo, Frame, FrameFault

NowNs = Callable[[], int]
"""Reads the host clock in integer nanoseconds; handed in, never global."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockExchange:
    """Four stamps of a two-way exchange; t1 and t2 are on the camera's clock."""

    t0_ns: int
    t1_ns: int
    t2_ns: int
    t3_ns: int


class FrameBuffers(Protocol):
    """Memory for frames that others made, so that pixels need not be copied again."""

    def take(self) -> NDArray[np.generic]:
        """Return the next free buffer, shape (height, width); wait while there is none.

        It blocks: for the thread of a source that receives on one. Buffers are filled
        in the order in which they were taken, and each comes back with its frame.
        """
        ...


class FrameSource(Protocol):
    """A camera, armed by us or by the microscope. A context manager that stops it.

    Attributes
    ----------
    needs
        Names of the options without which it cannot be reached.
    has_clock
        True where its clock can be asked with `exchange_clock`. Otherwise its stamps are
        tied to the host by the arrival of its frames.
    """

    needs: ClassVar[tuple[str, ...]]
    has_clock: ClassVar[bool]

    @classmethod
    def from_options(cls, options: CameraOptions, *, now_ns: NowNs) -> Self:
        """Make one; it connects when it is entered."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, without starting the exposure."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and disconnect."""
        ...

    @property
    def info(self) -> CameraInfo:
        """What the camera said of itself on connecting."""
        ...

    async def start(self) -> None:
        """Begin to expose."""
        ...

    async def stop(self) -> None:
        """End after the present frame; ``frames`` then ends by itself."""
        ...

    def frames(self, buffers: FrameBuffers | None = None) -> AsyncIterator[Frame | FrameFault]:
        """Yield each frame in the order of arrival. Lossless: never drops one by itself.

        What came and cannot be a frame is yielded as a fault, and the recording goes on.
        Sources that receive on a thread of their own put pixels into ``buffers``.
        """
        ...

    async def exchange_clock(self) -> ClockExchange:
        """Compare the camera's clock with the host's.

        Raises
        ------
        CameraLost
            It has no clock that can be asked, or does not answer.
        """
        ...
