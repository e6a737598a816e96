"""Makes a whole session of what a crash left: a file, perhaps damaged, and its journal.

The original is never touched: what is whole goes into a new file.
"""

import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from session import journal_words
from session.attributes import write_attributes
from session.columns import GrowingTable, count_rows
from session.editor import SessionEditor
from session.errors import SessionExists, SessionRefused
from session.journal import Entry, JournalFound, journal_path, read_journal
from session.layout import check_name, create_exchanges, create_temperature, ensure_group
from session.reader import Session
from session.records import NOT_FINISHED
from session.recover_pixels import PixelSource
from session.schema import ROOT, find_group
from session.spec import Group, Shape
from session.structure import open_checked
from session.writer import SessionWriter

RECORDER_LOST = "recorder lost"
_RAW_STAMPS = {
    "samples": "read_start_ns",
    "exchanges": "t0_ns",
    "frame": "device_start_ns",
    "temperature": "read_start_ns",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of a session that was not finished.

    Parameters
    ----------
    path
        The new file; the given one where that was finished in order.
    done
        What was done, in words; empty where there was nothing to do.
    missing
        What could not be made whole, in words.
    """

    path: Path
    done: tuple[str, ...]
    missing: tuple[str, ...]


def recovered_path(path: Path) -> Path:
    """Return where a session is made whole unless told otherwise."""
    return path.with_name(f"{path.stem}.recovered{path.suffix}")


def recover(path: Path | str, output: Path | str | None = None) -> Recovered:
    """Make a session of what is whole in a file and in its journal.

    The file gives its whole rows; the journal what was on its way into the file, or all
    where the file cannot be opened any more. Frames of the journal are taken when their
    pixels, where the journal says that they lie, have the checksum that it says.

    Parameters
    ----------
    output
        The file to create; `recovered_path` by default.

    Raises
    ------
    SessionRefused
        Neither the file nor a journal beside it is a session, or the file is in use.
    SessionExists
        There is a file of that name already.
    """
    path = Path(path)
    output = recovered_path(path) if output is None else Path(output)
    journal = read_journal(journal_path(path)) if journal_path(path).exists() else None
    try:
        with Session.open(path) as session:
            if session.exit_reason != NOT_FINISHED:
                return Recovered(path=path, done=(), missing=())
        damaged = ""
    except SessionRefused as error:
        if journal is None:
            raise
        damaged = str(error)
    if output.exists():
        raise SessionExists(
            f"{output} exists already and is not overwritten; --output with another name will do"
        )
    part = output.with_name(output.name + ".part")
    part.unlink(missing_ok=True)
    try:
        work = _Work(path, part, journal)
        work.rebuild(damaged) if damaged else work.mend()
        work.conclude()
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Recovered(path=output, done=tuple(work.done), missing=tuple(work.missing))


class _Work:
    """From one file to another."""

    def __init__(self, path: Path, part: Path, journal: JournalFound | None) -> None:
        self._path = path
        self._part = part
        self._journal = journal
        self._dtypes = {} if journal is None else journal_words.dtypes_of(journal.entries[0])
        self.done: list[str] = []
        self.missing: list[str] = []

    def mend(self) -> None:
        """Cut the tables to whole rows, and go on with those of the journal."""
        shutil.copyfile(self._path, self._part)
        with open_checked(self._part, "r+") as file:
            self.done += [cut for table in _tables(file[ROOT]) for cut in _cut(*table)]
        if self._journal is not None:
            with PixelSource(self._path) as pixels:
                self._append(pixels)

    def rebuild(self, why: str) -> None:
        """Begin anew with what the journal says; the file gives pixels alone."""
        entries = self._journal.entries if self._journal is not None else ()
        self.done.append(f"the file was made anew from the journal: {why}")
        with SessionWriter(self._part, journal_words.header_of(entries[0])) as writer:
            writer.finish(NOT_FINISHED, "")  # which also gives up the room for frames
        with PixelSource(self._path) as pixels:
            self._append(pixels)

    def _append(self, pixels: PixelSource) -> None:
        """Append the rows of the journal that are not in the file."""
        with h5py.File(self._part, "r+") as file:
            entry = file[ROOT]
            for said in self._journal.entries if self._journal is not None else ():
                _say_again(entry, said)
            for name, rows, places in self._gathered():
                if name not in entry:
                    self.missing.append(f"{len(rows)} rows of {name}: the file has no such table")
                    continue
                group = entry[name]
                spec = find_group(name)
                have = 0 if spec is None else count_rows(group, spec)
                self._compare(name, group, rows[:have])
                new, where = rows[have:], places[have:]
                if places:
                    new = self._with_pixels(name, group, new, where, pixels)
                if len(new):
                    table = GrowingTable(group, rows.dtype)
                    table.append(new)
                    table.commit()
                    self.done.append(f"{len(new)} rows of {name} taken from the journal")

    def _with_pixels(
        self,
        name: str,
        group: h5py.Group,
        rows: NDArray[np.void],
        places: list[int],
        pixels: PixelSource,
    ) -> NDArray[np.void]:
        """Append the pixels of frames as far as they are right, and return those frames' rows."""
        data = group["data"]
        good = []
        for row, place in zip(rows, places, strict=True):
            frame = pixels.frame(place, data.shape[1:], data.dtype)
            if frame is None or zlib.crc32(frame.data) != int(row["checksum"]):
                self.missing.append(
                    f"{name}: the pixels of frame {int(row['index'])} are not in the file"
                )
                continue
            begin = data.shape[0]
            data.resize(begin + 1, axis=0)
            data[begin] = frame
            good.append(row)
        kept = np.array(good, rows.dtype) if good else rows[:0]
        return _count_gaps(kept, group)

    def _compare(self, name: str, group: h5py.Group, rows: NDArray[np.void]) -> None:
        """Say where file and journal tell different things."""
        stamp = next((s for s in _RAW_STAMPS.values() if s in (rows.dtype.names or ())), None)
        if stamp is None or not len(rows):
            return
        differ = np.flatnonzero(group[stamp][: len(rows)] != rows[stamp])
        if differ.size:
            self.missing.append(
                f"{name}: {differ.size} rows differ between file and journal, first row"
                f" {int(differ[0])}; those of the file are kept"
            )

    def _gathered(self) -> Iterator[tuple[str, NDArray[np.void], list[int]]]:
        """Yield each table of the journal, with where the pixels of its frames lie."""
        found: dict[str, list[NDArray[np.void]]] = {}
        places: dict[str, list[int]] = {}
        events: list[tuple[object, ...]] = []
        entries = self._journal.entries if self._journal is not None else ()
        for entry in entries:
            if entry.kind == "event":
                events.append(tuple(entry.said["row"]))  # type: ignore[arg-type]
            elif entry.kind in journal_words.TABLES:
                name = _table_of(entry)
                found.setdefault(name, []).append(journal_words.rows_of(entry, self._dtypes))
                if entry.kind == "frame":
                    places.setdefault(name, []).append(int(str(entry.said["place"])))
        for name, rows in found.items():
            yield name, np.concatenate(rows), places.get(name, [])
        if events:
            yield "events", np.array(events, journal_words.EVENT_DTYPE), []

    def conclude(self) -> None:
        """Say in the new file what was done."""
        if self._journal is not None and self._journal.torn_bytes:
            self.missing.append(
                f"the last {self._journal.torn_bytes} bytes of the journal: an entry that was"
                " not whole"
            )
        with open_checked(self._part, "r+") as file:
            last_t_ns = _last_stamp(file[ROOT])
            file[ROOT]["exit_reason"][()] = RECORDER_LOST
        self.done.append(f"exit_reason is now {RECORDER_LOST!r}")
        missing = Counter(self.missing)
        with SessionEditor.open(self._part) as editor:
            editor.add_event(
                last_t_ns,
                "fault",
                "recover",
                f"the recorder was killed: {'; '.join(self.done)}",
                {"recovered": datetime.now(UTC).isoformat(), "missing": list(missing)[:1000]},
            )


def _table_of(entry: Entry) -> str:
    if entry.kind == "frame":
        return f"frames/{entry.said['camera']}"
    if entry.kind == "exchanges":
        return f"clocks/{entry.said['clock']}/exchanges"
    return entry.kind


def _say_again(root: h5py.Group, entry: Entry) -> None:
    """Put into the file what is no row: attributes, counters, and clocks that joined later."""
    said = entry.said
    if entry.kind == "attributes":
        path, attributes = journal_words.attributes_of(entry)
        write_attributes(ensure_group(root, path), attributes)
    elif entry.kind == "queue" and isinstance(said["counters"], dict):
        check_name("queue", str(said["queue"]))
        write_attributes(ensure_group(root, f"queues/{said['queue']}"), said["counters"])
    elif entry.kind == "temperature" and entry.kind not in root:
        create_temperature(root)
    elif entry.kind == "exchanges" and _table_of(entry) not in root:
        check_name("clock", str(said["clock"]))
        create_exchanges(root, str(said["clock"]))


def _count_gaps(rows: NDArray[np.void], group: h5py.Group) -> NDArray[np.void]:
    """Count frames that are not there as dropped before the next one that is."""
    if not len(rows):
        return rows
    spec = find_group("frames/<camera>")
    have = 0 if spec is None else count_rows(group, spec)
    before = group["index"][have - 1 : have] if have else rows["index"][:1] - 1
    lost = np.diff(np.concatenate([before, rows["index"]])) - 1
    counted = rows.copy()
    counted["dropped_before"] = np.maximum(lost, rows["dropped_before"])
    return counted


def _tables(entry: h5py.Group) -> Iterator[tuple[str, h5py.Group, Group]]:
    names = ["samples", "events", "temperature"]
    names += [f"frames/{camera}" for camera in entry["frames"]]
    names += [f"clocks/{clock}/exchanges" for clock in entry["clocks"]]
    for name in names:
        spec = find_group(name)
        if spec is not None and name in entry:
            yield name, entry[name], spec


def _cut(name: str, group: h5py.Group, spec: Group) -> Iterator[str]:
    count = count_rows(group, spec)
    for column in spec.columns:
        if column.shape not in (Shape.ROWS, Shape.FRAMES):
            continue
        excess = group[column.name].shape[0] - count
        if excess > 0:
            group[column.name].resize(count, axis=0)
            yield f"{name}/{column.name} cut by {excess}"


def _last_stamp(entry: h5py.Group) -> int:
    stamps = [int(entry.attrs["host_start_ns"])]
    for _, group, spec in _tables(entry):
        stamps += map(int, group[spec.rows[0].name][-1:])
    return max(stamps)
