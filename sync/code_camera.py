"""The delay of a camera, from how bright its frames are while a code is played.

An edge inside an exposure moves the mean of that frame. What is fitted together: the time of
every edge, the level with the beam off, the beam's own slow drift, the blanker's rise, and
how much frames scatter with the beam on and off.
"""

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import optimize, sparse

from sync.code_fit import CodeFit, Linearised, Settled, result_of, settle
from sync.code_search import CodeNotFound, chip_of, find_code
from sync.code_wave import edge_slopes, signs, window_mean

Floats = NDArray[np.float64]
MIN_SIGMAS = 8.0  # of the beam's step
FULL, NONE = 0.98, 0.02  # shares of beam at which a frame is all on or all off
RISE_ROUNDS = 8
RISE_IN_CHIP = 0.5  # the longest that is looked for
DELTA_CHI2_SEEN = 9.0  # by which a rise must better the fit


def fit_camera(  # noqa: PLR0913 - one for each thing that a camera may tell
    start_ns: NDArray[np.int64],
    stop_ns: NDArray[np.int64],
    sums: NDArray[np.floating],
    edges_ns: NDArray[np.int64],
    *,
    row_offset_ns: NDArray[np.int64] | None = None,
    row_weight: Floats | None = None,
    drift_terms: int = 4,
    rise_s: float | None = None,
    jitter_s: float | None = None,
    search_s: tuple[float, float] | None = None,
    with_rate: bool = False,
) -> CodeFit:
    """Fit the delay of frames against the nominal edges of a code.

    Parameters
    ----------
    start_ns, stop_ns
        Exposure of each frame, in order of time, shape (n,); of the first row where rows are
        given. Any clock will do: the delay holds its offset.
    sums
        Counts (or mean) of each frame, shape (n,), or of each group of its rows, (n, r).
        What is not a number is left out.
    edges_ns
        Nominal edges: beam off, on, off, ...
    row_offset_ns
        How much later than the first row each group of rows is exposed, shape (r,): a
        rolling shutter. None for all at once.
    row_weight
        Share of each group in ``sums`` of shape (n,); None for equal ones.
    drift_terms
        Of the beam's own change over the record.
    rise_s
        Of the blanker; None to find it.
    jitter_s
        Scatter of the edges; None to find it.
    search_s
        Smallest and largest delay that are looked at; None for all.
    with_rate
        Fit how fast the delay changes, too: for stamps of a free-running clock.

    Raises
    ------
    CodeNotFound
        The frames do not show the code, or not clearly.
    """
    place = edges_ns[0]
    edges_s = (edges_ns - place) / 1e9
    whole = sums if sums.ndim == 1 else np.mean(sums, axis=1)
    later_s = 0.0 if row_offset_ns is None else float(np.mean(row_offset_ns)) / 1e9
    middle_s = (start_ns - place + (stop_ns - start_ns) // 2) / 1e9 + later_s
    coarse = find_code(
        middle_s, np.asarray(whole, np.float64), edges_s, search_s=search_s, either_sign=False
    )
    place_ns = round(coarse.delay_s * 1e9)
    record = _Frames(
        (start_ns - place - place_ns) / 1e9,
        (stop_ns - place - place_ns) / 1e9,
        np.asarray(sums, np.float64),
        edges_s,
        None if row_offset_ns is None else row_offset_ns / 1e9,
        row_weight,
        max(1, drift_terms),
    )
    record.rise_s = rise_s or 0.0

    def settle_from(start_s: Floats) -> Settled:
        return settle(
            record.linearise,
            record.move,
            edges_s,
            start_s=start_s,
            chip_s=record.chip_s,
            jitter_s=jitter_s,
            with_rate=with_rate,
        )

    apart_s = record.coarse_shifts()
    # Edges that keep their distances, and edges that do not: what is more likely, counts.
    together_s = np.full(len(edges_s), float(np.median(apart_s)))
    settled = min(map(settle_from, (together_s, apart_s)), key=lambda s: s.cost)
    rise_sigma_s = 0.0
    if rise_s is None:
        rise_sigma_s = record.fit_rise(settled.common.shift_s)
        for _ in range(RISE_ROUNDS):
            before_s = record.rise_s
            if before_s == 0:
                break
            settled = settle_from(settled.common.shift_s)
            rise_sigma_s = record.fit_rise(settled.common.shift_s)
            if abs(record.rise_s - before_s) < 0.3 * rise_sigma_s:
                break
    amplitude, sigma = record.amplitude(settled.others_covariance)
    if not amplitude > MIN_SIGMAS * sigma:
        raise CodeNotFound(
            f"the frames are brighter by {amplitude:.3g} +- {sigma:.2g} with the beam on: too "
            "little to tell when; was the beam blanked?"
        )
    return result_of(
        settled,
        edges_ns,
        place_ns,
        with_rate=with_rate,
        amplitude=(amplitude, sigma),
        response=(record.rise_s, rise_sigma_s),
        noise=record.noise_on,
    )


class _Frames:
    """Frames about a code: what they show at some shifts of its edges."""

    def __init__(
        self,
        start_s: Floats,
        stop_s: Floats,
        sums: Floats,
        edges_s: Floats,
        row_offset_s: Floats | None,
        row_weight: Floats | None,
        drift_terms: int,
    ) -> None:
        self.edges_s = edges_s
        self.chip_s = chip_of(edges_s)
        near = (stop_s > edges_s[0] - 8 * self.chip_s) & (start_s < edges_s[-1] + 8 * self.chip_s)
        near &= np.all(np.isfinite(sums.reshape(len(sums), -1)), axis=1)
        start_s, stop_s, sums = start_s[near], stop_s[near], sums[near]
        rows = np.zeros(1) if row_offset_s is None else row_offset_s
        self.value = sums.ravel()
        self.group = np.tile(np.arange(len(rows)), len(sums)) if sums.ndim > 1 else None
        # Windows in order of time, and how they make up each value.
        begin = (start_s[:, None] + rows[None, :]).ravel()
        order = np.argsort(begin, kind="stable")
        end = (stop_s[:, None] + rows[None, :]).ravel()
        self.start_s, self.stop_s = begin[order], end[order]
        weight = np.full(len(rows), 1 / len(rows)) if row_weight is None else row_weight
        weight = weight / np.sum(weight)
        if sums.ndim > 1:
            entry, row = np.ones(len(order)), order
        else:
            entry, row = np.tile(weight, len(sums))[order], order // len(rows)
        self.mix = sparse.csr_matrix(
            (entry, (row, np.arange(len(order)))), shape=(len(self.value), len(order))
        )
        middle = np.asarray(self.mix @ (0.5 * (self.start_s + self.stop_s)))
        half = 0.5 * (edges_s[-1] - edges_s[0]) + 9 * self.chip_s
        self.drift = chebyshev.chebvander(
            np.clip((middle - edges_s[0] + 9 * self.chip_s) / half - 1, -1, 1), drift_terms - 1
        )
        self.rise_s = 0.0
        self.noise_on = self.noise_off = 1.0
        self.gain = np.ones(len(self.value))  # of each group of rows
        self.weight = np.ones(len(self.value))
        self.coefficients = np.zeros(1 + drift_terms)

    def _share(self, shift_s: Floats) -> Floats:
        edges_s = np.maximum.accumulate(self.edges_s + shift_s)
        share = window_mean(self.start_s, self.stop_s, edges_s, rise_s=self.rise_s)
        return np.asarray(self.mix @ share)

    def _columns(self, share: Floats) -> Floats:
        lit = (self.gain * share)[:, None] * self.drift
        return np.column_stack([self.gain, lit])

    def _solve(self, share: Floats) -> Floats:
        """Fit levels, rows and noise by turns; return the residual."""
        residual = self.value
        for _ in range(3):
            design = self._columns(share)
            self.coefficients = _levels(design, self.value, self.weight)
            residual = self.value - design @ self.coefficients
            self._fit_rows(share)
            self._fit_noise(share, residual)
        return residual

    def _fit_rows(self, share: Floats) -> None:
        if self.group is None:
            return
        model = self._columns(share) @ self.coefficients / self.gain
        top = np.bincount(self.group, self.weight * self.value * model)
        gain = top / np.bincount(self.group, self.weight * model**2)
        self.gain = (gain / np.mean(gain))[self.group]

    def _fit_noise(self, share: Floats, residual: Floats) -> None:
        """Take the noise of frames with the beam on and off; those between lie between."""
        relative = residual / self.gain
        on, off = relative[share > FULL], relative[share < NONE]
        noise_on = _spread(on) if len(on) > 5 else _spread(relative)
        noise_off = _spread(off) if len(off) > 5 else noise_on
        least = 1e-9 * max(abs(float(self.coefficients[1])), 1e-300)
        self.noise_on, self.noise_off = max(noise_on, least), max(noise_off, least)
        variance = self.noise_off**2 + np.clip(share, 0, 1) * (self.noise_on**2 - self.noise_off**2)
        variance = np.maximum(variance, (1e-3 * self.noise_on) ** 2)
        pull = np.abs(relative) / np.sqrt(variance)
        # A frame that is far off is not the code's.
        trust = np.where(pull > 5, 5 / np.maximum(pull, 5), 1.0)
        self.weight = trust / (variance * self.gain**2)

    def linearise(self, shift_s: Floats) -> Linearised:
        """Return residuals and how they change at some shifts."""
        share = self._share(shift_s)
        residual = self._solve(share)
        lit = self.gain * (self.drift @ self.coefficients[1:])
        slopes = edge_slopes(
            self.start_s,
            self.stop_s,
            np.maximum.accumulate(self.edges_s + shift_s),
            rise_s=self.rise_s,
        )
        return Linearised(
            residual=residual,
            weight=self.weight,
            edges=sparse.csc_matrix((self.mix @ slopes).multiply(lit[:, None])),
            others=self._columns(share),
        )

    def move(self, steps: Floats) -> None:
        """Do nothing: levels are solved for each time."""

    def coarse_shifts(self) -> Floats:
        """Return about where each edge stands, by trying places on both sides of the nominal."""
        shift_s = np.zeros(len(self.edges_s))
        for _ in range(2):
            self._solve(self._share(shift_s))
            common_s = float(np.median(shift_s))
            shift_s = np.array([self._try(i, common_s) for i in range(len(self.edges_s))])
        return shift_s

    def _try(self, edge: int, common_s: float) -> float:
        """Return the shift of one edge that fits best, with the others far away."""
        at_s = self.edges_s[edge] + common_s
        reach_s = 0.4 * self.chip_s
        low = int(np.searchsorted(self.stop_s, at_s - reach_s))
        high = int(np.searchsorted(self.start_s, at_s + reach_s))
        tried = np.linspace(-reach_s, reach_s, 65)
        if high <= low:
            return common_s
        start, stop = self.start_s[low:high, None], self.stop_s[low:high, None]
        after = np.clip((stop - at_s - tried) / (stop - start), 0, 1)
        begun = 1.0 if edge % 2 == 0 else 0.0
        sign = float(signs(edge + 1)[-1])
        part = self.mix[:, low:high]
        rows = np.flatnonzero(np.diff(part.indptr))
        part = part[rows]
        inside = np.asarray(part.sum(axis=1)).ravel()  # a frame may reach beyond
        share = np.asarray(part @ (begun + sign * after)) / inside[:, None]
        whole = self.gain[rows] * self.coefficients[0]
        lit = self.gain[rows] * (self.drift[rows] @ self.coefficients[1:])
        rest = self.value[rows, None] - whole[:, None] - lit[:, None] * share
        # Within dead time all places are alike: the nearest to the others is as good.
        cost = np.sum(self.weight[rows, None] * rest**2, axis=0) + (tried / reach_s) ** 2
        return common_s + float(tried[int(np.argmin(cost))])

    def fit_rise(self, shift_s: Floats) -> float:
        """Find the blanker's rise at some shifts; return its uncertainty.

        A rise that cannot be told from none stays 0, with the one that could not have been
        missed over 2 as its uncertainty.
        """
        self._solve(self._share(shift_s))
        weight = self.weight

        def misfit(rise_s: float) -> float:
            self.rise_s = float(rise_s)
            design = self._columns(self._share(shift_s))
            found = _levels(design, self.value, weight)
            return float(np.sum(weight * (self.value - design @ found) ** 2))

        tried = np.linspace(0, RISE_IN_CHIP * self.chip_s, 26)
        costs = np.array([misfit(r) for r in tried])
        k = int(np.argmin(costs))
        low, high = tried[max(k - 1, 0)], tried[min(k + 1, len(tried) - 1)]
        best = optimize.minimize_scalar(misfit, bounds=(low, high), method="bounded")
        rise_s, least = float(best.x), float(best.fun)
        none = float(costs[0])
        if none < least + DELTA_CHI2_SEEN:
            beyond = np.flatnonzero(costs > min(none, least) + DELTA_CHI2_SEEN)
            beyond = beyond[beyond > k]
            self.rise_s = 0.0
            return float(tried[beyond[0]] if len(beyond) else tried[-1]) / 2
        step_s = 0.05 * rise_s
        curve = (misfit(rise_s + step_s) + misfit(rise_s - step_s) - 2 * least) / step_s**2
        self.rise_s = rise_s
        return math.sqrt(2 / curve) if curve > 0 else rise_s

    def amplitude(self, covariance: Floats) -> tuple[float, float]:
        """Return beam on less beam off, mean over the record, and its sigma."""
        mean = np.mean(self.drift, axis=0)
        own = covariance[1:, 1:]
        return float(mean @ self.coefficients[1:]), math.sqrt(max(float(mean @ own @ mean), 0.0))


def _levels(design: Floats, value: Floats, weight: Floats) -> Floats:
    """Return the coefficients of a weighted fit of few columns that are far from alike."""
    weighted = design * weight[:, None]
    return np.asarray(np.linalg.pinv(weighted.T @ design, hermitian=True) @ (weighted.T @ value))


def _spread(values: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
