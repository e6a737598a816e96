"""Cut-off latency: from the reading that crosses a limit to 0 A on the wire.

    python benchmarks/cutoff_latency.py

The guardian's process holds a current on an instrument that has every reading ready, and
ends the step by its rule ``V > 4.2 V``; then it begins the next. The instrument stamps
when the reading that crosses left it, and when the 0 A came. What a real instrument adds
is the time of one reading: the crossing can happen just after one began.
"""

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

from wire_smu import served

from potentiostat.limits import Condition, Envelope
from potentiostat.technique import after, chronopotentiometry
from runner.clock import ClockSpec
from runner.guardian_process import guardian_main
from runner.messages import Block, Connected, Finish, Finished, GuardianSettings, Renew, StartStep
from runner.messages import StepEnded as Ended

STEPS, READINGS_BEFORE = 400, 25
LIMIT = Condition(quantity="V", relation=">", value=4.2, text="V > 4.2 V")


def play(guardian: Connection, steps: int) -> None:
    """Have the guardian begin a step whenever the last one has ended."""
    step = chronopotentiometry(2e-11, (LIMIT, after(600.0)))
    begun = 0
    while begun < steps:
        match guardian.recv():
            case Connected() | Ended():
                guardian.send(StartStep(index=begun, step=step, range_A=1e-10))
                begun += 1
            case Block(sequence=sequence):
                guardian.send(Renew(sequence=sequence))
    while not isinstance(guardian.recv(), Ended):
        pass
    guardian.send(Finish(reason="done"))
    while not isinstance(guardian.recv(), Finished):
        pass


def main() -> None:
    """Print the distribution."""
    with served(crossing=READINGS_BEFORE) as smu:
        ours, theirs = multiprocessing.Pipe()
        settings = GuardianSettings(
            driver="keithley6430",
            resource=smu.resource,
            clock=ClockSpec(origin_ns=time.monotonic_ns()),
            envelope=Envelope(
                voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=1e-6
            ),
        )
        guardian = multiprocessing.Process(
            target=guardian_main, args=(theirs, settings), name="guardian"
        )
        guardian.start()
        play(ours, STEPS)
        guardian.join()
        found_us = sorted(ns / 1e3 for ns in smu.latencies_ns())
    if len(found_us) != STEPS:
        raise SystemExit(f"{len(found_us)} of {STEPS} steps were brought to 0 A")
    hundredths = statistics.quantiles(found_us, n=100)
    print(f"{len(found_us)} cut-offs, from the crossing reading to 0 A on the wire, in us")
    print(f"p50 {hundredths[49]:.0f}   p99 {hundredths[98]:.0f}   longest {found_us[-1]:.0f}")


if __name__ == "__main__":
    main()
