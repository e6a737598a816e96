"""Dendrites in scanning electron micrographs against human outlines, beside other methods.

    pip install -e ".[bench]"
    python benchmarks/segmentation.py FOLDER

The folder holds images NAME.png of 1001 x 1536 pixels and labels NAME_png.rf.HASH.txt, one
polygon a line on a letterboxed export of 640 x 640 (SEM_Dendrite_Segmentation_v2, CC BY 4.0).
One set of parameters for all images and each method, nothing trained on them. Dice, and the
F1 of pixels within 3 px of each other; CPU time of the thread. Published for comparison, on
14 images of which these are five: a classical pipeline 0.695, a trained YOLOv11s-seg 0.729
(10 of the 14 were in its training set).
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from correlate.segmentation import segment

EXPORT_PX, PAD_PX, TOLERANCE_PX = 640, 111, 3.0
Mask = NDArray[np.bool_]


def outlines(path: Path, shape: tuple[int, int]) -> Mask:
    """Return the union of the polygons in a label file."""
    height, width = shape
    scale = EXPORT_PX / width
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for line in path.read_text("utf-8").splitlines():
        numbers = np.array(line.split()[1:], dtype=float) * EXPORT_PX
        points = np.column_stack([numbers[0::2], numbers[1::2] - PAD_PX]) / scale
        draw.polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(image)


def band(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image without its noise and its background."""
    return ndimage.gaussian_filter(image, 2.0) - ndimage.gaussian_filter(image, 40.0)


def without_small(mask: Mask) -> Mask:
    """Leave out parts of less than 40 px, as ours does."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    size = np.bincount(labels.ravel())
    size[0] = 0
    return np.asarray((size >= 40)[labels])


def mad_hysteresis(image: NDArray[np.float32]) -> Mask:
    """Band-pass with a hysteresis of 2 and 4 robust sigmas."""
    h = band(image)
    middle = np.median(h)
    sigma = 1.4826 * np.median(np.abs(h - middle))
    return without_small(apply_hysteresis_threshold(h, middle + 2 * sigma, middle + 4 * sigma))


METHODS: dict[str, Callable[[NDArray[np.float32]], Mask]] = {
    "ours": lambda image: segment(image).objects,
    "MAD hysteresis": mad_hysteresis,
    "Otsu, band-pass": lambda image: without_small(band(image) > threshold_otsu(band(image))),
    "Otsu": lambda image: without_small(image > threshold_otsu(image)),
}


def scores(found: Mask, true: Mask) -> tuple[float, float]:
    """Return Dice, and the F1 with a tolerance."""
    dice = 2 * float((found & true).sum()) / float(found.sum() + true.sum())
    if not found.any():
        return dice, 0.0
    right = float((ndimage.distance_transform_edt(~true)[found] <= TOLERANCE_PX).mean())
    seen = float((ndimage.distance_transform_edt(~found)[true] <= TOLERANCE_PX).mean())
    return dice, 2 * right * seen / max(right + seen, 1e-9)


def main(folder: Path) -> None:
    """Print a table of both scores for all methods."""
    print(f"{'image':28s}" + "".join(f"{name:>20s}" for name in METHODS))
    rows, spent = [], dict.fromkeys(METHODS, 0.0)
    for path in sorted(folder.glob("*.png")):
        image = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        (labels,) = folder.glob(f"{path.stem}_png*.txt")
        true = outlines(labels, image.shape)
        row = []
        for name, method in METHODS.items():
            start = time.thread_time()
            found = method(image)
            spent[name] += time.thread_time() - start
            row.append(scores(found, true))
        rows.append(row)
        print(f"{path.stem:28s}" + "".join(f"{d:12.3f} {f:7.3f}" for d, f in row))
    mean = np.mean(rows, axis=0)
    print(f"{'mean Dice, F1':28s}" + "".join(f"{d:12.3f} {f:7.3f}" for d, f in mean))
    print(f"{'ms':28s}" + "".join(f"{1e3 * t / len(rows):20.0f}" for t in spent.values()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
