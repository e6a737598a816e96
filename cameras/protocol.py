"""The seam every frame source fills."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cameras.records import CameraInfo, Frame

NowNs = Callable[[], int]
"""Reads the host clock in integer nanoseconds; handed in, never global."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockExchange:
    """Four stamps of a two-way exchange; t1 and t2 are on the camera's clock."""

    t0_ns: int
    t1_ns: int
    t2_ns: int
    t3_ns: int


class FrameSource(Protocol):
    """A camera, armed by us or by the microscope. A context manager that stops it."""

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

    def frames(self) -> AsyncIterator[Frame]:
        """Yield each frame in the order of arrival. Lossless: never drops one by itself."""
        ...

    async def exchange_clock(self) -> ClockExchange:
        """Compare the camera's clock with the host's."""
        ...
