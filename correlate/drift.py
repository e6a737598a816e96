"""Image drift by a Wiener-weighted cross-correlation, with its covariance.

The modes of the cross-power are weighted by their signal-to-noise ratio and never by
their phase alone: a detector's fixed pattern and shot noise fill most modes, and would
outvote the scene. The window moves with the specimen, so it adds no preference for zero.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from correlate.window import Band, taper, without_band

MAX_FREQUENCY = 0.20  # cycles per pixel; beyond, the noise outweighs the scene
PLATEAU = (0.33, 0.47)  # cycles per pixel where only noise is left
MIN_SNR = 2.0  # modes below take no part: a fixed pattern lives there
NEWTON_STEPS = 6
WINDOW_ROUNDS = 3
WINDOW_STEP_PX = 0.02  # a smaller move of the window changes nothing
MAX_CLIMB_PX = 4.0  # from the highest pixel of the surface
LN2 = math.log(2)  # the median of an exponential distribution is ln 2 of its mean
TINY = 1e-300
FEW_FRAMES_PENALTY = 0.25
SOFT_PX = 10.0
MIN_SIDE_PX = 48
SATURATED_RATIO = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What brings a frame back onto the reference.

    Parameters
    ----------
    dx_px, dy_px
        To be added to coordinates in the frame; NaN when not valid.
    sigma_x_px, sigma_y_px
        Standard uncertainties.
    quality
        Highest peak of the correlation over the next one; near 1 is ambiguous.
    valid
        False for a frame that cannot be registered.
    reason
        Why not; empty when valid.
    """

    dx_px: float
    dy_px: float
    sigma_x_px: float
    sigma_y_px: float
    quality: float
    valid: bool
    reason: str = ""


def _invalid(reason: str) -> Shift:
    nan = math.nan
    return Shift(
        dx_px=nan,
        dy_px=nan,
        sigma_x_px=nan,
        sigma_y_px=nan,
        quality=nan,
        valid=False,
        reason=reason,
    )


def why_unusable(pixels: NDArray[np.generic]) -> str:
    """Say why a frame cannot be used, or return an empty text."""
    values = np.asarray(pixels)
    if np.issubdtype(values.dtype, np.floating) and not np.all(np.isfinite(values)):
        return "pixels that are not numbers"
    low, high = values.min(), values.max()
    if low == high:
        return "blank: all pixels are alike"
    if np.issubdtype(values.dtype, np.integer):
        top = np.iinfo(values.dtype).max
        if high == top and np.mean(values == top) > SATURATED_RATIO:
            return "saturated"
    return ""


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """A frame's modes, as one long vector, with the noise power of each."""

    modes: NDArray[np.complex128]
    noise: NDArray[np.float64]


