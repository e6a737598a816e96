"""What the recorder is told: plain data, alike in memory, on the pipe, on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from session.provenance import Provenance
from session.schema import EDGES, EVENTS, EXCHANGES, FRAMES, SAMPLES, TEMPERATURE, row_dtype

AttributeValue = str | bool | int | float | tuple[str, ...] | tuple[int, ...] | tuple[float, ...]

SESSION_SAMPLE_DTYPE = row_dtype(SAMPLES)
EXCHANGE_DTYPE = row_dtype(EXCHANGES)
FRAME_ROW_DTYPE = row_dtype(FRAMES)
EVENT_DTYPE = row_dtype(EVENTS)
EDGE_DTYPE = row_dtype(EDGES)
TEMPERATURE_DTYPE = row_dtype(TEMPERATURE)

MAX_FRAME_BYTES = 2**30

NOT_FINISHED = "not finished"
RUNNER_LOST = "runner lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraHeader:
    """One camera of a session.

    Parameters
    ----------
    dtype
        NumPy name of the pixel type: an unsigned or signed integer, or a float.
    pixel_size_m
        Edge of a pixel in the specimen; NaN where unknown.
    stamp, clock
        What the frames' stamps mark (``"exposure_start"``, ``"exposure_end"``,
        ``"arrival"``, ``"unknown"``), and on which clock (``"camera"``, ``"host"``).
    row_time_ns
        By which each row is exposed later than the row before; 0 where all are exposed
        at once, NaN where unknown.
    """

    name: str
    model: str
    height: int
    width: int
    dtype: str
    frame_rate_Hz: float
    pixel_size_m: float
    stamp: str = "exposure_start"
    clock: str = "camera"
    row_time_ns: float = 0.0

    @property
    def frame_bytes(self) -> int:
        """Size of a frame in memory and on disk."""
        return self.height * self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentHeader:
    """One instrument of a session; what is known of it goes into attributes."""

    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    nx_class: str = "NXsensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHeader:
    """What is known before the first reading.

    Parameters
    ----------
    experiment_text
        The experiment file, verbatim.
    start_time
        Wall clock, ISO 8601 with offset; a label only.
    host_start_ns
        Host clock at ``start_time``.
    layers
        The cell's layers, in the order in which the lithium crosses them on charge.
    sample
        Geometry and capacity, in SI units named by a suffix (``width_m``).
    clocks
        Clocks other than the host's; others may join later.
    """

    title: str
    experiment_text: str
    start_time: str
    host_start_ns: int
    simulated: bool
    layers: tuple[str, ...] = ()
    sample: Mapping[str, AttributeValue] = field(default_factory=dict)
    instruments: tuple[InstrumentHeader, ...] = ()
    cameras: tuple[CameraHeader, ...] = ()
    clocks: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """The stamps of one frame.

    Parameters
    ----------
    t_start_ns, t_sigma_ns
        Start of the exposure on the host clock as known now, and its 1 sigma; NaN
        where there is no estimate yet.
    index
        The camera's own counter.
    device_start_ns
        Start of the exposure on the camera's clock, raw.
    dropped_before
        Frames that the counter says were lost just before this one.
    dose_per_m2
        Electrons per area up to the end of this frame; NaN where unknown.
    arrival_ns
        Host clock when the whole frame was here, raw; None where nobody looked.
    """

    t_start_ns: int
    exposure_ns: int
    t_sigma_ns: float
    index: int
    device_start_ns: int
    dropped_before: int = 0
    dose_per_m2: float = float("nan")
    blanked: bool = False
    arrival_ns: int | None = None
