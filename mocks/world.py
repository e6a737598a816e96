"""The simulated world: one cell, one stage, one true time, and a memory of all of it."""

import bisect
import math
from array import array
from collections import deque

import numpy as np
from numpy.typing import NDArray

from mocks.blanker import Blanker
from mocks.cell import Source
from mocks.film import film_tables, new_cell
from mocks.scenario import Scenario
from mocks.stage import Stage

GRID_NS = 10_000_000  # longest step of the model
BLANKING_GRID_NS = 1_000_000  # the shortest that a beam which is switched makes it
STATES = (
    *("t_s", "voltage", "current", "ionic", "front", "instrument"),
    *("capacitive", "leak", "soft", "dielectric", "beam", "ionic_charge"),
)


class Exposures:
    """The wire on which the camera says that an exposure begins.

    Attributes
    ----------
    last_ns
        Host time of the last edge; before the world's beginning while there was none.
    line
        Trigger line of the source-measure unit that it ends at; 0 for none.
    """

    def __init__(self, line: int, start_ns: int) -> None:
        self.line = line
        self.last_ns = start_ns - 1
        self._edges_ns: deque[int] = deque(maxlen=1000)

    def begin(self, t_ns: int) -> None:
        """Raise the edge of an exposure."""
        self.last_ns = t_ns
        self._edges_ns.append(t_ns)

    def first_after(self, t_ns: int, line: int) -> int | None:
        """Return when the first edge after a time came on a line; None for none yet."""
        wired = line == self.line
        return next((edge for edge in self._edges_ns if wired and edge > t_ns), None)


Tables = dict[str, dict[str, NDArray[np.generic]]]


