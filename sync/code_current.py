"""The delay of a current, or a voltage, from what the beam adds to it while a code is played.

The beam's current comes behind a first-order lag, on top of a slow background. Fitted
together: the time of every edge, the time constant (which delays as an edge does), the
beam's step with its sign, and the background. The fitted wave is then the beam's charge.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import sparse

from sync.code_fit import CodeFit, Linearised, Settled, result_of, settle
from sync.code_search import CodeNotFound, chip_of, find_code
from sync.code_wave import edge_slopes, lagged_time, window_mean

Floats = NDArray[np.float64]
MIN_SIGMAS = 6.0  # of the beam's step
CHIPS_IN_TERM = 16.0  # of the background, by default
MOST_TERMS = 40
TRIED_TAUS = (0.03, 0.3)  # of a chip, where nothing is known
STEP = 0.3  # the most by which the logarithm of the time constant moves in a turn


def fit_current(  # noqa: PLR0913 - one for each thing that a meter may tell
    t_mid_ns: NDArray[np.int64],
    aperture_ns: NDArray[np.int64],
    value: NDArray[np.floating],
    edges_ns: NDArray[np.int64],
    *,
    tau_s: float | None = None,
    tau_sigma_s: float = math.inf,
    background_terms: int | None = None,
    jitter_s: float | None = None,
    edges_from: CodeFit | None = None,
    search_s: tuple[float, float] | None = None,
    with_rate: bool = False,
) -> CodeFit:
    """Fit the delay of a current (or a voltage) against the nominal edges of a code.

    Parameters
    ----------
    t_mid_ns, aperture_ns
        Middle and length of each sample's aperture, in order of time, shape (n,).
    value
        The samples; what is not a number is left out.
    edges_ns
        Nominal edges: beam off, on, off, ...
    tau_s
        About what the time constant is; None where nothing is known.
    tau_sigma_s
        Its standard uncertainty, as of a data sheet or a calibration: what is known of the time
        constant need not be taken from the delay. 0 takes ``tau_s`` as it is, infinity as a
        place to begin.
    background_terms
        Of the slow background over the code; None for one in 16 chips.
    jitter_s
        Scatter of the edges; None to find it, or for none where ``edges_from`` is given.
    edges_from
        Of a camera that saw the same edges, and sees them better: their scatter is taken from
        it, which keeps it out of the time constant.
    search_s
        Smallest and largest delay that are looked at; None for all.
    with_rate
        Fit how fast the delay changes, too.

    Raises
    ------
    CodeNotFound
        The record does not show the code, or not clearly.
    ValueError
        An uncertainty of a time constant that is not given, or below 0; edges of another code.
    """
    if edges_from is not None and not np.array_equal(edges_from.edges_ns, edges_ns):
        raise ValueError("edges_from is of another code: fit both records to the same edges")
    if tau_sigma_s != math.inf and not (tau_s is not None and tau_s > 0 and tau_sigma_s >= 0):
        raise ValueError(
            f"a time constant of {tau_s} s +- {tau_sigma_s} s: give one above 0, and its sigma"
        )
    origin = edges_ns[0]
    apart_s = np.zeros(len(edges_ns)) if edges_from is None else edges_from.own_shifts_s()
    edges_s = np.maximum.accumulate((edges_ns - origin) / 1e9 + apart_s)
    t_s = (t_mid_ns - origin) / 1e9
    chip_s = chip_of((edges_ns - origin) / 1e9)
    tried = (tau_s,) if tau_s is not None else tuple(share * chip_s for share in TRIED_TAUS)
    values = np.asarray(value, np.float64)
    places = [(find_code(t_s, values, edges_s, tau_s=t, search_s=search_s), t) for t in tried]
    coarse, first_tau_s = max(places, key=lambda p: p[0].likeness)
    place_ns = round(coarse.delay_s * 1e9)
    half = aperture_ns // 2
    record = _Samples(
        (t_mid_ns - half - origin - place_ns) / 1e9,
        (t_mid_ns - half + aperture_ns - origin - place_ns) / 1e9,
        values,
        edges_s,
        first_tau_s,
        background_terms,
    )
    record.tau_sigma = tau_sigma_s / first_tau_s

    def settle_at(scatter_s: float | None, start_s: Floats) -> Settled:
        return settle(
            record.linearise,
            record.move,
            edges_s,
            start_s=start_s,
            chip_s=chip_s,
            jitter_s=scatter_s,
            with_rate=with_rate,
        )

    # Delay and time constant first, then each edge's own time.
    settled = settle_at(0.0, np.zeros(len(edges_s)))
    if jitter_s != 0.0 and (jitter_s is not None or edges_from is None):
        settled = settle_at(jitter_s, settled.common.shift_s)
    sigmas = np.sqrt(np.maximum(np.diag(settled.others_covariance), 0.0))
    amplitude, sigma = float(record.coefficients[-1]), float(sigmas[-1])
    if not abs(amplitude) > MIN_SIGMAS * sigma:
        raise CodeNotFound(
            f"the beam changes the record by {amplitude:.3g} +- {sigma:.2g}: too little to tell "
            "when; play a longer code, or take a quieter range"
        )
    return result_of(
        settled,
        edges_ns,
        place_ns,
        with_rate=with_rate,
        amplitude=(amplitude, sigma),
        response=(record.tau_s, 0.0 if record.tau_is_fixed else float(sigmas[0]) * record.tau_s),
        noise=record.noise,
        apart_s=apart_s,
    )


class _Samples:
    """Samples about a code: what they show at some shifts of its edges."""

    def __init__(
        self,
        start_s: Floats,
        stop_s: Floats,
        value: Floats,
        edges_s: Floats,
        tau_s: float,
        terms: int | None,
    ) -> None:
        self.edges_s = edges_s
        chip_s = chip_of(edges_s)
        around_s = 8 * chip_s
        near = (stop_s > edges_s[0] - around_s) & (start_s < edges_s[-1] + around_s + 5 * tau_s)
        near &= np.isfinite(value) & (stop_s > start_s)
        self.start_s, self.stop_s, self.value = start_s[near], stop_s[near], value[near]
        chips = float(np.ptp(self.start_s)) / chip_s if np.any(near) else 1.0
        count = round(np.clip(chips / CHIPS_IN_TERM, 4, MOST_TERMS)) if terms is None else terms
        middle = 0.5 * (self.start_s + self.stop_s)
        width = np.ptp(middle) or 1.0
        self.background = chebyshev.chebvander(2 * (middle - middle[0]) / width - 1, count - 1)
        self.tau_s = self.known_tau_s = tau_s
        self.tau_sigma = math.inf  # of its logarithm, beforehand
        # No quicker than what the samples tell from none, no slower than ten chips.
        self.tau_range_s = (0.05 * float(np.median(self.stop_s - self.start_s)), 10 * chip_s)
        self.coefficients = np.zeros(count + 1)
        self.noise = 1.0

    @property
    def tau_is_fixed(self) -> bool:
        """True where nothing moves the time constant."""
        return self.tau_sigma == 0.0

    def _wave(self, edges_s: Floats, tau_s: float) -> Floats:
        return window_mean(self.start_s, self.stop_s, edges_s, tau_s=tau_s)

    def linearise(self, shift_s: Floats) -> Linearised:
        """Return residuals and how they change at some shifts."""
        edges_s = np.maximum.accumulate(self.edges_s + shift_s)
        wave = self._wave(edges_s, self.tau_s)
        design = np.column_stack([self.background, wave])
        weight = np.ones(len(wave))
        residual = self.value
        for _ in range(3):
            root = np.sqrt(weight)
            scaled = design * root[:, None]
            self.coefficients = np.linalg.lstsq(scaled, self.value * root, rcond=None)[0]
            residual = self.value - design @ self.coefficients
            self.noise = max(1.4826 * float(np.median(np.abs(residual))), 1e-300)
            # Steps of the source and the like are not the beam's.
            weight = np.minimum(1.0, 4 * self.noise / np.maximum(np.abs(residual), 1e-300))
        freedom = max(1.0 - design.shape[1] / len(wave), 0.1)
        amplitude = self.coefficients[-1]
        slopes = edge_slopes(self.start_s, self.stop_s, edges_s, tau_s=self.tau_s)
        edges = sparse.csc_matrix(slopes * amplitude)
        weight = weight * freedom / self.noise**2
        if self.tau_is_fixed:
            return Linearised(residual=residual, weight=weight, edges=edges, others=design)
        more, less = (self._wave(edges_s, self.tau_s * f) for f in (1.01, 1 / 1.01))
        change = amplitude * (more - less) / (2 * math.log(1.01))
        # What is known of the time constant beforehand is one datum more.
        known = np.zeros(1 + design.shape[1])
        known[0] = 1.0
        return Linearised(
            residual=np.append(residual, math.log(self.known_tau_s / self.tau_s)),
            weight=np.append(weight, self.tau_sigma**-2),
            edges=sparse.vstack([edges, sparse.csc_matrix((1, edges.shape[1]))], format="csc"),
            others=np.vstack([np.column_stack([change, design]), known]),
        )

    def move(self, steps: Floats) -> None:
        """Take a step of the time constant; all else is solved for each time."""
        if not self.tau_is_fixed:
            step = math.exp(float(np.clip(steps[0], -STEP, STEP)))
            self.tau_s = float(np.clip(self.tau_s * step, *self.tau_range_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamCharge:
    """The beam's charge into the cell from the first time on, in C, each of shape (n,).

    The sign is that of the ledger's ``beam``: the ionic charge is the instrument's with this
    added, and what the holder took subtracted.
    """

    charge_C: Floats
    sigma_C: Floats


def beam_charge(
    fit: CodeFit,
    t_ns: NDArray[np.int64],
    *,
    ampere_per_unit: float = -1.0,
    ampere_per_unit_sigma: float = 0.0,
) -> BeamCharge:
    """Integrate the beam's current behind the fitted edges.

    Parameters
    ----------
    fit
        Of `fit_current`. The beam is on before the code and after it.
    t_ns
        Times on the clock of that record, shape (n,).
    ampere_per_unit, ampere_per_unit_sigma
        Beam-induced current for a unit of the record. Of a current at a held voltage it is
        -1: the instrument gives less when the beam gives more. At a held current the
        instrument sees nothing and the voltage rises: 1 over the cell's resistance.
    """
    if len(t_ns) == 0:
        return BeamCharge(charge_C=np.zeros(0), sigma_C=np.zeros(0))
    origin = fit.seen_ns[0]
    edges_s = np.maximum.accumulate((fit.seen_ns - origin) / 1e9)
    on_s = lagged_time((t_ns - origin) / 1e9, edges_s, max(fit.response_s, 1e-9))
    on_s = on_s - on_s[0]
    beam_A = fit.amplitude * ampere_per_unit
    sigma_A = math.hypot(
        fit.amplitude_sigma * ampere_per_unit, fit.amplitude * ampere_per_unit_sigma
    )
    return BeamCharge(charge_C=beam_A * on_s, sigma_C=sigma_A * np.abs(on_s))
