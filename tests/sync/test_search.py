"""Offsets of records that share no clock: right and covered, or refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sync.search import Series, offset_by_code, offset_by_rates, offset_by_steps

PATH = Path(__file__).parents[2] / "benchmarks" / "align.py"


@pytest.fixture(scope="module")
def outcomes():
    import sys

    spec = importlib.util.spec_from_file_location("benchmarks_align", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return [module.pair(seed) for seed in range(20)]


def test_hidden_offsets_are_found_and_no_answer_is_confident_and_wrong(outcomes):
    assert sum(o.wrong for o in outcomes) == 0
    fair = [o for o in outcomes if not o.hopeless]
    given = [o for o in fair if not o.found.refusal]
    assert len(given) >= 0.8 * len(fair)
    covered = [o.found.low_s <= o.offset_s <= o.found.high_s for o in given]
    assert np.mean(covered) >= 0.7
    assert np.median([abs(o.error_s) for o in given]) < 0.1


def test_records_with_nothing_in_common_are_refused(outcomes):
    assert any(o.found.refusal for o in outcomes if o.hopeless)


def test_a_posterior_sums_to_one_and_holds_its_interval(outcomes):
    for found in (o.found for o in outcomes if not o.found.refusal):
        assert found.probability.sum() == pytest.approx(1.0)
        assert found.low_s < found.best_s < found.high_s
        assert found.peak_mass > 0.9


def test_a_periodic_current_is_refused():
    rng = np.random.default_rng(1)
    s = np.arange(0, 4000, 0.5)
    current = np.sin(2 * np.pi * s / 40)
    t = np.arange(1000, 1600, 1.0)
    position = np.interp(t, s, np.cumsum(current) * 0.5) + 0.3 * rng.standard_normal(len(t))
    found = offset_by_rates(
        Series(t_s=s, value=current),
        Series(t_s=t, value=position),
        offsets_s=(-200, 200),
        rng=rng,
    )
    assert "more than one offset" in found.refusal or "chance" in found.refusal


def test_a_kink_of_a_track_is_a_step_of_its_slope():
    rng = np.random.default_rng(2)
    steps_s = np.cumsum(rng.uniform(15, 40, 10)) + 20
    t = np.arange(0, 400, 0.5)
    slopes = rng.choice([-1, 1], 10) * rng.uniform(0.5, 1, 10)
    value = np.sum(slopes * np.maximum(t[:, None] - steps_s, 0), axis=1)
    movie = Series(t_s=t - 13.37, value=value + 0.1 * rng.standard_normal(len(t)))
    found = offset_by_steps(steps_s, movie, offsets_s=(-60, 60), rng=rng, slope=True)
    assert found.refusal == ""
    assert found.best_s == pytest.approx(-13.37, abs=0.5)


def test_an_offset_at_the_end_of_the_search_is_refused():
    rng = np.random.default_rng(3)
    steps_s = np.cumsum(rng.uniform(8, 40, 12)) + 20
    t = np.arange(0, 500, 0.2)
    value = np.sum((t[:, None] > steps_s) * rng.uniform(1, 2, 12), axis=1)
    movie = Series(t_s=t + 30.0, value=value + 0.1 * rng.standard_normal(len(t)))
    found = offset_by_steps(steps_s, movie, offsets_s=(-30, 30.0), rng=rng)
    assert "look further" in found.refusal


def test_too_little_is_refused():
    rng = np.random.default_rng(4)
    few = Series(t_s=np.arange(5.0), value=np.arange(5.0))
    many = Series(t_s=np.arange(300.0), value=np.arange(300.0))
    flat = Series(t_s=np.arange(300.0), value=np.ones(300))
    assert "too few" in offset_by_steps(np.array([1.0]), many, offsets_s=(-1, 1), rng=rng).refusal
    assert "too few" in offset_by_rates(few, many, offsets_s=(-1, 1), rng=rng).refusal
    assert "does not change" in offset_by_rates(flat, many, offsets_s=(-1, 1), rng=rng).refusal
    far = offset_by_rates(
        Series(t_s=np.arange(300.0), value=rng.standard_normal(300)),
        many,
        offsets_s=(-9000, -8000),
        rng=rng,
    )
    assert "overlap" in far.refusal
    stamps = np.arange(9, dtype=np.int64) * 10**9
    code = offset_by_code(stamps, stamps + 10, np.ones(9), stamps, stamps + 9, np.ones(9), stamps)
    assert code.refusal
