"""The lease on a 2600: whenever the host falls silent, the instrument makes the cell safe."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from mocks.bench import Bench
from mocks.keithley2600 import Keithley2600 as Simulated2600
from mocks.pace import RealPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.drivers.keithley2600 import Keithley2600
from potentiostat.errors import NotApplied
from potentiostat.protocol import SafeState, TriggerLines
from potentiostat.records import Status
from potentiostat.visa import VisaLink
from runner.clock import real_now_ns
from tests.potentiostat.served import Served, world_of
from tests.potentiostat.tsp_bench import (
    ENVELOPE,
    FILM,
    DirectLink,
    current,
    harmful,
    voltage,
)

LEASE_S = 2.0


@pytest.fixture
def direct():
    def make(**driver):
        link = DirectLink(world_of(**FILM))
        smu = Keithley2600(link, now_ns=link.now_ns, **driver)
        smu.connect(ENVELOPE)
        return smu, link

    return make


def opened_after_s(link):
    """How long after the host's last message the relay opens; nobody says anything."""
    link.pass_time(LEASE_S + 0.1)
    source = link.world.truth()["source"]
    assert source["mode"][-1] == b"open", "the cell was left alone with its set-point"
    return (source["t_ns"][-1] - link.last_sent_ns) / 1e9


@pytest.mark.parametrize(
    ("driver", "setpoint"),
    [
        ({}, current(4e-7)),
        ({}, current(-4e-7)),
        ({}, voltage(3.93)),
        ({}, None),
        ({"block": 20}, current(4e-7)),
        ({"block": 20}, voltage(3.93)),
        ({"nplc": 25.0}, current(4e-7)),
        ({"lines": TriggerLines(exposure_in=1, mark_out=2), "block": 5}, current(4e-7)),
    ],
)
@pytest.mark.parametrize("reads", [0, 3])
def test_a_silent_host_leaves_an_open_relay_within_the_lease(direct, driver, setpoint, reads):
    smu, link = direct(**driver)
    if setpoint is not None:
        smu.apply(setpoint)
    for _ in range(reads):
        smu.read()
    before_C, source_A = link.world.cell.source_C, abs(link.world.cell.source_A)
    assert 0.5 < opened_after_s(link) <= LEASE_S
    assert not link.smu.output_on
    assert abs(link.world.cell.source_C - before_C) <= max(source_A, 1e-6) * LEASE_S
    if setpoint is not None and setpoint.mode == "current":
        assert float(link.handle("print(smua.source.leveli)")) == 0
    assert float(link.handle("print(errorqueue.count)")) == 0


def test_without_a_lease_the_set_point_stays(direct):
    smu, link = direct(lease_s=0)
    smu.apply(current(4e-7))
    smu.read()
    link.pass_time(60)
    assert link.world.source.mode == "current"
    assert smu.read()["current_A"][0] == pytest.approx(4e-7, rel=0.01)
    assert not any("trigger" in line or "lamella_hold" in line for line in link.sent)
    assert link.sent.count("abort") == 1  # of a lease that an earlier connection may have left


def test_readings_and_questions_renew_it(direct):
    smu, link = direct()
    smu.apply(current(4e-7))
    for _ in range(20):
        link.pass_time(1.3)
        assert not smu.read()["status"][0] & Status.INVALID
        link.pass_time(1.8)
        smu.exchange_clock()
    assert link.smu.output_on


def test_after_it_has_run_out_readings_tell_and_nothing_is_armed(direct):
    smu, link = direct()
    smu.apply(current(4e-7))
    smu.read()
    link.pass_time(3.0)
    began_ns = link.now
    assert smu.read()["status"][0] & Status.INVALID
    assert (link.now - began_ns) / 1e9 < 0.1  # it did not wait for a reply that cannot come
    with pytest.raises(NotApplied, match="make it safe first"):
        smu.apply(current(4e-7))
    assert link.world.source.mode == "open"
    assert smu.ensure_safe() is SafeState.S1
    assert abs(link.world.source.level) <= 7e-10
    smu.apply(current(4e-7))
    assert smu.read()["current_A"][0] == pytest.approx(4e-7, rel=0.01)


@pytest.mark.parametrize("before", [current(4e-7), voltage(3.93)])
@pytest.mark.parametrize(
    "after", [current(3e-7), current(3e-8, range_A=1e-7), voltage(3.932), voltage(3.93, 5e-7)]
)
def test_a_set_point_after_it_has_run_out_is_not_applied(direct, before, after):
    smu, link = direct()
    smu.apply(before)
    link.pass_time(3.0)
    for _ in range(2):
        with pytest.raises(NotApplied, match="the output is off"):
            smu.apply(after)
        assert link.world.source.mode == "open"


def play(smu):
    """Do everything that a run does with a cell."""
    smu.apply(current(4e-7))
    smu.read()
    smu.exchange_clock()
    smu.apply(voltage(3.93))
    smu.read()
    smu.apply(voltage(3.935))
    smu.apply(current(-5e-8, range_A=1e-7))
    smu.read()
    smu.ensure_safe()
    smu.rest_at_end()


