"""One channel of a simulated 2636B: its settings, what they put on the terminals, its buffers.

Written from the Series 2600B reference manual, 2600BS-901-01 (Rev. C pp. 7-20 to 7-35 for
buffers, Rev. F sections 2 and 9). The accuracies are not yet confirmed on a data sheet of
ours, settling and noise are guesses. Where the manual is silent the simulation takes what
hurts a cell most: a change of function with the output on drives the new function's level at
once, and another off state acts at once on an output that is off.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from mocks.cell import Source
from mocks.smu import OPEN, Terminals
from mocks.smu_noise import RangeModel, SmuModel
from mocks.tsp import Values
from mocks.tsp_parser import TspError, runtime_error

NOT_A_READING = 9.91e37
SMALLEST_SOURCED_A = 1e-9  # the 100 pA range only measures
DCAMPS, DCVOLTS = 0.0, 1.0
OFF, ON, HIGH_Z = 0.0, 1.0, 2.0
ZERO = 1.0  # of the off modes
IN_COMPLIANCE, FOUR_WIRE = 64, 16  # bits of a buffer's statuses (Rev. C p. 7-34)
VOLTAGE_LIMIT, CURRENT_LIMIT = 1.0, 2.0  # bits of the measurement condition

SMU_2636B = SmuModel(
    ranges=tuple(
        RangeModel(
            full_scale_A=full,
            gain_ratio=gain,
            offset_A=offset,
            resolution_A=step,
            settling_tau_s=settling_s / math.log(1000),
        )
        for full, gain, offset, step, settling_s in (
            (1e-10, 0.0015, 1.2e-13, 1e-16, 0.15),
            (1e-9, 0.0015, 2.4e-13, 1e-15, 0.15),
            (1e-8, 0.0015, 3e-12, 1e-14, 0.15),
            (1e-7, 0.0006, 4e-11, 1e-13, 0.02),
            (1e-6, 0.00025, 4e-10, 1e-12, 0.0025),
            (1e-5, 0.00025, 1.5e-9, 1e-11, 0.0005),
        )
    ),
    source_offset_A=(2e-12, 2e-12, 5e-12, 5e-11, 7e-10, 5e-9),
    volt_gain_ratio=0.00015,
    volt_offset_V=5e-3,
    volt_step_V=1e-5,
    volt_noise_V=3e-5,
    current_noise_A=2e-14,
    input_ohm=1e14,
    read_overhead_s=1e-3,
)
_LADDERS = {
    "i": (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 1.5),
    "v": (0.2, 2.0, 20.0, 200.0),
}

# Value at power-up, smallest and largest.
_NUMBERS = {
    "source.leveli": (0.0, -1.5, 1.5),
    "source.levelv": (0.0, -200.0, 200.0),
    "source.limiti": (0.1, 1e-10, 1.5),
    "source.limitv": (20.0, 0.02, 200.0),
    "source.rangei": (1e-7, -1.5, 1.5),
    "source.rangev": (0.2, -200.0, 200.0),
    "source.lowrangei": (1e-9, 1e-9, 1.5),
    "source.lowrangev": (0.2, 0.2, 200.0),
    "source.offlimiti": (1e-3, 1e-10, 1.5),
    "source.offlimitv": (40.0, 0.02, 200.0),
    "source.delay": (0.0, -1.0, 1e4),
    "measure.rangei": (1e-7, -1.5, 1.5),
    "measure.rangev": (0.2, -200.0, 200.0),
    "measure.lowrangei": (1e-10, 1e-10, 1.5),
    "measure.lowrangev": (0.2, 0.2, 200.0),
    "measure.nplc": (1.0, 0.001, 25.0),
    "measure.count": (1.0, 1.0, 60_000.0),
    "measure.interval": (0.0, 0.0, 1.0),
    "measure.delay": (-1.0, -1.0, 1e4),
}
# Value at power-up, and all that there are.
_CHOICES = {
    "source.func": (DCVOLTS, (DCAMPS, DCVOLTS)),
    "source.output": (OFF, (OFF, ON, HIGH_Z)),
    "source.offmode": (0.0, (0.0, ZERO, HIGH_Z)),
    "source.offfunc": (DCVOLTS, (DCAMPS, DCVOLTS)),
    "source.autorangei": (1.0, (0.0, 1.0)),
    "source.autorangev": (1.0, (0.0, 1.0)),
    "source.highc": (0.0, (0.0, 1.0)),
    "measure.autorangei": (1.0, (0.0, 1.0, 2.0)),
    "measure.autorangev": (1.0, (0.0, 1.0, 2.0)),
    "measure.autozero": (2.0, (0.0, 1.0, 2.0)),
    "measure.filter.enable": (0.0, (0.0, 1.0)),
    "measure.rel.enablei": (0.0, (0.0, 1.0)),
    "measure.rel.enablev": (0.0, (0.0, 1.0)),
    "sense": (0.0, (0.0, 1.0)),
}
CONSTANTS = {
    "OUTPUT_DCAMPS": DCAMPS, "OUTPUT_DCVOLTS": DCVOLTS, "OUTPUT_OFF": OFF, "OUTPUT_ON": ON,
    "OUTPUT_NORMAL": 0.0, "OUTPUT_ZERO": ZERO, "OUTPUT_HIGH_Z": HIGH_Z, "SENSE_LOCAL": 0.0,
    "SENSE_REMOTE": 1.0, "AUTORANGE_OFF": 0.0, "AUTORANGE_ON": 1.0, "AUTOZERO_OFF": 0.0,
    "AUTOZERO_ONCE": 1.0, "AUTOZERO_AUTO": 2.0, "DELAY_OFF": 0.0, "DELAY_AUTO": -1.0,
}  # fmt: skip


@dataclass
class Buffer:
    """A reading buffer; what it collects is chosen while it is empty."""

    settings: dict[str, float] = field(
        default_factory=lambda: {
            "appendmode": 0.0,
            "collecttimestamps": 0.0,
            "collectsourcevalues": 0.0,
            "timestampresolution": 1e-6,
            "basetimestamp": 0.0,
        }
    )
    readings: list[float] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)
    statuses: list[float] = field(default_factory=list)
    sourcevalues: list[float] = field(default_factory=list)

    async def clear(self, _arguments: Values) -> Values:
        """Forget the readings."""
        for column in (self.readings, self.timestamps, self.statuses, self.sourcevalues):
            column.clear()
        return []

    def get(self, name: Any) -> Any:
        """Return a column, a setting, or what can be done."""
        if name in self.settings:
            return self.settings[name]
        if name == "n":
            return float(len(self.readings))
        if name in ("readings", "timestamps", "statuses", "sourcevalues"):
            return {float(i): value for i, value in enumerate(self._column(name), 1)}
        if name == "clear":
            return self.clear
        raise runtime_error(f"attempt to index field `{name}' (a nil value)")

    def set(self, name: Any, value: Any) -> None:
        """Change a setting; most of them only while the buffer is empty."""
        if name not in self.settings or name == "basetimestamp":
            raise runtime_error(f"cannot modify field `{name}'")
        if self.readings and name != "appendmode":
            raise TspError(5020, "Setting can only be changed while the buffer is empty")
        self.settings[name] = float(value)

    def add(self, value: float, *, at_s: float, status: int, source: float) -> None:
        """Store a reading."""
        if not self.readings:
            self.settings["basetimestamp"] = float(math.floor(at_s))
        self.readings.append(value)
        self.statuses.append(float(status))
        self.sourcevalues.append(source)
        self.timestamps.append(at_s)

    def _column(self, name: str) -> list[float]:
        wanted = {"timestamps": "collecttimestamps", "sourcevalues": "collectsourcevalues"}
        values: list[float] = getattr(self, name)
        if name in wanted and not self.settings[wanted[name]]:
            return [NOT_A_READING] * len(values)
        if name == "timestamps" and values:
            step_s = self.settings["timestampresolution"]
            return [math.floor((t - values[0]) / step_s + 0.5) * step_s for t in values]
        return values


class Channel:
    """``smua`` or ``smub``.

    Parameters
    ----------
    terminals
        What it is wired to; None for a channel with nothing at its terminals.
    """

    def __init__(self, terminals: Terminals | None) -> None:
        self._terminals = terminals
        self.set_defaults()

    def set_defaults(self) -> None:
        """Take the values of power-up; the terminals follow at the next command."""
        self.values = {name: numbers[0] for name, numbers in _NUMBERS.items()}
        self.values |= {name: choices[0] for name, choices in _CHOICES.items()}
        self.buffers = {"nvbuffer1": Buffer(), "nvbuffer2": Buffer()}

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return all settings."""
        return (*_NUMBERS, *_CHOICES)

    # --- settings ----------------------------------------------------------------------------

    def read(self, name: str) -> float:
        """Return a setting."""
        locked = "measure.rangei" if self.sources_current else "measure.rangev"
        if name == locked:  # to the source's range, which is told in its place
            return self.values[name.replace("measure", "source")]
        return self.values[name]

    def write(self, name: str, value: Any) -> None:
        """Change a setting, and what it changes at the terminals."""
        if isinstance(value, bool) or not isinstance(value, float):
            raise TspError(1100, "Parameter is not a number")
        if name in _CHOICES:
            if value not in _CHOICES[name][1]:
                raise TspError(1101 if value > 0 else 1102, "Parameter too big")
        elif not _NUMBERS[name][1] <= value <= _NUMBERS[name][2]:
            too_big = value > _NUMBERS[name][2]
            raise (
                TspError(1101, "Parameter too big")
                if too_big
                else TspError(1102, "Parameter too small")
            )
        if name == "source.output" and value == ON:
            self._refuse_level()
        before = self.values[name]
        self.values[name] = self._fitted(name, value)
        if name.startswith("source.level") and self.values["source.output"] == ON:
            self._keep_level(name, before)
        self.drive()

    def _fitted(self, name: str, value: float) -> float:
        if name.endswith(("rangei", "rangev")) and ".auto" not in name and ".low" not in name:
            self.values[name.replace(".range", ".autorange")] = 0.0
            return self._range(value, name)
        if name.startswith("source.level") and self.values[f"source.autorange{name[-1]}"]:
            self.values[f"source.range{name[-1]}"] = self._range(value, f"source.range{name[-1]}")
        return value

    def _range(self, value: float, name: str) -> float:
        smallest = SMALLEST_SOURCED_A if name == "source.rangei" else 0.0
        return next(r for r in _LADDERS[name[-1]] if abs(value) <= r * 1.000001 and r >= smallest)

    def _level_fits(self, kind: str) -> bool:
        return abs(self.values[f"source.level{kind}"]) <= 1.01 * self.values[f"source.range{kind}"]

    def _refuse_level(self) -> None:
        """Tell a level that is beyond its range; until now nobody has."""
        if not self._level_fits("i" if self.sources_current else "v"):
            raise TspError(5069, "Level is beyond the source range")

    def _keep_level(self, name: str, before: float) -> None:
        if not self._level_fits(name[-1]):
            self.values[name] = before
            raise TspError(5069, "Level is beyond the source range")

    # --- terminals ---------------------------------------------------------------------------

    @property
    def sources_current(self) -> bool:
        """True while the source function is a current."""
        return self.values["source.func"] == DCAMPS

    @property
    def on(self) -> bool:
        """The output switch."""
        return self.values["source.output"] == ON

    @property
    def in_compliance(self) -> bool:
        """True while the source is held by its limit."""
        return self.on and self._terminals is not None and self._terminals.in_compliance

    @property
    def condition(self) -> float:
        """The measurement condition register."""
        bit = VOLTAGE_LIMIT if self.sources_current else CURRENT_LIMIT
        return bit if self.in_compliance else 0.0

    def drive(self) -> None:
        """Put on the terminals what the settings say."""
        if self._terminals is not None:
            self._terminals.drive(self._source(self._terminals), output_on=self.on)

    def _source(self, terminals: Terminals) -> Source:
        values = self.values
        if values["source.output"] == HIGH_Z or (
            not self.on and values["source.offmode"] == HIGH_Z
        ):
            return OPEN
        if not self.on and values["source.offmode"] == ZERO:
            return Source(mode="voltage", level=0.0, clamp=self._zero_limit_A())
        if not self.on and values["source.offfunc"] == DCAMPS:
            return Source(mode="current", level=0.0, clamp=values["source.offlimitv"])
        if not self.on:
            return Source(mode="voltage", level=0.0, clamp=values["source.offlimiti"])
        if self.sources_current:
            return terminals.current_source(
                values["source.leveli"],
                range_A=values["source.rangei"],
                limit_V=values["source.limitv"],
            )
        return terminals.voltage_source(values["source.levelv"], limit_A=values["source.limiti"])

    def _zero_limit_A(self) -> float:
        """Return the limit of the 0 V source of ZERO off (Rev. F p. 2-42)."""
        if not self.sources_current:
            return self.values["source.limiti"]
        return max(abs(self.values["source.leveli"]), 0.1 * self.values["source.rangei"])

    # --- readings ----------------------------------------------------------------------------

    def _measure_range_A(self) -> float:
        if self.sources_current or not self.values["measure.autorangei"]:
            return self.read("measure.rangei")
        present_A = 0.0 if self._terminals is None else self._terminals.world.cell.source_A
        return self._range(max(abs(present_A), self.values["measure.lowrangei"]), "measure.rangei")

    async def measure(self, line_Hz: float) -> tuple[int, float, float, int]:
        """Take one reading: when it began, current, voltage, status."""
        status = FOUR_WIRE if self.values["sense"] else 0
        if self._terminals is None:
            return 0, 0.0, 0.0, status
        got = await self._terminals.measure(
            window_s=self.values["measure.nplc"] / line_Hz, range_A=self._measure_range_A()
        )
        if self.on and got.compliance:
            status |= IN_COMPLIANCE
        if self._source(self._terminals) == OPEN:
            return got.start_ns, 0.0, 0.0, status  # the relay is open: the meter sees nothing
        current_A = got.current_A if math.isfinite(got.current_A) else NOT_A_READING
        return got.start_ns, current_A, got.voltage_V, status
