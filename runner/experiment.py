"""An experiment on one page: what a run is asked to do, in SI units, checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from potentiostat.limits import Envelope
from potentiostat.records import RangeSpec
from potentiostat.technique import CLAMP_RATIO, Step
from runner.blanking_settings import BlankingSettings, blanking_settings, check_blanking
from runner.bus_settings import BusSettings, bus_settings, check_bus
from runner.config import ExperimentTable
from runner.config_reading import read_tables
from runner.image_checks import check_image_rules
from runner.image_rules import ImageRule
from runner.instrument_settings import (
    CameraSettings,
    MicroscopeSettings,
    MockSettings,
    PotentiostatSettings,
    camera_settings,
    check_instruments,
    microscope_settings,
    mock_settings,
    potentiostat_settings,
)
from runner.keep_checks import check_keep_rules
from runner.keep_rules import Keep
from runner.limit_settings import check_limits, read_envelope
from runner.plan import choose_range, longest_s
from runner.problems import ExperimentError, Key, Problem, find_line, spelled
from runner.record_settings import RecordSettings, check_record, record_settings
from runner.specimen import Cell, check_cell, read_cell
from runner.step_checks import check_steps
from runner.steps import build_steps, image_rules, keeps
from runner.track_options import TrackSettings, check_tracks, read_options

__all__ = ["Experiment", "ExperimentError"]

MAX_FILE_BYTES = 1_000_000
QUICK_S = 0.5  # settling of a range


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSettings:
    """A contact test before the plan; its current is chosen by the range where None."""

    current_A: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What a run is asked to do. Load one with `load` or `loads`."""

    title: str
    text: str
    cell: Cell
    potentiostat: PotentiostatSettings
    camera: CameraSettings | None
    mock: MockSettings
    envelope: Envelope
    dose_limit_e_m2: float | None
    tracks: tuple[TrackSettings, ...]
    steps: tuple[Step, ...]
    bus: BusSettings | None
    contact: ContactSettings | None = None
    stop_on_short: bool = False
    microscope: MicroscopeSettings | None = None
    blanking: BlankingSettings | None = None
    record: RecordSettings = field(default_factory=RecordSettings)
    image_rules: tuple[tuple[ImageRule, ...], ...] = ()
    keeps: tuple[Keep, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an experiment file.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        file = Path(path)
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise ExperimentError(str(file), [_no_key("is too large to be an experiment file")])
            text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise ExperimentError(
                str(file), [_no_key(f"cannot be read: {error.strerror}")]
            ) from error
        except UnicodeDecodeError as error:
            raise ExperimentError(
                str(file), [_no_key("is not UTF-8 text; save it as UTF-8")]
            ) from error
        return cls.loads(text, name=str(file), folder=file.parent)

    @classmethod
    def loads(cls, text: str, *, name: str = "experiment", folder: Path | None = None) -> Self:
        """Read the text of an experiment file.

        Parameters
        ----------
        name
            For messages.
        folder
            What relative paths in it start from; the working folder where None.

        Raises
        ------
        ExperimentError
            All that is wrong with it, each with its line.
        """
        # A stored text may have Windows' line ends; the stored one stays as it is.
        tables = read_tables(text.replace("\r\n", "\n"), name)
        cell = read_cell(tables)
        problems = [
            Problem(key=spelled(key), line=find_line(text, key), what=what)
            for key, what in _cross_checks(tables, cell)
        ]
        if problems:
            raise ExperimentError(name, problems)
        return cls._build(tables, cell, text, folder or Path())

    @classmethod
    def _build(cls, tables: ExperimentTable, cell: Cell, text: str, folder: Path) -> Self:
        return cls(
            title=tables.title,
            text=text,
            cell=cell,
            potentiostat=potentiostat_settings(tables, folder),
            camera=camera_settings(tables, folder),
            mock=mock_settings(tables),
            envelope=read_envelope(tables),
            dose_limit_e_m2=tables.limits.dose,
            tracks=tuple(
                TrackSettings(
                    name=t.name,
                    tracker=t.tracker,
                    options=read_options(t.tracker, t.model_extra or {}).values,
                )
                for t in tables.track
            ),
            steps=build_steps(tables.step, cell.terms, tables.limits),
            bus=bus_settings(tables, folder),
            stop_on_short=tables.limits.short == "stop",
            contact=None
            if tables.contact is None
            else ContactSettings(current_A=tables.contact.current),
            microscope=microscope_settings(tables),
            blanking=blanking_settings(tables),
            record=record_settings(tables),
            image_rules=image_rules(tables.step),
            keeps=keeps(tables.step, cell.terms),
        )

    @property
    def longest_s(self) -> float:
        """Longest possible duration of the plan, with all of its jumps back."""
        return longest_s(self.steps)

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of any step's current; the limit where the plan does not tell."""
        largest_A = max(step.largest_current_A for step in self.steps)
        if any(step.has_open_current for step in self.steps):
            return max(largest_A, CLAMP_RATIO * self.envelope.current_max_A)
        return largest_A

    def range_A(self, ranges: Sequence[RangeSpec]) -> float:
        """Return the one current range of the run: the smallest that holds every step.

        A plan that only rests has the smallest range that is quick: those below it need
        minutes to charge a holder, and tell nothing more of an open circuit.

        Raises
        ------
        ValueError
            The instrument has none, or not the one that the experiment names.
        """
        named_A = self.potentiostat.range_A
        if named_A is not None:
            known = [r.full_scale_A for r in ranges if math.isclose(r.full_scale_A, named_A)]
            if not known:
                there = ", ".join(f"{r.full_scale_A:g}" for r in ranges)
                raise ValueError(f"there is no range of {named_A:g} A; there is {there}")
            if not next(r for r in ranges if r.full_scale_A == known[0]).sources:
                there = ", ".join(f"{r.full_scale_A:g}" for r in ranges if r.sources)
                raise ValueError(
                    f"the range of {named_A:g} A only measures, and a plan rests at a sourced "
                    f"0 A; there is {there}"
                )
            return known[0]
        if self.largest_current_A == 0:
            sourcing = [r for r in ranges if r.sources]
            quick = (r for r in sourcing if r.settling_s < QUICK_S)
            return next(quick, sourcing[0]).full_scale_A
        return choose_range(self.largest_current_A, ranges).full_scale_A


def _no_key(what: str) -> Problem:
    return Problem(key="file", line=0, what=what)


# --- what only several keys together can be wrong in --------------------------------------

_Found = list[tuple[Key, str]]


def _cross_checks(tables: ExperimentTable, cell: Cell) -> _Found:
    return [
        *check_cell(tables, cell),
        *check_limits(tables, cell),
        *check_instruments(tables),
        *check_bus(tables),
        *_check_contact(tables),
        *check_tracks(tables.track),
        *check_blanking(tables),
        *check_record(tables),
        *check_steps(tables, cell.terms),
        *check_image_rules(tables),
        *check_keep_rules(tables, cell.terms),
    ]


def _check_contact(tables: ExperimentTable) -> _Found:
    current_A = None if tables.contact is None else tables.contact.current
    if current_A is None or 0 < current_A <= tables.limits.current:
        return []
    return [(("contact", "current"), "must be more than nothing, and within the limits")]
