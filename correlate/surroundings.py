"""The pixels around an outline: how far each is from it, and what lies deep inside and far off."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from correlate.outline import Outline

Float = NDArray[np.float64]
Index = NDArray[np.intp]
MARGIN_PX = 24  # around the object, of which the level outside is told


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A box of a frame around an outline.

    Parameters
    ----------
    top, left
        Of the box in the frame.
    shape
        Of the box.
    band
        Flat indices in the box of pixels within reach of the outline, shape (n,).
    s
        Their signed distance from it in px, positive outside.
    point
        The point of the outline that is nearest.
    deep, far
        Flat indices of pixels inside and outside, beyond reach.
    along
        Whole px along the axis from the outline's end, of each pixel in the box (clipped).
    length
        Of the axis, whole px.
    """

    top: int
    left: int
    shape: tuple[int, int]
    band: Index
    s: Float
    point: Index
    deep: Index
    far: Index
    along: Index
    length: int

    def cut(self, image: NDArray[np.generic]) -> Float:
        """Return the pixels of the box, flat, float64."""
        rows, columns = self.shape
        box = image[self.top : self.top + rows, self.left : self.left + columns]
        return np.asarray(box, dtype=np.float64).ravel()


def surroundings(outline: Outline, frame: tuple[int, int], reach_px: float) -> Surroundings | None:
    """Return what is around an outline; None where its edge is not in the frame as a whole.

    Parameters
    ----------
    frame
        Height and width.
    reach_px
        On both sides of the outline, within which distances matter.
    """
    points = outline.points
    low = np.floor(points.min(axis=0) - reach_px).astype(int)
    high = np.ceil(points.max(axis=0) + reach_px).astype(int)
    if np.any(low < 0) or high[0] >= frame[1] or high[1] >= frame[0]:
        return None
    left, top = np.maximum(low - MARGIN_PX, 0).tolist()
    right, bottom = np.minimum(high + MARGIN_PX, np.array(frame)[::-1] - 1).tolist()
    shape = bottom - top + 1, right - left + 1
    # A coarse search first: most pixels of the box are nowhere near.
    mark = np.ones(shape, dtype=bool)
    at = np.rint(points).astype(int) - np.array([left, top])
    mark[at[:, 1], at[:, 0]] = False
    near = np.flatnonzero(ndimage.distance_transform_cdt(mark, "chessboard") <= reach_px + 1)
    pixels = np.column_stack([near % shape[1] + left, near // shape[1] + top]).astype(np.float64)
    away, point = cKDTree(points).query(pixels, distance_upper_bound=reach_px + 1)
    found: NDArray[np.bool_] = np.isfinite(away)
    near, pixels, point = near[found], pixels[found], np.asarray(point, dtype=np.intp)[found]
    # Points are dense: beside one, the normal tells the distance.
    s = np.einsum("ij,ij->i", pixels - points[point], outline.normals[point])
    inside = np.abs(s) <= reach_px
    near, s, point = near[inside], s[inside], point[inside]
    ring = np.zeros(shape, dtype=bool)
    ring.ravel()[near] = True
    labels, count = ndimage.label(~ring)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    is_far = np.zeros(count + 1, dtype=bool)
    is_far[rim] = True
    is_far[0] = False  # the band itself
    far = is_far[labels]
    axis, middle = outline.axis
    along = (points - middle) @ axis
    start = float(along.min())
    y, x = np.mgrid[top : bottom + 1, left : right + 1]
    length = max(int(np.ceil(float(along.max()) - start)), 1)
    place = (x - middle[0]) * axis[0] + (y - middle[1]) * axis[1] - start
    return Surroundings(
        top=top,
        left=left,
        shape=shape,
        band=near,
        s=s,
        point=point,
        deep=np.flatnonzero(~(far | ring)),
        far=np.flatnonzero(far),
        along=np.clip(np.floor(place), 0, length - 1).astype(np.intp).ravel(),
        length=length,
    )
