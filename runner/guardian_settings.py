"""What a guardian is told of an experiment, in a lab."""

from potentiostat.protocol import NO_LINES
from potentiostat.registry import potentiostat_class
from runner.experiment import Experiment
from runner.holder_record import HolderRecord
from runner.lab import Lab
from runner.messages import LEASE_S, GuardianSettings, HolderTerms

VIRTUAL_LEASE_S = 30.0  # real seconds; in virtual time a busy machine is no danger


def guardian_settings(
    experiment: Experiment,
    lab: Lab,
    *,
    cell_attached: bool = True,
    holder: HolderTerms | None = None,
) -> GuardianSettings:
    """Return what a guardian needs for an experiment in a lab.

    An open holder is read one by one, and for itself: nobody films it.
    """
    potentiostat = experiment.potentiostat
    return GuardianSettings(
        driver=potentiostat.driver,
        resource=lab.potentiostat_resource,
        clock=lab.clock.spec,
        envelope=experiment.envelope,
        cell_attached=cell_attached,
        nplc=potentiostat.nplc,
        line_frequency_Hz=potentiostat.line_frequency_Hz,
        holder=holder,
        stop_on_short=experiment.stop_on_short and cell_attached,
        asks_temperature=potentiostat.thermocouple and cell_attached,
        lease_s=VIRTUAL_LEASE_S if lab.clock.spec.lockstep else LEASE_S,
        block=potentiostat.block if cell_attached else 1,
        lines=potentiostat.lines if cell_attached else NO_LINES,
    )


def holder_terms(experiment: Experiment, holder: HolderRecord | None) -> HolderTerms | None:
    """Return what the holder draws in the current range of the run."""
    if holder is None:
        return None
    ranges = potentiostat_class(experiment.potentiostat.driver).ranges
    return holder.terms(experiment.range_A(ranges))
