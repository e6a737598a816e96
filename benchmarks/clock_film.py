"""A film that drops frames: our times beside liblsl's dejitter and pyxdf's, by the same arrivals.

    pip install -e ".[bench]"
    python benchmarks/clock_film.py

60 000 frames at 400 a second; 0.1 % are dropped at random and 100 in a row; the camera's clock is
30 ppm fast and swings by 20 us; frames come 0.5 ms late and more (1.5 ms on average, stalls of up
to 2 s in some runs). liblsl is the real one: an outlet with these stamps, an inlet that dejitters.
All errors are about their median, because no arrival tells how long the quickest frame takes.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyxdf.pyxdf import StreamData, _jitter_removal

from sync.arrivals import counted_stamps, fit_arrivals
from sync.frames import account_for_frames

FRAMES, RATE_HZ, GAP = 60_000, 400.0, 100
LATENCY_NS, JITTER_NS = 500_000, 1.5e6
Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Counters, the camera's stamps, true ends of exposures on the host, and arrivals."""

    index: Stamps
    stamps_ns: Stamps
    true_ns: Stamps
    arrival_ns: Stamps
    dropped: int


def film(seed: int, *, stalls: bool) -> Film:
    """Return a film whose truth is known."""
    rng = np.random.default_rng(seed)
    keep = rng.random(FRAMES) >= 0.001
    at = int(rng.integers(FRAMES // 4, FRAMES // 2))
    keep[at : at + GAP] = False
    keep[[0, -1]] = True
    index = np.flatnonzero(keep)
    t = index / RATE_HZ
    stamps = np.round(t * 1e9).astype(np.int64) + 7_000_000_000
    wander_us = 30 * t + 20 * np.sin(2 * np.pi * t / 40 + seed)
    true = 10**12 + stamps + np.round(1e3 * wander_us).astype(np.int64)
    arrival = true + LATENCY_NS + np.round(rng.exponential(JITTER_NS, len(t))).astype(np.int64)
    began = float(rng.uniform(2, 8))
    while stalls and began < t[-1]:
        over = int(arrival[0] + (began + rng.uniform(0.1, 2.0)) * 1e9)
        held = (arrival > arrival[0] + began * 1e9) & (arrival < over)
        arrival[held] = over
        began += float(rng.uniform(5, 15))
    return Film(
        index=index,
        stamps_ns=stamps,
        true_ns=true,
        arrival_ns=np.maximum.accumulate(arrival),
        dropped=FRAMES - len(index),
    )


def by_liblsl(arrival_ns: Stamps) -> NDArray[np.float64] | None:
    """Return liblsl's own dejittered stamps in ns, less the first arrival; None without it."""
    try:
        import pylsl  # noqa: PLC0415 - its library may be missing
    except (ImportError, RuntimeError, OSError) as error:
        print(f"liblsl is not here ({error})")
        return None
    name = f"film-{time.monotonic_ns()}"
    outlet = pylsl.StreamOutlet(
        pylsl.StreamInfo(name, "Video", 1, RATE_HZ, "float32", name), 0, 360
    )
    found = pylsl.resolve_byprop("source_id", name, 1, 10)
    if not found:
        print("liblsl does not find its own stream here")
        return None
    inlet = pylsl.StreamInlet(found[0], max_buflen=360, processing_flags=pylsl.proc_dejitter)
    inlet.open_stream(10)
    got: list[NDArray[np.float64]] = []
    count, until = 0, time.monotonic() + 60
    for k, stamp in enumerate((arrival_ns - arrival_ns[0]) / 1e9 + 1000):
        outlet.push_sample([float(k)], float(stamp))
    while count < len(arrival_ns) and time.monotonic() < until:
        _, stamps = inlet.pull_chunk(0.5, max_samples=4096)
        got.append(np.asarray(stamps, np.float64))
        count += len(stamps)
    inlet.close_stream()
    if count < len(arrival_ns):
        print(f"liblsl gave {count} of {len(arrival_ns)} stamps")
        return None
    return np.asarray((np.concatenate(got) - 1000) * 1e9)


def by_pyxdf(arrival_ns: Stamps, *, can_drop: bool) -> NDArray[np.float64]:
    """Return pyxdf's stamps in ns, less the first arrival."""
    info = {"channel_count": ["1"], "nominal_srate": [str(RATE_HZ)], "channel_format": ["float32"]}
    stream = StreamData({"info": info})
    stream.time_stamps = (arrival_ns - arrival_ns[0]) / 1e9
    said = {"synchronization": [{"can_drop_samples": ["true" if can_drop else "false"]}]}
    _jitter_removal({1: stream}, stream_headers={1: {"info": {"desc": [said]}}})
    return np.asarray(stream.time_stamps * 1e9)


def show(method: str, error_ns: NDArray[np.float64], claimed_ns: float | None = None) -> None:
    """Print one line."""
    away = error_ns - np.median(error_ns)
    claim = "" if claimed_ns is None else f", claimed {claimed_ns / 1e6:.4f}"
    rms_ms, max_ms = np.sqrt(np.mean(away**2)) / 1e6, np.abs(away).max() / 1e6
    print(f"  {method:44}{rms_ms:9.4f} ms rms{max_ms:10.3f} ms max{claim}")


def main(seeds: int = 1) -> None:
    """Print the race."""
    for stalls in (False, True):
        for seed in range(seeds):
            made = film(seed, stalls=stalls)
            print(f"{'stalls of up to 2 s' if stalls else 'no stalls'}, film {seed}")
            true = (made.true_ns - made.arrival_ns[0]).astype(np.float64)
            show("as they arrive", (made.arrival_ns - made.true_ns).astype(np.float64))
            dejittered = by_liblsl(made.arrival_ns)
            if dejittered is not None:
                show("liblsl, proc_dejitter (the real one)", dejittered - true)
            show("pyxdf, dejittered", by_pyxdf(made.arrival_ns, can_drop=False) - true)
            show("pyxdf, can_drop_samples", by_pyxdf(made.arrival_ns, can_drop=True) - true)
            for name, stamps in (
                ("ours, by stamps", made.stamps_ns),
                ("ours, by counter alone", counted_stamps(made.index, made.arrival_ns)),
            ):
                record = fit_arrivals(stamps, made.arrival_ns)
                host, sigma = record.to_host_ns(stamps)
                error = (host - made.true_ns).astype(np.float64)
                show(name, error, float(np.sqrt(np.mean(sigma**2))))
                late = float(np.median(error) - LATENCY_NS)
                print(f"    median {late / 1e3:+.1f} us beside the least latency; ", end="")
                print(f"steps found: {len(record.pieces) - 1} (0 are true)")
            found = account_for_frames(made.index)
            print(f"  dropped: {made.dropped}; accounted for by the counter: {found.dropped}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
