"""Diffusivity by intermittent titration (GITT), and when not to believe it.

The voltage of a film under a constant current moves with the root of time; how much it
moves per root of time, against how much it has moved for good, tells the diffusivity::

    D = 4 / pi * L**2 * (dE_s / tau / (dE / dsqrt(t)))**2

Stray capacitance, leakage and the dielectric make the ionic current differ from that of
the source. So ``dE_s`` is taken per ionic charge, time is counted as the ionic current
counts it, and what the current of the rest does by itself is subtracted.

The formula takes for granted that the open-circuit voltage is straight over all that the
surface sees, that the far side of the film feels nothing yet, and that the rests were long
enough. Each of these is tested; a result that fails one is given with the reason. Beside
it stands a second estimate, a fit of the whole transient (`correlate.slab`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from correlate.gitt_guard import objections
from correlate.relaxation import Rest, relaxed
from correlate.slab import CannotFit, SlabFit, fit_slab, root_time
from correlate.titration import Pulse, Setting, Titration
from correlate.titration_bins import Bins, Readings, binned, history

SETTLED_RC = 3.0
LATEST_WINDOW = 0.25  # of the pulse, by which all must have settled
MIN_POINTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The voltage against the root of time: ``base + slope r``, and how bent it is."""

    slope: float
    slope_sigma: float
    base_V: float
    base_sigma_V: float
    change: float
    change_sigma: float
    from_s: float


@dataclass(slots=True, kw_only=True)
class _Draft:
    """One pulse on its way to a result."""

    pulse: Pulse
    parts: tuple[Bins, Bins, Bins]  # rest, pulse, rest
    rests: tuple[Rest, Rest] | None = None
    drift_A: float = math.nan
    current_A: float = math.nan
    line: _Line | None = None
    fit: SlabFit | None = None
    reasons: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        return self.pulse.end_s - self.pulse.begin_s

    @property
    def step_V(self) -> float:
        """Step of the relaxed voltage; NaN before both rests are known."""
        return math.nan if self.rests is None else self.rests[1].volts - self.rests[0].volts

    @property
    def step_sigma_V(self) -> float:
        return math.nan if self.rests is None else math.hypot(*(r.sigma_V for r in self.rests))

    @property
    def charge_C(self) -> float:
        return math.nan if self.rests is None else self.rests[1].charge_C - self.rests[0].charge_C

    @property
    def slope_V_C(self) -> float:
        """Of the open-circuit voltage."""
        return self.step_V / self.charge_C


def titrate(readings: Readings, pulses: Sequence[Pulse], setting: Setting) -> tuple[Titration, ...]:
    """Find the diffusivity from each of several pulses.

    Parameters
    ----------
    readings
        From when the film was at rest on, so that what is left of earlier pulses is known.
    pulses
        In their order.
    """
    drafts = [_drafted(readings, pulse, setting) for pulse in pulses]
    for draft in drafts:
        if draft.line is not None and math.isfinite(draft.slope_V_C):
            _fit(readings, drafts, draft, setting)
    return tuple(_finished(drafts, i, setting) for i in range(len(drafts)))


# --- one pulse by the formula ----------------------------------------------------------------


def _drafted(readings: Readings, pulse: Pulse, setting: Setting) -> _Draft:
    bounds_s = (pulse.rest_s, pulse.begin_s, pulse.end_s, pulse.rest_end_s)
    before, on, after = (binned(readings, *span) for span in pairwise(bounds_s))
    draft = _Draft(pulse=pulse, parts=(before, on, after))
    if not setting.ionic:
        draft.reasons.append("the ionic current is not known without an open-holder calibration")
    for part, name in ((before, "rest before"), (on, "pulse"), (after, "rest after")):
        if len(part.t_s) < MIN_POINTS:
            draft.reasons.append(f"the {name} has {len(part.t_s)} groups of readings only")
    if min(len(part.t_s) for part in draft.parts) < MIN_POINTS:
        return draft
    tail = before.t_s >= before.t_s[-1] - 0.3 * (before.t_s[-1] - before.t_s[0])
    draft.drift_A = _mean_current(before, tail)
    slope_V_C = (after.volts[-1] - before.volts[-1]) / (after.charge_C[-1] - before.charge_C[-1])
    for _ in range(2):
        draft.rests = (
            relaxed(readings, pulse.rest_s, pulse.begin_s, slope_V_C),
            relaxed(readings, pulse.end_s, pulse.rest_end_s, slope_V_C),
        )
        slope_V_C = draft.slope_V_C
    _find_line(draft, setting)
    return draft


