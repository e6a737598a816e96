"""Open-holder calibration: plays the staircase on an empty holder and fits it."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from potentiostat.calibration import HOLD_S, LEVELS_V, HolderCalibration, fit_holder, staircase
from potentiostat.records import RangeSpec, Status
from potentiostat.technique import CLAMP_RATIO, Level, Segment, Step, after
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.experiment import Experiment
from runner.format import with_sigma
from runner.lab import Lab, open_lab
from runner.messages import (
    Block,
    Finished,
    GuardianSettings,
    HolderTerms,
    StartStep,
    StepEnded,
    Tripped,
)
from runner.outputs import refuse_existing
from session.calibration_file import read_calibration, write_calibration
from sync.clockfit import granularity_ns

SETTLINGS = 3.0  # of the range: to 0.1 %, where the data sheet says to 10 %
LARGEST_STRAY_F = 300e-12  # of holders and cables
MIN_STAMPS = 20  # from which a clock can be fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRecord:
    """A calibration with its raw readings, and where it comes from."""

    calibration: HolderCalibration
    columns: Mapping[str, NDArray[np.generic]]
    source: str

    def terms(self) -> HolderTerms:
        """Return what a guardian needs to count ionic charge."""
        return HolderTerms(
            capacitance_F=self.calibration.capacitance_F,
            conductance_S=self.calibration.conductance_S,
            offset_A=self.calibration.offset_A,
        )

    def attributes(self) -> dict[str, float]:
        """Return the fitted numbers by name."""
        return {name: float(value) for name, value in asdict(self.calibration).items()}


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
    if path is None:
        return None
    table = read_calibration(path)
    return HolderRecord(
        calibration=calibration_from(table.attributes),
        columns=dict(table.columns),
        source=str(path),
    )


async def measure_holder(
    experiment: Experiment, lab: Lab, settings: GuardianSettings
) -> HolderRecord:
    """Play the staircase on the open holder and fit it. No cell may be in it.

    Raises
    ------
    InstrumentUnavailable
        The instrument failed on the way.
    """
    blocks: list[NDArray[np.void]] = []
    async with GuardedCell(settings) as holder:
        ranges = holder.get_connected().ranges
        range_A = experiment.range_A(ranges)
        spec = next(r for r in ranges if r.full_scale_A == range_A)
        stand_s = hold_s(spec, settings.envelope.current_max_A)
        holder.start(StartStep(index=0, step=_staircase_step(stand_s), range_A=range_A))
        holder.renew(0)
        await _until_step_ends(holder, lab, blocks)
        holder.reason = "the calibration is done"
    samples = np.concatenate(blocks)
    return HolderRecord(
        calibration=replace(_fit(samples, spec), gain_sigma_ratio=spec.gain_ratio / math.sqrt(3.0)),
        columns={
            name: samples[name]
            for name in ("read_start_ns", "read_end_ns", "device_time_s", "status")
        }
        | {"voltage": samples["voltage_V"], "current": samples["current_A"]},
        source=f"measured with {holder.get_connected().identity.raw}",
    )


def hold_s(spec: RangeSpec, limit_A: float) -> float:
    """Return how long a level must stand: to charge the holder, and to settle twice."""
    charging_A = CLAMP_RATIO * min(limit_A, spec.full_scale_A)
    charging_s = LARGEST_STRAY_F * float(np.ptp(LEVELS_V[:2])) / charging_A
    return max(HOLD_S, charging_s + 2 * SETTLINGS * spec.settling_s)


def _staircase_step(stand_s: float) -> Step:
    return Step(
        name="holder",
        segments=tuple(
            Segment(
                name=f"{level.voltage_V:g} V",
                voltage=Level(volts=level.voltage_V),
                until=(after(stand_s),),
            )
            for level in staircase()
        ),
    )


async def _until_step_ends(holder: GuardedCell, lab: Lab, blocks: list[NDArray[np.void]]) -> None:
    while True:
        match await holder.receive():
            case Block() as block:
                blocks.append(block.samples)
                await lab.clock.settle()
                holder.renew(block.sequence)
            case StepEnded():
                return
            case Tripped(reason=reason) | Finished(reason=reason):
                raise InstrumentUnavailable(f"the calibration was cut short: {reason}")


def reading_times_s(samples: NDArray[np.void]) -> tuple[NDArray[np.float64], float]:
    """Return the times of readings from the first, and the random sigma of each.

    The instrument's own stamps do not suffer from the link; the host's middles, of which
    there are many, say how fast its clock runs.
    """
    middle_ns = (samples["read_start_ns"] + samples["read_end_ns"]) // 2
    host_s = (middle_ns - middle_ns[0]) / 1e9
    device_s = samples["device_time_s"] - samples["device_time_s"][0]
    width_s = float(np.median(samples["read_end_ns"] - samples["read_start_ns"])) / 1e9
    if len(host_s) < MIN_STAMPS or not np.all(np.diff(device_s) > 0):
        return host_s, width_s / math.sqrt(12.0)
    rate, offset_s = np.polyfit(device_s, host_s, 1)
    step_s = granularity_ns(np.round(samples["device_time_s"] * 1e9).astype(np.int64)) / 1e9
    return rate * device_s + offset_s, rate * step_s / math.sqrt(12.0)


def _fit(samples: NDArray[np.void], spec: RangeSpec) -> HolderCalibration:
    good = (samples["status"] & (Status.INVALID | Status.OVERFLOW)) == 0
    good &= np.isfinite(samples["device_time_s"])
    good &= _settled(samples, SETTLINGS * spec.settling_s)
    t_s, t_sigma_s = reading_times_s(samples[good])
    return fit_holder(
        t_s,
        samples["voltage_V"][good],
        samples["current_A"][good],
        samples["current_sigma_A"][good],
        voltage_sigma_V=samples["voltage_sigma_V"][good],
        range_A=spec.full_scale_A,
        t_sigma_s=t_sigma_s,
    )


def _settled(samples: NDArray[np.void], settling_s: float) -> NDArray[np.bool_]:
    """Leave out what comes too soon after a reading with which the meter began to settle."""
    start_s = samples["read_start_ns"] / 1e9
    settling = (samples["status"] & Status.SETTLING) != 0
    begun = settling & ~np.concatenate([[False], settling[:-1]])
    last_s = np.maximum.accumulate(np.where(begun, start_s, -np.inf))
    return np.asarray(start_s - last_s >= settling_s)


async def calibrate(
    experiment: Experiment, output: Path, *, speed: float, overwrite: bool
) -> HolderCalibration:
    """Measure the open holder and write a calibration file.

    Raises
    ------
    OutputRefused
        The file exists and ``overwrite`` is False.
    """
    from runner.conduct import guardian_settings  # noqa: PLC0415 - it builds on this

    await asyncio.to_thread(refuse_existing, output, overwrite=overwrite)
    async with open_lab(experiment, speed=speed, holder_open=True) as lab:
        settings = guardian_settings(experiment, lab, cell_attached=False)
        record = await measure_holder(experiment, lab, settings)
    await asyncio.to_thread(
        write_calibration,
        output,
        {**record.attributes(), "source": record.source},
        record.columns,
        overwrite=overwrite,
    )
    return record.calibration


def render_calibration(found: HolderCalibration) -> Table:
    """Return the calibration for a terminal."""
    table = Table(title="open holder", title_justify="left", show_header=False)
    rows = (
        ("stray capacitance", found.capacitance_F, found.capacitance_sigma_F, "F"),
        ("leakage", found.conductance_S, found.conductance_sigma_S, "S"),
        ("dielectric branch", found.dielectric_F, found.dielectric_sigma_F, "F"),
    )
    for name, value, sigma, unit in rows:
        table.add_row(name, with_sigma(value, found.against_truth(value, sigma), unit))
    table.add_row(
        "zero of the current range", with_sigma(found.offset_A, found.offset_sigma_A, "A")
    )
    table.add_row("reduced chi2", f"{found.chi2:.2f}")
    return table
