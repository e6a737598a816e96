"""How warm it was, as a summary and a report say it."""

import math
from dataclasses import dataclass

import numpy as np

from session.reader import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureSummary:
    """What the thermometer of a run said.

    Parameters
    ----------
    lowest_K, highest_K, sigma_K
        Of the answers that can be believed; NaN where there was none.
    answers, unknown
        How many there were, and how many of them told no temperature.
    """

    lowest_K: float
    highest_K: float
    sigma_K: float
    answers: int
    unknown: int


def temperature_summary(session: Session) -> TemperatureSummary | None:
    """Return what the thermometer said; None where none was wired."""
    if not session.has("temperature"):
        return None
    table = session.table("temperature")
    known = np.isfinite(table["temperature"])
    values_K, sigmas_K = table["temperature"][known], table["temperature_sigma"][known]
    some = len(values_K) > 0
    return TemperatureSummary(
        lowest_K=float(values_K.min()) if some else math.nan,
        highest_K=float(values_K.max()) if some else math.nan,
        sigma_K=float(sigmas_K.max()) if some else math.nan,
        answers=len(known),
        unknown=int(np.sum(~known)),
    )


def temperature_text(summary: TemperatureSummary) -> str:
    """Return it as people read it."""
    missing = f"; unknown in {summary.unknown} of {summary.answers} answers"
    if summary.unknown == summary.answers:
        return f"unknown in all of {summary.answers} answers"
    return (
        f"{summary.lowest_K:.1f} to {summary.highest_K:.1f} K, "
        f"± {summary.sigma_K:.1f} K (1 sigma, common to all)"
    ) + (missing if summary.unknown else "")
