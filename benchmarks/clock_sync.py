"""Clocks from the same exchanges: ours beside LSL's rule and pyxdf's own fit.

    pip install -e ".[bench]"
    python benchmarks/clock_sync.py [seeds]

LSL's rule (least round trip of each wave of 8, held) is written anew here, because liblsl takes
no exchanges from outside; the robust fit is pyxdf's own code. All get the same simulated
exchanges, 8 each 2 s over 5 minutes. What knows only the past stands apart from what knows the
whole record. `clock_live.py` races two processes and the real liblsl, `clock_film.py` its
dejitter.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pyxdf.pyxdf import _robust_fit

from mocks.clock_pair import HEAVY, LIGHT, ClockPair, VirtualClock, Way, waves
from sync.clockfit import ClockFit
from sync.code import BlankingCode
from sync.code_camera import fit_camera
from sync.code_wave import window_mean
from sync.edges import edge_sigma_ns, match_edges
from sync.live_clock import LiveClock
from sync.smoother import smooth_clock

DURATION_S, SEEDS, PROBES = 300, 12, 8
BEGUN_S = 40.0  # from when on the errors online are shown apart, too
LAWS = {"light": LIGHT, "heavy": HEAVY, "flood": Way(jitter_ns=600_000.0)}
RACED = ("LSL rule", "ours, online", "pyxdf", "ours, offline")
Stamps = NDArray[np.int64]
Run = dict[str, NDArray[np.float64]]


def lsl_waves(rows: NDArray[np.void]) -> tuple[Stamps, Stamps, Stamps]:
    """Return when each wave was over, its device time, and its offset of the least trip."""
    offset = (rows["t0_ns"] + rows["t3_ns"]) // 2 - (rows["t1_ns"] + rows["t2_ns"]) // 2
    trip = (rows["t3_ns"] - rows["t0_ns"]) - (rows["t2_ns"] - rows["t1_ns"])
    starts = np.flatnonzero(np.diff(rows["t0_ns"], prepend=np.int64(-(10**15))) > 1_000_000_000)
    parts = np.split(np.arange(len(rows)), starts[1:])
    best = np.array([part[np.argmin(trip[part])] for part in parts])
    ends = np.array([part[-1] for part in parts])
    return rows["t3_ns"][ends], rows["t1_ns"][starts], offset[best]


def race(
    rows: NDArray[np.void], shows: Callable[[Stamps], Stamps], host: Stamps
) -> dict[str, NDArray[np.float64]]:
    """Return errors by method in ns at these host times, and what ours claims."""
    stamps = shows(host)
    over, device, offset = lsl_waves(rows)
    x = (device - stamps[0]) / 1e9
    fit = _robust_fit(
        np.column_stack([np.ones(len(x)), x / 1e-4]), (offset - offset[0]) / 1e9 / 1e-4
    )
    line = (fit[0] * 1e-4 + fit[1] * (stamps - stamps[0]) / 1e9) * 1e9
    record = smooth_clock(rows)
    piece = max(record.pieces, key=lambda one: one.count)
    live, online, claim, bound = LiveClock(), [], [], []
    for k in range(len(rows)):
        live.add(rows[k : k + 1])
        till = rows["t3_ns"][k + 1] if k + 1 < len(rows) else host[-1]
        here = (host > rows["t3_ns"][k]) & (host <= till)
        online.extend(live.to_host_ns(stamps[here]) - host[here])
        claim.extend(live.sigma_ns(stamps[here]))
        bound.extend(live.bound_ns(stamps[here]))
    held = np.maximum(np.searchsorted(over, host) - 1, 0)
    return {
        "since_s": (host - rows["t0_ns"][0]) / 1e9,
        "LSL rule": (stamps + offset[held] - host).astype(np.float64),
        "pyxdf": (stamps - host + offset[0]) + line,
        "ours, online": np.array(online, np.float64),
        "ours, offline": (piece.to_host_ns(stamps) - host).astype(np.float64),
        "online sigma": np.array(claim),
        "offline sigma": piece.sigma_ns(stamps),
        "online bound": np.array(bound),
        "offline bound": piece.bound_at_ns(stamps),
        "steps": np.array([len(record.pieces) - 1.0]),
    }


def simulated(there: Way, back: Way, seed: int) -> tuple[ClockPair, NDArray[np.void], Stamps]:
    """Return a pair of clocks, its exchanges, and when the error is looked at."""
    phase = np.random.default_rng(seed).uniform(0, 6)
    device = VirtualClock(rate_ppm=20, thermal_ppm=0.25, thermal_s=1200, thermal_phase=phase)
    clocks = ClockPair(device=device, there=there, back=back)
    host = np.round(np.arange(10, DURATION_S - 3, 0.37) * 1e9).astype(np.int64)
    return clocks, clocks.exchange(waves(DURATION_S), seed), host


def rms_us(error: NDArray[np.float64]) -> float:
    """Return the root of the mean square, in us."""
    return float(np.sqrt(np.mean(error**2)) / 1e3)


def show(law: str, runs: Sequence[Run], raced: Sequence[str]) -> None:
    """Print errors, their ratio to the better peer, coverage and pull."""
    joined = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    best = min(rms_us(joined[name]) for name in ("LSL rule", "pyxdf"))
    begun = joined["since_s"] > BEGUN_S
    print(law)
    for name in raced:
        error = joined[name]
        line = f"  {name:16}{rms_us(error):9.2f} us rms"
        if name.startswith("ours"):
            when = name.split()[1]
            pull = error / joined[f"{when} sigma"]
            inside = float(np.mean(np.abs(error) <= joined[f"{when} bound"]))
            line += (
                f"  {rms_us(error) / best:5.2f} of the better peer; coverage of 95 %: "
                f"{np.mean(np.abs(pull) < 1.96):.3f}, pull rms {np.sqrt(np.mean(pull**2)):.2f}, "
                f"within the bound: {inside:.4f}"
            )
        print(line)
        if ("online" in name or "LSL" in name) and np.any(begun):
            print(f"    after {BEGUN_S:.0f} s     {rms_us(error[begun]):9.2f}")


def asymmetric(seeds: int) -> None:
    """Print what an asymmetry does that no exchange can see, and what takes it away."""
    print("ways there 0.1 ms; back 0.1 to 2 ms, not known (us: error in the middle)")
    print("   bound     network     by TTL edges    by coded blanking")
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 3])
        back = Way(least_ns=int(rng.uniform(100_000, 2_000_000)))
        clocks, rows, host = simulated(Way(), back, seed)
        (piece,) = smooth_clock(rows).pieces
        stamps = clocks.shows(host)
        error = (piece.to_host_ns(stamps) - host).astype(np.float64)
        bound = piece.bound_at_ns(stamps)
        edges = by_edges(clocks, rng)
        edge_error = (edges.to_host_ns(stamps) - host).astype(np.float64)
        code_us, code_sigma_us = by_code(clocks, piece.to_host_ns, rng)
        held = "held" if np.all(np.abs(error) <= bound) else "BROKEN"
        middle = error[len(error) // 2] / 1e3
        print(
            f"{bound.min() / 1e3:8.0f} {held} {middle:9.1f} {rms_us(edge_error):9.2f} (claimed "
            f"{float(np.median(edges.sigma_ns(stamps))) / 1e3:.2f}) {middle - code_us:9.2f} "
            f"(claimed {code_sigma_us:.2f})"
        )


def by_edges(clocks: ClockPair, rng: np.random.Generator) -> ClockFit:
    """Return the clock by 60 pulses that both records see, sampled at 10 kHz; some are lost."""
    pulses = np.sort(rng.uniform(10, DURATION_S - 10, 60))
    at = np.round(pulses * 1e9).astype(np.int64)
    step = 100_000
    seen, own = clocks.shows(at[rng.random(60) > 0.05]), at[rng.random(60) > 0.05]
    # A sampled edge is late by up to a step: half of one on average.
    first = seen // step * step + step // 2
    second = own // step * step + step // 2
    sigma = edge_sigma_ns(step)
    return match_edges(first, second, first_sigma_ns=sigma, second_sigma_ns=sigma).clock


def by_code(
    clocks: ClockPair, to_host: Callable[[Stamps], Stamps], rng: np.random.Generator
) -> tuple[float, float]:
    """Return by how much frames at 400 a second show a code later than the host's edges, in us.

    The frames have the device's stamps, brought to the host by the network's fit.
    """
    begun_ns = 140_000_000_000
    edges_ns = BlankingCode(order=7, chip_ns=20_700_000).edges_ns(begun_ns)
    edges_s = (edges_ns - begun_ns) / 1e9
    t = np.arange(-4, edges_s[-1] + 4, 1 / 400) + rng.uniform(0, 1 / 400)
    sums = 1e6 * window_mean(t, t + 1 / 400, edges_s)
    sums = sums + 1e6 / 100 * rng.standard_normal(len(t))
    start = begun_ns + np.round(t * 1e9).astype(np.int64)
    fit = fit_camera(
        to_host(clocks.shows(start)),
        to_host(clocks.shows(start + 2_500_000)),
        sums,
        edges_ns,
        search_s=(-1.0, 1.0),
    )
    return fit.delay_s * 1e6, fit.delay_sigma_s * 1e6


def main(seeds: int = SEEDS) -> None:
    """Print the tables."""
    for law, way in LAWS.items():
        runs = []
        for seed in range(seeds):
            clocks, rows, host = simulated(way, way, seed)
            runs.append(race(rows, clocks.shows, host))
        show(f"{law}, {seeds} runs", runs, RACED)
    asymmetric(5)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
