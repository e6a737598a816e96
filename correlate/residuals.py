"""What hangs together in the residuals of a fit, and how much more it moves a result.

Shot noise is independent from pixel to pixel. The texture of a specimen is not: it moves an
edge by more than shot noise of the same variance, and by the same in all frames.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float = NDArray[np.float64]
LAG_PX = 10  # beyond which nothing is taken to hang together
SEEN_SIGMAS = 3.0  # of all lags up to where they stand out most
MEMORY = 0.05  # of a frame, once so many have been seen that it is less than its share
MIN_PIXELS = 200


@dataclass(slots=True)
class Correlation:
    """How residuals of one kind of pixel hang together, the mean of many frames.

    Attributes
    ----------
    lags
        Covariance of residuals in units of their shot noise, by lags in y and x of up to
        `LAG_PX`, shape (2 LAG_PX + 1, 2 LAG_PX + 1).
    """

    lags: Float = field(default_factory=lambda: np.zeros((2 * LAG_PX + 1,) * 2))
    _frames: int = 0

    def learn(self, residual: Float, used: Float) -> None:
        """Look at a frame.

        Parameters
        ----------
        residual
            In units of shot noise, shape (height, width).
        used
            1 for pixels of this kind, 0 for others.
        """
        if float(used.sum()) < MIN_PIXELS:
            return
        pairs = autocorrelation(used)
        seen = autocorrelation(residual * used) / np.maximum(pairs, 1.0)
        seen = np.where(pairs > MIN_PIXELS / 2, seen, 0.0)
        self._frames += 1
        share = max(1 / self._frames, MEMORY)
        lags = self.lags + share * (seen - self.lags)
        self.lags = lags
        self._noise = 1 / np.sqrt(np.maximum(pairs, 1.0) * min(self._frames, 2 / MEMORY))

    _noise: Float = field(default_factory=lambda: np.ones((2 * LAG_PX + 1,) * 2))

    def beyond(self) -> Float:
        """Return what the lags hold beyond independent counts, without noise of its own."""
        ring = _RING
        extra = self.lags.copy()
        extra[LAG_PX, LAG_PX] -= 1.0
        # All lags within a radius: grains are seen in their sum before they are seen in any.
        total = np.cumsum(np.bincount(ring, extra.ravel()))
        # Lags come in pairs that say the same.
        noise = np.sqrt(2 * np.cumsum(np.bincount(ring, self._noise.ravel() ** 2)))
        reach = int(np.argmax(total / noise))
        if total[reach] < SEEN_SIGMAS * noise[reach]:
            return np.zeros(extra.shape)
        return np.where((ring <= reach).reshape(extra.shape), extra, 0.0)


def autocorrelation(image: Float) -> Float:
    """Return sums of products of an image with itself, by lags of up to `LAG_PX`."""
    shape = [fft.next_fast_len(n + LAG_PX, real=True) for n in image.shape]
    power = np.abs(fft.rfft2(image, shape)) ** 2
    lags = fft.irfft2(power, shape)
    return np.asarray(np.roll(lags, (LAG_PX, LAG_PX), (0, 1))[: 2 * LAG_PX + 1, : 2 * LAG_PX + 1])


_LAGS = np.arange(-LAG_PX, LAG_PX + 1)
_RING = (
    np.minimum(np.rint(np.hypot(_LAGS[:, None], _LAGS[None, :])), LAG_PX + 1).astype(int).ravel()
)
