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
from correlate.relaxation import Rest, TooFewReadings, relaxed
from correlate.root_line import RootLine, root_line
from correlate.slab import CannotFit, SlabFit, fit_slab, root_time
from correlate.titration import Pulse, Setting, Titration
from correlate.titration_bins import Bins, Readings, binned, history

SETTLED_RC = 3.0
LEFT_OF_STEP = 1e-3  # of what diffusion adds to the voltage
LATEST_WINDOW = 0.25  # of the pulse, by which all must have settled
MIN_POINTS = 12
EARLY = 0.02  # of a pulse: earlier a wrong clock is not asked
TAIL = 0.3  # of a rest, whose current is that of the rest
# The current of the stray capacitance goes through the cell's differential resistance, which
# is this share of the ohmic one: less under a current, more at rest. Mean and sigma.
SHARE_ON = (0.6, 0.23)
SHARE_OFF = (1.3, 0.6)
LAG_DOUBT = 0.2  # of what that does to the slope: it is taken to first order only

UNKNOWN_REST = Rest(
    t_s=math.nan,
    charge_C=math.nan,
    volts=math.nan,
    sigma_V=math.nan,
    volts_at_end=math.nan,
    remaining_V=math.nan,
)
UNKNOWN_LINE = RootLine(
    slope=math.nan,
    slope_sigma=math.nan,
    base_V=math.nan,
    base_sigma_V=math.nan,
    change=math.nan,
    change_sigma=math.nan,
)


@dataclass(slots=True, kw_only=True)
class _Draft:
    """One pulse on its way to a result."""

    pulse: Pulse
    parts: tuple[Bins, Bins, Bins]  # rest, pulse, rest
    rests: tuple[Rest, Rest] = (UNKNOWN_REST, UNKNOWN_REST)
    drift_A: float = math.nan
    current_A: float = math.nan  # by which pulse and rest differ, mean
    steady_A: float = math.nan  # the same without what the stray capacitance takes
    line: RootLine = UNKNOWN_LINE
    from_s: float = math.nan  # of the pulse: when all has settled
    fit: SlabFit | None = None
    reasons: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        return self.pulse.end_s - self.pulse.begin_s

    @property
    def step_V(self) -> float:
        """Step of the relaxed voltage."""
        return self.rests[1].volts - self.rests[0].volts

    @property
    def step_sigma_V(self) -> float:
        return math.hypot(*(r.sigma_V for r in self.rests))

    @property
    def charge_C(self) -> float:
        return self.rests[1].charge_C - self.rests[0].charge_C

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
        if math.isfinite(draft.line.slope):
            _fit(readings, draft, setting)
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
    try:
        _find_rests(readings, draft)
    except TooFewReadings as problem:
        draft.reasons.append(str(problem))
    else:
        _find_line(draft, setting)
    return draft


def _find_rests(readings: Readings, draft: _Draft) -> None:
    """Extrapolate the rests before and after the pulse, and the drift of the charge."""
    pulse, (before, _, after) = draft.pulse, draft.parts
    draft.drift_A = _mean_current(before, _tail(before))
    slope_V_C = (after.volts[-1] - before.volts[-1]) / (after.charge_C[-1] - before.charge_C[-1])
    for _ in range(2):
        draft.rests = (
            relaxed(readings, pulse.rest_s, pulse.begin_s, slope_V_C),
            relaxed(readings, pulse.end_s, pulse.rest_end_s, slope_V_C),
        )
        slope_V_C = draft.slope_V_C


def _tail(part: Bins) -> NDArray[np.bool_]:
    return np.asarray(part.t_s >= part.t_s[-1] - TAIL * (part.t_s[-1] - part.t_s[0]))


def _mean_current(part: Bins, rows: NDArray[np.bool_]) -> float:
    t_s, charge_C = part.t_s[rows], part.charge_C[rows]
    if len(t_s) < 2:
        raise TooFewReadings("the end of a rest has too few readings")
    return float((charge_C[-1] - charge_C[0]) / (t_s[-1] - t_s[0]))


