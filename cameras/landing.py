"""Files that land in a folder: which are whole, and which were seen before.

Nothing here waits or reads pixels. Events and looks around the folder go in with the time
of the host's clock, and files that are whole come out. Used by one thread.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from cameras.wholeness import Look, Whole, look

RECENT = 64  # of the files taken last, whose growth is looked for without an event


class Seen(StrEnum):
    """What an event tells of a file."""

    MADE = "made"
    WRITTEN = "written"
    CLOSED = "closed"  # after it was written to; or it was renamed
    TOUCHED = "touched"  # closed, and some change was told after that


class Sighting(NamedTuple):
    """What events tell of a file up to the last one; ``source`` is its former name."""

    name: str
    at_ns: int
    seen: Seen
    source: str = ""


class Identity(NamedTuple):
    """What tells one content of a file from another without reading it."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A file that is whole.

    Parameters
    ----------
    name
        Path in the folder, with ``/``.
    arrival_ns
        Host clock at the last sign of a change: its closing, its renaming, or the look
        that found it changed.
    identity
        Of the content that was judged; ``mtime_ns`` is on the clock of the file's computer.
    before
        Frames that were taken from this file earlier.
    """

    name: str
    path: Path
    arrival_ns: int
    identity: Identity
    before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A file that cannot be taken, at least not now."""

    name: str
    reason: str
    noticed_ns: int


@dataclass(slots=True)
class _Waiting:
    """A file that is not taken yet."""

    changed_ns: int
    closed: bool = False  # or renamed, and no change was seen since
    was_closed: bool = False  # at some time
    held_open: bool = False  # written to, and never seen to be closed
    next_look_ns: int = 0
    last: Identity | None = None
    explained: bool = True  # by an event: the change that the next look will find
    reason: str = ""


@dataclass(slots=True)
class _Known:
    """A file that was there at the start, or was taken."""

    identity: Identity
    frames: int
    present: bool = False


