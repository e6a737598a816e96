"""What a judge of images decides: in time, not by noise, and never on old or lost frames."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.image_judge import ImageJudge, Patience, Sight, Watch
from runner.image_rules import parse_image_rule

S = 10**9
FRAME_NS = S // 20
RULE = parse_image_rule("distance(whisker.tip, cathode.edge) < 200 nm, 3 of 5 frames")


def sight(i, value_m, sigma_m=1e-9, valid=True):
    return Sight(t_ns=i * FRAME_NS, value=value_m, sigma=sigma_m, valid=valid)


def watched(judge, sights, lookahead_s=0.0, age_ns=0):
    """Show frames until the judge is not calm; return how many it saw, and what it says."""
    for i, one in enumerate(sights, start=1):
        watch = judge.take(one, now_ns=one.t_ns + age_ns, lookahead_s=lookahead_s)
        if watch is not Watch.CALM:
            return i, watch
    return len(sights), Watch.CALM


def approaching(speed_m_s, count=2000, from_m=1e-6, sigma_m=1e-9, rng=None):
    noise = np.zeros(count) if rng is None else sigma_m * rng.standard_normal(count)
    return [
        sight(i, from_m - speed_m_s * i * FRAME_NS / S + float(noise[i]), sigma_m)
        for i in range(1, count)
    ]


@settings(max_examples=12, deadline=None)
@given(
    speed=st.floats(1e-9, 500e-9),
    latency_s=st.floats(0.0, 0.3),
    flow_s=st.floats(0.0, 3.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_tip_is_at_rest_at_the_value_or_before_it(speed, latency_s, flow_s, seed):
    age_ns = round(latency_s * S)
    frames = approaching(
        speed, count=20_000, from_m=200e-9 + 4 * speed + 60e-9, rng=np.random.default_rng(seed)
    )
    frames = frames[: int((8 + 90e-9 / speed) * S / FRAME_NS)]
    judge = ImageJudge(RULE, begun_ns=0)
    seen, watch = watched(judge, frames, flow_s, age_ns)
    if watch is Watch.MET:
        stopped_s = seen * FRAME_NS / S + latency_s + flow_s
        nearest_m = 200e-9 + 4 * speed + 60e-9 - speed * stopped_s
        # Never nearer, but for the noise of the last frame; and not much too early.
        assert nearest_m > 200e-9 - 2e-9
        doubt_m = 2.5 * math.hypot(1e-9, judge.prediction.velocity_sigma * (latency_s + flow_s))
        assert nearest_m < 200e-9 + 4e-9 + 3 * doubt_m + 3 * FRAME_NS / S * speed


def test_frames_that_confirm_are_foreseen():
    """Seven of nine frames decide where one alone does, not six frames later."""
    decided = {}
    for rule in ("1 of 1 frames", "7 of 7 frames", "7 of 9 frames"):
        told = parse_image_rule(f"distance(whisker.tip, cathode.edge) < 200 nm, {rule}")
        judge = ImageJudge(told, begun_ns=0)
        decided[rule] = watched(judge, approaching(400e-9, from_m=2e-6, sigma_m=1e-12), 1.0)[0]
        assert judge.prediction.lookahead_s == pytest.approx(1.0)
    # 2 um - 400 nm/s (t + 1 s) is 200 nm at 3.5 s: one frame before, the next would be too late.
    assert set(decided.values()) == {round(3.5 * S / FRAME_NS) - 1}


def test_frames_that_come_seldom_are_foreseen_as_seldom():
    rule = parse_image_rule("distance(whisker.tip, cathode.edge) < 200 nm, 3 of 3 frames")
    every_tenth = approaching(400e-9, from_m=2e-6, sigma_m=1e-12)[9::10]
    seen, watch = watched(ImageJudge(rule, begun_ns=0, patience=Patience(stale_s=2)), every_tenth)
    assert (seen * 10, watch) == (round((4.5 - 0.5) * S / FRAME_NS), Watch.MET)


def test_a_look_ahead_of_an_after_flow_of_100_picofarad_is_200_nm():
    frames = approaching(86e-9)
    late, _ = watched(ImageJudge(RULE, begun_ns=0), frames)
    early, _ = watched(ImageJudge(RULE, begun_ns=0), frames, lookahead_s=2.34)
    assert (late - early) * FRAME_NS / S * 86e-9 == pytest.approx(200e-9, rel=0.05)


def test_a_long_look_ahead_is_surer_by_a_longer_look_back():
    sigmas = []
    for ahead_s in (1.0, 3.0, 8.0, 30.0):
        judge = ImageJudge(RULE, begun_ns=0)
        shown = approaching(1e-9, count=201, from_m=5e-6)
        assert watched(judge, shown, lookahead_s=ahead_s)[1] is Watch.CALM
        sigmas.append(judge.prediction.velocity_sigma)
    assert sigmas[0] == sigmas[1]  # 2 s
    assert sigmas[1] / sigmas[2] == pytest.approx(2**1.5, rel=0.05)
    assert sigmas[1] / sigmas[3] == pytest.approx(3**1.5, rel=0.05)  # of 6 s at most


def test_the_velocity_goes_by_the_clock_that_it_is_given():
    """Where a charge moves the tip, and the current has just grown, it is as fast as that."""
    judge = ImageJudge(RULE, begun_ns=0, seconds=lambda t_ns: (t_ns / S) ** 2 / 20)  # at 10 s
    shown = [sight(i, 900e-9 - 4e-9 * (i * FRAME_NS / S) ** 2, 1e-9) for i in range(1, 201)]
    assert watched(judge, shown)[1] is Watch.CALM
    assert judge.prediction.velocity == pytest.approx(-80e-9, rel=1e-6)


def test_noise_far_from_the_value_stops_nothing():
    rng = np.random.default_rng(5)
    still = [sight(i, 212e-9 + 2e-9 * float(rng.standard_normal()), 2e-9) for i in range(1, 2000)]
    seen, watch = watched(ImageJudge(RULE, begun_ns=0), still)
    assert (seen, watch) == (1999, Watch.CALM)


def test_one_frame_that_is_wrong_does_not_stop_but_three_of_five_do():
    frames = [sight(i, 500e-9) for i in range(1, 10)]
    wrong = [sight(10, 100e-9), *(sight(i, 500e-9) for i in range(11, 100))]
    assert watched(ImageJudge(RULE, begun_ns=0), [*frames, *wrong])[1] is Watch.CALM
    three = [sight(i, 100e-9 if i in (10, 12, 14) else 500e-9) for i in range(10, 20)]
    assert watched(ImageJudge(RULE, begun_ns=0), [*frames, *three]) == (14, Watch.MET)


def film_until(judge, left_m, speed_m_s, frames=200):
    """Show the tip at even speed until it is so far from the value."""
    shown = [
        sight(i, 200e-9 + left_m + speed_m_s * (frames - 1 - i) * FRAME_NS / S)
        for i in range(frames)
    ]
    assert watched(judge, shown[1:])[1] is Watch.CALM
    return shown[-1].t_ns


def test_a_tip_that_was_lost_just_before_the_value_is_reckoned_there():
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=30e-9, speed_m_s=200e-9)  # 3 frames before
    lost = [sight(last_ns // FRAME_NS + i, math.nan, valid=False) for i in range(1, 10)]
    assert watched(judge, lost) == (3, Watch.LOST)
    assert judge.reason.endswith("by now it may be there")


def test_a_tip_that_was_lost_far_from_the_value_has_five_frames():
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=300e-9, speed_m_s=200e-9)
    lost = [sight(last_ns // FRAME_NS + i, math.nan, valid=False) for i in range(1, 10)]
    assert watched(judge, lost) == (5, Watch.LOST)


def test_a_camera_that_falls_silent_just_before_the_value_is_not_waited_for():
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=30e-9, speed_m_s=200e-9)  # 0.15 s before
    looks = [(judge.look(last_ns + ms * 10**6), ms) for ms in range(0, 400, 10)]
    assert next(ms for watch, ms in looks if watch is Watch.STALE) == pytest.approx(140, abs=10)
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=300e-9, speed_m_s=200e-9)
    assert {judge.look(last_ns + ms * 10**6) for ms in range(0, 500, 10)} == {Watch.CALM}


def test_the_after_flow_counts_for_what_is_not_seen():
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=300e-9, speed_m_s=200e-9)
    assert judge.look(last_ns + S // 5, lookahead_s=1.0) is Watch.CALM
    assert judge.look(last_ns + S // 5, lookahead_s=1.4) is Watch.STALE


def test_a_frame_that_comes_again_is_no_news_of_a_tip_that_may_be_there():
    judge = ImageJudge(RULE, begun_ns=0)
    last_ns = film_until(judge, left_m=300e-9, speed_m_s=200e-9)
    again = sight(last_ns // FRAME_NS, 1e-6)
    assert judge.take(again, now_ns=last_ns + S // 5, lookahead_s=1.0) is Watch.CALM
    assert judge.take(again, now_ns=last_ns + S // 5, lookahead_s=1.4) is Watch.STALE


def test_what_moves_away_is_not_looked_ahead_for():
    away = [sight(i, 250e-9 + 10e-9 * i * FRAME_NS / S) for i in range(1, 200)]
    assert watched(ImageJudge(RULE, begun_ns=0), away, lookahead_s=3.0)[1] is Watch.CALM


def test_what_is_beyond_already_is_not_excused_by_moving_back():
    back = [sight(i, 190e-9 + 20e-9 * i * FRAME_NS / S) for i in range(1, 200)]
    judge = ImageJudge(RULE, begun_ns=0)
    for one in back[:2]:  # no velocity yet, and not enough votes
        assert judge.take(one, now_ns=one.t_ns, lookahead_s=3.0) is Watch.CALM
    judge = ImageJudge(
        parse_image_rule("distance(whisker.tip, cathode.edge) < 200 nm, 8 of 8 frames"), begun_ns=0
    )
    assert watched(judge, back, lookahead_s=3.0) == (8, Watch.MET)


def test_a_lost_object_is_told_from_a_gap_of_few_frames():
    found = [sight(i, 500e-9) for i in range(1, 10)]
    gap = [sight(i, math.nan, valid=False) for i in range(10, 14)]
    back = [sight(i, 500e-9) for i in range(14, 20)]
    assert watched(ImageJudge(RULE, begun_ns=0), [*found, *gap, *back])[1] is Watch.CALM
    lost = [sight(i, 1e-9, valid=False) for i in range(10, 30)]
    assert watched(ImageJudge(RULE, begun_ns=0), [*found, *lost]) == (14, Watch.LOST)


def test_a_number_that_is_none_counts_as_lost():
    bad = [sight(i, math.nan) for i in range(1, 10)]
    assert watched(ImageJudge(RULE, begun_ns=0), bad) == (5, Watch.LOST)
    bad = [sight(i, 1e-9, math.inf) for i in range(1, 10)]
    assert watched(ImageJudge(RULE, begun_ns=0), bad) == (5, Watch.LOST)


def test_frames_that_are_too_old_decide_nothing():
    judge = ImageJudge(RULE, begun_ns=0, patience=Patience(stale_s=0.5))
    assert watched(judge, approaching(86e-9), age_ns=2 * S) == (1, Watch.STALE)
    assert "2 s old" in judge.reason


def test_a_camera_that_is_silent_is_noticed_without_a_frame():
    judge = ImageJudge(RULE, begun_ns=10 * S)
    assert judge.look(10 * S + S // 2) is Watch.CALM
    assert judge.look(10 * S + S // 2 + 1) is Watch.STALE
    judge.take(Sight(t_ns=11 * S, value=5e-7, sigma=1e-9, valid=True), now_ns=11 * S, lookahead_s=0)
    assert judge.look(11 * S + S // 2) is Watch.CALM
    assert judge.look(12 * S) is Watch.STALE


def test_a_frame_that_comes_again_or_late_says_nothing_new():
    judge = ImageJudge(RULE, begun_ns=0)
    near = sight(5, 100e-9)
    for _ in range(10):
        assert judge.take(near, now_ns=near.t_ns, lookahead_s=0.0) is Watch.CALM
    older = sight(4, 100e-9)
    assert judge.take(older, now_ns=near.t_ns, lookahead_s=0.0) is Watch.CALM


def test_what_is_exact_needs_no_sigma():
    judge = ImageJudge(parse_image_rule("dose > 500 e/angstrom^2"), begun_ns=0)
    frames = [sight(i, 1e22 * i * FRAME_NS / S, 0.0) for i in range(1, 200)]
    seen, watch = watched(judge, frames, lookahead_s=0.1)
    assert watch is Watch.MET
    assert seen * FRAME_NS / S == pytest.approx(4.9, abs=0.06)
