"""Honest statistics: false findings, power, coverage and time, with peers in the same run.

    pip install -e ".[bench]"
    python benchmarks/correlation.py                      # all tables, small
    python benchmarks/correlation.py false --series 1000  # one of them, full size

Tables: ``false`` (nothing is coupled: how often is it said to be?), ``power`` (something is:
how often is it seen?), ``lag`` (how often is the true lag, and the true slope, within its
interval?), ``events`` (band of an average over events), ``steps`` (change points where there
are none, and where there are), ``time``. Peers that are not installed are named as absent.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from correlate.change_points import change_points
from correlate.enough import NotEnoughData
from correlate.event_average import event_average
from correlate.lag import Declared, LagResult, lag_correlation

try:
    from statsmodels.tsa.stattools import ccf, grangercausalitytests
except ImportError:
    ccf = grangercausalitytests = None
try:
    import ruptures
except ImportError:
    ruptures = None

Floats = NDArray[np.float64]
Maker = Callable[[np.random.Generator], Floats]
N, LAGS, NOMINAL = 1000, 50, 0.05
LEVELS, SHARES = np.array([0.0, 1.0, 0.0, -1.0, 0.0]), np.array([20, 120, 30, 80, 20])
GRANGER_LAGS = 3
PEER_SERIES = 300  # peers are off by so much that fewer series show it


def ar1(rng: np.random.Generator, n: int = N, memory: float = 0.98) -> Floats:
    """Return a stationary autoregression of one term, spread 1."""
    start = memory * rng.standard_normal(1)
    push = np.sqrt(1 - memory**2) * rng.standard_normal(n)
    return np.asarray(signal.lfilter([1.0], [1.0, -memory], push, zi=start)[0])


def protocol(rng: np.random.Generator, n: int = N) -> Floats:
    """Return a measured galvanostatic protocol: rest, charge, rest, discharge, rest."""
    ends = np.round(np.cumsum(SHARES) / SHARES.sum() * n).astype(int)
    level = np.repeat(LEVELS, np.diff(ends, prepend=0))
    return np.asarray(level + 0.01 * rng.standard_normal(n))


def other_protocol(rng: np.random.Generator, n: int = N) -> Floats:
    """Return a response that steps by itself at four to eight other times."""
    cuts = np.sort(rng.choice(np.arange(10, n - 10), rng.integers(4, 9), replace=False))
    lengths = np.diff(np.concatenate([[0], cuts, [n]]))
    return np.repeat(rng.standard_normal(len(lengths)), lengths) + 0.3 * rng.standard_normal(n)


def with_gaps(series: Floats, rng: np.random.Generator) -> Floats:
    """Return a series without 5 % of its values and without a tenth in one piece."""
    holed = np.where(rng.random(len(series)) < 0.05, np.nan, series)
    start = rng.integers(0, len(series) * 9 // 10)
    holed[start : start + len(series) // 10] = np.nan
    return holed


# --- tests -----------------------------------------------------------------------------


def pearson(rate: Floats, drive: Floats) -> float:
    """Return the plain p at lag 0."""
    good = np.isfinite(rate)
    return float(stats.pearsonr(rate[good], drive[good]).pvalue)


def pearson_best_lag(rate: Floats, drive: Floats) -> float:
    """Return the smallest plain p over the lags: what scanning by eye does."""
    n = len(rate)
    pairs = [
        (rate[max(k, 0) : n + min(k, 0)], drive[max(-k, 0) : n - max(k, 0)])
        for k in range(-LAGS, LAGS + 1, 5)
    ]
    return min(pearson(a, b) for a, b in pairs)


def scipy_band(rate: Floats, drive: Floats) -> float:
    """Return 0 where scipy's cross-correlation leaves the band of white noise, else 1."""
    a, b = np.nan_to_num(rate - np.nanmean(rate)), drive - drive.mean()
    whole = signal.correlate(a, b) / np.sqrt((a @ a) * (b @ b))
    middle = len(rate) - 1
    return float(np.abs(whole[middle - LAGS : middle + LAGS + 1]).max() < 1.96 / len(rate) ** 0.5)