def _mean_current(part: Bins, rows: NDArray[np.bool_]) -> float:
    t_s, charge_C = part.t_s[rows], part.charge_C[rows]
    return float((charge_C[-1] - charge_C[0]) / (t_s[-1] - t_s[0]))


def _find_line(draft: _Draft, setting: Setting) -> None:
    """Regress the voltage on the root of time, after what settles has settled."""
    on, begin_s = draft.parts[1], draft.pulse.begin_s
    settled_s, ohm = setting.settling_s, 0.0
    for _ in range(3):
        settled_s = max(setting.settling_s, SETTLED_RC * abs(ohm) * setting.stray_F)
        rows = on.t_s >= begin_s + settled_s
        if settled_s > LATEST_WINDOW * draft.duration_s or rows.sum() < MIN_POINTS:
            draft.reasons.append(
                f"range and stray capacitance settle within {settled_s:.3g} s, "
                f"too much of a pulse of {draft.duration_s:.3g} s"
            )
            return
        draft.current_A = _mean_current(on, rows) - draft.drift_A
        draft.line = _line(draft, rows, settled_s)
        ohm = _ohm(draft)


def _line(draft: _Draft, rows: NDArray[np.bool_], from_s: float) -> _Line:
    before, on, _ = draft.parts
    begin_s = draft.pulse.begin_s
    # The current flows between the middles of groups; the last rest ends where it begins.
    start_C = before.charge_C[-1] + draft.drift_A * (begin_s - before.t_s[-1])
    edges_s = np.concatenate([[begin_s], on.t_s])
    charge_C = np.concatenate([[start_C], on.charge_C])
    share = (np.diff(charge_C) / np.diff(edges_s) - draft.drift_A) / draft.current_A
    root = root_time(on.t_s[rows], edges_s, share)
    drift_V = draft.slope_V_C * draft.drift_A * (on.t_s[rows] - begin_s)
    volts, sigma_V = on.volts[rows] - drift_V, on.sigma_V[rows]
    found, covariance = _weighted(np.stack([np.ones(len(root)), root], 1), volts, sigma_V)
    bent, bent_covariance = _weighted(
        np.stack([np.ones(len(root)), root, root**2], 1), volts, sigma_V
    )
    whole = 2.0 * math.sqrt(draft.duration_s)
    slope = float(found[1])
    return _Line(
        slope=slope,
        slope_sigma=math.sqrt(covariance[1, 1]),
        base_V=float(found[0]),
        base_sigma_V=math.sqrt(covariance[0, 0]),
        change=float(bent[2]) * whole / slope,
        change_sigma=abs(math.sqrt(bent_covariance[2, 2]) * whole / slope),
        from_s=from_s,
    )


