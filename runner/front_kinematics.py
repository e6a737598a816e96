"""How the front goes with the charge: step by step, and against Faraday's law."""

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from correlate.faraday import faraday_balance
from correlate.kinematics import mean_velocity
from correlate.ledger import Accuracy, Holder, Ledger
from runner.recorded_plan import experiment_of
from runner.session_ledger import ledger_of, widen
from runner.volumes import Balance
from session.reader import Session

FARADAY_UNITS = {"charge": "C", "position": "m", "position_sigma": "m"}
SETTLING_S = 2.0  # left out at the start of a step when its front speed is taken


def step_kinematics(
    columns: Mapping[str, NDArray[np.generic]],
    accuracy: Accuracy,
    holder: Holder | None,
    track: Mapping[str, NDArray[np.generic]] | None,
    doubts: tuple[float, NDArray[np.float64]],
) -> dict[str, list[float]]:
    """Return charge by term and front speed of every step, one value each by name.

    Parameters
    ----------
    track
        Of the front; None where it was not tracked: then the speeds are NaN.
    doubts
        The change of the stray capacitance, F, and what soft shorts took, C, at each reading.
    """
    changed_F, short_C = doubts
    table: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        table.setdefault(name, []).append(value)

    whole = ledger_of(columns, accuracy, holder, slice(None))
    numbers = np.asarray(columns["step"])
    for step in sorted({int(s) for s in numbers if s >= 0}):
        rows = np.flatnonzero(numbers == step)
        if len(rows) < 2:
            continue
        # From the reading before, so that the first interval is counted too.
        rows = np.arange(max(rows[0] - 1, 0), rows[-1] + 1)
        part = ledger_of(columns, accuracy, holder, rows, changed_F)
        widen(part.columns["ionic_sigma"], short_C[rows] - short_C[rows[0]])
        add("step", step)
        add("t_start_ns", float(part.t_ns[0]))
        add("t_end_ns", float(part.t_ns[-1]))
        for term in ("instrument", "capacitive", "leak", "beam"):
            add(term, float(part.columns[term][-1]))
            add(f"{term}_sigma", float(part.columns[f"{term}_sigma"][-1]))
        # The slow branch remembers the steps before.
        slow = whole.columns["dielectric"][rows[[0, -1]]]
        add("dielectric", float(slow[1] - slow[0]))
        add("dielectric_sigma", float(part.columns["dielectric_sigma"][-1]))
        shift = float(slow[1] - slow[0]) - float(part.columns["dielectric"][-1])
        add("ionic", float(part.columns["ionic"][-1]) - shift)
        add("ionic_sigma", float(part.columns["ionic_sigma"][-1]))
        velocity, sigma = (math.nan, math.nan)
        if track is not None:
            velocity, sigma = mean_velocity(
                np.asarray(track["t_ns"]),
                np.asarray(track["position"]),
                np.asarray(track["position_sigma"]),
                from_ns=int(part.t_ns[0]) + int(SETTLING_S * 1e9),
                to_ns=int(part.t_ns[-1]),
            )
        add("velocity", velocity)
        add("velocity_sigma", sigma)
    return table


def front_balance(
    session: Session,
    ledger: Ledger,
    accuracy: Accuracy,
    track: Mapping[str, NDArray[np.generic]],
) -> Balance | None:
    """Return front displacement per ionic charge, beside what the geometry expects, or None."""
    experiment = experiment_of(session)
    ionic = ledger.columns["ionic"]
    if experiment is None or not np.all(np.isfinite(ionic)):
        return None
    t_ns = np.asarray(track["t_ns"])
    origin = int(ledger.t_ns[0])
    at_frame = np.interp((t_ns - origin).astype(float), (ledger.t_ns - origin).astype(float), ionic)
    largest = int(np.argmax(np.abs(ionic)))
    scale = ledger.columns["ionic_sigma"][largest] / max(abs(ionic[largest]), 1e-30)
    position, sigma = np.asarray(track["position"]), np.asarray(track["position_sigma"])
    try:
        balance = faraday_balance(
            at_frame,
            position,
            sigma,
            charge_scale_sigma=float(scale),
            expected_m_C=1.0 / experiment.cell.charge_per_m_C,
            depth_scale_sigma=experiment.cell.depth_sigma_m / experiment.cell.depth_m,
        )
    except ValueError:
        return None
    used = np.isfinite(at_frame) & np.isfinite(position) & (sigma > 0)
    points = {"charge": at_frame, "position": position, "position_sigma": sigma}
    return (
        {name: column[used] for name, column in points.items()},
        {name: float(value) for name, value in asdict(balance).items()},
    )
