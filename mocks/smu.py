"""The terminals of a simulated source-measure unit: what every dialect drives and reads."""

import asyncio
import math
from dataclasses import dataclass

from mocks.cell import Source
from mocks.lag import LaggedCurrent
from mocks.pace import Pace
from mocks.smu_noise import RangeModel, ReadingErrors, SmuModel
from mocks.world import World
from potentiostat.blocks import EDGE_WAIT_S

OPEN = Source(mode="open")
LONGEST_WAIT_NS = int(EDGE_WAIT_S * 1e9)  # then time stands still until somebody aborts


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One reading of voltage and current, in windows of which one follows the other.

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
        self._tau_s = 0.0  # of the range that was read last
        self._lag = LaggedCurrent(world)
        self._edges_seen_ns = world.now_ns
        self._abort = asyncio.Event()

    # --- trigger lines ---------------------------------------------------------------------

    def forget_edges(self) -> None:
        """Clear what was latched: only edges from now on count."""
        self._edges_seen_ns = self.world.now_ns

    def abort(self) -> None:
        """End the waiting for an edge."""
        self._abort.set()

    async def wait_for_edge(self, line: int) -> int | None:
        """Wait for an edge on a line and return when it came; None if aborted.

        An edge that is latched from before counts at once, whatever it belonged to.
        """
        self._abort.clear()
        exposures = self.world.exposures

        def came() -> bool:
            wired = line == exposures.line
            return wired and exposures.last_ns > self._edges_seen_ns

        latched = came()
        if not latched:
            await self.pace.take_until(lambda: came() or self._abort.is_set(), LONGEST_WAIT_NS)
        if not came():
            await self._abort.wait()
            return None
        self._edges_seen_ns = exposures.last_ns
        return self.world.now_ns if latched else exposures.last_ns

    def pulse(self, line: int) -> None:
        """Give a pulse on a line."""
        self.world.record("marks", t_ns=self.world.now_ns, line=line)

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

    def _shown_A(self) -> float:
        """Return what the ammeter shows now: after a step it is still on its way."""
        true_A = self.world.cell.source_A
        if self.world.source.mode == "voltage" or self._tau_s <= 0:
            return true_A
        return self._lagging_A(true_A, self.world.now_ns, self._tau_s)

    def _lagging_A(self, true_A: float, t_ns: float, tau_s: float) -> float:
        """Return what of the last step is shown at a time, with a first-order lag."""
        since_s = max((t_ns - self._changed_ns) / 1e9, 0.0)
        return true_A + (self._before_A - true_A) * math.exp(-since_s / tau_s)

    def drive(self, source: Source, *, output_on: bool) -> None:
        """Put a source on the terminals; nothing happens when it is there already."""
        if source != self.world.source:
            self._before_A = self._shown_A()
            self._changed_ns = self.world.now_ns
            if source.mode != self.world.source.mode:
                self._lag.restart(self._before_A)
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

    async def measure(
        self,
        *,
        window_s: float,
        range_A: float,
        edge_ns: int | None = None,
        current_first: bool = False,
    ) -> Measured:
        """Integrate the voltage, then the current, and remember the truth of it.

        Parameters
        ----------
        current_first
            Integrate the current, then the voltage.
        edge_ns
            When the edge came that begins it; None to begin by itself.
        """
        window_ns = round(window_s * 1e9)
        overhead_s = self.model.read_overhead_s / 2
        if edge_ns is None:
            await self.pace.take(round(self.errors.latency_s(overhead_s) * 1e9))
            start_ns = self.world.now_ns
        else:
            # The world may have gone on since; what it was is remembered.
            start_ns = edge_ns + round(self.model.trigger_s * 1e9)
        await self.pace.take(max(0, start_ns + 2 * window_ns - self.world.now_ns))
        reading = self._reading(
            start_ns, window_ns, self.model.range_for(range_A / 1.05), current_first=current_first
        )
        await self.pace.take(round(self.errors.latency_s(overhead_s) * 1e9))
        return reading

    def read_between(self, start_ns: int, end_ns: int, *, range_A: float) -> Measured:
        """Return voltage and current, both over a window that has passed; remember the truth."""
        voltage_V = self.errors.voltage_V(
            self.world.mean("voltage", start_ns, end_ns), (end_ns - start_ns) / 1e9
        )
        self._record(start_ns, end_ns)
        model = self.model.range_for(range_A / 1.05)
        return Measured(
            start_ns=start_ns,
            voltage_V=voltage_V,
            current_A=self._current_A(start_ns, end_ns, model),
            compliance=self.in_compliance,
        )

    def _record(self, start_ns: int, end_ns: int) -> None:
        self.world.record(
            "samples",
            t_ns=(start_ns + end_ns) // 2,
            voltage=self.world.mean("voltage", start_ns, end_ns),
            current=self.world.mean("current", start_ns, end_ns),
            current_ionic=self.world.mean("ion", start_ns, end_ns),
        )

    def _reading(
        self, start_ns: int, window_ns: int, model: RangeModel, *, current_first: bool
    ) -> Measured:
        middle_ns, end_ns = start_ns + window_ns, start_ns + 2 * window_ns
        voltage_of, current_of = (start_ns, middle_ns), (middle_ns, end_ns)
        if current_first:
            voltage_of, current_of = current_of, voltage_of
        voltage_V = self.errors.voltage_V(self.world.mean("voltage", *voltage_of), window_ns / 1e9)
        self._record(start_ns, end_ns)
        return Measured(
            start_ns=start_ns,
            voltage_V=voltage_V,
            current_A=self._current_A(*current_of, model),
            compliance=self.in_compliance,
        )

    def _current_A(self, from_ns: int, to_ns: int, model: RangeModel) -> float:
        """Return a reading of the current; infinite beyond the range."""
        settled_A = self._followed_A(from_ns, to_ns, model.settling_tau_s)
        if abs(settled_A) > 1.05 * model.full_scale_A:
            return math.copysign(math.inf, settled_A)
        # A zero that has moved is a current that is read and does not flow.
        share = self.world.cell.parameters.changed_share((to_ns - self.world.start_ns) / 1e9)
        moved_A = share * self.world.scenario.smu.offset_change_A
        return self.errors.current_A(model, settled_A + moved_A, (to_ns - from_ns) / 1e9)

    def _followed_A(self, from_ns: int, to_ns: int, tau_s: float) -> float:
        """Return what the range shows of the current: it follows with a first-order lag.

        A current that the instrument sources is known to it: there only a change lags.
        """
        ratio = self.world.scenario.smu.current_lag_ratio
        if ratio > 0 and self.world.source.mode == "voltage":
            return self._lag.mean_A(from_ns, to_ns, ratio * tau_s)
        self._tau_s = tau_s
        return self._lagging_A(
            self.world.mean("current", from_ns, to_ns), (from_ns + to_ns) / 2, tau_s
        )
