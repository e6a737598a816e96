"""The frames of a report: JPEGs of one grey scale, as many as there is room for."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.report_numbers import numbers, seconds
from session.reader import Session

FRAME_SIDE_PX = 560
QUALITIES = (60, 45, 30)
LOW_PERCENT, HIGH_PERCENT = 0.2, 99.8
LEVEL_FRAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Grey:
    """How frames become pictures: pixels summed along each edge, and counts at the ends of grey."""

    binned: int
    low: float
    high: float

    def jpeg(self, pixels: NDArray[np.generic], quality: int) -> bytes:
        """Return a frame as a JPEG."""
        out = io.BytesIO()
        Image.fromarray(self.shown(pixels)).save(out, "JPEG", quality=quality)
        return out.getvalue()

    def shown(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return a frame in grey, shape (height, width)."""
        image, binned = np.asarray(pixels, dtype=np.float32), self.binned
        if binned > 1:
            height, width = (side - side % binned for side in image.shape)
            cut = image[:height, :width]
            rows = np.sum([cut[k::binned] for k in range(binned)], axis=0)
            image = np.sum([rows[:, k::binned] for k in range(binned)], axis=0) / binned**2
        scaled = np.nan_to_num((image - self.low) * (255 / (self.high - self.low)), nan=0.0)
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def grey_of(stack: Any, *, side_px: int = FRAME_SIDE_PX) -> Grey:
    """Return one black and one white level for a whole stack, and how it is binned."""
    probe = np.unique(np.linspace(0, len(stack) - 1, LEVEL_FRAMES).astype(int))
    parts = [np.asarray(stack[int(i)]).ravel()[::7] for i in probe]
    low, high = np.percentile(np.concatenate(parts), [LOW_PERCENT, HIGH_PERCENT])
    return Grey(
        binned=max(1, math.ceil(max(stack.shape[1:]) / side_px)),
        low=float(low),
        high=float(high) if high > low else float(low) + 1.0,
    )


def camera_of(session: Session) -> str | None:
    """Return the first camera that has frames."""
    return next((c for c in session.cameras if len(session.frames(c))), None)


def frames_content(
    session: Session, camera: str | None, origin_ns: int, budget: int
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the frames as the page takes them, and what had to be left out.

    Parameters
    ----------
    budget
        Room in bytes: first the quality is lowered, then frames are left out.
    """
    if camera is None:
        return None, []
    stack, table = session.frames(camera), session.frame_table(camera)
    grey, chosen = grey_of(stack), np.arange(len(stack))
    notes = [f"frames: binned {grey.binned} x {grey.binned} for this page"]
    notes = notes if grey.binned > 1 else []
    # A few frames tell how large all will be.
    probe = [stack[int(i)] for i in np.unique(np.linspace(0, len(stack) - 1, 6).astype(int))]
    sizes = {q: float(np.mean([len(grey.jpeg(p, q)) for p in probe])) for q in QUALITIES}
    quality = next((q for q in QUALITIES if sizes[q] * len(chosen) <= budget), QUALITIES[-1])
    if sizes[quality] * len(chosen) > budget:
        every = math.ceil(sizes[quality] * len(chosen) / budget)
        chosen = chosen[::every]
        notes.append(f"frames: 1 of {every} is shown, {len(chosen)} of {len(stack)}")
    if quality != QUALITIES[0]:
        notes.append(f"frames: JPEG quality {quality}")
    jpegs = [grey.jpeg(stack[int(i)], quality) for i in chosen]
    middle = table["t_start_ns"] + table["exposure_ns"] // 2
    pixel_m = float(str(table.attributes.get("pixel_size", math.nan)))
    return {
        "t": seconds(middle[chosen], origin_ns),
        "index": [int(i) for i in table["index"][chosen]],
        "dose": numbers(table["dose"][chosen] / 1e20, 5),
        "row": [int(i) for i in chosen],
        "width": int(stack.shape[2]),
        "height": int(stack.shape[1]),
        "pixel_nm": pixel_m * 1e9 if math.isfinite(pixel_m) else None,
        "offsets": [0, *np.cumsum([len(j) for j in jpegs]).tolist()],
        "data": base64.b64encode(b"".join(jpegs)).decode("ascii"),
    }, notes


def drift_content(session: Session, camera: str | None, origin_ns: int) -> dict[str, Any] | None:
    """Return the drift of the frames, for a chart; None where it was not measured."""
    if camera is None or not session.has(f"drift/{camera}"):
        return None
    table = session.table(f"drift/{camera}")
    return {
        "t": seconds(table["t_ns"], origin_ns),
        "dx": numbers(table["dx"], 5),
        "dy": numbers(table["dy"], 5),
    }
