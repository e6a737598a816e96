"""Charge that each event pushes through a simulated cell, ours beside PyMeasure's shutdown.

    pip install -e ".[bench]"
    python benchmarks/charge_pushed.py

Driver and simulated instrument speak without a socket, in virtual time. Printed for each
event and the second after it: the charge that the instrument gave to cell and holder, in
fC, and the lowest and highest voltage at the terminals. At rest that is the zero of its
current source. What happens to the host happens to a real guardian in mid charge:

* SIGKILL of the runner: the pipe ends;
* SIGSTOP for 60 s: the pipe is silent, and the lease of 2 s runs out;
* exception in the runner: it asks for the end;
* unplugged for 10 s: no link, until a new guardian opens it again. Nothing but what is in
  the instrument can act meanwhile;
* power cycle: the instrument comes back with its defaults, and a new guardian 10 s later.
  An output that is off is what the instrument makes of it: see the table of hazards.

The last rows end a charge as PyMeasure does: look at the minute after it.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from pymeasure.adapters import Adapter
from pymeasure.instruments import keithley as peer_keithley

from mocks.instruments import Streaming, simulated_smu
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.errors import LinkError, NoReply
from potentiostat.limits import Envelope
from potentiostat.protocol import Potentiostat, Setpoint
from potentiostat.registry import potentiostat_class
from potentiostat.technique import after, chronopotentiometry
from potentiostat.visa import Reply
from runner.clock import ClockSpec
from runner.guardian import Guardian
from runner.messages import Block, Finish, FromGuardian, GuardianSettings, Renew, StartStep
from runner.outbox import Outgoing

SECOND_NS = 10**9
BEFORE_S, UNPLUGGED_S, FROZEN_S, LEASE_S = 5.0, 10.0, 60.0, 2.0
SILENT_NS = 10_000_000  # of a stream, before its listener is told
# Which of PyMeasure's drivers speaks to a model, and what brings the off state of power-up
# back, which ours has changed and PyMeasure leaves as it is.
PEERS = {
    "keithley6430": ("Keithley2400", ""),
    "keithley2400": ("Keithley2400", ":OUTP:SMOD NORM"),
    "keithley2450": ("Keithley2450", ":OUTP:CURR:SMOD NORM\n:OUTP:VOLT:SMOD NORM"),
    "keithley2600": ("Keithley2600", "smua.source.offmode = 0"),
}


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
    Case("keithley2600", "lco_thin_film", 1e-6, 5e-7),
    Case("keysight_b2900", "lco_thin_film", 1e-6, 5e-7),
    Case("keysight_b298x", "lco_lipon_li", 2e-10, 3e-11),
    Case("palmsens_methodscript", "lco_thin_film", 1e-6, 5e-7),
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
        self.unplugged = False
        self._lines: deque[str] = deque()
        if isinstance(self.instrument, Streaming):
            self.instrument.attach(self._lines.append)

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

    def _check(self) -> None:
        if self.unplugged:
            raise LinkError("direct: the cable is out")

    def write(self, command: str) -> None:
        """Send a command."""
        self.query(command)

    def query(self, command: str) -> Reply:
        """Send a question, which may have more than one line."""
        self._check()
        sent_ns = self.now
        replies = [self.run(self.instrument.handle(line)) for line in command.split("\n")]
        return Reply(str(replies[-1]), sent_ns, self.now)

    def listen(self) -> Reply:
        """Return the next line of a stream.

        Raises
        ------
        NoReply
            None came in a while.
        """
        self._check()
        sent_ns = self.now
        if not self._lines:
            self.pass_time(SILENT_NS)
        if not self._lines:
            raise NoReply("direct: silent")
        return Reply(self._lines.popleft(), sent_ns, self.now)

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


class ScriptedRunner(Outgoing):
    """What a guardian hears of its runner: a step, and then what becomes of the runner.

    Parameters
    ----------
    wire
        Whose time counts.
    step
        Begun at once.
    script
        Moments, in seconds from now, and what happens then; called with this object.
    """

    def __init__(self, wire: Wire, step: StartStep, script: "Script") -> None:
        self._wire = wire
        self._script = [(wire.now + round(t_s * SECOND_NS), do) for t_s, do in script]
        self.said: list[object] = [step]
        self.listens, self.gone = True, False

    def poll(self, _timeout: float = 0.0, /) -> bool:
        """Tell whether there is anything to hear."""
        if not self.said and self._script and self._wire.now >= self._script[0][0]:
            self.listens = False
            self._script.pop(0)[1](self)
        return bool(self.said) or self.gone

    def recv(self) -> object:
        """Return it."""
        if not self.said:
            raise EOFError
        return self.said.pop(0)

    def put(self, message: FromGuardian) -> None:
        """Renew the lease with each block of readings, until something happens."""
        if self.listens and isinstance(message, Block):
            self.said.append(Renew(sequence=message.sequence))

    def close(self) -> None:
        """End."""


Script = Sequence[tuple[float, Callable[[ScriptedRunner], None]]]


class Watched:
    """What an event pushes through the cell, from its moment to a second after all is over."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._start_ns = wire, wire.now
        self._before_C = wire.world.cell.source_C

    def end(self) -> Pushed:
        """Return what it was."""
        self._wire.pass_time(SECOND_NS)
        truth = self._wire.world.truth()["cell"]
        during = truth["voltage"][truth["t_ns"] >= self._start_ns]
        charge_C = self._wire.world.cell.source_C - self._before_C
        return Pushed(charge_C, float(during.min()), float(during.max()))