def statsmodels_band(rate: Floats, drive: Floats) -> float:
    """Return 0 where statsmodels' ccf leaves its own band at any of the lags, else 1."""
    good = np.isfinite(rate)
    _, band = ccf(rate[good], drive[good], nlags=LAGS, alpha=NOMINAL)
    return float(not np.any((band[:, 0] > 0) | (band[:, 1] < 0)))


def granger(rate: Floats, drive: Floats) -> float:
    """Return the smallest p of Granger's test over 1 to 3 lags, as is common."""
    good = np.isfinite(rate)
    with redirect_stdout(StringIO()):
        found = grangercausalitytests(np.stack([rate[good], drive[good]], axis=1), GRANGER_LAGS)
    return min(float(found[k][0]["ssr_ftest"][1]) for k in found)


PEERS: dict[str, Callable[[Floats, Floats], float]] = {
    "Pearson, lag 0": pearson,
    "Pearson, best lag": pearson_best_lag,
    "scipy correlate, band": scipy_band,
}
if ccf is not None:
    PEERS |= {"statsmodels ccf, band": statsmodels_band, "statsmodels Granger": granger}


def ours(
    rate: Floats, drive: Floats, rng: np.random.Generator, count: int, **more: Any
) -> LagResult:
    """Return our test."""
    return lag_correlation(
        rate, drive, Declared(step_s=1.0, max_lag_s=float(LAGS), count=count), rng=rng, **more
    )


# --- tables ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two series that have nothing to do with each other."""

    name: str
    rate: Maker
    drive: Maker
    dose: bool = False


CASES = (
    Case(name="AR(1) 0.98, AR(1) 0.98", rate=ar1, drive=ar1),
    Case(name="AR(1) 0.98, step protocol", rate=ar1, drive=protocol),
    Case(name="the same with gaps", rate=lambda g: with_gaps(ar1(g), g), drive=protocol),
    Case(name="steps of its own, protocol", rate=other_protocol, drive=protocol),
    Case(
        name="both grow with the dose",
        rate=lambda g: ar1(g) + np.linspace(0, 2, N),
        drive=lambda g: ar1(g) + np.linspace(0, 2, N),
        dose=True,
    ),
)


def false_findings(series: int, count: int, only: int | None, seed: int) -> Iterator[str]:
    """Yield, for each case, how often something is found that is not there."""
    yield f"false findings at 5 %: {series} series of {N}, +-{LAGS} lags, 2 x {count} surrogates"
    for number, case in enumerate(CASES if only is None else CASES[only : only + 1]):
        rng = np.random.default_rng([number if only is None else only, seed])
        hits: dict[str, int] = dict.fromkeys(("ours", "phase", "iaaft", *PEERS), 0)
        refused, of_peers = 0, min(series, PEER_SERIES)
        for trial in range(series):
            rate, drive = case.rate(rng), case.drive(rng)
            more = {"regressors": np.arange(N)[:, None]} if case.dose else {}
            if trial < of_peers:
                for name, peer in PEERS.items():
                    hits[name] += peer(rate, drive) <= NOMINAL
            if (trial + 1) % 100 == 0:
                print(f"{case.name}: {trial + 1}, {hits['ours']} found", file=sys.stderr)
            try:
                found = ours(rate, drive, rng, count, **more)
            except NotEnoughData:
                refused += 1
                continue
            hits["ours"] += found.p <= NOMINAL
            hits["phase"] += found.phase.p <= NOMINAL
            hits["iaaft"] += found.iaaft.p <= NOMINAL
        yield case.name
        yield f"  {'not enough data':26}{100 * refused / series:7.1f} %"
        for name, hit in hits.items():
            asked = of_peers if name in PEERS else series - refused
            share = hit / max(asked, 1)
            error = 100 * np.sqrt(max(share * (1 - share), 1e-9) / max(asked, 1))
            yield f"  {name:26}{100 * share:7.1f} % +- {error:.1f}"


