"""Groups of modes as witnesses: who moves by itself is not believed."""

import numpy as np
import pytest

from correlate.witnesses import FIRST, REMEMBERED, Memory, Witnesses, agree

COUNT = 20


def witnesses(rng, *, from_reference=0.0, strong=()):
    """Return groups of 0.1 to 0.5 px, and some of 0.01 px."""
    sigma = rng.uniform(0.1, 0.5, COUNT)
    sigma[list(strong)] = 0.01
    turn = rng.uniform(0, np.pi, COUNT)
    axes = np.stack([np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)], -1)
    axes = axes.reshape(COUNT, 2, 2)
    told = axes @ (np.array([1.0, 0.3]) * np.eye(2)) @ axes.transpose(0, 2, 1)
    told = told / sigma[:, None, None] ** 2
    return Witnesses.of(
        told, 0 * told, told, values=np.full(COUNT, 1e3), from_reference=from_reference
    )


def scores(rng, known, away_px=None):
    """Return scores at 0 of groups that tell 0, but for those that are away."""
    root = np.linalg.cholesky(known.scatter)
    found = (root @ rng.standard_normal((COUNT, 2, 1)))[:, :, 0]
    if away_px is not None:
        found += (known.told @ away_px[:, :, None])[:, :, 0]
    return found


def listen(known, rng, frames, away_px=None, values=None):
    memory = Memory.of_nothing(COUNT)
    found = []
    for _ in range(frames):
        seen = known.values if values is None else values
        found.append(agree(known, memory, scores(rng, known, away_px), seen))
        memory = found[-1].memory
    return found


def pull(found):
    each = [a.step_px / np.sqrt(np.diag(a.covariance_px2)) for a in found]
    return float(np.sqrt(np.mean(np.square(each))))


def test_noise_alone_is_told_to_its_bound_and_nobody_is_doubted():
    pulls, doubted = [], 0
    for seed in range(20):
        rng = np.random.default_rng([seed, 1])
        found = listen(witnesses(rng), rng, 40)
        pulls.append(pull(found))
        doubted += sum(np.any(a.memory.doubt_px2 > 0) for a in found)
    assert 0.93 < np.sqrt(np.mean(np.square(pulls))) < 1.07
    assert doubted < 0.15 * 20 * 40


def test_one_that_outweighs_all_and_moves_by_itself_is_found_out():
    for seed in range(5):
        rng = np.random.default_rng([seed, 2])
        known = witnesses(rng, strong=[7])
        away = np.zeros((COUNT, 2))
        away[7] = 0.3, -0.2
        late = listen(known, rng, 60, away)[2 * REMEMBERED :]
        assert pull(late) < 1.6
        assert np.mean([np.hypot(*a.step_px) for a in late]) < 0.15
        assert late[-1].memory.doubt_px2[7] > 0.1**2
        # It is all that is believed, at first.
        assert np.hypot(*listen(known, rng, 1, away)[0].step_px) > 0.25


def test_where_all_disagree_the_sigma_is_their_spread():
    steps = []
    for seed in range(40):
        rng = np.random.default_rng([seed, 3])
        away = rng.normal(0, 1.0, (COUNT, 2))
        steps.append(listen(witnesses(rng), rng, 30, away)[-1])
    assert 0.8 < pull(steps) < 1.25
    assert np.median([a.covariance_px2[0, 0] for a in steps]) > 0.15**2


def test_grains_that_are_exchanged_for_others_are_so_much_more_noise():
    last, restless = [], 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 10])
        known = witnesses(rng)
        sigma = rng.uniform(0.05, 5.0, COUNT)  # of unlike groups, few tell most
        known = Witnesses.of(
            known.told / sigma[:, None, None] ** 2,
            known.window,
            known.told / sigma[:, None, None] ** 2,
            known.values,
            0.0,
        )
        memory, persistent = Memory.of_nothing(COUNT), 2.0 * scores(rng, known)
        for _ in range(30):
            found = agree(known, memory, persistent + scores(rng, known), known.values)
            memory = found.memory
        last.append(found)
        restless += memory.unrest > 1
    assert 0.8 < pull(last) < 1.25
    assert restless > 30


