"""A run that goes on where one that died had stopped: what it begins with, and whether it may."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rich.table import Table

from potentiostat.records import Identity
from potentiostat.registry import potentiostat_class
from runner.analysis import ledger_end
from runner.config import MOCK
from runner.experiment import Experiment
from runner.format import held_text, in_unit, with_sigma
from runner.holder_record import HolderRecord, load_holder
from runner.messages import Carried, Passed
from runner.plan import Plan
from runner.position import CannotContinue, Position, find_position, told_in_full
from runner.session_ledger import accuracy_of
from session.provenance import hash_file
from session.reader import Session
from session.records import AttributeValue
from session.session_link import SessionLink

Measured = tuple[float, float]
"""A value and its 1 sigma; NaN where not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The rest between two runs, which nobody read.

    Parameters
    ----------
    seconds
        From the last reading to the first new one, by the time of day; NaN where that clock
        was set back.
    leak_C
        What the holder took from the cell, with 1 sigma.
    """

    seconds: float
    leak_C: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """The run that died, as the one that goes on with it needs to know it.

    Parameters
    ----------
    link
        Which session it is.
    position
        Where it died.
    ionic_C
        Charge that had crossed the cell by its ledger, with 1 sigma.
    last_reading
        Time of day of the last reading.
    doubts
        What is not as it should be, and does not forbid to go on.
    """

    link: SessionLink
    position: Position
    ionic_C: Measured
    last_reading: datetime
    model: str
    serial: str
    window_V: tuple[float, float]
    offset_A: float
    holder: HolderRecord | None
    doubts: tuple[str, ...] = ()

    @property
    def carried(self) -> Carried:
        """What a guardian goes on from."""
        found = self.position
        return Carried(
            charge_C=found.charge_C, charge_ionic_C=found.charge_ionic_C, levels=found.levels
        )

    def refuse_other_instrument(self, found: Identity) -> None:
        """Raise CannotContinue where another instrument holds the cell."""
        if (found.model, found.serial) != (self.model, self.serial):
            raise CannotContinue(
                f"{self.link.path} was measured with {self.model} {self.serial}, and here is "
                f"{found.model} {found.serial}: charge of two instruments is not one count. "
                "Connect that one, or run an experiment of what is left"
            )

    def unfit_voltage(self, voltage_V: float) -> str | None:
        """Say why the cell at rest cannot be the one that was left; None where it may be."""
        low_V, high_V = self.window_V
        low_V, high_V = min(low_V, self.position.span_V[0]), max(high_V, self.position.span_V[1])
        if low_V <= voltage_V <= high_V:
            return None
        return (
            f"the cell rests at {voltage_V:.4f} V, outside {low_V:.4g} to {high_V:.4g} V, its "
            f"window and what {self.link.path} has seen: it is not the cell that was left"
        )

    def gap(self, now: datetime, voltage_V: float) -> Gap:
        """Return what is known of the time since the last reading.

        Parameters
        ----------
        voltage_V
            Of the cell at rest now.

        Notes
        -----
        The holder's conductance takes its current at the mean of both voltages; how the cell
        relaxed between them is not known, nor what a source of 0 A gave within its data
        sheet: both are in the sigma.
        """
        seconds = (now - self.last_reading).total_seconds()
        if seconds < 0:
            return Gap(seconds=math.nan, leak_C=(math.nan, math.nan))
        if self.holder is None or not self.position.is_guarded:
            return Gap(seconds=seconds, leak_C=(math.nan, math.nan))
        known = self.holder.calibration
        mean_V = 0.5 * (voltage_V + self.position.voltage_V)
        spread_V = abs(voltage_V - self.position.voltage_V) / math.sqrt(12)
        sigma_A = math.hypot(
            known.conductance_sigma_S * mean_V,
            known.conductance_S * spread_V,
            self.offset_A / math.sqrt(3),
        )
        return Gap(
            seconds=seconds,
            leak_C=(known.conductance_S * mean_V * seconds, sigma_A * seconds),
        )

    def attributes(self, gap: Gap) -> dict[str, AttributeValue]:
        """Return what the new session says of the old one."""
        found, (leak_C, leak_sigma_C) = self.position, gap.leak_C
        ionic_C, ionic_sigma_C = self.ionic_C
        return self.link.attributes() | {
            "charge_C": found.charge_C,
            "charge_ionic_C": ionic_C + found.flow_C - leak_C,
            "charge_ionic_sigma_C": math.hypot(ionic_sigma_C, found.flow_sigma_C, leak_sigma_C),
            "counted_ionic_C": found.charge_ionic_C,
            "dose_e_m2": found.dose_e_m2,
            "gap_s": gap.seconds,
            "flow_C": found.flow_C,
            "flow_sigma_C": found.flow_sigma_C,
            "leak_C": leak_C,
            "leak_sigma_C": leak_sigma_C,
        }


def load_continuation(experiment: Experiment, path: Path) -> Continuation:
    """Read a session that died, and find out from where its experiment may go on.

    Raises
    ------
    CannotContinue
        It may not; the message says why.
    SessionRefused
        The file is no session.
    """
    holder = load_holder(experiment)
    with Session.open(path) as session, told_in_full(path):
        _refuse_other_experiment(session, experiment)
        ranges = potentiostat_class(experiment.potentiostat.driver).ranges
        terms = None if holder is None else holder.terms(experiment.range_A(ranges))
        position = find_position(session, experiment.steps, terms)
        told = session.attributes("instrument/potentiostat")
        since = timedelta(seconds=(position.last_ns - session.host_start_ns) / 1e9)
        return Continuation(
            link=SessionLink(path=str(path), sha256=hash_file(path), start_time=session.start_time),
            position=position,
            ionic_C=ledger_end(session),
            last_reading=_with_zone(session.start_time) + since,
            model=str(told["model"]),
            serial=str(told["serial"]),
            window_V=experiment.cell.window_V,
            offset_A=accuracy_of(session, session.sample_columns()).offset_A,
            holder=holder,
            doubts=tuple(_doubts(session, experiment, position)),
        )


def _with_zone(start_time: str) -> datetime:
    found = datetime.fromisoformat(start_time)
    return found if found.tzinfo is not None else found.astimezone()


def _refuse_other_experiment(session: Session, experiment: Experiment) -> None:
    if experiment.potentiostat.resource == MOCK:
        raise CannotContinue(
            f"the simulated cell of {session.path} went with its run; serve one that stays with "
            "`lamella mock potentiostat`, and name its resource in the experiment"
        )
    if session.experiment_text != experiment.text:
        raise CannotContinue(
            f"the experiment is not the one of {session.path}, whose text the session holds "
            "word for word: give that file, or run what is left as an experiment of its own"
        )


def _doubts(session: Session, experiment: Experiment, position: Position) -> list[str]:
    found = []
    calibration = experiment.potentiostat.calibration
    if calibration is not None and session.provenance.files.get("calibration") != hash_file(
        calibration
    ):
        found.append(f"{calibration} is not the calibration that {session.path} was begun with")
    if not position.is_guarded:
        found.append(
            "nobody says that the cell rested since: where the computer died, an instrument "
            "without a lease of its own has held its current on, and that charge is not known"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would go on with, for a person or a program.

    Parameters
    ----------
    step, segment
        From 0; the segment is that of `passed`.
    passed
        What of the step has passed; None where it would begin.
    charge_left_C, dose_left_e_m2
        To the limits; the second is NaN without one.
    last_reading
        ISO 8601.
    """

    session: str
    steps_done: int
    step: int
    name: str
    held: str
    segments: int
    until: tuple[str, ...]
    passed: Passed | None
    charge_C: float
    flow_C: float
    flow_sigma_C: float
    charge_left_C: float
    dose_left_e_m2: float
    voltage_V: float
    last_reading: str
    doubts: tuple[str, ...]


