"""The terminals of a simulated source-measure unit: what every dialect drives and reads."""

import math
from dataclasses import dataclass

from mocks.cell import Source
from mocks.pace import Pace
from mocks.smu_noise import RangeModel, ReadingErrors, SmuModel
from mocks.world import World

OPEN = Source(mode="open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One reading of voltage and current, the current's window after the voltage's.

    Parameters
    ----------
    start_ns
        Host time at which the integration began.
    compliance
        True when the source was held by its clamp at the end of the reading.
    """

    start_ns: int
    voltage_V: float
    current_A: float
    compliance: bool


class Terminals:
    """Source and meter of one instrument, wired to the hidden world.

    Parameters
    ----------
    world
        What the terminals are connected to.
    pace
        How time passes while the instrument works.
    model
        Its data sheet.
    """

    def __init__(self, world: World, pace: Pace, model: SmuModel) -> None:
        self.world = world
        self.pace = pace
        self.model = model
        self.errors = ReadingErrors(world.seed, world.scenario.smu, model)
        self._changed_ns = world.now_ns
        self._before_A = 0.0

    # --- time ----------------------------------------------------------------------------

    async def answer_half(self) -> None:
        """Let one way of an exchange pass."""
        await self.pace.take(round(self.errors.latency_s(self.model.answer_s) * 1e9))

    async def answer_time(self) -> None:
        """Let both ways of an exchange pass."""
        latency_s = self.errors.latency_s(self.model.answer_s)
        latency_s += self.errors.latency_s(self.model.answer_s)
        await self.pace.take(round(latency_s * 1e9))

    # --- source --------------------------------------------------------------------------

    def drive(self, source: Source, *, output_on: bool) -> None:
        """Put a source on the terminals; nothing happens when it is there already."""
        if source != self.world.source:
            self._before_A = self.world.cell.source_A
            self._changed_ns = self.world.now_ns
            self.world.set_source(source, output_on=output_on)

    def current_source(self, level_A: float, *, range_A: float, limit_V: float) -> Source:
        """Return what a current source of this instrument really is."""
        model = self.model.range_for(range_A / 1.05)
        return Source(mode="current", level=self.errors.sourced_A(model, level_A), clamp=limit_V)

    def voltage_source(self, level_V: float, *, limit_A: float) -> Source:
        """Return what a voltage source of this instrument really is."""
        return Source(mode="voltage", level=self.errors.sourced_V(level_V), clamp=limit_A)

    @property
    def in_compliance(self) -> bool:
        """True while the source is held by its clamp."""
        return self.world.cell.clamped

    # --- meter ---------------------------------------------------------------------------

    async def measure(self, *, window_s: float, range_A: float) -> Measured:
        """Integrate the voltage, then the current, and remember the truth of it."""
        window_ns = round(window_s * 1e9)
        overhead_s = self.model.read_overhead_s / 2
        await self.pace.take(round(self.errors.latency_s(overhead_s) * 1e9))
        start_ns = self.world.now_ns
        await self.pace.take(2 * window_ns)
        reading = self._reading(start_ns, window_ns, self.model.range_for(range_A / 1.05))
        await self.pace.take(round(self.errors.latency_s(overhead_s) * 1e9))
        return reading

    def _reading(self, start_ns: int, window_ns: int, model: RangeModel) -> Measured:
        middle_ns, end_ns = start_ns + window_ns, start_ns + 2 * window_ns
        voltage_V = self.errors.voltage_V(
            self.world.mean("voltage", start_ns, middle_ns), window_ns / 1e9
        )
        self.world.record(
            "samples",
            t_ns=middle_ns,
            voltage=self.world.mean("voltage", start_ns, end_ns),
            current=self.world.mean("current", start_ns, end_ns),
            current_ionic=self.world.mean("ion", start_ns, end_ns),
        )
        return Measured(
            start_ns=start_ns,
            voltage_V=voltage_V,
            current_A=self._current_A(middle_ns, end_ns, model),
            compliance=self.in_compliance,
        )

    def _current_A(self, from_ns: int, to_ns: int, model: RangeModel) -> float:
        """Return a reading of the current; infinite beyond the range."""
        true_A = self.world.mean("current", from_ns, to_ns)
        since_s = ((from_ns + to_ns) / 2 - self._changed_ns) / 1e9
        lag = math.exp(-max(since_s, 0.0) / model.settling_tau_s)
        settled_A = true_A + (self._before_A - true_A) * lag
        if abs(settled_A) > 1.05 * model.full_scale_A:
            return math.copysign(math.inf, settled_A)
        # A zero that has moved is a current that is read and does not flow.
        share = self.world.cell.parameters.changed_share((to_ns - self.world.start_ns) / 1e9)
        moved_A = share * self.world.scenario.smu.offset_change_A
        return self.errors.current_A(model, settled_A + moved_A, (to_ns - from_ns) / 1e9)