class World:
    """The hidden truth, moved on by whoever lets time pass.

    Parameters
    ----------
    scenario
        All numbers.
    seed
        Of everything random: the same seed gives the same world.
    start_ns
        Host time at which the world begins.
    """

    def __init__(self, scenario: Scenario, *, seed: int, start_ns: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.start_ns = start_ns
        self.now_ns = self._mated_ns = start_ns
        self.cell = new_cell(scenario.cell, seed=seed)
        self.stage = Stage(seed, scenario.camera.drift_m_per_root_s)
        self.source = Source()
        self.blanker = Blanker(seed)
        self.exposures = Exposures(scenario.camera.exposure_line, start_ns)
        self._recorded: dict[str, dict[str, array[int] | array[float]]] = {}
        # Integrals over time at the end of each step, for exact means over windows.
        self._t_ns = array("q", [start_ns])
        self._integrals = {
            name: array("d", [0.0]) for name in ("voltage", "current", "ion", "front")
        }
        self._states = array("d")  # rows of STATES
        self._soft_changes: list[tuple[int, bool]] = []
        self._source_changes: list[tuple[int, str, float, float, float]] = []
        self._remember()
        self.set_source(Source(), output_on=False)

    # --- time --------------------------------------------------------------------------

    def advance_to(self, t_ns: int) -> None:
        """Move the world on; a time that has passed already changes nothing."""
        while self.now_ns < t_ns:
            # Counted from the world's own start: the same seed takes the same steps.
            change_ns = self.blanker.next_change_ns(self.now_ns)
            grid_ns = self._grid_ns(change_ns is not None)
            done = (self.now_ns - self.start_ns) // grid_ns
            until_ns = min(t_ns, self.start_ns + (done + 1) * grid_ns)
            # A step has one beam: it ends where the beam changes.
            self._step(until_ns if change_ns is None else min(until_ns, change_ns))

    def _grid_ns(self, more_to_come: bool) -> int:  # noqa: FBT001
        """Return the longest step: short while the current follows a beam that is switched."""
        tau_ns, edges_ns = 1e9 * self.cell.parameters.beam_tau_s, self.blanker.edges_ns
        if tau_ns == 0 or not edges_ns:
            return GRID_NS
        if not more_to_come and self.now_ns > edges_ns[-1] + 10 * tau_ns:
            return GRID_NS
        return int(np.clip(tau_ns / 50, BLANKING_GRID_NS, GRID_NS))

    def beam(self, t_ns: int, to_ns: int | None = None) -> float:
        """Return the share of beam that is on at a time, or its mean over a window."""
        return self.blanker.mean(t_ns, t_ns if to_ns is None else to_ns)

    def dose_e_m2(self, t_ns: int) -> float:
        """Return what the beam has brought since the cell was put in."""
        lit_s = self.beam(self._mated_ns, t_ns) * max(t_ns - self._mated_ns, 0) / 1e9
        return self.scenario.camera.dose_rate_e_m2_s * lit_s

    def _step(self, until_ns: int) -> None:
        dt_s = (until_ns - self.now_ns) / 1e9
        before_m = self.cell.front_m
        was_on = self.cell.soft_on
        self.cell.beam_on = self.blanker.mean(self.now_ns, until_ns)
        self.cell.step(dt_s, self.source)
        if self.cell.soft_on is not was_on:
            self._soft_changes.append((self.now_ns, self.cell.soft_on))
        self.now_ns = until_ns
        self._t_ns.append(until_ns)
        values = (
            self.cell.voltage_V,
            self.cell.source_A,
            self.cell.ion_A,
            0.5 * (before_m + self.cell.front_m),
        )
        for total, value in zip(self._integrals.values(), values, strict=True):
            total.append(total[-1] + value * dt_s)
        self._remember()

    def _remember(self) -> None:
        cell = self.cell
        stray_C = cell.stray_F * cell.voltage_V - cell.start_stray_C
        self._states.extend(
            (  # in the order of STATES
                (self.now_ns - self.start_ns) / 1e9,
                cell.voltage_V,
                cell.source_A,
                cell.ion_A,
                cell.front_m,
                cell.source_C,
                stray_C,
                cell.leak_C,
                cell.soft_C,
                cell.slow_C,
                cell.beam_C,
                cell.ion_C,
            )
        )

    # --- what instruments do to it -------------------------------------------------------

    def set_source(self, source: Source, *, output_on: bool) -> None:
        """Change what the terminals see, from now on."""
        self.source = source
        self._source_changes.append(
            (self.now_ns, source.mode, source.level, source.clamp, float(output_on))
        )

    @property
    def elapsed_s(self) -> float:
        """Time since the world began."""
        return (self.now_ns - self.start_ns) / 1e9

    @property
    def mated_s(self) -> float:
        """Time since the cell was put in, or since the world began."""
        return (self.now_ns - self._mated_ns) / 1e9

    @property
    def temperature_K(self) -> float:
        """Temperature of the holder now."""
        return self.scenario.heat.temperature_K(self.mated_s)

    def mate_cell(self) -> None:
        """Put the cell into the holder; the truth counts from here."""
        self._mated_ns = self.now_ns
        self.cell = new_cell(self.scenario.cell, now_s=self.elapsed_s, seed=self.seed)
        del self._states[:]
        self._soft_changes.clear()
        self._remember()

    def open_holder(self) -> None:
        """Take the cell out of the holder."""
        self.cell = new_cell(self.scenario.cell, mated=False, now_s=self.elapsed_s, seed=self.seed)

    # --- what instruments see of it --------------------------------------------------------

    def mean(self, name: str, from_ns: int, to_ns: int) -> float:
        """Return the mean of ``voltage``, ``current``, ``ion`` or ``front`` over a window.

        The window must lie in the past. An empty one gives the value at its end.
        """
        if to_ns <= from_ns:
            to_ns = from_ns + 1
        width_s = (to_ns - from_ns) / 1e9
        return (self._integral(name, to_ns) - self._integral(name, from_ns)) / width_s

    def _integral(self, name: str, t_ns: int) -> float:
        total = self._integrals[name]
        i = bisect.bisect_left(self._t_ns, t_ns)
        if i == 0:
            return total[0]
        if i == len(self._t_ns):
            return total[-1]
        share = (t_ns - self._t_ns[i - 1]) / (self._t_ns[i] - self._t_ns[i - 1])
        return total[i - 1] + share * (total[i] - total[i - 1])

    def drift_px(self, from_ns: int, to_ns: int) -> tuple[float, float]:
        """Return where the specimen stands in the field (x, y), mean over a window."""
        middle_s = ((from_ns + to_ns) / 2 - self.start_ns) / 1e9
        x_m, y_m = self.stage.position_m(middle_s)
        x_m += self.scenario.faults.moved_m(middle_s)
        size_m = self.scenario.camera.pixel_size_m
        return x_m / size_m, y_m / size_m

    # --- the truth ---------------------------------------------------------------------------

    def record(self, path: str, **row: float) -> None:
        """Add a row to a table of the truth."""
        table = self._recorded.setdefault(path, {})
        for name, value in row.items():
            if name not in table:
                table[name] = array("q") if isinstance(value, int) else array("d")
            table[name].append(value)  # type: ignore[arg-type]

    def truth(self) -> Tables:
        """Return all that was hidden, as tables by session path, on the host clock."""
        rows = np.array(self._states).reshape(-1, len(STATES))
        states = dict(zip(STATES, rows.T.copy(), strict=True))
        t_ns = self.start_ns + np.round(states["t_s"] * 1e9).astype(np.int64)
        tables: Tables = {
            path: {name: np.array(column) for name, column in table.items()}
            for path, table in self._recorded.items()
        }
        tables["cell"] = {
            "t_ns": t_ns,
            "voltage": states["voltage"],
            "current": states["current"],
            "current_ionic": states["ionic"],
            "position": states["front"],
        }
        tables["ledger"] = {
            "t_ns": t_ns,
            "instrument": states["instrument"],
            "capacitive": states["capacitive"],
            "leak": states["leak"],
            "soft": states["soft"],
            "dielectric": states["dielectric"],
            "beam": states["beam"],
            "ionic": states["ionic_charge"],
        }
        tables["soft"] = {
            "t_ns": np.array([c[0] for c in self._soft_changes], np.int64),
            "on": np.array([c[1] for c in self._soft_changes], np.uint8),
        }
        changes = self._source_changes
        tables["source"] = {
            "t_ns": np.array([c[0] for c in changes], np.int64),
            "mode": np.array([c[1] for c in changes], dtype="S8"),
            "level": np.array([c[2] for c in changes]),
            "clamp": np.array([c[3] if math.isfinite(c[3]) else np.nan for c in changes]),
            "output_on": np.array([c[4] for c in changes], np.uint8),
        }
        tables["blanker"] = {
            "commanded_ns": np.array(self.blanker.commanded_ns, np.int64),
            "t_ns": np.array(self.blanker.edges_ns, np.int64),
            "on": np.arange(len(self.blanker.edges_ns), dtype=np.int64) % 2,
        }
        tables |= film_tables(self.cell)
        self._reference_drift(tables)
        return tables

    def _reference_drift(self, tables: Tables) -> None:
        """Count the drift from the first frame, as the shift that undoes it."""
        if (drift := tables.get("drift/camera")) is not None:
            for name in ("dx", "dy"):
                drift[name] = -(drift[name] - drift[name][0])
