"""What a simulated source-measure unit shows of a current that it sources itself."""

import pytest

from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.smu import Terminals
from mocks.smu_noise import SMU_6430
from mocks.world import World

START_NS, STEP_NS, TAU_S = 5_000_000_000, 10_000_000, 0.5


def test_steps_that_come_before_the_meter_has_settled_lose_no_charge():
    world = World(load("lco_lipon_li"), seed=3, start_ns=START_NS)
    smu = Terminals(world, LockstepPace(world, lambda _: None), SMU_6430)
    seen_C, last_A = 0.0, 0.0
    staircase = [(level * 1e-12, 0.2) for level in (1.0, 2.0, 3.0, 2.5, 1.0)] + [(0.0, 8.0)]
    for level_A, lasts_s in staircase:
        source = smu.current_source(level_A, range_A=1e-11, limit_V=4.3)
        smu.drive(source, output_on=True)
        for _ in range(round(lasts_s * 1e9) // STEP_NS):
            before_ns = world.now_ns
            world.advance_to(before_ns + STEP_NS)
            shown_A = smu._followed_A(before_ns, world.now_ns, TAU_S)
            # A first-order lag never jumps: not by more than the way that is left allows.
            assert abs(shown_A - last_A) < 3e-12 * STEP_NS / 1e9 / TAU_S
            seen_C, last_A = seen_C + shown_A * STEP_NS / 1e9, shown_A
    assert seen_C == pytest.approx(world.cell.source_C, rel=5e-3)
