"""Per-frame times of frame files: ours, and RosettaSciIO's time axis, against the stamps.

    python benchmarks/frame_stamps.py

For each format a file is written byte by byte from its known layout, with irregular stamps and
lost frames; RosettaSciIO cannot write stamps, so none of its own writers would do. Its public
test files are read too where they lie under the folder that ``LAMELLA_REAL_DATA`` names; their
stamps were read by hand. Printed: largest error of our time of a frame against its stamp, and
of the axis that RosettaSciIO returns. Where its axis has no unit of time, the error is that of
number x exposure, which is then all that a user has; without an exposure either there is none.
"""

import importlib
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import read_frames

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.cameras.files import writers

COUNT, LOST = 100, 5
SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
Stamps = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and the stamps that are in it.

    Parameters
    ----------
    reader
        RosettaSciIO's.
    stamps_ns
        Since 1970, shape (n,).
    exposure_s
        As the file tells it; None where it does not.
    """

    name: str
    path: Path
    reader: str
    stamps_ns: Stamps
    exposure_s: float | None = None


def irregular(period_ns: int, jitter_ns: int, step_ns: int) -> tuple[list[int], Stamps]:
    """Return counters with gaps, and stamps on a grid, in order."""
    rng = np.random.default_rng(3)
    kept = np.sort(rng.choice(np.arange(1, COUNT + LOST), COUNT - 1, replace=False))
    numbers = np.concatenate([[0], kept])
    jitter = rng.integers(-jitter_ns, jitter_ns + 1, COUNT)
    stamps = writers.EPOCH_NS + numbers * period_ns + jitter
    return numbers.tolist(), np.asarray(np.sort(stamps) // step_ns * step_ns, np.int64)


def made(folder: Path) -> list[Case]:
    """Write one file of each format."""
    frames = writers.pictures(COUNT, 8, 8)
    cases = []

    numbers, ns = irregular(10_000_000, 2_000_000, 1_000_000)
    path = writers.tvips(folder / "a_000.tvips", frames, numbers, (ns // 10**6).tolist())
    cases.append(Case(name="TVIPS", path=path, reader="tvips", stamps_ns=ns))

    numbers, ns = irregular(2_094_440, 20_000, 10)
    path = writers.mib(folder / "a.mib", frames, [n + 1 for n in numbers], ns)
    cases.append(
        Case(name="MIB", path=path, reader="quantumdetector", stamps_ns=ns, exposure_s=1e-3)
    )

    numbers, ns = irregular(820_000_000, 3_000_000, 1_000)
    texts = [writers.velox_json(us) for us in (ns // 1000).tolist()]
    path = writers.velox(folder / "a.emd", frames, texts)
    cases.append(Case(name="Velox", path=path, reader="emd", stamps_ns=ns, exposure_s=0.8))

    numbers, ns = irregular(700_000_000, 100_000_000, 10**9)
    path = writers.ser(folder / "a_1.ser", frames, (ns // 10**9).tolist())
    cases.append(Case(name="SER", path=path, reader="tia", stamps_ns=ns))

    # These have no stamp for a frame: start, period and sum are what they tell.
    writers.de_info(
        folder / "20241021_00405_info.txt",
        **{
            "Autosave Movie Sum Count": 10,
            "Specimen Pixel Size Y (nanometers)": 0.1,
            "Exposure Time (seconds)": None,
            "Frame Time (nanoseconds)": 1_428_500,
        },
    )
    path = writers.mrc(folder / "20241021_00405_movie.mrc", frames.astype(np.uint8))
    ns = writers.EPOCH_NS + np.arange(COUNT, dtype=np.int64) * 14_285_000
    cases.append(Case(name="DE, sum of 10", path=path, reader="mrc", stamps_ns=ns))
    return cases


REAL: dict[str, tuple[str, str, Callable[[], Stamps]]] = {
    "fei_example_tem_stack.emd": (
        "Velox, real",
        "emd",
        lambda: np.array([1_575_540_226_238_991_000, 1_575_540_227_038_967_000]),
    ),
    "20241021_00405_movie.mrc": (
        "DE, real",
        "mrc",
        lambda: 1_729_539_410 * 10**9 + np.arange(32, dtype=np.int64) * 1_428_500,
    ),
}


def real() -> list[Case]:
    """Return the real files that are there."""
    root = os.environ.get("LAMELLA_REAL_DATA")
    cases = []
    for file, (name, reader, stamps) in REAL.items():
        found = sorted(Path(root).rglob(file)) if root else []
        cases += [
            Case(name=name, path=path, reader=reader, stamps_ns=stamps()) for path in found[:1]
        ]
    return cases


def our_error_s(case: Case) -> float:
    """Return the largest error of our times, as they are in the file."""
    stamps = read_frames([case.path]).stamps
    if stamps is None:
        return float("nan")
    return float(np.abs(stamps.device_ns - case.stamps_ns).max()) / 1e9


def their_error_s(case: Case) -> tuple[float, str]:
    """Return the largest error of RosettaSciIO's axis from the first frame, and what it was."""
    try:
        module: Any = importlib.import_module(f"rsciio.{case.reader}")
    except ImportError:
        return float("nan"), "RosettaSciIO is not installed"
    more = {"navigation_shape": (len(case.stamps_ns),)} if case.name == "MIB" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axis = module.file_reader(str(case.path), **more)[-1]["axes"][0]
    scale, unit = float(axis["scale"]), str(axis["units"])
    what = f"axis of {scale:.6g} {unit}"
    if unit in SECONDS:
        scale_s = scale * SECONDS[unit]
    elif case.exposure_s is not None:
        scale_s, what = case.exposure_s, "no time; number x exposure"
    else:
        return float("nan"), "no time at all"
    since_s = (case.stamps_ns - case.stamps_ns[0]) / 1e9
    return float(np.abs(np.arange(len(since_s)) * scale_s - since_s).max()), what


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print(f"{'file':15} {'frames':>6} {'span':>9} {'ours':>10} {'RosettaSciIO':>13}  its axis")
    with tempfile.TemporaryDirectory() as name:
        for case in [*made(Path(name)), *real()]:
            span_s = float(np.ptp(case.stamps_ns)) / 1e9
            theirs_s, what = their_error_s(case)
            theirs = f"{theirs_s:11.3g} s" if math.isfinite(theirs_s) else f"{'-':>13}"
            print(
                f"{case.name:15} {len(case.stamps_ns):6} {span_s:7.2f} s {our_error_s(case):8.3g} s"
                f" {theirs}  {what}"
            )


if __name__ == "__main__":
    main()