def _find_line(draft: _Draft, setting: Setting) -> None:
    """Regress the voltage on the root of time, after what settles has settled."""
    on, begin_s = draft.parts[1], draft.pulse.begin_s
    settled_s = setting.settling_s
    for _ in range(4):
        rows = on.t_s >= begin_s + settled_s
        if settled_s > LATEST_WINDOW * draft.duration_s or rows.sum() < MIN_POINTS:
            draft.line = UNKNOWN_LINE
            draft.reasons.append(
                f"range and stray capacitance settle within {settled_s:.3g} s, "
                f"too much of a pulse of {draft.duration_s:.3g} s"
            )
            return
        draft.current_A = _mean_current(on, rows) - draft.drift_A
        draft.from_s, draft.line = settled_s, _line(draft, rows, setting)
        # The intercept is corrected for the current that the stray capacitance still takes.
        roots = math.sqrt(settled_s) + math.sqrt(draft.duration_s)
        draft.steady_A = draft.current_A + setting.stray_F * draft.line.slope / roots
        settled_s = max(setting.settling_s, _charging_s(draft, setting.stray_F))


def _charging_s(draft: _Draft, stray_F: float) -> float:
    """Return when the stray capacitance has taken its charge, as far as it matters.

    What is left of the ohmic step, ``exp(-t / R C)`` of it, must be small beside what
    diffusion adds to the voltage.
    """
    ohmic_V, ohm = abs(_ohm(draft) * draft.current_A), abs(_ohm(draft))
    diffusive_V = abs(draft.line.slope) * math.sqrt(draft.duration_s)
    left = LEFT_OF_STEP * diffusive_V / max(ohmic_V, 1e-30)
    return max(SETTLED_RC, -math.log(max(left, 1e-30))) * ohm * stray_F


def _line(draft: _Draft, rows: NDArray[np.bool_], setting: Setting) -> RootLine:
    before, on, _ = draft.parts
    begin_s = draft.pulse.begin_s
    # The current flows between the middles of groups; the last rest ends where it begins.
    start_C = before.charge_C[-1] + draft.drift_A * (begin_s - before.t_s[-1])
    edges_s = np.concatenate([[begin_s], on.t_s])
    charge_C = np.concatenate([[start_C], on.charge_C])
    share = (np.diff(charge_C) / np.diff(edges_s) - draft.drift_A) / draft.current_A
    at_s = on.t_s[rows]
    drift_V = draft.slope_V_C * draft.drift_A * (at_s - begin_s)
    volts, sigma_V = on.volts[rows] - drift_V, on.sigma_V[rows]
    lag_V = _lag_V(draft, at_s, setting.stray_F)
    root, end = root_time(at_s, edges_s, share), math.sqrt(draft.duration_s)
    line = root_line(root, volts + SHARE_ON[0] * lag_V, sigma_V, SHARE_ON[1] * lag_V, end=end)
    plain = root_line(root, volts, sigma_V, 0.0 * lag_V, end=end)
    slope, change = (
        LAG_DOUBT * (getattr(line, name) - getattr(plain, name)) for name in ("slope", "change")
    )
    return replace(
        line,
        slope_sigma=math.hypot(line.slope_sigma, slope),
        change_sigma=math.hypot(line.change_sigma, change),
    )


def _lag_V(draft: _Draft, at_s: NDArray[np.float64], stray_F: float) -> NDArray[np.float64]:
    """Return by how much the ohmic drop is less because of ``C dV/dt``; 0 at first."""
    if not math.isfinite(draft.line.slope):
        return np.zeros(len(at_s))
    rate_V_s = np.zeros(len(at_s))
    for sign, switch_s in ((1.0, draft.pulse.begin_s), (-1.0, draft.pulse.end_s)):
        after_s = at_s - switch_s
        later = after_s > 0
        rate_V_s[later] += sign * draft.line.slope / (2.0 * np.sqrt(after_s[later]))
    return np.asarray(_ohm(draft) * stray_F * rate_V_s)


def _ohm(draft: _Draft) -> float:
    """Return the resistance from the intercept."""
    return (draft.line.base_V - draft.rests[0].volts_at_end) / draft.steady_A


# --- the whole transient -----------------------------------------------------------------------