class _Modes:
    """Which modes of a frame are looked at.

    A frame is parted into the slope of its column means (layers that run along y), the
    slope of its row means, and the rest. A window on a uniform layer would look like a
    feature that stands where the window stands; the slope of a uniform layer is nothing.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = shape
        fy, fx = fft.fftfreq(height), fft.rfftfreq(width)
        self.shape = shape
        self.rows = np.flatnonzero(np.abs(fy) <= MAX_FREQUENCY)
        self.columns = int(np.sum(fx <= MAX_FREQUENCY))
        grid_y, grid_x = np.meshgrid(fy[self.rows], fx[: self.columns], indexing="ij")
        self.across = fft.rfftfreq(width)[1 : self.columns]
        along = fft.rfftfreq(height)
        self.along = along[(along > 0) & (along <= MAX_FREQUENCY)]
        self.fx = np.concatenate([grid_x.ravel(), self.across, 0 * self.along])
        self.fy = np.concatenate([grid_y.ravel(), 0 * self.across, self.along])
        # A mode off the kx = 0 column stands for its mirror image too.
        self.twice = np.concatenate(
            [
                np.where(grid_x > 0, 2.0, 1.0).ravel(),
                2 + 0 * self.across,
                2 + 0 * self.along,
            ]
        )
        high_y = (np.abs(fy) > PLATEAU[0]) & (np.abs(fy) < PLATEAU[1])
        high_x = (fx > PLATEAU[0]) & (fx < PLATEAU[1])
        self._plateau = np.ix_(np.flatnonzero(high_y), np.flatnonzero(high_x))
        self.crowding = np.ones(len(self.fx))

    def of(
        self,
        image: NDArray[np.float64],
        across: NDArray[np.float64],
        along: NDArray[np.float64],
        open_columns: NDArray[np.float64],
    ) -> _Spectrum:
        """Return the modes of an image under a window."""
        column_means = image.mean(axis=0)
        rest = image - column_means
        row_means = rest @ open_columns / open_columns.sum()
        rest = (rest - row_means[:, None]) * along[:, None] * across[None, :]
        full = fft.rfft2(rest)
        noise = float(np.median(np.abs(full[self._plateau]) ** 2)) / LN2
        low = full[self.rows, : self.columns].ravel()
        columns, columns_noise = _slope_modes(column_means, across, len(self.across))
        rows, rows_noise = _slope_modes(row_means, along, len(self.along))
        # The scene fills the open part of the window, so its modes are correlated with
        # their neighbours: the noise that meets it is as dense as without a window.
        self.crowding = np.concatenate(
            [
                np.full(low.size, 1 / np.mean(across**2) / np.mean(along**2)),
                np.full(columns.size, 1 / np.mean(across**2)),
                np.full(rows.size, 1 / np.mean(along**2)),
            ]
        )
        return _Spectrum(
            np.concatenate([low, columns, rows]),
            np.concatenate([np.full(low.size, noise), columns_noise, rows_noise]),
        )

    def surface(self, cross: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Return the correlation surface of a vector of cross-power."""
        height, width = self.shape
        half = np.zeros((height, width // 2 + 1), dtype=np.complex128)
        count = len(self.rows) * self.columns
        half[self.rows[:, None], np.arange(self.columns)[None, :]] = cross[:count].reshape(
            len(self.rows), self.columns
        )
        half[0, 1 : self.columns] += cross[count : count + len(self.across)]
        rows = cross[count + len(self.across) :]
        half[1 : 1 + len(rows), 0] += rows
        half[-1 : -1 - len(rows) : -1, 0] += np.conj(rows)
        return np.asarray(fft.irfft2(half, s=self.shape))


def _slope_modes(
    profile: NDArray[np.float64], window: NDArray[np.float64], count: int
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Return the modes of a profile's slope, and the noise power of each."""
    full = fft.rfft(np.gradient(profile) * window)
    f = fft.rfftfreq(len(profile))
    transfer = np.sin(2 * np.pi * f) ** 2  # of the central difference
    high = (f > PLATEAU[0]) & (f < PLATEAU[1])
    white = float(np.median(np.abs(full[high]) ** 2 / transfer[high])) / LN2
    return full[1 : count + 1], white * transfer[1 : count + 1]


class DriftEstimator:
    """Registers frames onto a reference that grows from the frames themselves.

    Parameters
    ----------
    shape
        Height and width of the frames, at least 48 px each.
    band
        Columns in which the specimen itself changes.
    max_shift_px
        Larger shifts are not looked for; an eighth of the smaller side by default.
    reference_frames
        Frames that are averaged into the reference. Keep 1, the first frame alone,
        where a detector shows a fixed pattern (`fixed_pattern_correlation`): in an
        average the pattern stands where the earlier frames stood.

    Raises
    ------
    ValueError
        The frames are too small.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        band: Band | None = None,
        max_shift_px: float | None = None,
        reference_frames: int = 1,
    ) -> None:
        if min(shape) < MIN_SIDE_PX:
            raise ValueError(
                f"frames of {shape[1]} x {shape[0]} px are too small to be registered; "
                f"{MIN_SIDE_PX} px a side are needed"
            )
        self._shape = shape
        self._band = band
        self._reference_frames = reference_frames
        side = min(shape)
        self.max_shift_px = max_shift_px or max(side / 8, 16.0)
        # The window keeps its distance from the border, so that it can move.
        self._margin_px = min(self.max_shift_px, side / 16)
        self._modes = _Modes(shape)
        self._reference: _Spectrum | None = None
        self._count = 0

    def update(self, pixels: NDArray[np.generic]) -> Shift:
        """Register one frame, and let it improve the reference.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).

        Raises
        ------
        ValueError
            The frame has another shape.
        """
        if pixels.shape != self._shape:
            raise ValueError(f"a frame of {pixels.shape}, not of {self._shape}")
        if reason := why_unusable(pixels):
            return _invalid(reason)
        image = np.asarray(pixels, dtype=np.float64)
        if self._reference is None:
            self._reference, self._count = self._transform(image, 0.0, 0.0), 1
            sigma_x, sigma_y = self._sigmas(self._reference.noise)
            return Shift(
                dx_px=0.0,
                dy_px=0.0,
                sigma_x_px=sigma_x,
                sigma_y_px=sigma_y,
                quality=math.nan,  # the reference itself
                valid=True,
            )
        return self._register(image)

    def _register(self, image: NDArray[np.float64]) -> Shift:
        cross = self._cross(self._transform(image, 0.0, 0.0))
        dx, dy, quality = self._coarse(cross)
        spectrum = self._transform(image, -dx, -dy)
        for _ in range(WINDOW_ROUNDS):
            # The window follows the specimen, which stands at minus the shift.
            before = dx, dy
            dx, dy, converged = self._refine(self._cross(spectrum), dx, dy)
            if not converged:
                return _invalid("the correlation has no clear peak")
            spectrum = self._transform(image, -dx, -dy)
            if math.hypot(dx - before[0], dy - before[1]) < WINDOW_STEP_PX:
                break
        sigma_x, sigma_y = self._sigmas(spectrum.noise)
        if not math.isfinite(sigma_x + sigma_y):
            return _invalid("there is too little contrast to tell a shift")
        self._learn(spectrum, dx, dy)
        return Shift(
            dx_px=dx,
            dy_px=dy,
            sigma_x_px=sigma_x,
            sigma_y_px=sigma_y,
            quality=quality,
            valid=True,
        )

    # --- the parts -----------------------------------------------------------------------

    def _transform(self, image: NDArray[np.float64], at_x: float, at_y: float) -> _Spectrum:
        height, width = self._shape
        open_columns = without_band(width, self._band, at_x, SOFT_PX)
        across = taper(width, at_x, self._margin_px) * open_columns
        along = taper(height, at_y, self._margin_px)
        return self._modes.of(image, across, along, open_columns)

    def _known_reference(self) -> _Spectrum:
        if self._reference is None:
            raise ValueError("there is no reference yet: register a first frame")
        return self._reference

    def _weight(self) -> NDArray[np.float64]:
        """Return the share of each mode of the reference that is scene, over its noise."""
        reference = self._known_reference()
        own = reference.noise / self._count
        scene = np.maximum(np.abs(reference.modes) ** 2 - own, 0.0)
        weight = scene / (scene + reference.noise) / np.maximum(reference.noise, TINY)
        weight[scene < MIN_SNR * own] = 0.0
        return np.asarray(weight)

    def _cross(self, spectrum: _Spectrum) -> NDArray[np.complex128]:
        reference = self._known_reference().modes
        return np.asarray(reference * np.conj(spectrum.modes) * self._weight())

    def _coarse(self, cross: NDArray[np.complex128]) -> tuple[float, float, float]:
        """Return the highest peak within reach, and how far it stands out."""
        height, width = self._shape
        surface = self._modes.surface(cross)
        reach = math.ceil(self.max_shift_px)
        reach_y, reach_x = min(reach, height // 2 - 1), min(reach, width // 2 - 1)
        y = np.arange(-reach_y, reach_y + 1)
        x = np.arange(-reach_x, reach_x + 1)
        near = surface[np.ix_(y % height, x % width)]
        row, column = np.unravel_index(int(np.argmax(near)), near.shape)
        peak = float(near[row, column])
        hills = near == ndimage.maximum_filter(near, size=3, mode="nearest")
        hills[row, column] = False
        second = float(near[hills].max()) if np.any(hills) else 0.0
        quality = peak / second if second > 0 else math.inf
        return float(x[column]), float(y[row]), quality

    def _refine(
        self, cross: NDArray[np.complex128], dx: float, dy: float
    ) -> tuple[float, float, bool]:
        """Climb to the top of ``J = Re sum(X exp(2 pi i f d))`` by Newton's method."""
        fx, fy = self._modes.fx, self._modes.fy
        used = np.flatnonzero(cross)
        fx, fy = fx[used], fy[used]
        factor = self._modes.twice[used] * cross[used]
        start = dx, dy
        for _ in range(NEWTON_STEPS):
            term = factor * np.exp(2j * np.pi * (fx * dx + fy * dy))
            gx = -2 * np.pi * float(term.imag @ fx)
            gy = -2 * np.pi * float(term.imag @ fy)
            hxx = -4 * np.pi**2 * float(term.real @ (fx * fx))
            hyy = -4 * np.pi**2 * float(term.real @ (fy * fy))
            hxy = -4 * np.pi**2 * float(term.real @ (fx * fy))
            determinant = hxx * hyy - hxy**2
            if hxx >= 0 or determinant <= 0:
                return dx, dy, False
            step_x = float(np.clip(-(hyy * gx - hxy * gy) / determinant, -1, 1))
            step_y = float(np.clip(-(hxx * gy - hxy * gx) / determinant, -1, 1))
            dx, dy = dx + step_x, dy + step_y
            if abs(step_x) + abs(step_y) < 1e-5:
                break
        return dx, dy, math.hypot(dx - start[0], dy - start[1]) < MAX_CLIMB_PX

    def _sigmas(self, frame_noise: NDArray[np.float64]) -> tuple[float, float]:
        """Return the sigmas from the covariance ``H^-1 G H^-1`` of the estimator."""
        reference, m = self._known_reference(), self._modes
        own = reference.noise / self._count
        scene = np.maximum(np.abs(reference.modes) ** 2 - own, 0.0)
        weight = self._weight()
        noise = frame_noise + own
        curve = m.twice * scene * weight
        spread = m.twice**2 * weight**2 * scene * noise * m.crowding / 2
        f = (m.fx, m.fy)
        h, g = np.empty((2, 2)), np.empty((2, 2))
        for a in range(2):
            for b in range(2):
                h[a, b] = 4 * np.pi**2 * float(np.sum(curve * f[a] * f[b]))
                g[a, b] = 4 * np.pi**2 * float(np.sum(spread * f[a] * f[b]))
        if np.linalg.det(h) <= 0:
            return math.nan, math.nan
        inverse = np.linalg.inv(h)
        covariance = inverse @ g @ inverse
        # The weights come from the reference's own noise, which the formula does not
        # know; how much that costs was found by simulation.
        scale = 1 + FEW_FRAMES_PENALTY / self._count
        return scale * math.sqrt(covariance[0, 0]), scale * math.sqrt(covariance[1, 1])

    def _learn(self, spectrum: _Spectrum, dx: float, dy: float) -> None:
        """Average a registered frame into the reference."""
        if self._count >= self._reference_frames:
            return
        reference, m, n = self._known_reference(), self._modes, self._count
        turn = np.exp(-2j * np.pi * (m.fx * dx + m.fy * dy))
        self._reference = _Spectrum(
            (reference.modes * n + spectrum.modes * turn) / (n + 1),
            (reference.noise * n + spectrum.noise) / (n + 1),
        )
        self._count = n + 1


def fixed_pattern_correlation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Return the zero-lag correlation of two frames' finest detail.

    Far from zero for frames of a drifting specimen, it tells of a pattern that belongs
    to the detector, which defeats phase correlation.
    """

    def detail(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
        image = np.asarray(pixels, dtype=np.float64)
        return np.asarray(image - ndimage.gaussian_filter(image, 1.0))

    return float(np.corrcoef(detail(first).ravel(), detail(second).ravel())[0, 1])
