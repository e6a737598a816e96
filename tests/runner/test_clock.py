"""The host clock in its three kinds."""

import asyncio
import math
from pathlib import Path

import pytest

from runner.clock import (
    ClockSpec,
    LockstepClock,
    RunningClock,
    SharedTime,
    real_now_ns,
)


@pytest.fixture
def lockstep():
    shared, path = SharedTime.create(1_000)
    yield LockstepClock(ClockSpec(origin_ns=1_000, path=str(path)), shared), shared
    shared.close()
    path.unlink()


def test_real_clock_reads_the_system_clock():
    read = ClockSpec(origin_ns=real_now_ns()).reader()
    before = real_now_ns()
    assert before <= read() <= real_now_ns()


def test_scaled_clock_runs_faster_from_its_origin():
    origin = real_now_ns()
    read = ClockSpec(origin_ns=origin, speed=100.0).reader()
    real_before = real_now_ns()
    scaled = read()
    real_after = real_now_ns()
    assert (
        origin + 100 * (real_before - origin) - 100
        <= scaled
        <= origin + 100 * (real_after - origin)
    )


async def test_running_clock_sleeps_scaled_time():
    clock = RunningClock(ClockSpec(origin_ns=real_now_ns(), speed=1000.0))
    target = clock.now_ns() + 1_000_000_000  # 1 ms of real time
    async with asyncio.timeout(5):
        await clock.sleep_until(target)
    assert clock.now_ns() >= target
    await clock.settle()
    with clock.party():
        pass


def test_shared_time_is_seen_by_another_reader(lockstep):
    clock, shared = lockstep
    other = clock.spec.reader()
    shared.publish(2**62 + 3)
    assert other() == clock.now_ns() == 2**62 + 3
    assert clock.spec.lockstep
    assert not ClockSpec(origin_ns=0).lockstep


def test_shared_time_file_is_made_private_and_small():
    shared, path = SharedTime.create(5)
    try:
        assert Path(path).stat().st_size == 8
        assert shared.now_ns() == 5
    finally:
        shared.close()
        path.unlink()


async def test_settle_wakes_only_who_is_due_and_waits_until_they_sleep_again(lockstep):
    clock, shared = lockstep
    log = []

    async def party(name, times):
        with clock.party():
            for t in times:
                await clock.sleep_until(t)
                await asyncio.sleep(0)  # some work of its own
                log.append((name, clock.now_ns()))

    async with asyncio.TaskGroup() as group:
        group.create_task(party("a", [2_000, 3_000]))
        group.create_task(party("b", [2_500]))
        await asyncio.sleep(0)
        await clock.settle()
        assert log == []
        shared.publish(2_000)
        await clock.settle()
        assert log == [("a", 2_000)]
        shared.publish(4_000)
        await clock.settle()
        assert log == [("a", 2_000), ("b", 4_000), ("a", 4_000)]


async def test_settle_does_not_wait_for_a_cancelled_sleeper(lockstep):
    clock, shared = lockstep

    async def forever():
        with clock.party():
            while True:
                await clock.sleep_until(clock.now_ns() + 10)

    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    shared.publish(10_000)
    async with asyncio.timeout(1):
        await clock.settle()


async def test_sleeping_into_the_past_returns_at_once(lockstep):
    clock, _ = lockstep
    async with asyncio.timeout(1):
        await clock.sleep_until(10)


def test_no_speed_is_infinite_without_a_shared_file():
    # ``--speed max`` always goes with a file; a bare infinite speed makes no clock.
    read = ClockSpec(origin_ns=real_now_ns() - 10**9, speed=math.inf).reader()
    with pytest.raises(OverflowError):
        read()
