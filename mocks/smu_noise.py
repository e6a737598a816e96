"""What a source-measure unit adds to the truth: offsets, gains, noise, settling."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mocks.scenario import SmuErrors

BOLTZMANN_J_K = 1.380649e-23
ELEMENTARY_C = 1.602176634e-19
ROOM_K = 298.15


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeModel:
    """One current range as the simulated instrument has it.

    Data-sheet limits of the 6430 (accuracy, resolution, settling); the feedback
    resistor gives a volt at full scale.
    """

    full_scale_A: float
    gain_ratio: float
    offset_A: float
    resolution_A: float
    settling_tau_s: float

    @property
    def feedback_ohm(self) -> float:
        """Feedback resistor whose Johnson noise the range carries."""
        return 1.0 / self.full_scale_A


@dataclass(frozen=True, slots=True, kw_only=True)
class SmuModel:
    """What a data sheet says of a source-measure unit, as far as it shapes readings.

    Parameters
    ----------
    ranges
        Current ranges, smallest first.
    source_offset_A
        Zero of the current source, by range; the measuring zero where it is None.
    volt_gain_ratio, volt_offset_V, volt_step_V, volt_noise_V
        Of the voltmeter; noise at one power-line cycle.
    current_noise_A
        At one power-line cycle, beside shot and Johnson noise.
    input_ohm
        Of the voltmeter across the cell.
    answer_s, read_overhead_s
        Time for an answer each way, and for a reading beside its integration.
    trigger_s
        From an edge on a trigger line to the beginning of the integration.
    """

    ranges: tuple[RangeModel, ...]
    source_offset_A: tuple[float, ...] | None = None
    volt_gain_ratio: float
    volt_offset_V: float
    volt_step_V: float
    volt_noise_V: float
    current_noise_A: float = 0.0
    input_ohm: float = math.inf
    answer_s: float = 0.7e-3
    read_overhead_s: float = 7e-3
    trigger_s: float = 3e-4  # not yet confirmed on any data sheet

    def range_for(self, current_A: float) -> RangeModel:
        """Return the smallest range that holds a current (with the usual 5 % beyond)."""
        for model in self.ranges:
            if abs(current_A) <= 1.05 * model.full_scale_A:
                return model
        # Beyond the ranges of interest the simulation is plain: decades without errors.
        full_scale_A = 10.0 ** math.ceil(math.log10(abs(current_A) / 1.05))
        return replace(self.ranges[-1], full_scale_A=full_scale_A, resolution_A=full_scale_A / 1e5)


# Settling to 10 % in 2 s and 50 ms, as first-order time constants.
_RANGES_6430 = tuple(
    RangeModel(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_tau_s=settling,
    )
    for full, gain, offset, step, settling in (
        (1e-12, 0.010, 7e-15, 1e-17, 0.87),
        (1e-11, 0.005, 7e-15, 1e-16, 0.87),
        (1e-10, 0.0015, 3e-14, 1e-15, 0.022),
        (1e-9, 0.0005, 2e-13, 1e-14, 0.022),
        (1e-8, 0.0005, 2e-12, 1e-13, 0.022),
    )
)

SMU_6430 = SmuModel(
    ranges=_RANGES_6430,
    volt_gain_ratio=0.00015,  # 20 V range
    volt_offset_V=1.5e-3,
    volt_step_V=1e-4,
    volt_noise_V=5e-5,
    input_ohm=1e16,
)


SMU_2400 = SmuModel(
    ranges=tuple(
        RangeModel(
            full_scale_A=full,
            gain_ratio=gain,
            offset_A=offset,
            resolution_A=step,
            settling_tau_s=1e-3,
        )
        for full, gain, offset, step in (
            (1e-6, 0.00029, 3e-10, 1e-11),
            (1e-5, 0.00027, 7e-10, 1e-10),
            (1e-4, 0.00025, 6e-9, 1e-9),
            (1e-3, 0.00027, 6e-8, 1e-8),
        )
    ),
    source_offset_A=(6e-10, 2e-9, 2e-8, 2e-7),
    volt_gain_ratio=0.00015,
    volt_offset_V=1.5e-3,
    volt_step_V=1e-4,
    volt_noise_V=5e-5,
    current_noise_A=5e-11,
    input_ohm=1e10,
)


class ReadingErrors:
    """The errors of one simulated instrument, drawn once by the seed."""

    def __init__(self, seed: int, errors: SmuErrors, model: SmuModel = SMU_6430) -> None:
        self._model = model
        self._noise = np.random.default_rng([seed, 2])
        fixed = np.random.default_rng([seed, 3])
        share = errors.share_of_specification

        def draw() -> float:
            return share * float(fixed.uniform(-1.0, 1.0))

        self._measure = {m.full_scale_A: (draw(), draw()) for m in model.ranges}
        self._source = {m.full_scale_A: (draw(), draw()) for m in model.ranges}
        zeros = model.source_offset_A or tuple(m.offset_A for m in model.ranges)
        self._source_zero_A = {
            m.full_scale_A: zero for m, zero in zip(model.ranges, zeros, strict=True)
        }
        self._volt = (draw(), draw())

    def sourced_A(self, model: RangeModel, level_A: float) -> float:
        """Return the current that really flows for a level."""
        gain, offset = self._source.get(model.full_scale_A, (0.0, 0.0))
        zero_A = self._source_zero_A.get(model.full_scale_A, model.offset_A)
        return level_A * (1 + gain * model.gain_ratio) + offset * zero_A

    def sourced_V(self, level_V: float) -> float:
        """Return the voltage that is really there for a level."""
        return level_V * (1 + self._volt[0] * self._model.volt_gain_ratio)

    def current_A(self, model: RangeModel, true_A: float, window_s: float) -> float:
        """Return a reading of a current that was integrated over a window."""
        gain, offset = self._measure.get(model.full_scale_A, (0.0, 0.0))
        bandwidth_Hz = 1 / (2 * window_s)
        density = 2 * ELEMENTARY_C * abs(true_A) + 4 * BOLTZMANN_J_K * ROOM_K / model.feedback_ohm
        read_A = (
            true_A * (1 + gain * model.gain_ratio)
            + offset * model.offset_A
            + math.hypot(
                math.sqrt(density * bandwidth_Hz),
                self._model.current_noise_A * math.sqrt(0.02 / window_s),
            )
            * float(self._noise.standard_normal())
        )
        return round(read_A / model.resolution_A) * model.resolution_A

    def voltage_V(self, true_V: float, window_s: float) -> float:
        """Return a reading of a voltage that was integrated over a window."""
        gain, offset = self._volt
        noise_V = self._model.volt_noise_V * math.sqrt(0.02 / window_s)
        read_V = (
            true_V * (1 + gain * self._model.volt_gain_ratio)
            + offset * self._model.volt_offset_V
            + noise_V * float(self._noise.standard_normal())
        )
        step_V = self._model.volt_step_V
        return round(read_V / step_V) * step_V

    def latency_s(self, mean_s: float) -> float:
        """Return how long an exchange takes on one of its two ways."""
        return mean_s * (0.5 + 0.5 * float(self._noise.exponential()))
