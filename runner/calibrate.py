"""Open-holder calibration: plays the staircase on an empty holder and fits it."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from potentiostat.calibration import (
    HOLD_S,
    LARGEST_STRAY_F,
    LEVELS_V,
    HolderCalibration,
    fit_holder,
    staircase,
)
from potentiostat.noise_record import NoiseRecord, noise_record
from potentiostat.records import RangeSpec, Status
from potentiostat.technique import CLAMP_RATIO, Level, Segment, Step, after
from runner.cell import GuardedCell, InstrumentUnavailable
from runner.experiment import Experiment
from runner.format import in_unit, with_sigma
from runner.guardian_settings import guardian_settings
from runner.holder_record import VALID_FOR_S, HolderRecord, noise_tables
from runner.lab import Lab, open_lab
from runner.messages import (
    Block,
    Finished,
    GuardianSettings,
    StartStep,
    StepEnded,
    Tripped,
)
from runner.outputs import refuse_existing
from sync.clockfit import granularity_ns

SETTLINGS = 3.0  # of the range: to 0.1 %, where the data sheet says to 10 %
MIN_STAMPS = 20  # from which a clock can be fitted
NOISE_S = 20.0  # at rest, for each current range
NOISE_BUDGET_S = 120.0  # for all of them together
NOISE_SETTLINGS = 4.0  # of a range, until its rest counts
MIN_SETTLE_S = 1.0
REST_V = 0.0  # on an open holder alone

Ranges = Literal["used", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSummary(HolderCalibration):
    """What a calibration found: the holder's numbers, and the noise of each range."""

    noise: tuple[NoiseRecord, ...]
    measured_at: str
    valid_for_s: float


async def measure_holder(
    experiment: Experiment,
    lab: Lab,
    settings: GuardianSettings,
    *,
    which: Ranges = "used",
    valid_for_s: float = VALID_FOR_S,
) -> tuple[HolderRecord, tuple[NoiseRecord, ...]]:
    """Rest, then play the staircase on the open holder, and fit it. No cell may be in it.

    The rest comes first: after the staircase the insulation gives back for minutes what
    it has taken.

    Raises
    ------
    InstrumentUnavailable
        The instrument failed on the way.
    """
    async with GuardedCell(settings) as holder:
        ranges = holder.get_connected().ranges
        range_A = experiment.range_A(ranges)
        spec = next(r for r in ranges if r.full_scale_A == range_A)
        rested = ranges if which == "all" else (spec,)
        stand_s = hold_s(spec, settings.envelope.current_max_A)
        steps = [*_rests(rested), (_staircase_step(stand_s), range_A)]
        parts: list[NDArray[np.void]] = []
        for index, (step, step_range_A) in enumerate(steps):
            holder.start(StartStep(index=index, step=step, range_A=step_range_A))
            if index == 0:
                holder.renew(0)
            parts.append(await _until_step_ends(holder, lab, index))
        holder.reason = "the calibration is done"
    samples = np.concatenate(parts)
    noise = tuple(map(_noise, parts, rested))
    record = HolderRecord(
        calibration=replace(
            _fit(parts[-1], spec), gain_sigma_ratio=spec.gain_ratio / math.sqrt(3.0)
        ),
        columns={
            name: samples[name]
            for name in ("read_start_ns", "read_end_ns", "device_time_s", "status")
        }
        | {
            "voltage": samples["voltage_V"],
            "current": samples["current_A"],
            "range": samples["range_A"],
            "part": np.repeat(np.arange(len(parts)), [len(p) for p in parts]),
        },
        source=f"measured with {holder.get_connected().identity.raw}",
        tables=noise_tables(noise),
        measured_at=datetime.now(UTC),
        valid_for_s=valid_for_s,
    )
    return record, noise


def _rests(ranges: Sequence[RangeSpec]) -> list[tuple[Step, float]]:
    """Return a rest in each range, all of them within the time that there is for it."""
    rest_s = min(NOISE_S, NOISE_BUDGET_S / len(ranges))
    found = []
    for spec in ranges:
        settle_s = max(NOISE_SETTLINGS * spec.settling_s, MIN_SETTLE_S)
        rest = Segment(name="rest", voltage=Level(volts=REST_V), until=(after(settle_s + rest_s),))
        found.append((Step(name="noise", segments=(rest,)), spec.full_scale_A))
    return found


