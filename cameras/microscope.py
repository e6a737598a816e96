"""The microscope beside the camera: what it is set to, and its beam blanker."""

import math
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from cameras.errors import CameraError
from cameras.protocol import NowNs
from cameras.registry import registered, registered_names

GROUP = "lamella.microscopes"
TIMEOUT_S = 5.0


class MicroscopeLost(CameraError):
    """The microscope does not answer, or refused what it was asked."""


class UnknownMicroscope(CameraError):
    """There is no such microscope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePosition:
    """Where the stage stands; NaN for an axis that is not there or not known."""

    x_m: float = math.nan
    y_m: float = math.nan
    z_m: float = math.nan
    a_rad: float = math.nan
    b_rad: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroscopeState:
    """What a microscope says of itself; NaN or None where it does not say.

    Parameters
    ----------
    magnification
        As indicated.
    pixel_size_m
        Edge of a pixel in the specimen, where the microscope knows its camera.
    beam_current_A
        Through the specimen, as far as it is measured.
    beam_blanked
        True while the beam is kept off the specimen.
    """

    magnification: float = math.nan
    pixel_size_m: float = math.nan
    stage: StagePosition = field(default_factory=StagePosition)
    beam_current_A: float = math.nan
    beam_blanked: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankCommand:
    """A command to the blanker: the beam went off or on somewhere between both stamps.

    Parameters
    ----------
    sent_ns
        Host clock just before the command left.
    done_ns
        Host clock when the microscope said that it is done.
    blanked
        What was ordered: True for no beam.
    """

    sent_ns: int
    done_ns: int
    blanked: bool


class Microscope(Protocol):
    """The seam every microscope fills. A context manager that connects.

    Attributes
    ----------
    default_port
        Where its server listens unless told otherwise.
    """

    default_port: ClassVar[int]

    @classmethod
    def at(cls, host: str, port: int = 0, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S) -> Self:
        """Make one; port 0 for the default."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, and see that it is what it should be; nothing is changed."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect; the beam stays as it is."""
        ...

    async def state(self) -> MicroscopeState:
        """Read what it is set to.

        Raises
        ------
        MicroscopeLost
            It does not answer.
        """
        ...

    async def blank(self, *, on: bool) -> BlankCommand:
        """Keep the beam off the specimen, or let it on.

        Raises
        ------
        MicroscopeLost
            It does not answer or refuses: the beam may be either.
        """
        ...


def microscope_names() -> tuple[str, ...]:
    """Return the names of all registered microscopes, sorted."""
    return registered_names(GROUP)


def microscope_class(name: str) -> Any:
    """Return the microscope class of a name.

    Raises
    ------
    UnknownMicroscope
        No microscope is registered under that name.
    """
    found, hint = registered(GROUP, name)
    if found is None:
        raise UnknownMicroscope(f"no microscope is called {name!r}; {hint}")
    return found
