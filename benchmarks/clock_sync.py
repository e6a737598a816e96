"""Clocks from the same exchanges: ours beside LSL's rule and pyxdf's own fit.

    pip install -e ".[bench]"
    python benchmarks/clock_sync.py

LSL's rule (least round trip of each wave of 8, held) is written anew here; the robust fit
is pyxdf's own code. All get the same simulated exchanges, 8 each 2 s. Errors in us.
"""

import numpy as np
from numpy.typing import NDArray
from pyxdf.pyxdf import _robust_fit

from mocks.clock_pair import HEAVY, LIGHT, ClockPair, VirtualClock, Way, waves
from sync.live_clock import LiveClock
from sync.smoother import smooth_clock

DURATION_S, SEEDS = 300, 3
LAWS = {"light": LIGHT, "heavy": HEAVY, "flood": Way(jitter_ns=600_000.0)}
Stamps = NDArray[np.int64]


def lsl_waves(rows: NDArray[np.void]) -> tuple[Stamps, Stamps]:
    """Return when each wave was over, and its offset of the least round trip."""
    offset = (rows["t0_ns"] + rows["t3_ns"]) // 2 - (rows["t1_ns"] + rows["t2_ns"]) // 2
    trip = (rows["t3_ns"] - rows["t0_ns"]) - (rows["t2_ns"] - rows["t1_ns"])
    best = [k + int(np.argmin(trip[k : k + 8])) for k in range(0, len(rows), 8)]
    return rows["t3_ns"][7::8], offset[best]


def race(way: Way, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return errors by method, and what ours claims."""
    phase = np.random.default_rng(seed).uniform(0, 6)
    device = VirtualClock(rate_ppm=20, thermal_ppm=0.25, thermal_s=1200, thermal_phase=phase)
    clocks = ClockPair(device=device, there=way, back=way)
    rows = clocks.exchange(waves(DURATION_S), seed)
    host = np.round(np.arange(10, DURATION_S - 3, 0.37) * 1e9).astype(np.int64)
    stamps = clocks.shows(host)
    over, offset = lsl_waves(rows)
    x = (rows["t1_ns"][::8] - stamps[0]) / 1e9
    fit = _robust_fit(
        np.column_stack([np.ones(len(x)), x / 1e-4]), (offset - offset[0]) / 1e9 / 1e-4
    )
    line = (fit[0] * 1e-4 + fit[1] * (stamps - stamps[0]) / 1e9) * 1e9
    (piece,) = smooth_clock(rows).pieces
    live, online, claim = LiveClock(), [], []
    for k in range(len(rows)):
        live.add(rows[k : k + 1])
        till = rows["t3_ns"][k + 1] if k + 1 < len(rows) else host[-1]
        here = (host > rows["t3_ns"][k]) & (host <= till)
        online.extend(live.to_host_ns(stamps[here]) - host[here])
        claim.extend(live.sigma_ns(stamps[here]))
    return {
        "LSL rule": stamps + offset[np.searchsorted(over, host) - 1] - host,
        "pyxdf": (stamps - host + offset[0]) + line,
        "ours, online": np.array(online),
        "ours, offline": piece.to_host_ns(stamps) - host,
        "online sigma": np.array(claim),
        "offline sigma": piece.sigma_ns(stamps),
        "bound": piece.bound_at_ns(stamps),
    }


def main() -> None:
    """Print the table."""
    for law, way in LAWS.items():
        runs = [race(way, seed) for seed in range(SEEDS)]
        joined = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
        for name in ("LSL rule", "pyxdf", "ours, online", "ours, offline"):
            print(f"{law:8}{name:16}{np.sqrt(np.mean(joined[name] ** 2.0)) / 1e3:10.2f} us rms")
        for when in ("online", "offline"):
            share = np.abs(joined[f"ours, {when}"]) < 1.96 * joined[f"{when} sigma"]
            print(f"{law:8}{when} coverage of 95 %: {share.mean():.3f}")
        bounded = np.abs(joined["ours, offline"]) <= joined["bound"]
        print(f"{law:8}in the bound: {np.mean(bounded):.4f}")


if __name__ == "__main__":
    main()
