"""What is known to move both series, taken out of both: dose, beam state, a common level."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Nuisance:
    """Takes a constant and given regressors out of series by least squares.

    Parameters
    ----------
    regressors
        Shape (n, k), without gaps where a series is used; a constant is always added.
    used
        Places at which both series and all regressors are known, shape (n,).

    Notes
    -----
    Surrogates pass through the same projection as the data, because fitting takes away
    degrees of freedom from both (Freedman and Lane, J. Bus. Econ. Stat. 1, 292 (1983)).
    """

    def __init__(self, regressors: Floats | None, used: NDArray[np.bool_]) -> None:
        n = len(used)
        extra = np.empty((n, 0)) if regressors is None else np.asarray(regressors, np.float64)
        extra = extra.reshape(n, 1 if extra.ndim == 1 else extra.shape[1])
        columns = np.concatenate([np.ones((n, 1)), _scaled(extra, used)], axis=1)
        self._used = used
        basis, sizes, _ = np.linalg.svd(columns[used], full_matrices=False)
        # Of regressors that do not vary, or repeat each other, one direction is enough.
        self._basis = basis[:, sizes > 1e-9 * sizes[0]] if len(sizes) else basis
        self.rank = self._basis.shape[1]

    def taken_out(self, series: Floats) -> Floats:
        """Return series of shape (..., n) without the nuisance; NaN where not used."""
        rest = np.full(series.shape, np.nan)
        known = series[..., self._used]
        rest[..., self._used] = known - (known @ self._basis) @ self._basis.T
        return rest


def _scaled(columns: Floats, used: NDArray[np.bool_]) -> Floats:
    """Return columns of comparable size: doses are 1e22, lit shares 1."""
    centre = columns[used].mean(axis=0) if used.any() else 0.0
    spread = columns[used].std(axis=0) if used.any() else 1.0
    return np.asarray((columns - centre) / np.where(spread > 0, spread, 1.0))