def _weighted(
    design: NDArray[np.float64], value: NDArray[np.float64], sigma: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a weighted fit and its covariance, by the scatter where that is more."""
    scaled, wanted = design / sigma[:, None], value / sigma
    found, *_ = np.linalg.lstsq(scaled, wanted, rcond=None)
    spare = len(value) - design.shape[1]
    scatter = float(np.sum((wanted - scaled @ found) ** 2)) / spare
    covariance = np.linalg.pinv(scaled.T @ scaled) * max(scatter, 1.0)
    return np.asarray(found), np.asarray(covariance)


def _ohm(draft: _Draft) -> float:
    """Return the resistance from the intercept."""
    if draft.line is None or draft.rests is None:
        return math.nan
    return (draft.line.base_V - draft.rests[0].volts_at_end) / draft.current_A


# --- the whole transient -----------------------------------------------------------------------


def _fit(readings: Readings, drafts: Sequence[_Draft], draft: _Draft, setting: Setting) -> None:
    line = draft.line
    if line is None:
        return
    across_s = math.pi / 4 * (line.slope / (draft.slope_V_C * draft.current_A)) ** 2
    bounds_s = [float(readings.t_s[0])]
    bounds_s += [s for d in drafts for s in (d.pulse.begin_s, d.pulse.end_s)]
    edges = history(readings, bounds_s, draft.parts)
    at_s, volts, sigma_V, current_A = [], [], [], []
    for part, begin_s in zip(
        draft.parts, (draft.pulse.rest_s, draft.pulse.begin_s, draft.pulse.end_s), strict=True
    ):
        rows = part.t_s >= begin_s + line.from_s
        if part is draft.parts[0]:  # what matters of the rest before is its end
            rows &= part.t_s >= draft.pulse.begin_s - draft.duration_s
        at_s.append(part.t_s[rows])
        volts.append(part.volts[rows])
        sigma_V.append(part.sigma_V[rows])
        current_A.append(np.gradient(part.charge_C, part.t_s)[rows])
    try:
        draft.fit = fit_slab(
            np.concatenate(at_s),
            np.concatenate(volts),
            np.concatenate(sigma_V),
            np.concatenate(current_A),
            edges,
            guess_s=across_s,
            offset_sigma_A=setting.offset_sigma_A,
        )
    except CannotFit as problem:
        draft.reasons.append(f"the whole transient cannot be fitted: {problem}")


# --- the guard -----------------------------------------------------------------------------------


def _finished(drafts: Sequence[_Draft], index: int, setting: Setting) -> Titration:
    draft = drafts[index]
    begin_s, line, rests = draft.pulse.begin_s, draft.line, draft.rests
    if line is None or rests is None:
        return Titration(begin_s=begin_s, duration_s=draft.duration_s, reasons=tuple(draft.reasons))
    thickness = 2 * setting.thickness_sigma_m / setting.thickness_m
    square_m2 = setting.thickness_m**2
    moved_V = draft.slope_V_C * draft.current_A
    value = 4 / math.pi * square_m2 * (moved_V / line.slope) ** 2
    lasted_s = rests[1].t_s - rests[0].t_s
    shares = (
        line.slope_sigma / line.slope,
        draft.step_sigma_V / draft.step_V,
        setting.offset_sigma_A * lasted_s / draft.charge_C,
        draft.pulse.clock_sigma_s / (2 * math.sqrt(max(line.from_s, 1e-9) * draft.duration_s)),
    )
    sigma = value * math.hypot(*(2 * s for s in shares), thickness)
    fit_m2_s = fit_sigma = math.nan
    if (fit := draft.fit) is not None:
        fit_m2_s = square_m2 / fit.across_s
        clock = draft.pulse.clock_sigma_s / math.sqrt(max(line.from_s, 1e-9) * draft.duration_s)
        fit_sigma = fit_m2_s * math.hypot(fit.across_sigma_s / fit.across_s, thickness, clock)
    base_V = rests[0].volts_at_end
    found = Titration(
        begin_s=begin_s,
        duration_s=draft.duration_s,
        current_A=draft.current_A,
        step_V=draft.step_V,
        step_sigma_V=draft.step_sigma_V,
        remaining_V=max(abs(r.remaining_V) for r in rests),
        charge_C=draft.charge_C,
        root_slope=line.slope,
        root_slope_sigma=line.slope_sigma,
        ohm=(line.base_V - base_V) / draft.current_A,
        ohm_sigma=abs(math.hypot(line.base_sigma_V, rests[0].sigma_V) / draft.current_A),
        diffusivity_m2_s=value,
        diffusivity_sigma_m2_s=sigma,
        fit_m2_s=fit_m2_s,
        fit_sigma_m2_s=fit_sigma,
        fit_scatter=math.nan if fit is None else fit.scatter,
    )
    reasons = objections(found, line.change, line.change_sigma, _bias(drafts, index), square_m2)
    return replace(found, reasons=(*draft.reasons, *reasons))


def _bias(drafts: Sequence[_Draft], index: int) -> tuple[float, float]:
    """Return how wrong a diffusivity is by how the neighbours' steps differ, and its sigma.

    The surface swings further than the mean of the film moves, so that the slope of the
    open-circuit voltage changes by more than from one pulse to the next.
    """
    near = [
        d
        for d in drafts[max(index - 1, 0) : index + 2]
        if math.isfinite(d.slope_V_C) and d.charge_C * drafts[index].charge_C > 0
    ]
    draft = drafts[index]
    if len(near) < 2 or draft.line is None:
        return 0.0, 0.0
    first, last = near[0], near[-1]
    own = draft.slope_V_C * (len(near) - 1)
    swing = draft.line.slope * math.sqrt(draft.duration_s) / draft.step_V
    sigma = math.hypot(*(d.step_sigma_V / d.charge_C for d in (first, last)))
    return (last.slope_V_C - first.slope_V_C) / own * swing, abs(sigma / own * swing)
