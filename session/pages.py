"""Memory at whole pages, as writing past the page cache needs it."""

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES = 4096


def address_of(pixels: NDArray[np.generic]) -> int:
    """Return where in memory pixels begin."""
    address: int = pixels.__array_interface__["data"][0]
    return address


def is_aligned(pixels: NDArray[np.generic]) -> bool:
    """Tell whether pixels begin at a page of memory."""
    return address_of(pixels) % PAGE_BYTES == 0


def aligned_copy(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a copy that begins at a page of memory."""
    room = np.empty(pixels.nbytes + PAGE_BYTES, np.uint8)
    begin = -address_of(room) % PAGE_BYTES
    copy = room[begin : begin + pixels.nbytes].view(pixels.dtype).reshape(pixels.shape)
    copy[...] = pixels
    return copy
