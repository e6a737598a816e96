"""The dose that each part of the specimen has had, with the drift taken out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseMap:
    """Dose by place on the specimen, as far as the field has ever reached.

    Parameters
    ----------
    dose_per_m2
        Shape (rows, columns), electrons per area; 0 where the field never was.
    top, left
        Row and column of the first element, in pixels of a frame without drift.
    """

    dose_per_m2: Floats
    top: int
    left: int

    def at(self, y: float, x: float) -> float:
        """Return the dose at a place, in pixels of a frame without drift; NaN off the map."""
        row, column = int(np.floor(y)) - self.top, int(np.floor(x)) - self.left
        rows, columns = self.dose_per_m2.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return float("nan")
        return float(self.dose_per_m2[row, column])


def frame_doses(total_per_m2: Floats) -> Floats:
    """Return what each frame adds to the dose, shape (n,), from the running dose.

    The beam stays on between exposures: each frame has the dose since the one before. A
    frame whose dose is not a number adds nothing, and the next one what it left out.
    """
    known = np.isfinite(total_per_m2)
    added = np.zeros(len(total_per_m2))
    added[known] = np.diff(total_per_m2[known], prepend=0.0)
    return added


def dose_map(
    added_per_m2: Floats, dx_px: Floats, dy_px: Floats, *, height: int, width: int
) -> DoseMap:
    """Add up the dose of all frames on the specimen, which drifts under an even field.

    Parameters
    ----------
    added_per_m2
        Dose of each frame, shape (n,).
    dx_px, dy_px
        By which the specimen stands further right and further down in each frame. A frame
        whose drift is unknown (NaN) stands where the one before it did.
    height, width
        Of a frame, in pixels.

    Raises
    ------
    ValueError
        No frame, or arrays of different lengths.
    """
    if not len(added_per_m2) or not len(added_per_m2) == len(dx_px) == len(dy_px):
        raise ValueError(
            f"{len(added_per_m2)} doses and {len(dy_px)}, {len(dx_px)} drifts; one of each "
            "for every frame would do"
        )
    from_y, from_x = -_held(dy_px), -_held(dx_px)
    top, left = int(np.floor(from_y.min())), int(np.floor(from_x.min()))
    rows = int(np.ceil(from_y.max())) + height - top
    columns = int(np.ceil(from_x.max())) + width - left
    # The coverage of a frame is 1 within it and a share at its edges: along each axis the sum
    # of four steps. Steps are few, and their running sum is the map.
    row, row_step = _steps(from_y - top, height)
    column, column_step = _steps(from_x - left, width)
    steps = np.zeros((rows + 2, columns + 2))
    np.add.at(
        steps,
        (row[:, :, None], column[:, None, :]),
        added_per_m2[:, None, None] * row_step[:, :, None] * column_step[:, None, :],
    )
    total = steps.cumsum(axis=0).cumsum(axis=1)[:rows, :columns]
    return DoseMap(dose_per_m2=total, top=top, left=left)


def _held(drift_px: Floats) -> Floats:
    known = np.isfinite(drift_px)
    last = np.maximum.accumulate(np.where(known, np.arange(len(drift_px)), -1))
    return np.asarray(np.where(last >= 0, drift_px[last], 0.0), dtype=np.float64)


def _steps(start: Floats, length: int) -> tuple[NDArray[np.int64], Floats]:
    """Return where the coverage of each frame changes along an axis, and by how much."""
    whole = np.floor(start).astype(np.int64)
    share = start - whole
    places = np.stack([whole, whole + 1, whole + length, whole + length + 1], axis=1)
    return places, np.stack([1 - share, share, share - 1, -share], axis=1)