class HostGone(Exception):
    pass


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", [1, 5])
def test_wherever_the_host_dies_the_relay_opens_within_the_lease(block):
    link = DirectLink(world_of(**FILM))
    smu = Keithley2600(link, now_ns=link.now_ns, block=block)
    smu.connect(ENVELOPE)
    connected = link.exchanges
    play(smu)
    count = link.exchanges
    assert count - connected > 40
    for last in range(connected, count + 1):

        def die(n, text, last=last):
            if n > last:
                raise HostGone
            return text

        link = DirectLink(world_of(**FILM), spoil=die)
        smu = Keithley2600(link, now_ns=link.now_ns, block=block)
        smu.connect(ENVELOPE)
        with contextlib.suppress(HostGone):
            play(smu)
        opened_after_s(link)
        assert not link.smu.output_on, last
        assert harmful(link.sent) == []
        voltage_V = link.world.truth()["cell"]["voltage"]
        assert voltage_V.min() > 2.5
        assert voltage_V.max() < 4.3


# --- what the instrument does meanwhile --------------------------------------------------------


def test_other_messages_wait_until_it_has_run_out(direct):
    smu, link = direct()
    smu.apply(current(4e-7))
    began_ns = link.now
    assert link.handle("*IDN?").startswith("Keithley Instruments Inc., Model 2636B")
    assert 1.5 < (link.now - began_ns) / 1e9 < LEASE_S + 0.1
    assert link.world.source.mode == "open"


def test_an_abort_ends_it_and_is_answered_at_once(direct):
    smu, link = direct()
    smu.apply(current(4e-7))
    began_ns = link.now
    assert link.handle("abort") is None
    assert link.handle("*IDN?").startswith("Keithley Instruments Inc., Model 2636B")
    assert (link.now - began_ns) / 1e9 < 0.1
    link.pass_time(60)
    assert link.world.source.mode == "current"  # which is why each chunk begins it anew


def test_a_trigger_that_came_too_late_gives_no_reading_later(direct):
    smu, link = direct()
    smu.apply(current(4e-7))
    link.pass_time(3.0)
    assert link.handle("*TRG") is None
    smu.ensure_safe()
    assert smu.exchange_clock().device_time_s > 0  # and not the reading of that trigger
    assert np.isfinite(smu.read()["voltage_V"][0])


# --- through a socket, and with a process that is killed -----------------------------------------


def test_a_link_that_is_cut_leaves_an_open_relay():
    served = Served(Simulated2600, **FILM)
    try:
        link = VisaLink(served.resource, now_ns=served.now_ns)
        link.open()
        smu = Keithley2600(link, now_ns=served.now_ns)
        smu.connect(ENVELOPE)
        smu.apply(current(4e-7))
        smu.read()
        link.close()
        served.run(served.pace.take(round((LEASE_S + 0.1) * 1e9)))
        assert served.world.source.mode == "open"
        link = VisaLink(served.resource, now_ns=served.now_ns)
        link.open()
        again = Keithley2600(link, now_ns=served.now_ns)
        assert again.connect(ENVELOPE).model == "2636B"
        assert served.world.source.mode == "current"
        link.close()
    finally:
        served.stop()


HOST = textwrap.dedent(
    """
    import sys, time
    from potentiostat.drivers.keithley2600 import Keithley2600
    from potentiostat.limits import Envelope
    from potentiostat.protocol import Setpoint
    from potentiostat.visa import VisaLink
    link = VisaLink(sys.argv[1], now_ns=time.monotonic_ns)
    link.open()
    smu = Keithley2600(link, now_ns=time.monotonic_ns)
    smu.connect(Envelope(
        voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-6, charge_max_C=1e-3))
    smu.apply(Setpoint(mode="current", level=4e-7, clamp=4.3, range_A=1e-6))
    while True:
        smu.read()
        print("read", flush=True)
    """
)


class RealBench:
    """The simulated bench in real time, in a thread of its own."""

    def __init__(self):
        self.world = World(load("lco_thin_film"), seed=1, start_ns=real_now_ns())
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        pace = RealPace(self.world, real_now_ns, 1.0)
        async with Bench(self.world, pace, driver="keithley2600") as self.bench:
            self._ready.set()
            await self._stop.wait()

    def wait_for_open(self, timeout_s):
        async def watch():
            async with asyncio.timeout(timeout_s):
                while self.world.source.mode != "open":
                    await asyncio.sleep(0.02)

        asyncio.run_coroutine_threadsafe(watch(), self._loop).result(timeout_s + 5)

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.mark.slow
def test_a_host_that_is_killed_leaves_an_open_relay_with_nobodys_help():
    bench = RealBench()
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, bench.bench.smu_resource], stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(5):
            assert host.stdout.readline() == "read\n"
        assert bench.world.source.level == pytest.approx(4e-7, rel=0.02)
        os.kill(host.pid, signal.SIGKILL)
        host.wait(5)
        bench.wait_for_open(10)
        assert not bench.bench.smu.output_on
        assert bench.world.cell.source_C < 4.1e-7 * 10
    finally:
        host.kill()
        host.stdout.close()
        bench.stop()