def power(series: int, count: int) -> Iterator[str]:
    """Yield how often a true coupling is seen, for growing strength."""
    yield f"found at 5 %, true lag 7 samples: {series} series of {N}, 2 x {count} surrogates"
    yield f"  {'drive':16}{'noise':14}{'strength':>9}{'mean r':>8}{'ours':>8}{'Pearson':>9}"
    for name, drive_of in (("AR(1) 0.9", lambda g: ar1(g, memory=0.9)), ("protocol", protocol)):
        for memory in (0.5, 0.9):
            for strength in (0.0, 0.25, 0.5, 1.0):
                rng = np.random.default_rng([int(100 * strength), int(10 * memory), 7])
                hit, plain, r = 0, 0, []
                for _ in range(series):
                    drive = drive_of(rng)
                    rate = strength * np.roll(drive, 7) + ar1(rng, memory=memory)
                    found = ours(rate, drive, rng, count)
                    hit += found.p <= NOMINAL
                    plain += pearson(rate, drive) <= NOMINAL
                    r.append(abs(found.effect.r))
                yield (
                    f"  {name:16}{f'AR(1) {memory}':14}{strength:9.2f}{np.mean(r):8.2f}"
                    f"{100 * hit / series:7.0f}%{100 * plain / series:8.0f}%"
                )


def coverage(series: int) -> Iterator[str]:
    """Yield how often lag and slope lie within their 95 % intervals; clocks 0.3 s off."""
    yield f"coverage of the 95 % intervals: {series} series of 400, clock sigma 0.3 samples"
    yield f"  {'drive':14}{'noise':14}{'SNR':>5}{'lag':>7}{'width':>8}{'none':>7}{'slope':>8}"
    fine, n = 20, 400
    declared = Declared(step_s=1.0, max_lag_s=12.0, count=1, clock_sigma_s=0.3)
    makers: dict[str, Maker] = {
        "AR(1) 0.9": lambda g: ar1(g, n * fine, 0.9 ** (1 / fine)),
        "protocol": lambda g: protocol(g, n * fine),
    }
    for name, drive_of in makers.items():
        for memory in (0.0, 0.9):
            for snr in (0.5, 2.0):
                rng = np.random.default_rng([int(10 * memory), int(10 * snr), 8])
                inside, slopes, none, widths = 0, 0, 0, []
                for _ in range(series):
                    raw, lag = drive_of(rng), rng.uniform(-5, 5)
                    shown = lag + 0.3 * rng.standard_normal()
                    moved = np.interp(np.arange(n * fine) - shown * fine, np.arange(n * fine), raw)
                    drive, rate = (v.reshape(n, fine).mean(axis=1) for v in (raw, moved))
                    rate = snr * rate + ar1(rng, n, memory)
                    found = lag_correlation(rate, drive, declared, rng=rng)
                    slopes += found.effect.slope_low <= snr <= found.effect.slope_high
                    none += not np.isfinite(found.best_lag_s)
                    inside += found.lag_low_s <= lag <= found.lag_high_s
                    widths.append(found.lag_high_s - found.lag_low_s)
                yield (
                    f"  {name:14}{f'AR(1) {memory}':14}{snr:5.1f}"
                    f"{100 * inside / max(series - none, 1):6.1f}%{np.nanmedian(widths):8.2f}"
                    f"{100 * none / series:6.0f}%{100 * slopes / series:7.1f}%"
                )


