"""Charge that each event pushes through a simulated cell, ours beside PyMeasure's shutdown.

    pip install -e ".[bench]"
    python benchmarks/charge_pushed.py

Driver and simulated instrument speak without a socket, in virtual time. Printed for each
event and the second after it: the charge that the instrument gave to cell and holder, in
fC, and the lowest and highest voltage at the terminals. At rest that is the zero of its
current source. The last row ends a charge as PyMeasure does: look at the minute after it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pymeasure.adapters import Adapter
from pymeasure.instruments.keithley import Keithley2400 as PeerKeithley2400

from mocks.instruments import simulated_smu
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.limits import Envelope
from potentiostat.protocol import Potentiostat, Setpoint
from potentiostat.registry import potentiostat_class
from potentiostat.visa import Reply

SECOND_NS = 10**9
PEER_SPEAKS = ("keithley6430", "keithley2400")  # the dialect of PyMeasure's Keithley2400


@dataclass(frozen=True)
class Case:
    """A driver, the cell that suits it, and a current for it."""

    driver: str
    scenario: str
    range_A: float
    current_A: float


CASES = (
    Case("keithley6430", "lco_lipon_li", 1e-10, 3e-11),
    Case("keithley2400", "lco_thin_film", 1e-6, 5e-7),
    Case("keithley2450", "lco_thin_film", 1e-6, 5e-7),
    Case("keysight_b2900", "lco_thin_film", 1e-6, 5e-7),
    Case("keysight_b298x", "lco_lipon_li", 2e-10, 3e-11),
)


class Wire:
    """Hands lines to a simulated instrument and runs each to its end."""

    resource = "direct"

    def __init__(self, case: Case) -> None:
        self.now = 0
        self.world = World(load(case.scenario), seed=1, start_ns=0)
        self.world.open_holder()
        self.pace = LockstepPace(self.world, self._publish)
        self.instrument = simulated_smu(case.driver, self.world, self.pace)

    def _publish(self, now_ns: int) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        """Read the virtual time."""
        return self.now

    def run(self, work: object) -> object:
        """Run a coroutine that never waits."""
        try:
            work.send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            return done.value
        raise RuntimeError("nothing waits in virtual time")

    def write(self, command: str) -> None:
        """Send a command."""
        self.run(self.instrument.handle(command))

    def query(self, command: str) -> Reply:
        """Send a question."""
        sent_ns = self.now
        return Reply(str(self.run(self.instrument.handle(command))), sent_ns, self.now)

    def pass_time(self, duration_ns: int) -> None:
        """Let the world go on."""
        self.run(self.pace.take(duration_ns))

    def resync(self) -> None:
        """Do nothing: no reply is ever late."""

    def close(self) -> None:
        """Do nothing: there is no socket."""


@dataclass
class Pushed:
    """What an event did to the cell."""

    charge_C: float
    low_V: float
    high_V: float


def watch(wire: Wire, event: Callable[[], object]) -> Pushed:
    """Return what an event pushes through the cell, with a second after it."""
    cell = wire.world.cell
    start_ns, before_C = wire.now, cell.source_C
    event()
    wire.pass_time(SECOND_NS)
    truth = wire.world.truth()["cell"]
    during = truth["voltage"][truth["t_ns"] >= start_ns]
    return Pushed(cell.source_C - before_C, float(during.min()), float(during.max()))


def ours(case: Case) -> dict[str, Pushed]:
    """Play all events with our driver."""
    envelope = Envelope(
        voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=case.range_A, charge_max_C=1.0
    )
    wire = Wire(case)

    def current(level_A: float) -> Setpoint:
        return Setpoint(mode="current", level=level_A, clamp=4.3, range_A=case.range_A)

    def voltage(level_V: float) -> Setpoint:
        return Setpoint(
            mode="voltage", level=level_V, clamp=0.9 * case.range_A, range_A=case.range_A
        )

    def new() -> Potentiostat:
        driver: Potentiostat = potentiostat_class(case.driver)(wire, now_ns=wire.now_ns)
        return driver

    driver = new()
    driver.connect(envelope, cell_attached=False)
    wire.world.mate_cell()
    found = {"connect": watch(wire, lambda: driver.connect(envelope))}
    found["rest again"] = watch(wire, lambda: driver.apply(current(0.0)))
    driver.apply(current(case.current_A))
    found["stop of a charge"] = watch(wire, lambda: driver.apply(current(0.0)))
    driver.apply(current(case.current_A))
    found["safe state in a charge"] = watch(wire, driver.ensure_safe)
    rest_V = wire.world.cell.voltage_V
    found["hold the rest voltage"] = watch(wire, lambda: driver.apply(voltage(rest_V)))
    found["leave it"] = watch(wire, lambda: driver.apply(current(0.0)))
    driver.apply(current(case.current_A))
    again = new()
    found["host crashed, new connection"] = watch(wire, lambda: again.connect(envelope))
    found["end"] = watch(wire, again.rest_at_end)
    return found


def peers(case: Case) -> dict[str, Pushed]:
    """End a charge as PyMeasure's driver of the family does."""
    wire = Wire(case)

    class Direct(Adapter):
        def __init__(self) -> None:
            super().__init__()
            self.reply = ""

        def _write(self, command: str, **_: object) -> None:
            reply = wire.run(wire.instrument.handle(command))
            self.reply = "" if reply is None else str(reply)

        def _read(self, **_: object) -> str:
            return self.reply

    own = potentiostat_class(case.driver)(wire, now_ns=wire.now_ns)
    envelope = Envelope(
        voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=case.range_A, charge_max_C=1.0
    )
    own.connect(envelope, cell_attached=False)
    wire.world.mate_cell()
    own.connect(envelope)
    if case.driver == "keithley2400":
        wire.write(":OUTP:SMOD NORM")  # PyMeasure leaves it as it is at power-up
    own.apply(Setpoint(mode="current", level=case.current_A, clamp=4.3, range_A=case.range_A))
    peer = PeerKeithley2400(Direct())
    return {
        "PyMeasure shutdown()": watch(wire, peer.shutdown),
        "... and a minute later": watch(wire, lambda: wire.pass_time(59 * SECOND_NS)),
    }


def main() -> None:
    """Print a table for each driver."""
    for case in CASES:
        print(
            f"\n{case.driver}, {case.scenario}, "
            f"{case.current_A:g} A in the {case.range_A:g} A range"
        )
        print(f"{'event':<32}{'charge (fC)':>14}{'lowest (V)':>12}{'highest (V)':>12}")
        found = ours(case)
        if case.driver in PEER_SPEAKS:
            found |= peers(case)
        for name, got in found.items():
            print(f"{name:<32}{got.charge_C * 1e15:>14.1f}{got.low_V:>12.4f}{got.high_V:>12.4f}")


if __name__ == "__main__":
    main()
