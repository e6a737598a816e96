"""What the recorder and its client say to each other; plain data over a pipe."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from session.records import AttributeValue, FrameHeader

# --- to the recorder ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Samples:
    """Readings, ``SESSION_SAMPLE_DTYPE``, shape (n,)."""

    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Frame:
    """The pixels of a frame wait in a slot of the camera's ring."""

    camera: str
    slot: int
    header: FrameHeader


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened; the details are JSON."""

    t_ns: int
    kind: str
    source: str
    message: str
    data_json: str


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Exchanges with a clock, ``EXCHANGE_DTYPE``, shape (n,)."""

    clock: str
    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Temperatures:
    """What a thermometer said, ``TEMPERATURE_DTYPE``, shape (n,)."""

    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """Counters of a bounded queue."""

    queue: str
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes for a group."""

    path: str
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Flush:
    """Say when all before this is flushed."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Close the file; the run is over."""

    exit_reason: str
    end_time: str


ToRecorder = (
    Samples | Frame | Event | Exchanges | Temperatures | QueueCounters | Attributes | Flush | Finish
)

# --- from the recorder -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The file is there and ready."""


@dataclass(frozen=True, slots=True)
class Released:
    """The oldest slots of a ring are free again."""

    camera: str
    count: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """All before the matching `Flush` is in the operating system's hands."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The file is closed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The recorder cannot go on.

    Parameters
    ----------
    exists, refused
        True when the file was there already, or when what it was given is not
        acceptable; otherwise the system or the disk failed.
    """

    text: str
    exists: bool = False
    refused: bool = False


FromRecorder = Started | Released | Flushed | Finished | Failed