def _fit(readings: Readings, draft: _Draft, setting: Setting) -> None:
    across_s = math.pi / 4 * (draft.line.slope / (draft.slope_V_C * draft.current_A)) ** 2
    before, on, after = draft.parts
    begin_s, end_s = draft.pulse.begin_s, draft.pulse.end_s
    edges = history(readings, (begin_s, end_s), draft.parts)
    # Of the rest before its end matters. At rest the charge transfer is slower than under
    # a current, and so is what the stray capacitance does.
    rows = (
        before.t_s >= max(begin_s - draft.duration_s, draft.pulse.rest_s + 2.0 * draft.from_s),
        on.t_s >= begin_s + draft.from_s,
        after.t_s >= end_s + 2.0 * draft.from_s,
    )
    try:
        after_A = _mean_current(after, _tail(after))
    except TooFewReadings as problem:
        draft.reasons.append(f"the whole transient cannot be fitted: {problem}")
        return
    levels_A = (draft.drift_A, draft.drift_A + draft.current_A, after_A)
    at_s, volts, sigma_V = (
        np.concatenate([getattr(p, name)[r] for p, r in zip(draft.parts, rows, strict=True)])
        for name in ("t_s", "volts", "sigma_V")
    )
    lag_V = _lag_V(draft, at_s, setting.stray_F)
    flows = (at_s > begin_s) & (at_s <= end_s)
    lag_on_V, lag_off_V = np.where(flows, lag_V, 0.0), np.where(flows, 0.0, lag_V)
    drift_V = draft.slope_V_C * setting.offset_sigma_A * (at_s - at_s[0])
    try:
        draft.fit = fit_slab(
            at_s,
            volts + SHARE_ON[0] * lag_on_V + SHARE_OFF[0] * lag_off_V,
            sigma_V,
            np.concatenate([np.full(int(r.sum()), a) for r, a in zip(rows, levels_A, strict=True)]),
            edges,
            np.stack([SHARE_ON[1] * lag_on_V, SHARE_OFF[1] * lag_off_V, drift_V], axis=1),
            guess_s=across_s,
        )
    except CannotFit as problem:
        draft.reasons.append(f"the whole transient cannot be fitted: {problem}")


# --- the guard -----------------------------------------------------------------------------------


def _finished(drafts: Sequence[_Draft], index: int, setting: Setting) -> Titration:
    draft = drafts[index]
    begin_s, line, rests = draft.pulse.begin_s, draft.line, draft.rests
    if not math.isfinite(line.slope):
        return Titration(begin_s=begin_s, duration_s=draft.duration_s, reasons=tuple(draft.reasons))
    early_s = max(draft.from_s, EARLY * draft.duration_s)
    thickness = 2 * setting.thickness_sigma_m / setting.thickness_m
    square_m2 = setting.thickness_m**2
    moved_V = draft.slope_V_C * draft.current_A
    value = 4 / math.pi * square_m2 * (moved_V / line.slope) ** 2
    lasted_s = rests[1].t_s - rests[0].t_s
    shares = (
        line.slope_sigma / line.slope,
        draft.step_sigma_V / draft.step_V,
        setting.offset_sigma_A * lasted_s / draft.charge_C,
        draft.pulse.clock_sigma_s / (2 * math.sqrt(early_s * draft.duration_s)),
    )
    sigma = value * math.hypot(*(2 * s for s in shares), thickness)
    fit_m2_s = fit_sigma = math.nan
    if (fit := draft.fit) is not None:
        fit_m2_s = square_m2 / fit.across_s
        clock = draft.pulse.clock_sigma_s / math.sqrt(early_s * draft.duration_s)
        fit_sigma = fit_m2_s * math.hypot(fit.across_sigma_s / fit.across_s, thickness, clock)
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
        ohm=_ohm(draft),
        ohm_sigma=_ohm_sigma(draft, setting, early_s),
        diffusivity_m2_s=value,
        diffusivity_sigma_m2_s=sigma,
        fit_m2_s=fit_m2_s,
        fit_sigma_m2_s=fit_sigma,
        fit_scatter=math.nan if fit is None else fit.scatter,
    )
    reasons = objections(found, line.change, line.change_sigma, _bias(drafts, index), square_m2)
    return replace(found, reasons=(*draft.reasons, *reasons))


def _ohm_sigma(draft: _Draft, setting: Setting, early_s: float) -> float:
    lag_V = _lag_V(draft, np.array([draft.pulse.begin_s + early_s]), setting.stray_F)
    parts_V = (draft.line.base_sigma_V, draft.rests[0].sigma_V, SHARE_ON[1] * float(lag_V[0]))
    return math.hypot(math.hypot(*parts_V) / draft.steady_A, _ohm(draft) * setting.gain_sigma)


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
    if len(near) < 2:
        return 0.0, 0.0
    first, last = near[0], near[-1]
    own = draft.slope_V_C * (len(near) - 1)
    swing = draft.line.slope * math.sqrt(draft.duration_s) / draft.step_V
    sigma = math.hypot(*(d.step_sigma_V / d.charge_C for d in (first, last)))
    return (last.slope_V_C - first.slope_V_C) / own * swing, abs(sigma / own * swing)
