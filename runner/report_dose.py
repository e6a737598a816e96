"""The dose in a report: a small picture of where it went on the specimen, and numbers."""

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.dose_record import PATH
from session.reader import Session

SIDE_PX = 360
# Dark to bright, and even in brightness: where the field never was is darkest.
STOPS = np.array([[24, 18, 52], [94, 33, 120], [186, 55, 85], [243, 120, 40], [252, 230, 140]])


def dose_content(session: Session) -> dict[str, Any] | None:
    """Return what the page shows of the dose; None where no frame was taken."""
    if not session.has(PATH):
        return None
    table = session.table(PATH)
    total = table["dose_total"]
    known = total[np.isfinite(total)]
    found: dict[str, Any] = {"image": None, "reason": str(table.attributes["reason"])}
    if "map" not in table or not len(known):
        return found
    field = table["map"]
    dark = float(np.mean(1 - table["lit"]))
    pixel_nm = float(str(table.attributes["pixel_size"])) * 1e9
    unit, size = ("nm", pixel_nm) if math.isfinite(pixel_nm) else ("px", 1.0)
    return found | {
        "image": f"data:image/png;base64,{base64.b64encode(_png(field)).decode('ascii')}",
        "total": f"{known[-1] / 1e20:.4g} e/Å²",
        "largest": f"{float(field.max()) / 1e20:.4g} e/Å²",
        "size": f"{field.shape[1] * size:.4g} x {field.shape[0] * size:.4g} {unit}",
        "drift": "drift taken out" if table.attributes["drift_known"] else "no drift known",
        "blanked": f"{100 * dark:.3g} %" if dark > 0 else "",
        "colours": [f"rgb({r},{g},{b})" for r, g, b in STOPS.tolist()],
    }


def _png(field: NDArray[np.float32]) -> bytes:
    """Return a map as a picture, black body colours from 0 to its largest dose."""
    every = max(1, math.ceil(max(field.shape) / SIDE_PX))
    part = np.asarray(field[::every, ::every], np.float64)
    share = part / max(float(field.max()), 1e-300) * (len(STOPS) - 1)
    places = np.arange(len(STOPS))
    colours = [np.interp(share, places, STOPS[:, k]) for k in range(3)]
    out = io.BytesIO()
    Image.fromarray(np.stack(colours, axis=-1).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
