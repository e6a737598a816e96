"""The simulated blanker: the beam goes off and on, in frames and in the current."""

import asyncio
import json

import numpy as np
import pytest

from mocks.blanker import Blanker
from mocks.camera_server import CameraServer
from mocks.cell import Source
from mocks.layers import LayersScene
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

START_NS = 5_000_000_000
S = 1_000_000_000


def world_of(**overrides):
    return World(load("lco_lipon_li", **overrides), seed=3, start_ns=START_NS)


def at(*seconds):
    return START_NS + np.round(np.array(seconds) * 1e9).astype(np.int64)


def test_the_beam_is_on_until_it_is_blanked_and_on_again_after():
    world = world_of()
    assert world.beam(START_NS) == 1.0
    world.blanker.play(at(1.0, 2.0))
    assert [world.beam(int(t)) for t in at(0.5, 1.5, 2.5)] == [1.0, 0.0, 1.0]
    assert world.beam(*map(int, at(0.75, 1.25))) == pytest.approx(0.5)
    assert world.beam(*map(int, at(0.0, 4.0))) == pytest.approx(0.75)


def test_a_ramp_stands_with_its_middle_on_the_edge():
    blanker = Blanker(1)
    blanker.play(at(1.0, 2.0), rise_s=0.2)
    assert blanker.mean(*map(int, at(1.0, 1.0))) == pytest.approx(0.5, abs=1e-6)
    assert blanker.mean(*map(int, at(0.9, 1.0))) == pytest.approx(0.75)
    assert blanker.mean(*map(int, at(1.0, 1.1))) == pytest.approx(0.25)
    assert blanker.mean(*map(int, at(0.0, 3.0))) == pytest.approx(2 / 3)
    steps = [int(at(0.0)[0])]
    while (following := blanker.next_change_ns(steps[-1])) is not None:
        steps.append(following)
    assert steps[1:] == at(0.9, 1.1, 1.9, 2.1).tolist()


def test_it_obeys_late_and_never_equally_late_and_the_truth_knows_when():
    world = world_of()
    edges = at(*np.arange(1, 401) * 0.1)
    world.blanker.play(edges, latency_s=0.030, jitter_s=0.002)
    truth = world.truth()["blanker"]
    late_s = (truth["t_ns"] - truth["commanded_ns"]) / 1e9
    assert truth["commanded_ns"].tolist() == edges.tolist()
    assert np.mean(late_s) == pytest.approx(0.030, abs=0.0004)
    assert np.std(late_s) == pytest.approx(0.002, rel=0.15)
    assert truth["on"][:4].tolist() == [0, 1, 0, 1]
    assert np.all(np.diff(truth["t_ns"]) > 0)


def test_edges_that_would_overtake_each_other_keep_their_order():
    blanker = Blanker(1)
    blanker.play(at(*(1 + np.arange(40) * 1e-4)), jitter_s=0.01, rise_s=1e-5)
    assert np.all(np.diff(blanker.edges_ns) > 10_000)


@pytest.mark.parametrize("seconds", [(1.0,), (2.0, 1.0), (1.0, 1.0)])
def test_what_would_leave_the_beam_off_or_in_no_order_is_refused(seconds):
    with pytest.raises(ValueError, match="even number"):
        Blanker(1).play(at(*seconds))


def test_a_code_is_not_played_into_another_one():
    blanker = Blanker(1)
    blanker.play(at(1.0, 2.0))
    with pytest.raises(ValueError, match="still plays"):
        blanker.play(at(1.5, 3.0))
    blanker.play(at(3.0, 4.0))
    assert len(blanker.edges_ns) == 4


def test_a_held_voltage_shows_the_beam_behind_its_lag():
    world = world_of(beam_current_A=1e-12, beam_tau_s=0.05, leak_ohm=1e15, dielectric_F=0.0)
    world.set_source(Source(mode="voltage", level=world.cell.voltage_V, clamp=1e-9), output_on=True)
    world.blanker.play(at(1.0003, 2.0))
    world.advance_to(int(at(3.0)[0]))
    lit = world.mean("current", *map(int, at(0.5, 1.0)))
    for since in (0.01, 0.05, 0.1):
        begin = 1.0003 + since
        seen = world.mean("current", *map(int, at(begin, begin + 1e-3)))
        mean = (np.exp(-since / 0.05) - np.exp(-(since + 1e-3) / 0.05)) * 50
        # The instrument gives less while the beam gives more.
        assert lit - seen == pytest.approx(-1e-12 * (1 - mean), abs=4e-15)
    # Both edges lag alike, so what is missing is the beam's second without its lag.
    assert world.cell.beam_C == pytest.approx(1e-12 * (3 - 0.9997), rel=1e-6)


