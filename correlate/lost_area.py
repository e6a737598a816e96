"""What has left the field of a frame: it is taken to be as what is seen next to it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
HIDDEN = 1 / 6  # mean square of a share that is anything from 0 to 1, every other time


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """What each block that tells stands for, as parts of the whole area.

    Parameters
    ----------
    weight
        Of blocks that tell, with those that they stand for; together 1, shape (n,).
    unseen
        Of that, what is not in the frame, shape (n,).
    gone
        Of all, blocks that do not tell.
    """

    weight: Float
    unseen: Float
    gone: float

    def sigma(self, share: Float, variance: Float, patchwork: float = 1.0) -> float:
        """Return the sigma of a converted fraction by what is not seen.

        A block that is partly converted holds a border of both phases, which may be in the part
        that is seen or in the other; as a front is as long as the field, all of them err
        together. Where all that is seen is of one phase, a front may be in blocks that are gone.

        Parameters
        ----------
        share, variance
            Converted, of blocks that tell, and the variance of their noise, shape (n,).
        patchwork
            1 where blocks are patches of two phases, 0 where all of it converts together.
        """
        unseen = float(self.unseen.sum())
        if unseen <= 0:
            return 0.0
        # Averaged before it is cut, as single blocks are noisy.
        mixed = float(self.unseen @ (share - share**2 + variance)) / unseen
        part = min(max(float(self.weight @ share), 0.0), 1.0)
        hidden = self.gone * math.sqrt(HIDDEN) * (1 - 2 * part) ** 2
        return math.hypot(unseen * math.sqrt(max(mixed, 0.0) * patchwork), hidden)


def area_of(pixels: Float, inside: Float, use: Mask, lost: Mask) -> Area:
    """Return what blocks stand for, of which one at least tells.

    Parameters
    ----------
    pixels
        Of each block, shape (rows, columns).
    inside
        Of these, in the frame.
    use
        Blocks that tell.
    lost
        Blocks that do not because they are not seen; the nearest that tells stands for each.
    """
    weight = np.where(use, pixels, 0.0)
    unseen = np.where(use, pixels - inside, 0.0)
    if np.any(lost):
        nearest = ndimage.distance_transform_edt(~use, return_distances=False, return_indices=True)
        at = tuple(np.asarray(nearest)[:, lost])
        np.add.at(weight, at, pixels[lost])
        np.add.at(unseen, at, pixels[lost])
    whole = weight.sum()
    return Area(
        weight=weight[use] / whole,
        unseen=unseen[use] / whole,
        gone=float(pixels[lost].sum() / whole),
    )