class Landing:
    """Keeps account of a folder's files.

    Parameters
    ----------
    folder
        Where they land.
    matches
        Tells of a name whether it is one of ours.
    deep
        Folders within the folder count, too.
    tells_closing
        The operating system tells when a file is closed.
    quiet_ns
        For how long a file must rest that is whole by its header and of which no closing
        was seen.
    open_end_ns
        The same where the header does not tell where the file ends, and where its closing
        is still to be told.
    patience_ns
        For how long a file may stay as it is without being whole, until that is told. It
        is waited for even then.
    """

    def __init__(
        self,
        folder: Path,
        matches: Callable[[str], bool],
        *,
        deep: bool = False,
        tells_closing: bool = sys.platform.startswith("linux"),
        quiet_ns: int,
        open_end_ns: int,
        patience_ns: int,
    ) -> None:
        self._folder = folder
        self._matches = matches
        self._deep = deep
        self._tells_closing = tells_closing
        self._quiet_ns = quiet_ns
        self._open_end_ns = open_end_ns
        self._patience_ns = patience_ns
        self._waiting: dict[str, _Waiting] = {}
        self._known: dict[str, _Known] = {}
        self._recent: dict[str, None] = {}
        self._told: set[str] = set()
        self._closing_ns: int | None = None

    # --- what is seen ------------------------------------------------------------------------

    def files(self) -> Iterator[tuple[str, Identity]]:
        """Yield the files of ours that are in the folder now.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        for name, entry in self._entries(self._folder, ""):
            try:
                # Not the entry's own: Windows may remember there what is no longer true.
                yield name, _identity(Path(entry.path).stat())
            except OSError:  # gone since, or not ours to see
                continue

    def _entries(self, folder: Path, inner: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = inner + entry.name
                if self._deep and entry.is_dir(follow_symlinks=False):
                    try:
                        yield from self._entries(Path(entry.path), name + "/")
                    except OSError:  # it left while we looked
                        continue
                elif self._matches(name):
                    yield name, entry

    def ignore_present(self) -> None:
        """Take what is there now for no part of this run, unless it changes later.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        self._known |= {name: _Known(identity, 0, present=True) for name, identity in self.files()}

    def look_around(self, now_ns: int) -> None:
        """Find what events did not tell.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        for name, entry in self._entries(self._folder, ""):
            known = self._known.get(name)
            if name in self._waiting or (known and known.frames and name not in self._recent):
                continue
            try:
                identity = _identity(entry.stat())
            except OSError:
                continue
            if known is None or _is_written(known.identity, identity):
                self._expect(name, now_ns)

    def sighted(self, event: Sighting) -> None:
        """Note an event."""
        name, source = event.name, event.source
        if source:
            self._waiting.pop(source, None)
            known = self._known.pop(source, None)
            if known is not None and (known.frames or known.present):
                self._known.setdefault(name, known)  # it has only got another name
        if not self._matches(name):
            return
        waiting = self._expect(name, event.at_ns)
        if waiting is None:
            return
        waiting.explained = True
        waiting.closed = event.seen is Seen.CLOSED
        waiting.changed_ns = event.at_ns
        waiting.next_look_ns = event.at_ns + (0 if waiting.closed else self._quiet_ns)
        if event.seen in (Seen.CLOSED, Seen.TOUCHED):
            waiting.held_open, waiting.was_closed = False, True
        elif event.seen is Seen.WRITTEN:
            waiting.held_open = not waiting.was_closed

    def _expect(self, name: str, at_ns: int) -> _Waiting | None:
        waiting = self._waiting.get(name)
        if waiting is None and (self._closing_ns is None or name in self._recent):
            waiting = self._waiting[name] = _Waiting(at_ns, next_look_ns=at_ns)
        return waiting

    # --- what comes of it ----------------------------------------------------------------------

    def ripe(self, now_ns: int) -> Iterator[Landed | Trouble]:
        """Yield the files that are whole now, and those of which that is in doubt."""
        for name, waiting in tuple(self._waiting.items()):
            if waiting.next_look_ns <= now_ns:
                found = self._judge(name, waiting, now_ns)
                if found is not None:
                    yield found

    def _judge(self, name: str, waiting: _Waiting, now_ns: int) -> Landed | Trouble | None:
        path = self._folder / name
        try:
            identity = _identity(path.stat())
            found = look(path)
        except FileNotFoundError:
            return self._judge_gone(name, waiting, now_ns)
        except OSError as error:  # held by its writer, or the share is away
            identity = waiting.last or Identity(0, 0)
            found = Look(Whole.NO, f"cannot be opened: {error.strerror or error}")
        if waiting.last is not None and identity != waiting.last and not waiting.explained:
            waiting.changed_ns, waiting.closed = now_ns, False
        waiting.last, waiting.explained = identity, False
        known = self._known.get(name)
        if known is not None and not _is_written(known.identity, identity):
            # An echo of what was taken, or of a file that was only touched.
            known.identity = identity
            del self._waiting[name]
            return None
        rested_ns = now_ns - waiting.changed_ns
        in_doubt = found.whole is Whole.SO_FAR or (waiting.held_open and self._tells_closing)
        enough_ns = self._open_end_ns if in_doubt else self._quiet_ns
        if found.whole is not Whole.NO and (waiting.closed or rested_ns >= enough_ns):
            return self._land(name, path, identity, waiting)
        waiting.reason = found.reason or "may still be written to"
        if found.whole is not Whole.NO:
            waiting.next_look_ns = waiting.changed_ns + enough_ns
        else:
            pause_ns = self._patience_ns if name in self._told else self._quiet_ns
            waiting.next_look_ns = now_ns + pause_ns
        return self._doubt(name, waiting, now_ns)

    def _judge_gone(self, name: str, waiting: _Waiting, now_ns: int) -> Trouble | None:
        if not self._folder.is_dir():  # it may come back, and the file with it
            waiting.next_look_ns = now_ns + self._quiet_ns
            return None
        del self._waiting[name]
        known = self._known.get(name)
        if waiting.last is None or (known is not None and known.frames):
            return None
        return Trouble(
            name=name,
            reason="was taken away before it was whole, or before it could be read",
            noticed_ns=now_ns,
        )

    def _land(self, name: str, path: Path, identity: Identity, waiting: _Waiting) -> Landed:
        del self._waiting[name]
        known = self._known.get(name)
        landed = Landed(
            name=name,
            path=path,
            arrival_ns=waiting.changed_ns,
            identity=identity,
            before=0 if known is None else known.frames,
        )
        self._known[name] = _Known(identity, landed.before)
        return landed

    def _doubt(self, name: str, waiting: _Waiting, now_ns: int) -> Trouble | None:
        if name in self._told or now_ns - waiting.changed_ns < self._patience_ns:
            return None
        self._told.add(name)
        return Trouble(
            name=name,
            reason=f"{waiting.reason}, and has been so for {self._patience_ns / 1e9:g} s; "
            "it is taken if it ever becomes whole",
            noticed_ns=now_ns,
        )

    # --- what became of a file -------------------------------------------------------------------

    def is_same(self, landed: Landed) -> bool:
        """Tell whether a file still is what was judged; false while it cannot be seen."""
        try:
            return _identity(landed.path.stat()) == landed.identity
        except OSError:
            return False

    def took(self, landed: Landed, frames: int) -> None:
        """Note that a file was read, and how many frames it has given in all."""
        self._known[landed.name] = _Known(landed.identity, frames)
        self._told.discard(landed.name)
        self._recent.pop(landed.name, None)
        self._recent[landed.name] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def put_back(self, landed: Landed, now_ns: int, reason: str) -> Trouble | None:
        """Wait on for a file that changed while it was read, or could not be opened."""
        if landed.before:
            self._known[landed.name] = _Known(Identity(-1, -1), landed.before)
        else:
            del self._known[landed.name]
        waiting = _Waiting(landed.arrival_ns, reason=reason)
        waiting.last = landed.identity
        waiting.explained = False
        waiting.next_look_ns = now_ns + self._quiet_ns
        self._waiting[landed.name] = waiting
        return self._doubt(landed.name, waiting, now_ns)

    def begin_patience_anew(self, now_ns: int) -> None:
        """Give all files time again: the folder was away and is back."""
        for waiting in self._waiting.values():
            waiting.changed_ns = waiting.next_look_ns = now_ns
            waiting.closed = False

    # --- the end ---------------------------------------------------------------------------------

    def close(self, now_ns: int) -> None:
        """Let nothing in any more; what has begun to land may finish within the patience."""
        self._closing_ns = now_ns

    def is_done(self, now_ns: int) -> bool:
        """Tell whether nothing is waited for, after closing."""
        if self._closing_ns is None:
            return False
        left = self._waiting.keys() - self._told
        return not left or now_ns - self._closing_ns > self._patience_ns

    def left_over(self, now_ns: int) -> Iterator[Trouble]:
        """Yield the files that are given up at the end and of which nothing was told."""
        for name, waiting in self._waiting.items():
            if name not in self._told:
                reason = waiting.reason or "was not looked at"
                yield Trouble(name=name, reason=f"{reason}; the run has ended", noticed_ns=now_ns)

    def next_look_ns(self) -> int | None:
        """Return when a file is to be looked at again; None for not before an event."""
        return min((w.next_look_ns for w in self._waiting.values()), default=None)


def _identity(stat: os.stat_result) -> Identity:
    return Identity(stat.st_size, stat.st_mtime_ns)


def _is_written(before: Identity, after: Identity) -> bool:
    """Tell whether a file was written to: a time that goes back was only set."""
    return after.size != before.size or after.mtime_ns > before.mtime_ns
