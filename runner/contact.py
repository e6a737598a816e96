"""The contact test, played before a plan: nothing is driven where there is no cell."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from potentiostat.contact import (
    Contact,
    ContactVerdict,
    judge_contact,
    probe_current_A,
    probe_step,
    rest_step,
)
from potentiostat.limits import Envelope
from potentiostat.records import Status
from potentiostat.technique import Step
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.experiment import Experiment
from runner.format import in_unit, with_sigma
from runner.lab import Lab
from runner.messages import (
    Block,
    EndKind,
    Finished,
    GuardianSettings,
    StartStep,
    StepEnded,
    Tripped,
)

VOLTAGE_SHARE = 0.25  # of a reading, until the middle of the window of its voltage


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRecord:
    """A verdict with its raw readings."""

    verdict: ContactVerdict
    current_A: float
    columns: Mapping[str, NDArray[np.generic]]

    @property
    def is_cell(self) -> bool:
        """True where a plan may begin."""
        return self.verdict.contact is Contact.CELL

    def attributes(self) -> dict[str, str | float]:
        """Return verdict and evidence by name."""
        found: dict[str, str | float] = asdict(self.verdict)
        return found | {
            "contact": self.verdict.contact.value,
            "current_A": self.current_A,
        }


def probing_envelope(envelope: Envelope) -> Envelope:
    """Return the limits of a test: what rests below the window is a finding, no danger.

    The clamp stays where it is, on both sides.
    """
    return replace(envelope, voltage_min_V=-envelope.voltage_max_V)


async def find_contact(
    experiment: Experiment, lab: Lab, settings: GuardianSettings
) -> ContactRecord:
    """Play the test on whatever is in the holder, and leave it at 0 A.

    Raises
    ------
    InstrumentUnavailable
        The instrument failed on the way, or its readings tell nothing.
    """
    probing = replace(settings, envelope=probing_envelope(settings.envelope), stop_on_short=False)
    async with GuardedCell(probing) as cell:
        ranges = cell.get_connected().ranges
        range_A = experiment.range_A(ranges)
        spec = next(r for r in ranges if r.full_scale_A == range_A)
        current_A = probe_current_A(spec)
        if experiment.contact is not None and experiment.contact.current_A is not None:
            current_A = experiment.contact.current_A
        play = _Player(cell, lab, range_A)
        went = await play.step(rest_step())
        if went:
            rest_V = float(np.nanmean(play.samples()["voltage_V"]))
            await play.step(probe_step(current_A, rest_V, settings.envelope))
        cell.reason = "the contact is tested"
    samples = play.samples()
    good = (samples["status"] & (Status.INVALID | Status.OVERFLOW)) == 0
    try:
        verdict = judge_contact(
            voltage_times_s(samples[good]),
            samples["voltage_V"][good],
            samples["setpoint"][good],
            voltage_sigma_V=samples["voltage_sigma_V"][good],
            envelope=settings.envelope,
        )
    except ValueError as error:
        raise InstrumentUnavailable(f"the contact test tells nothing: {error}") from error
    names = ("read_start_ns", "read_end_ns", "device_time_s", "setpoint", "status")
    return ContactRecord(
        verdict=verdict,
        current_A=current_A,
        columns={name: samples[name] for name in names}
        | {"voltage": samples["voltage_V"], "current": samples["current_A"]},
    )


def voltage_times_s(samples: NDArray[np.void]) -> NDArray[np.float64]:
    """Return when the voltage of each reading was taken: before its current."""
    width_ns = samples["read_end_ns"] - samples["read_start_ns"]
    return np.asarray(
        (samples["read_start_ns"] - samples["read_start_ns"][0] + VOLTAGE_SHARE * width_ns) / 1e9
    )


class _Player:
    """Plays steps on a guarded cell and keeps their readings."""

    def __init__(self, cell: GuardedCell, lab: Lab, range_A: float) -> None:
        self._cell = cell
        self._lab = lab
        self._range_A = range_A
        self._index = -1
        self._blocks: list[NDArray[np.void]] = []

    def samples(self) -> NDArray[np.void]:
        """All readings so far."""
        return np.concatenate(self._blocks)

    async def step(self, step: Step) -> bool:
        """Play a step to its end; False where a limit cut it short."""
        self._index += 1
        self._cell.start(StartStep(index=self._index, step=step, range_A=self._range_A))
        if self._index == 0:
            self._cell.renew(0)
        while True:
            match await self._cell.receive():
                case Block() as block:
                    if block.step == self._index or not self._blocks:
                        self._blocks.append(block.samples)
                    await self._lab.clock.settle()
                    self._cell.renew(block.sequence)
                case StepEnded(kind=EndKind.CONDITION):
                    return True
                case Tripped(kind=EndKind.LIMIT):
                    return False
                case Tripped(reason=reason) | Finished(reason=reason):
                    raise InstrumentUnavailable(f"the contact test was cut short: {reason}")


def render_contact(record: ContactRecord) -> Table:
    """Return the verdict for a terminal."""
    found = record.verdict
    table = Table(title=f"contact: {found.contact.value}", title_justify="left", show_header=False)
    table.add_row("because", found.reason)
    table.add_row("confidence", f"{100 * found.confidence:.4g} %")
    table.add_row("tested with", f"± {in_unit(record.current_A, 'A')}")
    table.add_row("rest voltage", with_sigma(found.rest_V, found.rest_sigma_V, "V"))
    table.add_row(
        "resistance",
        f"{in_unit(found.ohm, 'ohm', 3)} ({in_unit(found.ohm_low, 'ohm', 3)} to "
        f"{in_unit(found.ohm_high, 'ohm', 3)}, 95 %)",
    )
    table.add_row("capacitance", in_unit(found.capacitance_F, "F", 3))
    return table
