"""Spoiled sessions, experiments and import files: refused by name, or harmless.

    pip install -e ".[dev,formats]"
    python -m benchmarks.fuzz 10000 --out fuzz.jsonl

Case N of seed S is always the same file. Cases run in batches, each in a process of its own
whose memory is limited and which is killed when it stands still; what was done already is
passed over when the same output is given again. Found is: an end of the interpreter, a case
that does not end, memory that a small file cannot need, an error that is none of the
project's own, a `RuntimeWarning` of the arithmetic, and a *silent* change: a session whose
content differs and about which neither the reader nor `lamella verify` has a word. Files of
other makers carry no checksums, nor does what a killed recorder left: how often what is read
of them differs without a word is counted apart (``unseen``), by kind of file.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH = 500
STANDSTILL_S = 120.0
# A process that was given less of a core than this in that time was starved: it is waited for
# again, this often.
STARVED_S, MOST_WAITS = 20.0, 5
MEMORY_BYTES = 4 << 30
MOST_GROWTH_BYTES = 400 << 20
IMPORT_EVERY = 4  # to write a session takes ten times as long as to read a small file
# Sessions are what outlives the program: two of five cases.
SHARES = {"session": 0.4, "toml": 0.2, "echem": 0.15, "edges": 0.02, "frames": 0.23}


# --- one case ------------------------------------------------------------------------------------


class Cases:
    """Makes and judges single cases; holds the good files."""

    def __init__(self, folder: Path, seed: int) -> None:
        from benchmarks.fuzz_seeds import SEEDS  # noqa: PLC0415 - only workers need it

        self._folder, self._seed = folder, seed
        self._good: dict[str, dict[str, bytes]] = {}
        for kind, (name, write) in SEEDS.items():
            place = folder / "good" / kind
            place.mkdir(parents=True)
            write(place / name)
            self._good[kind] = {p.name: p.read_bytes() for p in place.iterdir()}
        self._names = {kind: name for kind, (name, _) in SEEDS.items()}
        self._read_of_good = {kind: self._read(kind, folder / "good" / kind) for kind in SEEDS}

    def run(self, number: int) -> dict[str, Any]:
        """Return what came of case ``number``."""
        rng = random.Random(f"{self._seed}:{number}")
        families, weights = zip(*SHARES.items(), strict=True)
        family = rng.choices(families, weights)[0]
        kind = rng.choice([k for k in self._good if k.partition("-")[0] == family])
        place = self._folder / "case"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for name, content in self._good[kind].items():
            (place / name).write_bytes(content)
        said = self._spoil(rng, kind, place / self._names[kind])
        result = {"case": number, "kind": kind, "spoilt": said}
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            result |= self._judge(kind, place, imports=number % IMPORT_EVERY == 0)
        result["cpu_s"] = round(time.process_time() - began, 3)
        return result

    def _spoil(self, rng: random.Random, kind: str, path: Path) -> str:
        from benchmarks import fuzz_mutations as ways  # noqa: PLC0415

        content = path.read_bytes()
        if (kind.startswith("session") or kind == "frames-emd") and rng.random() < 0.5:
            return ways.spoil_hdf5(rng, path)
        if kind == "echem-pssession" and rng.random() < 0.6:
            content, said = ways.spoil_json(rng, content, "utf-16-le")
        else:
            other = rng.choice(list(self._good.values()))
            others = next(iter(other.values()))
            is_text = path.suffix in (".toml", ".csv", ".dta", ".mpt", ".txt")
            spoil = ways.spoil_text if is_text else ways.spoil_bytes
            content, said = spoil(rng, content, others)
        path.write_bytes(content)
        return said

    def _judge(self, kind: str, place: Path, *, imports: bool) -> dict[str, Any]:
        from runner.errors import FAILED, REFUSED  # noqa: PLC0415

        try:
            found = self._read(kind, place, imports=imports)
        except (*REFUSED, *FAILED) as error:
            return {"came": "refused", "why": str(error)[:200]}
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            trace = traceback.format_exc().splitlines()[-12:]
            why = f"{type(error).__name__}: {error}"[:300]
            return {"came": "ERROR", "why": why, "trace": trace}
        good = self._read_of_good[kind]
        apart = different(good, found)
        if not apart:
            return {"came": "same"}
        if found.get("told", ()) != good.get("told", ()):
            return {"came": "told", "why": str(found["told"])[:200]}
        # An experiment says what it says. Nothing that a killed recorder or another maker
        # left carries checksums.
        silent = "SILENT" if kind in ("session", "session-compressed") else "unseen"
        return {"came": "other" if kind.startswith("toml") else silent, "why": apart[:200]}

    def _read(self, kind: str, place: Path, *, imports: bool = False) -> dict[str, Any]:
        path = place / self._names[kind]
        match kind.partition("-")[0]:
            case "session":
                return read_session(path)
            case "toml":
                return read_experiment(path)
            case "echem":
                return read_echem(path, imports=imports)
            case "edges":
                return read_edge_file(path)
        movie = path if path.suffix != ".txt" else path.with_name("a_1_movie.mrc")
        return read_movie(movie, imports=imports)


# --- what is read of each ------------------------------------------------------------------------


def read_session(path: Path) -> dict[str, Any]:
    """Read all of a session, and what `verify` says of it."""
    from session import Session  # noqa: PLC0415
    from session.schema import SAMPLES  # noqa: PLC0415
    from session.validate import validate  # noqa: PLC0415

    told = [(p.path, p.message) for p in validate(path)]
    found: dict[str, Any] = {"told": told}
    with Session.open(path) as session:
        for name in ("title", "experiment_text", "start_time", "end_time", "exit_reason"):
            found[name] = getattr(session, name)
        found["start"] = (session.simulated, session.host_start_ns, session.layers)
        found["provenance"] = str(session.provenance)
        found["events"] = [str(event) for event in session.events()]
        tables = [SAMPLES.path, "events", "edges"]
        tables += [f"tracks/{name}" for name in session.tracks]
        for clock in session.clocks:
            found[f"exchanges of {clock}"] = session.clock_exchanges(clock)
            found[f"fits of {clock}"] = str(session.clock_fits(clock))
            tables.append(f"clocks/{clock}/exchanges")
        for camera in session.cameras:
            tables.append(f"frames/{camera}")
            found[f"pixels of {camera}"] = np.asarray(session.frames(camera))
        for name in tables:
            if not session.has(name):
                continue
            table = session.table(name)
            for column, values in table.columns.items():
                found[f"{name}/{column}"] = values
            found[f"{name}@"] = (str(dict(table.units)), str(dict(table.attributes)))
        for group in ("sample", *(f"instrument/{name}" for name in session.instruments)):
            found[f"{group}@"] = str(session.attributes(group))
        session.samples()
    return found


def read_experiment(path: Path) -> dict[str, Any]:
    """Read an experiment and look it over."""
    from runner.check import check  # noqa: PLC0415
    from runner.experiment import Experiment  # noqa: PLC0415

    experiment = Experiment.load(path)
    report = check(experiment)
    return {"experiment": str(experiment), "report": str(report)}


def read_echem(path: Path, *, imports: bool) -> dict[str, Any]:
    """Read a recording, and import it."""
    from potentiostat.files.recording import read_recording  # noqa: PLC0415
    from runner.importing import import_session  # noqa: PLC0415

    recording = read_recording(path)
    found: dict[str, Any] = {
        name: getattr(recording, name)
        for name in ("time_s", "voltage_V", "current_A", "logged_charge_C", "model", "start_time")
    }
    if imports:
        _import(lambda to: import_session(to, echem=path), path)
    return {**found, "told": (recording.assumptions, str(recording.details))}


def read_edge_file(path: Path) -> dict[str, Any]:
    """Read edges of trigger lines."""
    from runner.edge_files import read_edges  # noqa: PLC0415

    edges = read_edges(path, "camera")
    return {"ns": edges.device_ns, "polarity": edges.polarity, "line": edges.line}


def read_movie(path: Path, *, imports: bool) -> dict[str, Any]:
    """Read frames, and import them."""
    from cameras.files.recording import read_frames  # noqa: PLC0415
    from runner.importing import import_session  # noqa: PLC0415

    series = read_frames([path])
    frames = [np.asarray(frame) for frame in series.frames()]
    found: dict[str, Any] = {
        "index": series.index,
        "shape": (len(series), series.height, series.width, series.dtype),
        "frames": np.stack(frames),
        "stamps": str(series.stamps),
    }
    if found["frames"].shape[1:] != (series.height, series.width):
        raise AssertionError(f"frames of {found['frames'].shape} for {found['shape']}")
    interval_s = None if series.stamps is not None else 1.0
    if imports:
        _import(lambda to: import_session(to, frames=[path], frame_interval_s=interval_s), path)
    return {**found, "told": series.assumptions}


def _import(make: Any, path: Path) -> None:
    from session.validate import validate  # noqa: PLC0415

    target = path.with_name("imported.h5")
    make(target)
    problems = validate(target)
    if problems:
        raise AssertionError(f"what was imported is not right: {problems[0]}")


def different(good: dict[str, Any], found: dict[str, Any]) -> str:
    """Return the first thing that is not alike; empty where all is."""
    for name in sorted({*good, *found} - {"told"}):
        a, b = good.get(name), found.get(name)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            alike = a.dtype == b.dtype and a.shape == b.shape
            if alike and a.dtype.kind == "O":
                alike = a.tolist() == b.tolist()
            elif alike:
                alike = np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
        else:
            alike = type(a) is type(b) and a == b
        if not alike:
            return f"{name}: {str(a)[:60]} became {str(b)[:60]}"
    return ""


# --- the process that runs cases -----------------------------------------------------------------


def work(seed: int, numbers: list[int]) -> None:
    """Run cases and print a line for each, before and after."""
    _limit_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        cases = Cases(Path(folder), seed)
        for number in numbers:
            print(json.dumps({"begun": number}), flush=True)
            before = _peak_bytes()
            result = cases.run(number)
            grown = _peak_bytes() - before
            if grown > MOST_GROWTH_BYTES:
                result |= {"came": "MEMORY", "why": f"{grown >> 20} MiB more; {result['came']}"}
            print(json.dumps(result), flush=True)


def _limit_memory() -> None:
    try:
        import resource  # noqa: PLC0415 - not on Windows, where only the watchdog looks
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _peak_bytes() -> int:
    try:
        import resource  # noqa: PLC0415
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the watchdog --------------------------------------------------------------------------------


def watched(seed: int, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Run cases in a process, another one after each that ends or stands still."""
    left = deque(numbers)
    while left:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--work", f"{seed}"]
        worker = subprocess.Popen(
            [*command, *map(str, left)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: Queue[str] = Queue()
        Thread(target=_pass_on, args=(worker, lines), daemon=True).start()
        begun: int | None = None
        waits, spent_s = 0, 0.0
        while True:
            try:
                line = lines.get(timeout=STANDSTILL_S)
            except Empty:
                before_s, spent_s = spent_s, _spent_s(worker.pid)
                waits += 1
                if spent_s - before_s < STARVED_S and waits < MOST_WAITS:
                    continue
                worker.kill()
                worker.wait()
                yield {"case": begun, "came": "HANG", "why": f"nothing for {STANDSTILL_S} s"}
                break
            if not line:
                break
            waits, spent_s = 0, _spent_s(worker.pid)
            told = json.loads(line)
            if "begun" in told:
                begun = told["begun"]
            else:
                begun = None
                left.remove(told["case"])
                yield told
        code = worker.wait()
        complaint = (worker.stderr.read() if worker.stderr else "")[-2000:]
        if begun is not None:
            if code != -9:
                yield {"case": begun, "came": "CRASH", "why": f"exit {code}", "trace": [complaint]}
            left.remove(begun)
        elif left:
            raise RuntimeError(f"the worker did not begin (exit {code}): {complaint}")


def _spent_s(pid: int) -> float:
    """Return what a process had of a core; endless where nobody says, so that it counts."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pass_on(worker: "subprocess.Popen[str]", lines: "Queue[str]") -> None:
    if worker.stdout is not None:
        for line in worker.stdout:
            lines.put(line)
    lines.put("")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--only", type=int, nargs="*", help="these cases, and what came of them")
    parser.add_argument("--work", type=int, nargs="+", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.work:
        work(told.work[0], told.work[1:])
        return
    if told.only:
        for result in watched(told.seed, told.only):
            print(json.dumps(result, indent=1))
        return
    done = []
    if told.out.exists():
        done = [json.loads(line) for line in told.out.read_text().splitlines()]
    known = {result["case"] for result in done}
    left = [number for number in range(told.count) if number not in known]
    began = time.perf_counter()
    with told.out.open("a") as out:
        for start in range(0, len(left), BATCH):
            for result in watched(told.seed, left[start : start + BATCH]):
                done.append(result)
                out.write(json.dumps(result) + "\n")
                out.flush()
                if result["came"].isupper():
                    print(json.dumps(result), flush=True)
    summarise(done, time.perf_counter() - began)


def summarise(done: list[dict[str, Any]], took_s: float) -> None:
    """Print how many came out how, by kind of file."""
    outcomes = sorted({result["came"] for result in done})
    print(f"{len(done)} cases; {took_s:.0f} s in this call")
    print(f"{'kind':22}" + "".join(f"{name:>9}" for name in outcomes))
    counts = Counter((r.get("kind", "?"), r["came"]) for r in done)
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:22}" + "".join(f"{counts[kind, name]:9}" for name in outcomes))
    print(f"{'all':22}" + "".join(f"{sum(r['came'] == n for r in done):9}" for n in outcomes))
    slow = max(done, key=lambda r: r.get("cpu_s", 0.0), default={})
    print(f"slowest case: {slow.get('case')} ({slow.get('kind')}), {slow.get('cpu_s')} s of CPU")
    found = [r for r in done if r["came"].isupper()]
    print("PASS: nothing found" if not found else f"MISS: {len(found)} found")


if __name__ == "__main__":
    main()
