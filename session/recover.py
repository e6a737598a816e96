"""Makes a whole session of what a crash left: a file, perhaps damaged, and its journal.

The original is never touched: what is whole goes into a new file. The journal is the master
copy, since every entry of it has a checksum; the file gives pixels, by the place and the
checksum that the journal says, and what the journal has not got.
"""

import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from session import journal_words
from session.attributes import read_attributes, write_attributes
from session.codecs import Codec, find_codec
from session.columns import GrowingTable, count_rows
from session.editor import SessionEditor
from session.errors import HDF5_ERRORS, SessionExists, SessionRefused
from session.journal import Entry, JournalFound, journal_path, read_journal
from session.layout import (
    check_name,
    create_edges,
    create_exchanges,
    create_temperature,
    ensure_group,
)
from session.placed_file import filters_mask
from session.reader import Session
from session.records import NOT_FINISHED, RECORDER_LOST
from session.recover_pixels import PixelSource
from session.recover_rows import (
    JournalTable,
    completed,
    differing,
    dtype_of,
    file_tables,
    journal_tables,
    raw_stamps,
    table_of,
    try_file_rows,
)
from session.schema import ROOT
from session.seal import seal
from session.spec import Group, Shape
from session.structure import HOW_TO_OPEN, open_checked
from session.writer import SessionWriter


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
    notes
        What else is to be known, in words.
    """

    path: Path
    done: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()


def recovered_path(path: Path) -> Path:
    """Return where a session is made whole unless told otherwise."""
    return path.with_name(f"{path.stem}.recovered{path.suffix}")


def recover(path: Path | str, output: Path | str | None = None) -> Recovered:
    """Make a session of what is whole in a file and in its journal.

    The journal gives the rows, the file those that only it has. Frames are taken when their
    pixels, where the journal says that they lie, have the checksum that it says. Without a
    journal the whole rows of the file are all there is.

    Parameters
    ----------
    output
        The file to create; `recovered_path` by default.

    Raises
    ------
    SessionRefused
        Neither the file nor a journal beside it is a session, they are of two runs, the file
        is in use, or the disk has no room for another.
    SessionExists
        There is a file of that name already.
    """
    path = Path(path)
    output = recovered_path(path) if output is None else Path(output)
    journal, unreadable = _find_journal(path)
    damaged = ""
    try:
        with Session.open(path) as session:
            finished = session.exit_reason != NOT_FINISHED
            if journal is not None:
                _check_same_run(path, session, journal)
        if finished and (journal is None or _holds_all(path, journal)):
            return Recovered(path=path, done=(), missing=(), notes=_about_left(path, unreadable))
    except (SessionRefused, *HDF5_ERRORS) as error:
        if isinstance(error, _OtherRun):
            raise
        if journal is None:
            raise SessionRefused(unreadable or str(error)) from error
        damaged = str(error)
    _check_output(path, output)
    part = output.with_name(output.name + ".part")
    part.unlink(missing_ok=True)
    try:
        work = _Work(path, part)
        if journal is None:
            work.mend(unreadable)
        else:
            work.rebuild(journal, damaged)
        work.conclude(journal)
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Recovered(path=output, done=tuple(work.done), missing=tuple(work.missing))


class _OtherRun(SessionRefused):
    """File and journal are of two runs."""


def _find_journal(path: Path) -> tuple[JournalFound | None, str]:
    """Return the journal of a session, or why there is none to be read."""
    if not journal_path(path).exists():
        return None, ""
    try:
        return read_journal(journal_path(path)), ""
    except SessionRefused as error:
        return None, str(error)


def _check_same_run(path: Path, session: Session, journal: JournalFound) -> None:
    header = journal_words.header_of(journal.entries[0])
    if header.start_time != session.start_time:
        raise _OtherRun(
            f"{path} was begun at {session.start_time}, {journal_path(path)} at"
            f" {header.start_time}: they are of two runs. Move the journal into another folder,"
            " and `lamella recover` will do with each alone"
        )


def _holds_all(path: Path, journal: JournalFound) -> bool:
    """Tell whether a finished file has all rows of a journal; a fit may have changed stamps."""
    with open_checked(path) as file:
        for table in journal_tables(journal):
            stored = try_file_rows(file[ROOT], table.name)
            if stored is None or len(stored) < len(table.rows):
                return False
            if (raw_stamps(stored)[: len(table.rows)] != raw_stamps(table.rows)).any():
                return False
    return True


def _about_left(path: Path, unreadable: str) -> tuple[str, ...]:
    left = journal_path(path)
    if unreadable:
        return (f"{unreadable}; {path} was finished without it",)
    if left.exists():
        return (f"{left} holds nothing that {path} does not: it can be deleted",)
    return ()


def _check_output(path: Path, output: Path) -> None:
    if output.exists():
        raise SessionExists(
            f"{output} exists already and is not overwritten; --output with another name will do"
        )
    needed = path.stat().st_size if path.exists() else 0
    try:
        free = shutil.disk_usage(output.absolute().parent).free
    except OSError as error:
        raise SessionRefused(
            f"{output} cannot be created ({error}); an existing folder will do"
        ) from error
    if free < needed:
        raise SessionRefused(
            f"{output} needs {needed / 1e6:.0f} MB and its disk has {free / 1e6:.0f} MB left:"
            " --output on another disk will do"
        )


class _Work:
    """From one file to another."""

    def __init__(self, path: Path, part: Path) -> None:
        self._path = path
        self._part = part
        self._codecs: dict[str, Codec | None] = {}
        self.done: list[str] = []
        self.missing: list[str] = []

    def mend(self, unreadable: str) -> None:
        """Without a journal: cut the tables to whole rows."""
        if unreadable:
            self.missing.append(unreadable)
        shutil.copyfile(self._path, self._part)
        with open_checked(self._part, "r+") as file:
            self.done += [cut for table in file_tables(file[ROOT]) for cut in _cut(*table)]

    def rebuild(self, journal: JournalFound, damaged: str) -> None:
        """Begin anew with what the journal says, and add what only the file has."""
        if damaged:
            self.done.append(f"the file was made anew from the journal: {damaged}")
        header = journal_words.header_of(journal.entries[0])
        self._codecs = {f"frames/{c.name}": find_codec(c.compression) for c in header.cameras}
        with SessionWriter(self._part, header) as writer:
            writer.finish(NOT_FINISHED, "")  # which also gives up the room for frames
        tables = {table.name: table for table in journal_tables(journal)}
        with (
            PixelSource(self._path) as pixels,
            _original(None if damaged else self._path) as original,
            h5py.File(self._part, "r+", **HOW_TO_OPEN) as file,
        ):
            entry = file[ROOT]
            for said in journal.entries:
                _say_again(entry, said)
            only_stored = () if original is None else (n for n, _, _ in file_tables(original))
            for name in dict.fromkeys([*tables, *only_stored]):
                empty = JournalTable(name=name, rows=np.zeros(0, dtype_of(name)))
                self._fill(entry, tables.get(name, empty), original, pixels)
            if original is not None:
                _add_attributes(original, entry)
        if journal.torn_bytes:
            self.missing.append(
                f"the last {journal.torn_bytes} bytes of the journal: an entry that was not whole"
            )

    def _fill(
        self,
        entry: h5py.Group,
        table: JournalTable,
        original: h5py.Group | None,
        pixels: PixelSource,
    ) -> None:
        """Write one table: the rows of the journal, and those after them that the file has."""
        name, known = table.name, table.rows
        group = _make_table(entry, name)
        if group is None:
            self.missing.append(f"{len(known)} rows of {name}: the journal names no such camera")
            return
        stored = try_file_rows(original, name)
        if stored is None:
            stored = known[:0]
            if original is not None:
                self.done.append(f"{name}: the file is damaged there")
        unlike = differing(table, stored)
        beyond = stored[len(known) :]
        if unlike.size:
            self.done.append(
                f"{name}: {unlike.size} rows differ between file and journal, first row"
                f" {int(unlike[0])}; those of the journal, which have a checksum, are kept"
            )
            if len(beyond):
                self.missing.append(f"{len(beyond)} rows of {name} that only the file has")
                beyond = beyond[:0]
        else:
            known = completed(table, stored)
        if new := max(0, len(known) - len(stored)):
            self.done.append(f"{new} rows of {name} taken from the journal")
        if len(beyond):
            self.done.append(f"{len(beyond)} rows of {name} taken from the file alone")
        rows = np.concatenate([known, beyond])
        if name.startswith("frames/"):
            frames = _frames(group["data"], table, original, beyond, pixels)
            rows = self._write_frames(name, group["data"], rows, frames)
        if len(rows):
            target = GrowingTable(group, rows.dtype)
            target.append(rows)
            target.commit()

    def _write_frames(
        self,
        name: str,
        data: h5py.Dataset,
        rows: NDArray[np.void],
        frames: Iterator[NDArray[np.generic] | None],
    ) -> NDArray[np.void]:
        """Write the frames whose pixels are right, and return their rows."""
        good: list[int] = []
        codec, raw_mask = self._codecs.get(name), filters_mask(data, raw=True)
        data.resize(len(rows), axis=0)
        for number, (row, frame) in enumerate(zip(rows, frames, strict=True)):
            if frame is None or zlib.crc32(frame.data) != int(row["checksum"]):
                self.missing.append(
                    f"{name}: the pixels of frame {int(row['index'])} are not in the file"
                )
                continue
            # Not by the filters of HDF5: that of Blosc fails where nothing gets smaller.
            whole = np.ascontiguousarray(frame)
            pressed = None if codec is None else np.frombuffer(codec.compress(whole), np.uint8)
            if pressed is not None and len(pressed) < whole.nbytes:
                data.id.write_direct_chunk((len(good), 0, 0), pressed)
            else:
                data.id.write_direct_chunk((len(good), 0, 0), whole, raw_mask)
            good.append(number)
        data.resize(len(good), axis=0)
        return _count_gaps(rows[good])

    def conclude(self, journal: JournalFound | None) -> None:
        """Say in the new file what was done, and how the run ended, where that is known."""
        ends = [e.said for e in (journal.entries if journal else ()) if e.kind == "end"]
        reason = str(ends[-1]["exit_reason"]) if ends else RECORDER_LOST
        with open_checked(self._part, "r+") as file:
            last_t_ns = _last_stamp(file[ROOT])
            file[ROOT]["exit_reason"][()] = reason
            if ends:
                file[ROOT]["end_time"][()] = str(ends[-1]["end_time"])
        self.done.append(f"exit_reason is now {reason!r}")
        missing = Counter(self.missing)
        with SessionEditor.open(self._part) as editor:
            editor.add_event(
                last_t_ns,
                "fault",
                "recover",
                f"the recorder did not close the file: {'; '.join(self.done)}",
                {"recovered": datetime.now(UTC).isoformat(), "missing": list(missing)[:1000]},
            )
        with open_checked(self._part, "r+") as file:
            seal(file[ROOT])


@contextmanager
def _original(path: Path | None) -> Iterator[h5py.Group | None]:
    if path is None:
        yield None
        return
    with open_checked(path) as file:
        yield file[ROOT]


def _frames(
    data: h5py.Dataset,
    table: JournalTable,
    original: h5py.Group | None,
    beyond: NDArray[np.void],
    pixels: PixelSource,
) -> Iterator[NDArray[np.generic] | None]:
    """Yield the pixels of each row: by their place, or by HDF5 where only the file has the row."""
    for place in table.places:
        yield pixels.frame(place, data.shape[1:], data.dtype)
    for number in range(len(table.rows), len(table.rows) + len(beyond)):
        try:
            yield None if original is None else original[table.name]["data"][number]
        except HDF5_ERRORS:
            yield None


def _make_table(entry: h5py.Group, name: str) -> h5py.Group | None:
    if name not in entry:
        if name == "edges":
            create_edges(entry)
        elif name == "temperature":
            create_temperature(entry)
        elif name.startswith("clocks/"):
            clock = name.split("/")[1]
            check_name("clock", clock)
            create_exchanges(entry, clock)
        else:
            return None
    return entry[name]


def _say_again(root: h5py.Group, entry: Entry) -> None:
    """Put into the file what is no row: attributes, counters, and clocks without exchanges."""
    said = entry.said
    if entry.kind == "attributes":
        path, attributes = journal_words.attributes_of(entry)
        write_attributes(ensure_group(root, path), attributes)
    elif entry.kind == "queue" and isinstance(said["counters"], dict):
        check_name("queue", str(said["queue"]))
        write_attributes(ensure_group(root, f"queues/{said['queue']}"), said["counters"])
    elif entry.kind in ("exchanges", "temperature"):
        _make_table(root, table_of(entry))


def _add_attributes(original: h5py.Group, entry: h5py.Group) -> None:
    """Take over what only the file says of sample, instruments and queues."""
    parents = ("instrument", "queues")
    named = [f"{parent}/{name}" for parent in parents for name in original[parent]]
    for path in ("sample", *named):
        target = ensure_group(entry, path)
        attributes = read_attributes(original[path])
        write_attributes(target, {n: v for n, v in attributes.items() if n not in target.attrs})


def _count_gaps(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Count frames that are not there as dropped before the next one that is."""
    counted = rows.copy()
    lost = np.diff(rows["index"], prepend=rows["index"][:1] - 1) - 1 - rows["left_out"]
    counted["dropped_before"] = np.maximum(lost, rows["dropped_before"])
    return counted


def _cut(name: str, group: h5py.Group, spec: Group) -> Iterator[str]:
    count = count_rows(group, spec)
    for column in spec.columns:
        if column.shape not in (Shape.ROWS, Shape.FRAMES) or column.name not in group:
            continue
        excess = group[column.name].shape[0] - count
        if excess > 0:
            group[column.name].resize(count, axis=0)
            yield f"{name}/{column.name} cut by {excess}"


def _last_stamp(entry: h5py.Group) -> int:
    stamps = [int(entry.attrs["host_start_ns"])]
    for _, group, spec in file_tables(entry):
        stamps += map(int, group[spec.rows[0].name][-1:])
    return max(stamps)
