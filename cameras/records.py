"""What a camera says about a frame."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class StampKind(StrEnum):
    """What a camera's stamp marks."""

    EXPOSURE_START = "exposure_start"
    EXPOSURE_END = "exposure_end"
    ARRIVAL = "arrival"  # of the frame or its file: an upper bound on the end of the exposure
    UNKNOWN = "unknown"  # the maker does not say


class StampClock(StrEnum):
    """Which clock a camera's stamps are read from."""

    CAMERA = "camera"
    HOST = "host"  # ours, because the camera gives none


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInfo:
    """One frame's stamps, as the camera gave them.

    Parameters
    ----------
    index
        The camera's own counter; a jump is a loss, never a shift in time.
    device_start_ns
        The stamp on the camera's clock; `CameraInfo.stamp` tells what it marks.
    exposure_ns
        Length of the exposure on the camera's clock.
    dropped_before
        Frames that the counter says were lost just before this one.
    blanked
        True when the beam was off for the exposure.
    arrival_ns
        Host clock when the whole frame was here; None where nobody looked.
    """

    index: int
    device_start_ns: int
    exposure_ns: int
    dropped_before: int = 0
    blanked: bool = False
    arrival_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFault:
    """Something came that cannot be a frame of this recording.

    Parameters
    ----------
    index
        The camera's counter; None where it could not be read.
    reason
        What is wrong, what was expected, and what became of it.
    arrival_ns
        Host clock when it was noticed.
    """

    index: int | None
    reason: str
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with its pixels, shape (height, width)."""

    info: FrameInfo
    pixels: NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraInfo:
    """What stays the same for a whole recording.

    Parameters
    ----------
    model
        Maker and model.
    height, width
        Pixels.
    dtype
        NumPy name of the pixel type, such as ``"uint8"``.
    frame_rate_Hz
        Nominal rate.
    pixel_size_m
        Edge of a pixel in the specimen; NaN where unknown.
    stamp, clock
        What the frames' stamps mark, and on which clock.
    row_time_ns
        By which each row is exposed later than the row before, for a rolling shutter;
        negative from the bottom up, 0 where all rows are exposed at once, NaN where
        unknown.
    """

    model: str
    height: int
    width: int
    dtype: str
    frame_rate_Hz: float
    pixel_size_m: float
    stamp: StampKind = StampKind.EXPOSURE_START
    clock: StampClock = StampClock.CAMERA
    row_time_ns: float = 0.0
