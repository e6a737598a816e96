"""Series of single grey-level images: PNG and TIFF, 8 or 16 bits."""

import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cameras.files.recording import FrameFileError, FrameRecording

MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32"}
MAX_NUMBER = 2**63 - 1
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def read(paths: Sequence[Path]) -> FrameRecording:
    """Read images as one series, in the order of the numbers in their names.

    Images carry no times: whoever imports them says how far apart they are. A jump in
    the numbers is a gap.

    Raises
    ------
    FrameFileError
        One cannot be read, differs from the others, or shares its number with another.
    """
    ordered, numbers, assumptions = _in_order(paths)
    first = _header(ordered[0])
    for path in ordered[1:]:
        found = _header(path)
        if found != first:
            raise FrameFileError(
                f"{path}: is {found[1]} x {found[0]} {found[2]}, and {ordered[0]} is "
                f"{first[1]} x {first[0]} {first[2]}; the frames of a series are alike"
            )
    height, width, dtype = first
    return FrameRecording(
        paths=tuple(ordered),
        index=np.array(numbers, dtype=np.int64),
        height=height,
        width=width,
        dtype=dtype,
        load=lambda number: load_image(ordered[number]),
        assumptions=assumptions,
    )


def _in_order(
    paths: Sequence[Path],
) -> tuple[list[Path], list[int], tuple[str, ...]]:
    found = [_LAST_NUMBER.search(path.stem) for path in paths]
    numbers = [int(m[1]) for m in found if m is not None]
    if len(numbers) != len(paths):
        said = "file names carry no numbers: frames are taken as given, without gaps"
        return list(paths), list(range(len(paths))), (said,)
    order = sorted(range(len(paths)), key=lambda i: numbers[i])
    if numbers and numbers[order[-1]] > MAX_NUMBER:
        raise FrameFileError(f"{paths[order[-1]]}: its number is too large for a frame's")
    ordered, sorted_numbers = [paths[i] for i in order], [numbers[i] for i in order]
    for a, b in pairwise(order):
        if numbers[a] == numbers[b]:
            raise FrameFileError(f"{paths[a]} and {paths[b]} carry the same number")
    said = "the last number in a file's name is its frame number"
    return ordered, sorted_numbers, (said,)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # A picture that would fill the memory is refused before it is unpacked.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except Exception as error:
        raise FrameFileError(f"{path}: cannot be read as an image: {error}") from error


def _header(path: Path) -> tuple[int, int, str]:
    with _open(path) as image:
        if image.mode not in MODES:
            raise FrameFileError(
                f"{path}: has colours or a kind of pixel ({image.mode}) that is no grey "
                "level; save it as 8-bit or 16-bit grey"
            )
        return image.height, image.width, MODES[image.mode]


def load_image(path: Path) -> NDArray[np.generic]:
    """Return the pixels of one image, shape (height, width).

    Raises
    ------
    FrameFileError
        It cannot be unpacked.
    """
    with _open(path) as image:
        try:
            pixels = np.asarray(image)
        except Exception as error:
            raise FrameFileError(f"{path}: is damaged: {error}") from error
    return np.ascontiguousarray(pixels.astype(MODES[image.mode]))
