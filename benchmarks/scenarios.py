"""Every simulated experiment of `examples/`, played to its report: errors over claimed sigmas.

    python benchmarks/scenarios.py [NAME ...] [--seeds 1] [--folder DIR]

Each file is run as `lamella run --speed max --report` does, and what the session says is compared
with the truth that the simulation wrote beside it: every column of a track that the truth has, too,
at the frames' times; the drift; the ionic charge; the times of frames. Printed for each: rows,
the part that is valid, rms and largest error, the mean of the claimed sigmas, error over
sigma (rms), and what of the error is one constant (`offset`, in sigmas): an edge that is placed
once, or the first frame, is an error that all rows share. Drift counts from its own mean, by
its sigmas, and so does a profile's place in the field; a conversion counts between both looks,
its first and its last frames, as no image tells what had converted before.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlate.trackers.conversion import LOOK_FRAMES
from runner import Experiment, run
from session import Session
from session.truth import read_truth

EXAMPLES = Path(__file__).parents[1] / "examples"
IN_COUNTS = ("drop", "gradient")  # in truth; a track tells them by `per_count`
IN_THE_FIELD = ("profile", "position")  # the stage stood somewhere when the first frame came
BETWEEN_LOOKS = ("conversion", "converted_fraction")
Table = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One column against its truth."""

    name: str
    unit: str
    rows: int
    valid: float
    rms: float
    largest: float
    sigma: float
    pull: float
    offset: float


def compare(
    name: str, unit: str, found: NDArray[Any], sigma: NDArray[Any], true: NDArray[Any]
) -> Compared | None:
    """Return how far a column is off; None where nothing of it can be compared."""
    good = np.isfinite(found) & np.isfinite(sigma) & (sigma > 0) & np.isfinite(true)
    if not np.any(good):
        return None
    error, own = (found - true)[good], sigma[good]
    return Compared(
        name=name,
        unit=unit,
        rows=len(found),
        valid=float(np.mean(good)),
        rms=float(np.sqrt(np.mean(error**2))),
        largest=float(np.max(np.abs(error))),
        sigma=float(np.mean(own)),
        pull=float(np.sqrt(np.mean((error / own) ** 2))),
        offset=float(np.median(error / own)),
    )


def at(t_ns: NDArray[Any], table: Table, name: str) -> NDArray[Any]:
    """Return the truth at other times, between its own."""
    mine = t_ns.astype(np.float64) - float(table["t_ns"][0])
    return np.interp(mine, table["t_ns"] - table["t_ns"][0], table[name], np.nan, np.nan)


def tracks(session: Session, truth: dict[str, Table]) -> Iterator[Compared | None]:
    """Compare each track, and the drift."""
    for name in session.tracks:
        true = truth.get(f"tracks/{name}")
        if true is None:
            continue
        table = session.table(f"tracks/{name}")
        for column in sorted(set(true) & set(table.columns) - {"t_ns"}):
            if f"{column}_sigma" not in table.columns:
                continue
            where = np.asarray(table.columns["valid"], bool)
            found = np.where(where, table.columns[column], math.nan)
            sigma = table.columns[f"{column}_sigma"]
            expected = at(table.columns["t_ns"], true, column)
            if column in IN_COUNTS:
                expected = expected * table.attributes.get("per_count", 1.0)
            kind = table.attributes.get("tracker"), column
            if kind == IN_THE_FIELD:
                found = found - mean(found - expected, sigma)
            if kind == BETWEEN_LOOKS:
                looks = expected[where]
                before, after = np.nanmean(looks[:LOOK_FRAMES]), np.nanmean(looks[-LOOK_FRAMES:])
                expected = (expected - before) / (after - before)
            yield compare(f"{name}.{column}", "", found, sigma, expected)
    for camera in session.cameras:
        if f"drift/{camera}" in truth and session.has(f"drift/{camera}"):
            yield from drifts(session, camera, truth[f"drift/{camera}"])


def mean(error: NDArray[Any], sigma: NDArray[Any]) -> float:
    """Return the mean of what is known, each by its sigma."""
    known = np.isfinite(error) & (sigma > 0)
    return float(np.average(error[known], weights=sigma[known] ** -2.0)) if known.any() else 0.0