def test_the_ledger_closes_while_the_beam_is_switched():
    world = world_of(beam_current_A=1e-12, beam_tau_s=0.02)
    world.set_source(Source(mode="current", level=2e-11, clamp=4.3), output_on=True)
    world.blanker.play(at(0.2, 0.5, 0.6123, 0.9), jitter_s=0.003, rise_s=0.004)
    world.advance_to(int(at(1.5)[0]))
    ledger = {name: column[-1] for name, column in world.truth()["ledger"].items()}
    terms = sum(ledger[name] for name in ("capacitive", "leak", "soft", "dielectric", "ionic"))
    assert ledger["instrument"] == pytest.approx(terms - ledger["beam"], rel=1e-9)
    assert 0 < ledger["beam"] < 1.2e-12


def test_without_a_lag_the_current_follows_at_once():
    world = world_of(beam_current_A=1e-12)
    world.blanker.play(at(0.1, 0.2))
    world.advance_to(int(at(0.15)[0]))
    assert world.cell.beam_A == 0.0
    world.advance_to(int(at(0.25)[0]))
    assert world.cell.beam_A == 1e-12


def test_an_open_holder_has_no_beam_current():
    world = world_of(beam_current_A=1e-12, beam_tau_s=0.02)
    world.open_holder()
    world.advance_to(int(at(0.1)[0]))
    assert world.cell.beam_A == 0.0
    assert world.cell.beam_C == 0.0


def test_a_frame_is_as_bright_as_the_beam_was_on():
    scene = LayersScene(load("lco_lipon_li", height=32), 1)
    full = scene.frame(0, 1e-7, (0.0, 0.0))
    assert np.array_equal(full, scene.frame(0, 1e-7, (0.0, 0.0), 1.0))
    half = scene.frame(0, 1e-7, (0.0, 0.0), 0.5)
    assert half.mean() / full.mean() == pytest.approx(0.5, rel=0.01)
    assert scene.frame(0, 1e-7, (0.0, 0.0), 0.0).max() == 0
    rows = scene.expected(1e-7, (0.0, 0.0), np.linspace(0, 1, 32))
    even = scene.expected(1e-7, (0.0, 0.0))
    assert rows == pytest.approx(even * np.linspace(0, 1, 32)[:, None])


class Wire:
    """Keeps what the camera says."""

    def __init__(self):
        self.said = b""

    def write(self, data):
        self.said += data

    async def drain(self):
        return None

    def close(self):
        return None


async def test_the_camera_on_the_wire_integrates_the_beam_and_says_when_it_was_off():
    world = world_of(height=8, width=400, dropped_ratio=0.0)
    pace = LockstepPace(world, lambda _: None)
    reader, wire = asyncio.StreamReader(), Wire()
    world.blanker.play(at(0.45, 1.05))
    serving = asyncio.create_task(CameraServer(world, pace).serve(reader, wire))
    reader.feed_data(b"START\n")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pace.take(2 * S)
    reader.feed_eof()
    await serving
    frames, rest = [], wire.said
    while rest:
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        if header.get("type") == "frame":
            pixels, rest = rest[: header["bytes"]], rest[header["bytes"] :]
            frames.append((header["blanked"], np.frombuffer(pixels, np.uint8).mean()))
    truth = world.truth()["frames/camera"]["beam"]
    bright = frames[0][1]
    assert [blanked for blanked, _ in frames[:6]] == [False, False, False, True, True, False]
    assert truth[:2].tolist() == [1.0, 1.0]
    assert truth[2] == pytest.approx(0.05 / 0.196, rel=0.01)
    for (_, mean), beam in zip(frames, truth, strict=True):
        assert mean == pytest.approx(bright * beam, abs=0.05 * bright)
