"""The journal: all but the pixels, beside the session, durable within a second.

HDF5 keeps its own index, and a disk that fails in the middle of a flush can take that with
it. The journal is a list of entries that only ever grows, each with a checksum, so what is
before a torn entry is whole whatever happened after it. Where a frame's pixels lie in the
session file, and their checksum, is in it, too. `session.recover` makes a session of both.

An entry is four little-endian numbers of 32 bits (a mark, the length of what it is as JSON,
the length of its rows, the CRC-32 of both lengths and all that follows), the JSON, the rows.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from session.errors import JournalFailed, SessionExists, SessionRefused
from session.schema import SCHEMA_NAME, SCHEMA_VERSION

SUFFIX = ".journal"
MARK = 0x314A4C4D  # "MLJ1"
MAX_ENTRY_BYTES = 2**28
# Room that the journal has taken before it is needed: readings go on when the disk is full.
RESERVE_BYTES = 32 * 2**20
_RESERVE_SHARE = 0.02  # of what a small disk has free
_HEAD = struct.Struct("<4I")
_LENGTHS = struct.Struct("<2I")


def journal_path(session: Path | str) -> Path:
    """Return where the journal of a session is."""
    session = Path(session)
    return session.with_name(session.name + SUFFIX)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: what it is, and its rows as bytes."""

    said: Mapping[str, object]
    rows: bytes

    @property
    def kind(self) -> str:
        """The kind of entry: ``"session"``, ``"samples"``, ``"frame"`` and so on."""
        return str(self.said.get("kind", ""))


class Journal:
    """Appends to a journal; entries wait in memory until `write`.

    Parameters
    ----------
    session
        The session file; the journal is named after it.

    Raises
    ------
    SessionExists
        There is a journal of this name: an earlier run of that name was not finished.
    SessionRefused
        The folder cannot take it.
    """

    def __init__(self, session: Path) -> None:
        self.path = journal_path(session)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(self.path, flags, 0o666)
        except FileExistsError:
            raise SessionExists(
                f"{self.path} exists already: the run that wrote {session} was not finished, and"
                " its journal may hold what that file does not; `lamella recover` makes it"
                " whole, another name will do for this run"
            ) from None
        except OSError as error:
            raise SessionRefused(
                f"{session} cannot be created ({error}); an existing folder where you may write"
                " will do"
            ) from error
        self._waiting = bytearray()
        self._written_bytes = 0
        free_bytes = shutil.disk_usage(self.path.absolute().parent).free
        self._reserve_bytes = min(RESERVE_BYTES, round(_RESERVE_SHARE * free_bytes))
        self._taken_bytes = 0
        self._take_room()

    def add(self, said: Mapping[str, object], rows: NDArray[np.void] | None = None) -> None:
        """Take an entry; it is not in the file before `write`."""
        text = _JSON.encode(said).encode()
        content = b"" if rows is None else rows.tobytes()
        lengths = _LENGTHS.pack(len(text), len(content))
        check = zlib.crc32(content, zlib.crc32(text, zlib.crc32(lengths)))
        self._waiting += _HEAD.pack(MARK, len(text), len(content), check)
        self._waiting += text
        self._waiting += content

    def write(self) -> None:
        """Hand all entries to the operating system.

        Raises
        ------
        JournalFailed
            It does not take them; they stay here, and the next call goes on with them.
        """
        try:
            while self._waiting:
                written = os.write(self._descriptor, self._waiting)
                del self._waiting[:written]
                self._written_bytes += written
        except OSError as error:
            raise JournalFailed(error.errno, f"{self.path}: {error.strerror}") from error
        if self._taken_bytes - self._written_bytes < self._reserve_bytes // 2:
            self._take_room()

    def sync(self) -> None:
        """Have the disk keep all that was written.

        Raises
        ------
        JournalFailed
            It does not.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise JournalFailed(error.errno, f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Write, give back the room that was not needed, and close."""
        if self._descriptor < 0:
            return
        try:
            self.write()
            os.ftruncate(self._descriptor, self._written_bytes)
        finally:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _take_room(self) -> None:
        """Have the file system keep room for what is to come, as zeros after the last entry."""
        wanted = self._written_bytes + self._reserve_bytes
        # A disk that has no room now may yet have some for the entries themselves.
        with suppress(OSError):
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, self._written_bytes, self._reserve_bytes)
            else:
                os.ftruncate(self._descriptor, wanted)  # NTFS allocates what it extends
        self._taken_bytes = wanted

    def remove(self) -> None:
        """Close and delete: the session holds all of it, on the disk."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class JournalFound:
    """What a journal holds, up to the first entry that is not whole.

    Parameters
    ----------
    torn_bytes
        What follows the last whole entry, in bytes: cut off in the middle, or damaged.
    """

    entries: tuple[Entry, ...]
    torn_bytes: int


def read_journal(path: Path) -> JournalFound:
    """Read a journal as far as it is whole.

    Raises
    ------
    SessionRefused
        It cannot be read, or is no journal of this schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SessionRefused(f"{path} cannot be read ({error.strerror or error})") from error
    entries, whole = [], 0
    for entry, end in _entries(content):
        entries.append(entry)
        whole = end
    if not entries and not content.strip(b"\0"):
        raise SessionRefused(
            f"{path} is empty: its run ended before there was anything to keep, and it can be"
            " deleted"
        )
    if not entries or entries[0].kind != "session" or not _is_known(entries[0].said):
        raise SessionRefused(
            f"{path} does not begin as a journal of {SCHEMA_NAME} {SCHEMA_VERSION} does"
        )
    # Zeros at the end are room that was kept and not needed.
    torn_bytes = len(content[whole:].rstrip(b"\0"))
    return JournalFound(tuple(entries), torn_bytes)


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is not for a journal")


_JSON = json.JSONEncoder(separators=(",", ":"), default=_plain)


def _is_known(said: Mapping[str, object]) -> bool:
    version = str(said.get("schema_version", ""))
    return (
        said.get("schema") == SCHEMA_NAME
        and version.partition(".")[0] == SCHEMA_VERSION.partition(".")[0]
    )


def _entries(content: bytes) -> Iterator[tuple[Entry, int]]:
    at = 0
    while at + _HEAD.size <= len(content):
        mark, text_bytes, row_bytes, check = _HEAD.unpack_from(content, at)
        begin, middle = at + _HEAD.size, at + _HEAD.size + text_bytes
        end = middle + row_bytes
        if mark != MARK or text_bytes + row_bytes > MAX_ENTRY_BYTES or end > len(content):
            return
        lengths = content[at + 4 : at + 12]
        if zlib.crc32(content[begin:end], zlib.crc32(lengths)) != check:
            return
        said = json.loads(content[begin:middle])
        if not isinstance(said, dict):
            return
        yield Entry(said, content[middle:end]), end
        at = end