def event_bands(series: int, count: int) -> Iterator[str]:
    """Yield how often the band of an average over events holds the whole truth."""
    yield f"averages over events in AR(1) 0.9, {series} series of 600, 2 x {count} surrogates"
    shape = np.concatenate([np.zeros(10), np.exp(-np.arange(30) / 10)])
    for events in (4, 12):
        rng = np.random.default_rng([events, 9])
        held, false = 0, 0
        for _ in range(series):
            at = np.linspace(20, 560, events).astype(int) + rng.integers(-5, 5, events)
            noise, truth = ar1(rng, 600, 0.9), np.zeros(600)
            for place in at:
                truth[place - 10 : place + 30] += shape
            settings = {"before": 10, "after": 30, "step_s": 1.0, "rng": rng, "count": count}
            found = event_average(noise + truth, at, **settings)
            held += bool(np.all((found.low <= shape) & (shape <= found.high)))
            false += event_average(noise, at, **settings).p <= NOMINAL
        yield (
            f"  {events:3} events: truth within the whole band {100 * held / series:5.1f} %, "
            f"false alarms {100 * false / series:5.1f} %"
        )


def steps(series: int, count: int) -> Iterator[str]:
    """Yield how often steps are found where there are none, and where there are two."""
    n = 500
    yield f"change points in {series} series of {n}, {count} simulated records; two steps of 4"
    absent = "" if ruptures is not None else " (ruptures is not installed)"
    yield f"  {'noise':22}{'false alarm':>12}{'found of 2':>12}{'Pelt, false points':>20}{absent}"
    for name, memory, white in (
        ("white", 0.0, 0.0),
        ("AR(1) 0.9", 0.9, 0.0),
        ("AR(1) 0.95", 0.95, 0.0),
        ("AR(1) 0.9 + white", 0.9, 0.5),
    ):
        rng = np.random.default_rng([int(100 * memory), 10])
        false, found, peer = 0, 0, 0.0
        for _ in range(series):
            noise = ar1(rng, n, memory) + white * rng.standard_normal(n)
            false += len(change_points(noise, rng=rng, count=count).index) > 0
            stepped = noise + 4 * ((np.arange(n) >= 200) & (np.arange(n) < 330))
            at = change_points(stepped, rng=rng, count=count).index
            found += sum(bool(np.any(np.abs(at - true) <= 3)) for true in (200, 330))
            if ruptures is not None:
                peer += len(ruptures.Pelt(model="l2").fit(noise).predict(pen=2 * np.log(n))) - 1
        shown = f"{peer / series:20.1f}" if ruptures is not None else f"{'absent':>20}"
        yield f"  {name:22}{100 * false / series:11.1f}%{found / series:12.2f}{shown}"


def times(count: int) -> Iterator[str]:
    """Yield the processor time of one test, the best of three."""
    yield f"processor time of one test, {N} samples, +-{LAGS} lags, {count} surrogates of each kind"
    rng = np.random.default_rng(11)
    rate, drive = ar1(rng), ar1(rng)

    def best(test: Callable[[], object]) -> float:
        taken = []
        for _ in range(3):
            start = time.process_time()
            test()
            taken.append(time.process_time() - start)
        return min(taken)

    yield f"  {'ours':26}{1e3 * best(lambda: ours(rate, drive, rng, count)):10.2f} ms"
    for name, peer in PEERS.items():
        yield f"  {name:26}{1e3 * best(lambda p=peer: p(rate, drive)):10.2f} ms"  # type: ignore[misc]


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("false", "power", "lag", "events", "steps", "time")
    parser.add_argument("table", nargs="*", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--surrogates", type=int, default=50, help="of each kind")
    parser.add_argument("--case", type=int, help="only this case of the table of false findings")
    parser.add_argument("--seed", type=int, default=6, help="of the table of false findings")
    asked = parser.parse_args()
    if ccf is None:
        print("statsmodels is not installed: its ccf and Granger's test are left out")
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "false": lambda: false_findings(asked.series, asked.surrogates, asked.case, asked.seed),
        "power": lambda: power(asked.series, asked.surrogates),
        "lag": lambda: coverage(asked.series),
        "events": lambda: event_bands(asked.series, asked.surrogates),
        "steps": lambda: steps(asked.series, asked.surrogates),
        "time": lambda: times(max(asked.surrogates, 499)),
    }
    for name in asked.table or names:
        for line in makers[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
