"""Titrations of a slab in closed form, for tests of what finds the diffusivity."""

import numpy as np

from correlate.titration import Pulse
from correlate.titration_bins import Readings
from mocks.cell import FARADAY_C_MOL
from mocks.film import solid_solution_V

THICKNESS_M = 500e-9
ALL_C = FARADAY_C_MOL * 51_218.0 * 10e-12 * THICKNESS_M  # in a film of 10 um2
PER_HOUR_A = ALL_C / 2 / 3600  # 1C: half of the lithium in an hour
BEGIN_REMOVED = 0.25  # x = 0.75


def series(x, terms=2000):
    """Surface of a slab after a constant flux, as the sum of cosines."""
    k = np.arange(1, terms + 1)[:, None]
    x = np.maximum(np.atleast_1d(x), 0.0)
    total = x + 1 / 3 - 2 / np.pi**2 * np.sum(np.exp(-((k * np.pi) ** 2) * x) / k**2, axis=0)
    return np.where(x > 0, total, 0.0)


def short(x):
    """The same for x up to 0.1, where the far side feels nothing: free of the sum's error."""
    return 2 * np.sqrt(np.maximum(x, 0) / np.pi)


def response(x):
    return np.where(x < 0.05, short(x), series(np.maximum(x, 0.05), terms=20))


def titration(
    level_A,
    share,
    *,
    diffusivity=1e-16,
    rest=3.0,
    pulses=1,
    start=BEGIN_REMOVED,
    straight_V=None,
    ohm=5e9,
    noise_V=0.0,
    seed=0,
    points=400,
):
    """Return readings and pulses of a titration that begins at equilibrium.

    ``share`` and ``rest`` are durations of pulse and rest over L**2 / D.
    """
    across_s = THICKNESS_M**2 / diffusivity
    tau_s, rest_s = share * across_s, rest * across_s
    begins = rest_s + np.arange(pulses) * (tau_s + rest_s)
    ends = begins + tau_s
    fine_s = tau_s / points
    grids = [np.arange(0, ends[-1] + rest_s, 10 * fine_s)]
    grids += [np.arange(b - tau_s, b + 3 * tau_s, fine_s) for b in begins]
    t_s = np.unique(np.concatenate(grids))
    current_A, surface_C, charge_C = np.zeros((3, len(t_s)))
    for begin, end in zip(begins, ends, strict=True):
        current_A += level_A * ((t_s > begin) & (t_s <= end))
        surface_C += level_A * across_s * response((t_s - begin) / across_s)
        surface_C -= level_A * across_s * response((t_s - end) / across_s)
        charge_C += level_A * (np.maximum(t_s - begin, 0) - np.maximum(t_s - end, 0))
    removed = start + surface_C / ALL_C
    if straight_V is None:
        volts = np.array([solid_solution_V(f)[0] for f in removed])
    else:
        volts = 3.9 + straight_V * removed
    rng = np.random.default_rng(seed)
    volts += ohm * current_A + noise_V * rng.standard_normal(len(t_s))
    sigma_V = np.full(len(t_s), noise_V)
    readings = Readings(t_s=t_s, volts=volts, sigma_V=sigma_V, charge_C=charge_C)
    rests = [0.0, *ends[:-1]]
    spans = zip(rests, begins, ends, strict=True)
    return readings, tuple(
        Pulse(rest_s=float(r), begin_s=float(b), end_s=float(e), rest_end_s=float(e + rest_s))
        for r, b, e in spans
    )