def test_a_group_that_shows_another_scene_is_not_heard():
    rng = np.random.default_rng(4)
    known = witnesses(rng, strong=[3])
    away = np.zeros((COUNT, 2))
    away[3] = 2.0
    values = known.values.copy()
    values[3] = 0.2 * known.values[3]
    found = listen(known, rng, 30, away, values)
    assert 0.8 < pull(found) < 1.25


def test_a_frame_that_is_fainter_than_those_before_tells_less_at_once():
    rng = np.random.default_rng(5)
    known = witnesses(rng)
    memory = listen(known, rng, 20)[-1].memory
    bright, faint = (
        agree(known, memory, 0 * scores(rng, known), f * known.values) for f in (1, 0.5)
    )
    ratio = faint.covariance_px2[0, 0] / bright.covariance_px2[0, 0]
    assert 3.5 < ratio < 4.2


def test_nothing_is_judged_by_a_few_frames():
    rng = np.random.default_rng(6)
    away = rng.normal(0, 1.0, (COUNT, 2))
    found = listen(witnesses(rng), rng, FIRST, away)
    assert not any(np.any(a.memory.doubt_px2) for a in found[:-1])
    assert np.all(found[-1].memory.doubt_px2 > 0)


def test_what_is_believed_outlives_the_frames_it_was_seen_in():
    rng = np.random.default_rng(7)
    known = witnesses(rng, strong=[7])
    away = np.zeros((COUNT, 2))
    away[7] = 0.5
    memory = listen(known, rng, 20, away)[-1].memory.begun_anew()
    found = agree(known, memory, scores(rng, known, away), known.values)
    assert found.memory.frames == 1
    assert np.hypot(*found.step_px) < 0.3
    assert found.memory.doubt_px2 == pytest.approx(memory.doubt_px2)


def test_what_the_window_tells_is_nothing_that_a_group_knows():
    rng = np.random.default_rng(8)
    plain = witnesses(rng)
    told, window = plain.told.copy(), np.zeros_like(plain.told)
    window[:5] = told[:5]
    known = Witnesses.of(told, window, told, plain.values, 0.0)
    alone = witnesses(rng)
    found = agree(known, Memory.of_nothing(COUNT), scores(rng, alone), known.values)
    others = np.linalg.inv(np.sum(told[5:] @ np.linalg.inv(known.scatter[5:]) @ told[5:], axis=0))
    assert found.covariance_px2 == pytest.approx(others, rel=0.05)


def test_where_nothing_tells_the_covariance_is_not_finite():
    none = np.zeros((COUNT, 2, 2))
    known = Witnesses.of(none, none, none, np.zeros(COUNT), 0.0)
    found = agree(known, Memory.of_nothing(COUNT), np.zeros((COUNT, 2)), np.zeros(COUNT))
    assert not np.all(np.isfinite(found.covariance_px2))


def test_one_that_is_alone_contradicts_nobody():
    rng = np.random.default_rng(12)
    plain = witnesses(rng)
    values = np.where(np.arange(COUNT) == 4, plain.values, 0.0)
    known = Witnesses.of(plain.told, 0 * plain.told, plain.told, values, 0.0)
    away = np.full((COUNT, 2), 3.0)
    found = listen(known, rng, 20, away)[-1]
    assert np.all(found.memory.doubt_px2 == 0)
    assert found.step_px == pytest.approx(3.0, abs=5 * np.sqrt(np.max(found.covariance_px2)))


def test_a_memory_goes_over_to_other_weights():
    rng = np.random.default_rng(9)
    known = witnesses(rng)
    twice = Witnesses.of(2 * known.told, known.window, 2 * known.told, 2 * known.values, 0.0)
    memory = listen(known, rng, 9)[-1].memory
    assert memory.scaled(known, twice).apart == pytest.approx(2 * memory.apart, rel=0.1)
