"""What the titrations of a session found, in few words."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from runner.format import in_unit, scientific
from runner.titrations import PREFIX
from session.reader import Session

POOR_SCATTER = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PulseSummary:
    """One pulse: the diffusivity by the formula and by the fit, and what speaks against it.

    Parameters
    ----------
    valid
        Whether the formula's value may be believed.
    reasons
        Why not; empty when it may.
    fit_scatter
        About the fit, over the noise: far above 1 the fit is no better than the formula.
    """

    duration_s: float
    current_A: float
    diffusivity_m2_s: float
    diffusivity_sigma_m2_s: float
    fit_m2_s: float
    fit_sigma_m2_s: float
    fit_scatter: float
    valid: bool
    reasons: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TitrationSummary:
    """The pulses of one step."""

    step: int
    pulses: tuple[PulseSummary, ...]


def titration_summaries(session: Session, steps: Iterable[int]) -> tuple[TitrationSummary, ...]:
    """Return what the session's tables hold for some steps."""
    found = []
    for step in steps:
        path = f"correlation/{PREFIX}{step + 1}"
        if not session.has(path):
            continue
        table = session.table(path)
        pulses = tuple(
            PulseSummary(
                duration_s=float(table["duration"][i]),
                current_A=float(table["current"][i]),
                diffusivity_m2_s=float(table["diffusivity"][i]),
                diffusivity_sigma_m2_s=float(table["diffusivity_sigma"][i]),
                fit_m2_s=float(table["diffusivity_fit"][i]),
                fit_sigma_m2_s=float(table["diffusivity_fit_sigma"][i]),
                fit_scatter=float(table["fit_scatter"][i]),
                valid=bool(table["valid"][i]),
                reasons=str(text),
            )
            for i, text in enumerate(table["reasons"])
        )
        found.append(TitrationSummary(step=step, pulses=pulses))
    return tuple(found)


def titration_table(found: TitrationSummary) -> Table:
    """Return the pulses for a terminal."""
    table = Table(title=f"diffusivity, step {found.step + 1}", title_justify="left")
    for name in ("pulse", "current", "by the formula, m2/s", "by the fit, m2/s", "to be believed"):
        table.add_column(name)
    for number, pulse in enumerate(found.pulses, 1):
        table.add_row(
            f"{number}, {pulse.duration_s:.3g} s",
            in_unit(pulse.current_A, "A"),
            scientific(pulse.diffusivity_m2_s, pulse.diffusivity_sigma_m2_s),
            scientific(pulse.fit_m2_s, pulse.fit_sigma_m2_s)
            + (", a poor fit" if pulse.fit_scatter > POOR_SCATTER else ""),
            "yes" if pulse.valid else f"no: {pulse.reasons}",
        )
    return table
