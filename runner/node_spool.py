"""Messages of a node on disk: numbered, in order, and never more than so many bytes.

A folder of files with one JSON line for each message; the oldest file goes when the folder
is full. Whoever missed some asks for them by number, as long as they are there.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

MAX_BYTES = 64 * 1024 * 1024
FILES = 16  # so that little of what is kept goes at once
NAME = "epoch"


class SpoolError(OSError):
    """The spool cannot be written or read; says which, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A message and its number."""

    number: int
    topic: str
    message: Mapping[str, object]


@dataclass(slots=True)
class SpoolCounters:
    """What became of the messages."""

    kept: int = 0
    forgotten: int = 0
    torn: int = 0


class Spool:
    """A bounded record on disk. Blocks: for a thread.

    Parameters
    ----------
    folder
        Made where it is not there; what is in it is continued.
    max_bytes
        Of all messages together.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._file_bytes = max(max_bytes // FILES, 1)
        self._max_bytes = max_bytes
        self._files: list[_File] = []
        self._writing: IO[bytes] | None = None
        self.counters = SpoolCounters()
        self.epoch = ""
        self.next = 0

    @classmethod
    def open(cls, folder: Path, *, max_bytes: int = MAX_BYTES) -> Self:
        """Open a spool, and cut off what a crash left half written.

        Raises
        ------
        SpoolError
            The folder cannot be used.
        """
        spool = cls(folder, max_bytes=max_bytes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.jsonl")):
                spool.counters.torn += _cut_torn(path)
                first = int(path.stem)
                size = path.stat().st_size
                count = path.read_bytes().count(b"\n")
                if count:
                    spool._files.append(_File(path=path, first=first, count=count, size=size))
                    spool.next = first + count
                else:
                    path.unlink()
            spool.epoch = _epoch(folder, goes_on=bool(spool._files))
        except (OSError, ValueError) as error:
            raise SpoolError(f"{folder}: cannot be used as a spool ({error})") from error
        return spool

    @property
    def oldest(self) -> int:
        """Number of the oldest message that is kept; that of the next where there is none."""
        return self._files[0].first if self._files else self.next

    def append(self, messages: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Keep messages; they are in the operating system's hands on return.

        Raises
        ------
        SpoolError
            The disk does not take them.
        """
        try:
            for topic, message in messages:
                line = json.dumps({"topic": topic, "message": message}, allow_nan=False)
                self._append(line.encode() + b"\n")
            if self._writing is not None:
                self._writing.flush()
        except OSError as error:
            raise SpoolError(f"{self._folder}: cannot be written ({error.strerror})") from error

    def _append(self, line: bytes) -> None:
        if self._writing is None or self._files[-1].size >= self._file_bytes:
            self._begin_file()
        file, writing = self._files[-1], self._writing
        if writing is None:  # _begin_file made it
            raise SpoolError(f"{self._folder}: was closed")
        writing.write(line)
        file.count += 1
        file.size += len(line)
        self.next += 1
        self.counters.kept += 1
        while sum(f.size for f in self._files) > self._max_bytes and len(self._files) > 1:
            oldest = self._files.pop(0)
            self.counters.forgotten += oldest.count
            oldest.path.unlink(missing_ok=True)

    def _begin_file(self) -> None:
        self.close()
        path = self._folder / f"{self.next:020d}.jsonl"
        self._writing = path.open("ab")
        self._files.append(_File(path=path, first=self.next, count=0, size=0))

    def read(self, first: int, limit: int) -> list[Spooled]:
        """Return messages from a number on, at most ``limit``; older ones where it is gone.

        Raises
        ------
        SpoolError
            The disk does not give them.
        """
        number = max(first, self.oldest)
        found: list[Spooled] = []
        try:
            for file in self._files:
                if file.first + file.count <= number:
                    continue
                found += _read_file(file, number, limit - len(found))
                if len(found) >= limit:
                    break
                number = file.first + file.count
        except (OSError, ValueError, KeyError) as error:
            raise SpoolError(f"{self._folder}: cannot be read ({error})") from error
        return found

    def close(self) -> None:
        """Close the file that is written to; the spool stays usable."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def state(self) -> dict[str, Any]:
        """Return where it stands, as data."""
        return {"epoch": self.epoch, "next": self.next, "oldest": self.oldest} | asdict(
            self.counters
        )


@dataclass(slots=True, kw_only=True)
class _File:
    path: Path
    first: int
    count: int
    size: int
    read_to: int = 0  # number and place in the file where the last reading ended
    read_at: int = 0


def _read_file(file: _File, number: int, limit: int) -> list[Spooled]:
    found: list[Spooled] = []
    with file.path.open("rb") as lines:
        here = file.first
        if file.first <= file.read_to <= number:
            here = file.read_to
            lines.seek(file.read_at)
        while len(found) < limit and (line := lines.readline()).endswith(b"\n"):
            if here >= number:
                body = json.loads(line)
                found.append(Spooled(number=here, topic=body["topic"], message=body["message"]))
            here += 1
            file.read_to, file.read_at = here, lines.tell()
    return found


def _epoch(folder: Path, *, goes_on: bool) -> str:
    """Return the name of this row of numbers; a new one where it begins at 0."""
    path = folder / NAME
    if goes_on and path.exists() and (name := path.read_text("utf-8").strip()):
        return name
    name = secrets.token_hex(8)
    path.write_text(name + "\n", encoding="utf-8")
    return name


def _cut_torn(path: Path) -> int:
    """Cut a last line without an end; return how many there were, 0 or 1."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return 0
    os.truncate(path, whole)
    return 1
