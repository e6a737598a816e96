"""Frames between the frequencies of their grains, in blocks of pixels, on a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from correlate.drift import Shift

Float = NDArray[np.float64]
Image = NDArray[np.float32]
Modes = NDArray[np.complex64]
Index = NDArray[np.intp]
WIDE = 2.0  # of the grains' sigma: what is wider is no grain
BLOCK_GRAINS = 9.0  # sigmas of grains on a block's side, at least
MIN_BLOCK_PX = 16
MOST = 0.5  # of a block, that must be in a frame
RIM_PX = 8  # at the borders, of which the mean says how unlike they are


Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rectangles of nearly the same size that cover a frame.

    Parameters
    ----------
    row_edges, column_edges
        Where they begin and end, px.
    """

    row_edges: Index
    column_edges: Index

    @classmethod
    def of(cls, shape: tuple[int, int], side: int) -> "Blocks":
        """Return blocks of about so many px a side."""
        edges = [
            np.rint(np.linspace(0, n, max(round(n / side), 1) + 1)).astype(np.intp) for n in shape
        ]
        return cls(*edges)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return len(self.row_edges) - 1, len(self.column_edges) - 1

    @property
    def pixels(self) -> Float:
        """In each block, shape (rows, columns)."""
        return np.outer(np.diff(self.row_edges), np.diff(self.column_edges)).astype(np.float64)

    def inside(self, box: Box) -> Float:
        """Return how many pixels of each block lie in a part of the frame."""
        parts = []
        for edges, part in zip((self.row_edges, self.column_edges), box, strict=True):
            kept = np.clip(edges, part.start, part.stop)
            parts.append(np.diff(kept))
        return np.outer(*parts).astype(np.float64)

    def total(self, image: NDArray[np.generic]) -> Float:
        """Return the sum of each block."""
        rows = np.add.reduceat(np.asarray(image, np.float32), self.row_edges[:-1], axis=0)
        return np.add.reduceat(rows.astype(np.float64), self.column_edges[:-1], axis=1)

    def spread(self, values: Float) -> Image:
        """Return an image in which each pixel has the value of its block."""
        rows = np.repeat(values.astype(np.float32), np.diff(self.row_edges), axis=0)
        return np.repeat(rows, np.diff(self.column_edges), axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Banded:
    """A frame on the reference.

    Parameters
    ----------
    level
        Mean counts of blocks, shape (rows, columns).
    fine
        What the band lets through, over the level of its block, shape (height, width).
    box
        The part of the reference that is in the frame.
    pixels
        Of each block, in that part.
    whole
        Blocks of which most is in that part.
    """

    level: Float
    fine: Image
    box: Box
    pixels: Float
    whole: NDArray[np.bool_]


class GrainBand:
    """Lets through what is as fine as grains of one scale.

    Parameters
    ----------
    shape
        Height and width of frames.
    grain_px
        Gaussian sigma that would make such grains of white noise.

    Attributes
    ----------
    noise_modes, grain_modes
        Independent modes for each pixel, of white noise in the band, and of its product with
        grains.
    block_share
        Of the variance of a block's mean that these modes tell: the rest is what neighbouring
        blocks have in common.
    """

    def __init__(self, shape: tuple[int, int], grain_px: float) -> None:
        self._shape = shape
        self.blocks = Blocks.of(shape, max(round(BLOCK_GRAINS * grain_px), MIN_BLOCK_PX))
        self._fy = fft.fftfreq(shape[0]).astype(np.float32)
        self._fx = fft.rfftfreq(shape[1]).astype(np.float32)
        q2 = ((2 * np.pi) ** 2 * (self._fy[:, None] ** 2 + self._fx[None, :] ** 2)).astype(
            np.float64
        )
        low = np.exp(-0.5 * q2 * grain_px**2)
        passed = low * (1 - np.exp(-0.5 * q2 * (WIDE * grain_px) ** 2))
        self._passed = passed.astype(np.float32)
        twice = np.full(len(self._fx), 2.0)
        twice[0] = 1.0
        if shape[1] % 2 == 0:
            twice[-1] = 1.0
        weight = twice / (shape[0] * shape[1])
        through, grains = passed**2, low**2
        one = float((through @ weight).sum())
        two = float((through**2 @ weight).sum())
        self.noise_modes = one**2 / two
        self.grain_modes = (
            float(((through * grains) @ weight).sum())
            * one
            / float(((through**2 * grains) @ weight).sum())
        )

        hang = fft.irfft2(through, s=shape) * fft.irfft2(through * grains, s=shape)
        rows, columns = (
            np.clip(1 - np.abs(fft.fftfreq(n)) * n / (n / count), 0, None)
            for n, count in zip(shape, self.blocks.shape, strict=True)
        )
        self.block_share = float(rows @ hang @ columns) / float(hang.sum())

    def modes(self, pixels: NDArray[np.generic], shift: Shift) -> Modes:
        """Return the modes of a frame, turned to where it stands on the reference."""
        modes: Modes = np.asarray(fft.rfft2(_closed(pixels)), dtype=np.complex64)
        modes *= np.exp(np.complex64(-2j * np.pi * shift.dy_px) * self._fy)[:, None]
        modes *= np.exp(np.complex64(-2j * np.pi * shift.dx_px) * self._fx)[None, :]
        return modes

    def seen(self, pixels: NDArray[np.generic], shift: Shift, modes: Modes) -> Banded:
        """Return a frame on the reference.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        modes
            Of this frame.
        """
        blocks, box = self.blocks, _box(self._shape, shift)
        inside = blocks.inside(box)
        moved = _moved(pixels, round(shift.dy_px), round(shift.dx_px), box)
        level = blocks.total(moved) / np.maximum(inside, 1.0)
        return self._banded(level, modes, box)

    def mean(self, seen: Sequence[Banded], modes: Modes) -> Banded:
        """Return the mean of frames on the reference, of which these are the mean modes.

        A block's level is that of all its pixels that are in the frames.
        """
        pixels = np.array([one.pixels for one in seen])
        total = (np.array([one.level for one in seen]) * pixels).sum(axis=0)
        box = (
            slice(max(s.box[0].start for s in seen), min(s.box[0].stop for s in seen)),
            slice(max(s.box[1].start for s in seen), min(s.box[1].stop for s in seen)),
        )
        return self._banded(total / np.maximum(pixels.sum(axis=0), 1.0), modes, box)

    def mean_product(self, a: Image, b: Image, box: Box) -> Float:
        """Return the mean product of two images in what is seen of each block."""
        product = a * b
        rows, columns = box
        for outside in (
            product[: rows.start],
            product[rows.stop :],
            product[:, : columns.start],
            product[:, columns.stop :],
        ):
            outside[...] = 0.0
        return self.blocks.total(product) / np.maximum(self.blocks.inside(box), 1.0)

    def _banded(self, level: Float, modes: Modes, box: Box) -> Banded:
        blocks = self.blocks
        inside = blocks.inside(box)
        image: Image = fft.irfft2(modes * self._passed, s=self._shape)
        image *= blocks.spread(1 / np.maximum(level, 1e-9))
        return Banded(
            level=level,
            fine=image,
            box=box,
            pixels=inside,
            whole=inside >= MOST * blocks.pixels,
        )


def both(one: Box, other: Box) -> Box:
    """Return what two parts of a frame have in common; empty, where they have nothing."""
    rows, columns = (
        slice(max(a.start, b.start), max(min(a.stop, b.stop), a.start, b.start))
        for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def _closed(pixels: NDArray[np.generic]) -> Image:
    """Return a frame less the ramps by which its opposite borders differ.

    To a Fourier transform they are neighbours: with a front in the field, the step between
    both phases there would be as fine as grains. A ramp itself is not.
    """
    image = np.array(pixels, dtype=np.float32)
    for axis in (0, 1):
        n = image.shape[axis]
        rim = min(RIM_PX, n)
        first, last = (
            np.take(image, part, axis).mean(dtype=np.float64)
            for part in (np.arange(rim), np.arange(n - rim, n))
        )
        ramp = ((np.arange(n) + 0.5) / n - 0.5).astype(np.float32) * np.float32(last - first)
        image -= ramp[:, None] if axis == 0 else ramp
    return image


def _box(shape: tuple[int, int], shift: Shift) -> Box:
    """Return the part of the reference that a shifted frame holds."""
    rows, columns = (
        slice(max(math.ceil(d), 0), max(size - max(math.ceil(-d), 0), math.ceil(d), 0))
        for size, d in zip(shape, (shift.dy_px, shift.dx_px), strict=True)
    )
    return rows, columns


def _moved(pixels: NDArray[np.generic], dy: int, dx: int, box: Box) -> NDArray[np.generic]:
    """Return a frame moved by whole pixels; zeros outside of a box that it holds."""
    rows, columns = box
    moved = np.zeros_like(pixels)
    moved[box] = pixels[
        rows.start - dy : rows.stop - dy,
        columns.start - dx : columns.stop - dx,
    ]
    return moved