def preview(found: Continuation, experiment: Experiment) -> Preview:
    """Return what a run would go on with."""
    position = found.position
    plan = Plan(experiment.steps, range_A=math.nan)
    plan.take_up(position.ended)
    message = plan.next_step()
    if message is None:
        raise CannotContinue(f"{found.link.path} has played its whole plan")
    step, limit_e_m2 = message.step, experiment.dose_limit_e_m2
    return Preview(
        session=found.link.path,
        steps_done=len(position.ended),
        step=message.index,
        name=step.name,
        held=held_text(step),
        segments=len(step.segments),
        until=tuple(rule.text for rule in step.until),
        passed=position.passed,
        charge_C=position.charge_C,
        flow_C=position.flow_C,
        flow_sigma_C=position.flow_sigma_C,
        charge_left_C=experiment.envelope.charge_max_C - abs(position.charge_C),
        dose_left_e_m2=math.nan if limit_e_m2 is None else limit_e_m2 - position.dose_e_m2,
        voltage_V=position.voltage_V,
        last_reading=found.last_reading.isoformat(),
        doubts=found.doubts,
    )


def render_preview(seen: Preview) -> Table:
    """Return a preview for a terminal."""
    table = Table(title=f"goes on from {seen.session}", title_justify="left", show_header=False)
    table.add_row("steps done", f"{seen.steps_done}, not repeated")
    where = f"step {seen.step + 1}, {seen.name} at {seen.held}"
    if (passed := seen.passed) is None:
        table.add_row("next", f"{where}, from its beginning")
    else:
        table.add_row("goes on with", where)
        table.add_row("segment", f"{passed.segment + 1} of {seen.segments}")
        table.add_row("passed of it", f"{passed.elapsed_s:.4g} s, {in_unit(passed.charge_C, 'C')}")
    for rule in seen.until:
        table.add_row("until", rule)
    flow = with_sigma(seen.flow_C, seen.flow_sigma_C, "C")
    table.add_row("charge so far", f"{in_unit(seen.charge_C, 'C')}, {flow} of it unread")
    table.add_row("left to the limit", in_unit(seen.charge_left_C, "C"))
    if math.isfinite(seen.dose_left_e_m2):
        table.add_row("dose left", f"{seen.dose_left_e_m2 / 1e20:.4g} e/angstrom^2")
    table.add_row("last reading", f"{seen.voltage_V:.4f} V, {seen.last_reading}")
    for doubt in seen.doubts:
        table.add_row("[yellow]doubt", doubt)
    return table
