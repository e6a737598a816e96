"""Offsets between a potentiostat and a movie without a common clock: error, coverage, refusals.

    python benchmarks/align.py [pairs]

Each pair has a hidden offset. A third is told by coded blanking, a third by steps, a third by
rates, some of them with nothing in common or with steps that are all alike, which must be
refused. Printed by method: refused, median and largest error, coverage of the 95 % interval,
and answers that were given and are wrong by more than 5 sigma and 2 frames.
"""

import sys
from dataclasses import dataclass

import numpy as np

from sync.code import BlankingCode
from sync.code_wave import window_mean
from sync.search import OffsetPosterior, Series, offset_by_code, offset_by_rates, offset_by_steps

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One pair: what was hidden, and what was found."""

    method: str
    hopeless: bool
    offset_s: float
    frame_s: float
    found: OffsetPosterior

    @property
    def error_s(self) -> float:
        """Found less true."""
        return self.found.best_s - self.offset_s

    @property
    def wrong(self) -> bool:
        """True for an answer that was given and is far off."""
        far_s = max(5 * self.found.sigma_s, 2 * self.frame_s)
        return not self.found.refusal and abs(self.error_s) > far_s


def by_code(seed: int, rng: np.random.Generator) -> Outcome:
    """Play a code, sometimes one that only one record has."""
    offset_s = float(rng.uniform(-20, 20))
    frame_s = float(rng.choice([0.025, 0.04]))
    edges_ns = BlankingCode(order=6, chip_ns=round(4.28e9 * frame_s)).edges_ns(START_NS)
    true_s = (edges_ns - START_NS) / 1e9 + 2e-3 * rng.standard_normal(len(edges_ns))
    hopeless = seed % 5 == 4
    t = np.arange(-3, true_s[-1] + 4, frame_s)
    lit = window_mean(t, t + 0.95 * frame_s, true_s)
    sums = 1e6 * lit * (1 + 0.01 * rng.standard_normal(len(t)))
    start = START_NS + np.round((t + offset_s) * 1e9).astype(np.int64)
    s = np.arange(-5, true_s[-1] + 4, 0.02)
    current = 5e-12 + 0.0 if hopeless else 1e-13 * window_mean(s, s + 0.02, true_s, tau_s=0.05)
    current = current + 3e-14 * rng.standard_normal(len(s))
    middle = START_NS + np.round((s + 0.01) * 1e9).astype(np.int64)
    found = offset_by_code(
        start,
        start + round(0.95e9 * frame_s),
        sums,
        middle,
        np.full(len(s), 20_000_000, np.int64),
        current,
        edges_ns,
    )
    return Outcome(
        method="code", hopeless=hopeless, offset_s=offset_s, frame_s=frame_s, found=found
    )


def by_steps(seed: int, rng: np.random.Generator) -> Outcome:
    """Step the current at uneven times; sometimes at even ones, or without any effect."""
    offset_s, frame_s = float(rng.uniform(-60, 60)), 0.2
    kind = ("seen", "seen", "seen", "even", "unseen")[seed % 5]
    gaps = np.full(12, 20.0) if kind == "even" else rng.uniform(8, 40, 12)
    steps_s = 30 + np.cumsum(gaps)
    t = np.arange(-100, steps_s[-1] + 130, frame_s)
    heights = rng.choice([-1, 1], 12) * rng.uniform(0.5, 2.0, 12)
    if kind == "unseen":
        heights = np.zeros(12)
    elif kind == "even":
        heights = np.where(np.arange(12) % 2 == 0, 1.0, -1.0)
    heights[rng.random(12) < 0.15] = 0.0
    value = np.sum(heights * (t[:, None] > steps_s), axis=1)
    drift = 0.02 * np.cumsum(rng.standard_normal(len(t)))
    movie = Series(t_s=t + offset_s, value=value + drift + 0.3 * rng.standard_normal(len(t)))
    found = offset_by_steps(steps_s, movie, offsets_s=(-80, 80), rng=rng)
    return Outcome(
        method="steps",
        hopeless=kind != "seen",
        offset_s=offset_s,
        frame_s=frame_s,
        found=found,
    )


def by_rates(seed: int, rng: np.random.Generator) -> Outcome:
    """Let a front follow a current that wanders; sometimes one that it knows nothing of."""
    offset_s, frame_s = float(rng.uniform(-60, 60)), 0.5
    kind = ("follows", "follows", "follows", "periodic", "unrelated")[seed % 5]
    s = np.arange(0, 600, 0.1)
    current = _wandering(s, rng)
    if kind == "periodic":
        current = np.sign(np.sin(2 * np.pi * s / 30))
    t = np.arange(0, 600, frame_s)
    own = _wandering(s, rng) if kind == "unrelated" else current
    charge = np.concatenate([[0.0], np.cumsum(0.1 * own)[:-1]])
    position = np.interp(t, s, charge) + 0.15 * rng.standard_normal(len(t))
    position += 0.05 * np.cumsum(rng.standard_normal(len(t)))
    found = offset_by_rates(
        Series(t_s=s, value=current),
        Series(t_s=t + offset_s, value=position),
        offsets_s=(-80, 80),
        rng=rng,
    )
    return Outcome(
        method="rates",
        hopeless=kind != "follows",
        offset_s=offset_s,
        frame_s=frame_s,
        found=found,
    )


def _wandering(s: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    levels = rng.standard_normal(int(s[-1] / 5) + 2)
    return np.asarray(levels[(s / 5).astype(int)])


def pair(seed: int) -> Outcome:
    """Return one pair with a hidden offset."""
    rng = np.random.default_rng([seed, 77])
    return (by_code, by_steps, by_rates)[seed % 3](seed // 3, rng)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    outcomes = [pair(seed) for seed in range(count)]
    print(f"{count} pairs")
    print(
        f"{'method':8}{'kind':10}{'pairs':>6}{'refused':>9}{'median s':>10}{'max s':>10}"
        f"{'covered':>9}{'wrong':>7}"
    )
    for method in ("code", "steps", "rates"):
        for hopeless in (False, True):
            rows = [o for o in outcomes if o.method == method and o.hopeless == hopeless]
            given = [o for o in rows if not o.found.refusal]
            errors = [abs(o.error_s) for o in given] or [float("nan")]
            covered = [o.found.low_s <= o.offset_s <= o.found.high_s for o in given] or [False]
            print(
                f"{method:8}{'hopeless' if hopeless else 'fair':10}{len(rows):6d}"
                f"{len(rows) - len(given):9d}{np.median(errors):10.4f}{max(errors):10.4f}"
                f"{np.mean(covered):9.2f}{sum(o.wrong for o in rows):7d}"
            )
    print(f"confident and wrong: {sum(o.wrong for o in outcomes)}")


if __name__ == "__main__":
    main()