def _noise(samples: NDArray[np.void], spec: RangeSpec) -> NoiseRecord:
    """Return the noise of a rest, from when the range has settled."""
    settle_ns = round(max(NOISE_SETTLINGS * spec.settling_s, MIN_SETTLE_S) * 1e9)
    settled = samples["read_start_ns"] - samples["read_start_ns"][0] >= settle_ns
    good = settled & ((samples["status"] & (Status.INVALID | Status.OVERFLOW)) == 0)
    good &= np.isfinite(samples["device_time_s"])
    t_s, _ = reading_times_s(samples[good])
    return noise_record(
        t_s,
        samples["current_A"][good],
        stated_sigma_A=samples["current_sigma_A"][good],
        range_A=spec.full_scale_A,
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


async def _until_step_ends(holder: GuardedCell, lab: Lab, index: int) -> NDArray[np.void]:
    """Return the readings of a step once it is over."""
    blocks: list[NDArray[np.void]] = []
    while True:
        match await holder.receive():
            case Block() as block:
                if block.step == index:
                    blocks.append(block.samples)
                await lab.clock.settle()
                holder.renew(block.sequence)
            case StepEnded():
                return np.concatenate(blocks)
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
    """Leave out what comes too soon after a reading with which the meter began to settle.

    It settles anew when the clamp lets go: then the current falls from the clamp's to none.
    """
    start_s = samples["read_start_ns"] / 1e9
    settling = (samples["status"] & Status.SETTLING) != 0
    clamped = (samples["status"] & Status.COMPLIANCE) != 0
    begun = settling & ~np.concatenate([[False], settling[:-1]])
    begun |= ~clamped & np.concatenate([[False], clamped[:-1]])
    last_s = np.maximum.accumulate(np.where(begun, start_s, -np.inf))
    return np.asarray(start_s - last_s >= settling_s)


async def calibrate(
    experiment: Experiment,
    output: Path,
    *,
    speed: float,
    overwrite: bool,
    which: Ranges = "used",
    valid_for_s: float = VALID_FOR_S,
) -> CalibrationSummary:
    """Measure the open holder and write a calibration file.

    Parameters
    ----------
    which
        Current ranges whose zero and noise are measured: that of the plan, or all.
    valid_for_s
        For how long the file is to be believed.

    Raises
    ------
    OutputRefused
        The file exists and ``overwrite`` is False.
    """
    await asyncio.to_thread(refuse_existing, output, overwrite=overwrite)
    async with open_lab(experiment, speed=speed, holder_open=True) as lab:
        settings = guardian_settings(experiment, lab, cell_attached=False)
        record, noise = await measure_holder(
            experiment, lab, settings, which=which, valid_for_s=valid_for_s
        )
    await asyncio.to_thread(record.write, output, overwrite=overwrite)
    return CalibrationSummary(
        **asdict(record.calibration),
        noise=noise,
        measured_at=str(record.attributes()["measured_at"]),
        valid_for_s=valid_for_s,
    )


def render_calibration(found: CalibrationSummary) -> RenderableType:
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
    table.add_row("believed for", f"{found.valid_for_s / 3600:.3g} h")
    return Group(table, _noise_table(found.noise), *_doubts(found.noise))


def _noise_table(records: Sequence[NoiseRecord]) -> Table:
    table = Table(title="at rest, by current range", title_justify="left")
    for name in ("range", "zero", "one reading", "driver says", "white", "floor", "drift", "best"):
        table.add_column(name)
    for r in records:
        best = f"{in_unit(r.best_A, 'A', 2)} in {r.best_s:.2g} s"
        half_A = 0.5 * (r.reading_high_A - r.reading_low_A)
        table.add_row(
            in_unit(r.range_A, "A"),
            with_sigma(r.mean_A, r.mean_sigma_A, "A"),
            with_sigma(r.reading_A, half_A, "A"),
            in_unit(r.stated_A, "A", 3),
            in_unit(r.white_A_rtHz, "A/√Hz", 3),
            in_unit(r.floor_A, "A", 2),
            with_sigma(r.drift_A_s * 3600, r.drift_sigma_A_s * 3600, "A/h"),
            best + (" or more" if r.still_falling else ""),
        )
    return table


def _doubts(records: Sequence[NoiseRecord]) -> list[Text]:
    """Say where readings scatter otherwise than their driver states."""
    return [
        Text(
            f"In the {in_unit(r.range_A, 'A')} range a reading scatters by "
            f"{in_unit(r.reading_A, 'A', 3)} and not by the {in_unit(r.stated_A, 'A', 3)} that "
            "the driver states: look for mains and movement, and do not trust its sigmas"
        )
        for r in records
        if not r.agrees
    ]
