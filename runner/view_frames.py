"""Frames as a page shows them: binned, in grey, as JPEG."""

import io
import json
import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.view_traces import Kind

LARGEST_PX = 1024
QUALITY = 80
PROBED = 20_000  # pixels that tell the range of grey
OUTSIDE_PERCENT = 0.3
FOLLOWED = 0.3  # share of a new range that is taken at once: a picture must not flicker


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A frame to be shown.

    Parameters
    ----------
    binned
        Pixels of the camera in a pixel of the picture, along each edge.
    low, high
        Counts that are black and white.
    """

    jpeg: bytes
    width: int
    height: int
    binned: int
    low: float
    high: float


class Painter:
    """Makes pictures of frames; used by one thread at a time."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None

    def paint(self, pixels: NDArray[np.generic]) -> Picture:
        """Return the picture of a frame, shape (height, width)."""
        binned = max(1, math.ceil(max(pixels.shape) / LARGEST_PX))
        grey = _binned(pixels, binned)
        low, high = self._follow(grey)
        scaled = (grey - np.float32(low)) * np.float32(255.0 / (high - low))
        out = io.BytesIO()
        shown = np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)
        Image.fromarray(shown).save(out, "JPEG", quality=QUALITY)
        height, width = shown.shape
        return Picture(
            jpeg=out.getvalue(), width=width, height=height, binned=binned, low=low, high=high
        )

    def _follow(self, grey: NDArray[np.float32]) -> tuple[float, float]:
        step = max(1, grey.size // PROBED)
        probe = grey.ravel()[::step]
        probe = probe[np.isfinite(probe)]
        if not len(probe):
            return self._range or (0.0, 1.0)
        ends = np.percentile(probe, (OUTSIDE_PERCENT, 100 - OUTSIDE_PERCENT))
        low, high = float(ends[0]), float(ends[1])
        if high <= low:
            high = low + 1.0
        if self._range is not None:
            was_low, was_high = self._range
            low = was_low + FOLLOWED * (low - was_low)
            high = was_high + FOLLOWED * (high - was_high)
        self._range = low, high
        return self._range


def _binned(pixels: NDArray[np.generic], count: int) -> NDArray[np.float32]:
    grey = np.asarray(pixels, np.float32)
    if count == 1:
        return grey
    height, width = (size - size % count for size in pixels.shape)
    blocks = grey[:height, :width].reshape(height // count, count, width // count, count)
    return np.asarray(blocks.mean(axis=(1, 3)))


def frame_message(picture: Picture, about: dict[str, object]) -> bytes:
    """Return a picture as a page takes it.

    A byte of kind, three of nothing, the length of a JSON text, the text, the JPEG.
    """
    header = {
        "width": picture.width,
        "height": picture.height,
        "binned": picture.binned,
        "low": round(picture.low, 3),
        "high": round(picture.high, 3),
        **about,
    }
    text = json.dumps(header, allow_nan=False).encode()
    return struct.pack("<B3xI", Kind.FRAME, len(text)) + text + picture.jpeg
