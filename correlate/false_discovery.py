"""Many questions at once: which answers are left when some are chance.

Benjamini and Hochberg, J. R. Stat. Soc. B 57, 289 (1995), for tests that are independent
or go together; Benjamini and Yekutieli, Ann. Stat. 29, 1165 (2001), for any dependence.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def adjusted_p(p: ArrayLike, *, any_dependence: bool = False) -> NDArray[np.float64]:
    """Return the false-discovery rate at which each test would just be called a finding.

    Parameters
    ----------
    p
        Of all tests that were declared, also of those that showed nothing; any shape, such
        as (regions, lags). NaN for a test that had not enough data: it stays NaN, and does
        not count.
    any_dependence
        True for Benjamini and Yekutieli.

    Raises
    ------
    ValueError
        A p is not between 0 and 1.

    Examples
    --------
    >>> adjusted_p([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    known = np.isfinite(values)
    tested = values[known]
    if np.any((tested < 0) | (tested > 1)):
        raise ValueError(f"p of {values[known].min()} to {values[known].max()}; 0 to 1 will do")
    m = len(tested)
    order = np.argsort(tested)
    factor = _harmonic(m) if any_dependence else 1.0
    scaled = tested[order] * m * factor / np.arange(1, m + 1)
    # Never larger than that of a test with a larger p.
    steps = np.minimum.accumulate(scaled[::-1])[::-1]
    found = np.empty(m)
    found[order] = np.minimum(steps, 1.0)
    result = np.full(values.shape, np.nan)
    result[known] = found
    return result


def surrogates_needed(tests: int, rate: float = 0.05, *, any_dependence: bool = False) -> int:
    """Return how many surrogates a single finding among so many tests needs at least.

    The smallest p of M surrogates is ``1 / (1 + M)``: with fewer, nothing can be found.
    """
    factor = _harmonic(tests) if any_dependence else 1.0
    return math.ceil(tests * factor / rate - 1e-9) - 1


def _harmonic(m: int) -> float:
    return float(np.sum(1.0 / np.arange(1, m + 1)))
