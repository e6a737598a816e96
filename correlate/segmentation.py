"""Objects that stand out of a background, in one image: band-pass, noise, hysteresis.

What is wide and spans the field from side to side is an electrode and no object. Nothing
is trained, and one set of parameters serves all images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MAD_SIGMA = 1.4826  # of a median absolute deviation, for normally spread values
EIGHT = np.ones((3, 3), dtype=bool)  # neighbours at corners belong together

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationParameters:
    """How objects are told from their background.

    Parameters
    ----------
    fine_px, coarse_px
        Gaussian sigmas of the band: noise below the first, background above the second.
    low_sigmas, high_sigmas
        An object is what stands above the low threshold and somewhere above the high one.
    electrode_px
        Half of the least width of an electrode.
    electrode_margin_px
        By which an electrode is widened before it is taken out.
    min_area_px
        Smaller objects are left out.
    """

    fine_px: float = 2.0
    coarse_px: float = 40.0
    low_sigmas: float = 2.0
    high_sigmas: float = 4.0
    electrode_px: float = 15.0
    electrode_margin_px: int = 2
    min_area_px: int = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """What was found in an image.

    Parameters
    ----------
    objects, electrode
        Where they are, shape (height, width).
    noise
        Standard deviation of the band-passed background.
    """

    objects: Mask
    electrode: Mask
    noise: float


def segment(
    image: NDArray[np.generic],
    parameters: SegmentationParameters | None = None,
    *,
    dark: bool = False,
) -> Segmentation:
    """Find the objects in an image.

    Parameters
    ----------
    image
        Counts or grey levels, shape (height, width).
    dark
        Look for objects that are darker than what is around them.
    """
    p = parameters or SegmentationParameters()
    pixels = np.asarray(image, dtype=np.float32)
    band = ndimage.gaussian_filter(pixels, p.fine_px) - ndimage.gaussian_filter(pixels, p.coarse_px)
    if dark:
        band = -band
    middle, noise = robust_spread(band)
    z = (band - middle) / max(noise, 1e-30)
    low = z > p.low_sigmas
    electrode = wide_across(low, p.electrode_px)
    if np.any(electrode):
        low &= ~ndimage.binary_dilation(electrode, iterations=p.electrode_margin_px)
    objects = with_seed(low, z > p.high_sigmas)
    return Segmentation(
        objects=without_small(objects, p.min_area_px), electrode=electrode, noise=noise
    )


def robust_spread(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the median, and the sigma by the median absolute deviation."""
    middle = float(np.median(values))
    return middle, MAD_SIGMA * float(np.median(np.abs(values - middle)))


def with_seed(low: Mask, high: Mask) -> Mask:
    """Return the connected parts of a mask that hold a pixel of another (hysteresis)."""
    labels, count = ndimage.label(low, EIGHT)
    keep = np.zeros(count + 1, dtype=bool)
    keep[labels[high]] = True
    keep[0] = False
    return np.asarray(keep[labels])


def without_small(mask: Mask, min_area_px: float) -> Mask:
    """Return a mask without its connected parts of fewer pixels."""
    labels, _ = ndimage.label(mask, EIGHT)
    size = np.bincount(labels.ravel())
    size[0] = 0
    return np.asarray((size >= min_area_px)[labels])


def wide_across(mask: Mask, radius_px: float) -> Mask:
    """Return what of a mask is wide and reaches from one side of the field to the other.

    Wide is what a disc of the radius fits into (a morphological opening, by distances).
    """
    reach = int(np.ceil(radius_px)) + 2
    padded = np.pad(mask, reach, mode="edge")
    core = ndimage.distance_transform_edt(padded) > radius_px
    if not np.any(core):
        return np.zeros_like(mask)
    opened = ndimage.distance_transform_edt(~core) <= radius_px
    labels, _ = ndimage.label(opened[reach:-reach, reach:-reach] & mask)
    across = np.concatenate(
        [np.intersect1d(labels[:, 0], labels[:, -1]), np.intersect1d(labels[0], labels[-1])]
    )
    return np.asarray(np.isin(labels, across[across > 0]))