def drifts(session: Session, camera: str, true: Table) -> Iterator[Compared | None]:
    """Compare drift, which brings frames back, about its mean."""
    table = session.table(f"drift/{camera}").columns
    frames = session.frame_table(camera)
    t_ns = frames["t_start_ns"] + frames["exposure_ns"] // 2
    valid = np.asarray(table["valid"], bool) if "valid" in table else np.ones(len(t_ns), bool)
    for axis in ("dx", "dy"):
        error = np.where(valid, table[axis], math.nan) + at(t_ns, true, axis)
        opposite = np.where(valid, table[axis], math.nan) - at(t_ns, true, axis)
        if np.nanstd(opposite) < np.nanstd(error):
            error = opposite
        # `sigma` is that of the whole shift.
        sigma = table.get(f"sigma_{axis[1]}", table.get("sigma"))
        if sigma is not None:
            error = error - mean(error, sigma)
            yield compare(f"drift.{axis}", "px", error, sigma, np.zeros(len(error)))


def charge(session: Session, truth: dict[str, Table]) -> Iterator[Compared | None]:
    """Compare the ionic charge of each step."""
    samples, true = session.sample_columns(), truth["ledger"]
    if not np.any(np.isfinite(samples["charge_ionic"])):
        return
    first = int(np.flatnonzero(np.isfinite(samples["charge_ionic"]))[0])
    expected = at(samples["t_ns"], true, "ionic")
    found = samples["charge_ionic"] - samples["charge_ionic"][first]
    yield compare(
        "charge_ionic", "C", found, samples["charge_ionic_sigma"], expected - expected[first]
    )


def times(session: Session, truth: dict[str, Table]) -> Iterator[Compared | None]:
    """Compare when frames began, by their numbers."""
    for camera in session.cameras:
        true = truth.get(f"frames/{camera}")
        if true is None:
            continue
        frames = session.frame_table(camera)
        order = np.argsort(true["index"])
        place = np.searchsorted(true["index"][order], frames["index"])
        expected = true["t_start_ns"][order][np.minimum(place, len(order) - 1)]
        base = int(expected[0])
        yield compare(
            "frames.t_start",
            "s",
            (frames["t_start_ns"] - base) / 1e9,
            frames["t_sigma_ns"] / 1e9,
            (expected - base) / 1e9,
        )


def say(row: Compared) -> None:
    """Print a line."""
    print(
        f"  {row.name:32s} {row.rows:6d} {100 * row.valid:5.1f} % {row.rms:10.3g} "
        f"{row.largest:10.3g} {row.sigma:10.3g} {row.unit:3s} {row.pull:6.2f} {row.offset:+6.2f}",
        flush=True,
    )


async def play(name: str, folder: Path, seed: int | None) -> None:
    """Run one example and compare."""
    text = (EXAMPLES / f"{name}.toml").read_text("utf-8")
    experiment = Experiment.loads(text, name=name, folder=EXAMPLES)
    if seed is not None:
        text = text.replace(f"seed = {experiment.mock.seed}", f"seed = {seed}")
        experiment = Experiment.loads(text, name=name, folder=EXAMPLES)
    begun, path = time.monotonic(), folder / f"{name}.h5"
    await run(
        experiment,
        output=path,
        report=path.with_suffix(".html"),
        overwrite=True,
        speed=math.inf,
    )
    truth = read_truth(path.with_suffix(".truth.h5"))
    with Session.open(path) as session:
        print(
            f"{name} (seed {experiment.mock.seed}): {session.exit_reason}; "
            f"{time.monotonic() - begun:.0f} s"
        )
        for rows in (tracks, charge, times):
            for row in rows(session, truth):
                if row is not None:
                    say(row)


def main() -> None:
    """Play all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of files in examples/, without .toml")
    parser.add_argument("--seeds", type=int, default=0, help="play so many other seeds, too")
    parser.add_argument("--folder", type=Path, default=None, help="keep sessions and reports")
    chosen = parser.parse_args()
    simulated = sorted(f.stem for f in EXAMPLES.glob("*.toml") if "[mock]" in f.read_text("utf-8"))
    print(
        f"  {'column':32s} {'rows':>6s}   valid {'rms':>10s} {'largest':>10s} {'sigma':>10s}     "
        f"{'pull':>6s} offset"
    )
    with tempfile.TemporaryDirectory() as kept:
        folder = chosen.folder or Path(kept)
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen.names or simulated:
            for seed in (None, *range(101, 101 + chosen.seeds)):
                asyncio.run(play(name, folder, seed))


if __name__ == "__main__":
    main()