def watch(wire: Wire, event: Callable[[], object]) -> Pushed:
    """Return what an event pushes through the cell, with a second after it."""
    watched = Watched(wire)
    event()
    return watched.end()


def envelope_of(case: Case) -> Envelope:
    """Return the limits of a case."""
    return Envelope(
        voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=case.range_A, charge_max_C=1.0
    )


def ours(case: Case) -> dict[str, Pushed]:
    """Play all events with our driver."""
    envelope = envelope_of(case)
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


def mated(case: Case) -> tuple[Wire, Potentiostat]:
    """Return a cell at rest behind our driver."""
    wire = Wire(case)
    driver: Potentiostat = potentiostat_class(case.driver)(wire, now_ns=wire.now_ns)
    driver.connect(envelope_of(case), cell_attached=False)
    wire.world.mate_cell()
    driver.connect(envelope_of(case))
    return wire, driver


def guarded(
    case: Case, happens: Callable[[Wire, ScriptedRunner], None], *, then_s: float
) -> Pushed:
    """Return what is pushed when something happens in a charge that a guardian holds.

    Parameters
    ----------
    happens
        Called in mid charge.
    then_s
        The runner asks for the end so much later.
    """
    wire, driver = mated(case)
    watched: list[Watched] = []

    def now(runner: ScriptedRunner) -> None:
        watched.append(Watched(wire))
        happens(wire, runner)

    def end(runner: ScriptedRunner) -> None:
        runner.said.append(Finish(reason="done"))

    charge = chronopotentiometry(case.current_A, (after(3600.0),))
    runner = ScriptedRunner(
        wire,
        StartStep(index=0, step=charge, range_A=case.range_A),
        ((BEFORE_S, now), (BEFORE_S + then_s, end)),
    )
    settings = GuardianSettings(
        driver=case.driver,
        resource="direct",
        clock=ClockSpec(origin_ns=0),
        envelope=envelope_of(case),
        lease_s=LEASE_S,
    )
    Guardian(driver, runner, runner, settings, now_ns=wire.now_ns, lease_now_ns=wire.now_ns).run()
    if wire.unplugged:
        wire.pass_time(round(UNPLUGGED_S * SECOND_NS))
        wire.unplugged = False
        again: Potentiostat = potentiostat_class(case.driver)(wire, now_ns=wire.now_ns)
        again.connect(envelope_of(case))
        again.rest_at_end()
    return watched[0].end()


def host_and_mains(case: Case) -> dict[str, Pushed]:
    """Play what happens to the host, its cable, and the mains."""

    def killed(_wire: Wire, runner: ScriptedRunner) -> None:
        runner.gone = True

    def frozen(_wire: Wire, _runner: ScriptedRunner) -> None:
        pass

    def unplugged(wire: Wire, _runner: ScriptedRunner) -> None:
        wire.unplugged = True

    def without_mains(wire: Wire, _runner: ScriptedRunner) -> None:
        wire.instrument.power_cycle()
        wire.unplugged = True

    return {
        "exception in the runner": guarded(case, frozen, then_s=0.0),
        "SIGKILL of the runner": guarded(case, killed, then_s=0.0),
        f"SIGSTOP of {FROZEN_S:g} s": guarded(case, frozen, then_s=FROZEN_S),
        f"unplugged for {UNPLUGGED_S:g} s": guarded(case, unplugged, then_s=0.0),
        f"power cycle, {UNPLUGGED_S:g} s away": guarded(case, without_mains, then_s=0.0),
    }


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
    own.connect(envelope_of(case), cell_attached=False)
    wire.world.mate_cell()
    own.connect(envelope_of(case))
    own.apply(Setpoint(mode="current", level=case.current_A, clamp=4.3, range_A=case.range_A))
    name, at_power_up = PEERS[case.driver]
    for line in at_power_up.splitlines():
        wire.write(line)
    with warnings.catch_warnings(), patch.object(time, "sleep", _sleeper(wire)):
        warnings.simplefilter("ignore", FutureWarning)
        peer: Any = getattr(peer_keithley, name)(Direct())
        shutdown = peer.ChA.shutdown if hasattr(peer, "ChA") else peer.shutdown
        return {
            "PyMeasure shutdown()": watch(wire, shutdown),
            "... and a minute later": watch(wire, lambda: wire.pass_time(59 * SECOND_NS)),
        }


def _sleeper(wire: Wire) -> Callable[[float], None]:
    """Return a sleep that lets virtual time pass, for the steps of the peer's ramps."""
    return lambda seconds: wire.pass_time(round(seconds * SECOND_NS))


def main() -> None:
    """Print a table for each driver."""
    for case in CASES:
        print(
            f"\n{case.driver}, {case.scenario}, "
            f"{case.current_A:g} A in the {case.range_A:g} A range"
        )
        print(f"{'event':<32}{'charge (fC)':>14}{'lowest (V)':>12}{'highest (V)':>12}")
        found = ours(case) | host_and_mains(case)
        if case.driver in PEERS:
            found |= peers(case)
        for name, got in found.items():
            print(f"{name:<32}{got.charge_C * 1e15:>14.1f}{got.low_V:>12.4f}{got.high_V:>12.4f}")


if __name__ == "__main__":
    main()
