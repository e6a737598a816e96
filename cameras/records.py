"""What a camera says about a frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInfo:
    """One frame's stamps, as the camera gave them.

    Parameters
    ----------
    index
        The camera's own counter; a jump is a loss, never a shift in time.
    device_start_ns
        Start of the exposure on the camera's clock.
    exposure_ns
        Length of the exposure on the camera's clock.
    dropped_before
        Frames that the counter says were lost just before this one.
    blanked
        True when the beam was off for the exposure.
    """

    index: int
    device_start_ns: int
    exposure_ns: int
    dropped_before: int = 0
    blanked: bool = False


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
    """

    model: str
    height: int
    width: int
    dtype: str
    frame_rate_Hz: float
    pixel_size_m: float
