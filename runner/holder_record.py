"""An open-holder calibration as it is kept: numbers, raw readings, noise by range, and age."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potentiostat.calibration import HolderCalibration
from potentiostat.noise_record import NoiseRecord
from runner.experiment import Experiment
from runner.format import in_unit
from runner.messages import HolderTerms
from session.calibration_file import read_calibration, read_calibration_tables, write_calibration
from session.errors import SessionRefused
from session.records import AttributeValue

VALID_FOR_S = 12 * 3600.0
HOUR_S = 3600.0

# Columns of the table of ranges, and where they stand in a noise record.
_COLUMNS = {
    "range": "range_A",
    "offset": "mean_A",
    "offset_sigma": "mean_sigma_A",
    "reading": "reading_A",
    "reading_low": "reading_low_A",
    "reading_high": "reading_high_A",
    "stated": "stated_A",
    "white": "white_A_rtHz",
    "floor": "floor_A",
    "drift": "drift_A_s",
    "drift_sigma": "drift_sigma_A_s",
    "best_time": "best_s",
    "best": "best_A",
    "still_falling": "still_falling",
    "interval": "interval_s",
    "count": "count",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRecord:
    """A calibration with its raw readings, and where and when it comes from.

    Parameters
    ----------
    tables
        Noise by current range, by their path below the calibration; {} where it was not
        measured.
    measured_at
        Wall clock; None where an old file does not say.
    valid_for_s
        For how long it is believed.
    """

    calibration: HolderCalibration
    columns: Mapping[str, NDArray[np.generic]]
    source: str
    tables: Mapping[str, Mapping[str, ArrayLike]] = field(default_factory=dict)
    measured_at: datetime | None = None
    valid_for_s: float = VALID_FOR_S

    def terms(self, range_A: float) -> HolderTerms:
        """Return what a guardian needs to count ionic charge in a current range."""
        known = in_range(self.calibration, self.tables.get("ranges"), range_A)
        return HolderTerms(
            capacitance_F=known.capacitance_F,
            conductance_S=known.conductance_S,
            offset_A=known.offset_A,
        )

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the fitted numbers by name, and the words."""
        found: dict[str, AttributeValue] = {
            name: float(value) for name, value in asdict(self.calibration).items()
        }
        if self.measured_at is not None:
            found["measured_at"] = self.measured_at.isoformat()
        return found | {"valid_for_s": self.valid_for_s, "source": self.source}

    def write(self, path: Path, *, overwrite: bool) -> None:
        """Write the file of the calibration."""
        write_calibration(
            path, self.attributes(), self.columns, tables=self.tables, overwrite=overwrite
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file of a calibration; what an old one does not hold stays unknown.

        Raises
        ------
        SessionRefused
            The file is no calibration, or lacks a number.
        """
        table = read_calibration(path)
        try:
            calibration = calibration_from(table.attributes)
        except ValueError as error:
            raise SessionRefused(f"{path}: {error}") from error
        return cls(
            calibration=calibration,
            columns=dict(table.columns),
            source=str(path),
            tables={name: dict(t.columns) for name, t in read_calibration_tables(path).items()},
            measured_at=_moment(table.attributes.get("measured_at")),
            valid_for_s=float(str(table.attributes.get("valid_for_s", VALID_FOR_S))),
        )

    def age_s(self, now: datetime) -> float | None:
        """Return the age of the measurement; None where it is not known."""
        return None if self.measured_at is None else (now - self.measured_at).total_seconds()

    def doubt(self, now: datetime) -> str | None:
        """Say why the calibration may not hold any more; None while it is believed."""
        age_s = self.age_s(now)
        if age_s is None:
            return f"{self.source} does not say when the holder was measured"
        if age_s < -HOUR_S:
            return f"{self.source} was measured in the future: look at the clock of this computer"
        if age_s > self.valid_for_s:
            return (
                f"{self.source} is {age_s / HOUR_S:.1f} h old; it is believed for "
                f"{self.valid_for_s / HOUR_S:.3g} h: measure the empty holder again"
            )
        return None


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def calibration_from(attributes: Mapping[str, object]) -> HolderCalibration:
    """Return the calibration that a file's attributes hold.

    Raises
    ------
    ValueError
        A number is missing.
    """
    needed = [f.name for f in fields(HolderCalibration) if f.default is MISSING]
    if missing := [name for name in needed if name not in attributes]:
        raise ValueError(f"this is no holder calibration: it lacks {', '.join(missing)}")
    known = [f.name for f in fields(HolderCalibration) if f.name in attributes]
    return HolderCalibration(**{name: float(str(attributes[name])) for name in known})


def load_holder(experiment: Experiment) -> HolderRecord | None:
    """Return the calibration that an experiment names, or None where it names none."""
    path = experiment.potentiostat.calibration
    return None if path is None else HolderRecord.read(path)


def in_range(
    calibration: HolderCalibration, ranges: Mapping[str, ArrayLike] | None, range_A: float
) -> HolderCalibration:
    """Return a calibration for readings of a current range.

    In another range than that of its staircase the zero is that range's own, where it
    was measured, and the gain of the staircase is an error of the holder's numbers.
    """
    if np.isclose(calibration.range_A, range_A, rtol=1e-6, atol=0.0):
        return calibration
    c = calibration
    moved = replace(
        c,
        capacitance_sigma_F=c.against_truth(c.capacitance_F, c.capacitance_sigma_F),
        conductance_sigma_S=c.against_truth(c.conductance_S, c.conductance_sigma_S),
    )
    if ranges is None:
        return moved
    columns = {name: np.asarray(column) for name, column in ranges.items()}
    rows = np.flatnonzero(np.isclose(columns["range"], range_A, rtol=1e-6, atol=0.0))
    if len(rows) == 0:
        return moved
    return replace(
        moved,
        offset_A=float(columns["offset"][rows[0]]),
        offset_sigma_A=float(columns["offset_sigma"][rows[0]]),
    )


def noise_tables(records: Sequence[NoiseRecord]) -> dict[str, dict[str, ArrayLike]]:
    """Return the noise of ranges as the tables of a calibration."""
    if not records:
        return {}
    tables: dict[str, dict[str, ArrayLike]] = {
        "ranges": {
            column: np.array([getattr(r, name) for r in records])
            for column, name in _COLUMNS.items()
        }
    }
    for r in records:
        name = range_name(r.range_A)
        for kind, curve, at, value in (
            ("spectrum", r.spectrum, "frequency", "density"),
            ("allan", r.allan, "time", "deviation"),
        ):
            tables[f"{kind}/{name}"] = {
                at: curve.at,
                value: curve.value,
                f"{value}_low": curve.low,
                f"{value}_high": curve.high,
            }
    return tables


def range_name(range_A: float) -> str:
    """Return the name of a range in a file, such as ``100 pA``, in plain letters."""
    return in_unit(range_A, "A").replace("µ", "u")
