"""Films that go wrong: what a simulated camera sends when its faults begin."""

import asyncio
import json

import numpy as np
import pytest

from mocks.bench import Bench
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

S = 10**9
PERIOD_S = 0.1
FAULT_S = 0.55  # of a film that begins at 0: from its seventh frame on


async def filmed(**faults):
    """Return the frames that come in 1.25 s: when each came, its header and its pixels."""
    scenario = load(
        "lco_lipon_li",
        frame_rate_Hz=1 / PERIOD_S,
        dropped_ratio=0.0,
        clock_rate_ratio=0.0,
        drift_m_per_root_s=0.0,
        width=200,
        height=32,
        pixel_size_m=4e-9,
        **faults,
    )
    world = World(scenario, seed=1, start_ns=0)
    pace = LockstepPace(world, lambda _now_ns: None)
    came = []
    async with Bench(world, pace) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.camera_port)
        await reader.readline()
        writer.write(b"START\n")
        await reader.readline()
        writer.write(b"nothing\n")
        for step in range(25):
            await pace.take(S // 20)
            writer.write(b"STOP\n" if step == 24 else b"nothing\n")
            await asyncio.sleep(0)
        while (header := json.loads(await reader.readline()))["type"] == "frame":
            raw = await reader.readexactly(header["bytes"])
            came.append((header, np.frombuffer(raw, np.uint8).reshape(32, 200)))
        writer.close()
    return came, world.truth()


async def test_a_silent_camera_sends_no_frame_and_films_on():
    came, truth = await filmed(silent_after_s=FAULT_S)
    assert [h["index"] for h, _ in came] == list(range(6))
    assert len(truth["frames/camera"]["index"]) == 12


async def test_a_frozen_camera_sends_one_picture_with_new_stamps():
    came, _ = await filmed(frozen_after_s=FAULT_S)
    pictures = [pixels for _, pixels in came]
    assert all(np.array_equal(p, pictures[5]) for p in pictures[6:])
    assert not np.array_equal(pictures[4], pictures[5])
    assert len({h["start_ns"] for h, _ in came}) == 12


async def test_late_frames_keep_their_stamps():
    came, truth = await filmed(late_after_s=FAULT_S, late_by_s=0.3)
    assert [h["index"] for h, _ in came] == list(range(9))  # the last three had not yet come
    started = [h["start_ns"] - came[0][0]["start_ns"] for h, _ in came]
    assert started == pytest.approx([i * PERIOD_S * S for i in range(9)], abs=10)
    assert len(truth["frames/camera"]["index"]) == 12


async def test_a_hidden_object_leaves_its_electrons_without_their_places():
    plain, _ = await filmed()
    came, _ = await filmed(hidden_after_s=FAULT_S, hidden_for_s=0.3)
    for i, ((_, seen), (_, sent)) in enumerate(zip(plain, came, strict=True)):
        assert np.array_equal(seen, sent) == (not 6 <= i < 9)
        assert np.array_equal(np.sort(seen.ravel()), np.sort(sent.ravel()))
    columns = [pixels.mean(axis=0).std() for _, pixels in came]
    assert max(columns[6:9]) < 0.3 * min(columns[:6])  # no layer is to be seen


async def test_a_stage_that_jumps_takes_the_picture_with_it():
    _, truth = await filmed(jump_after_s=FAULT_S, jump_m=40e-9)
    dx = truth["drift/camera"]["dx"]  # what brings it back
    assert dx == pytest.approx([0.0] * 6 + [-10.0] * 6, abs=1e-9)
