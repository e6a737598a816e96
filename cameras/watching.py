"""Events of a folder, from the operating system through watchdog."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from cameras.landing import Seen, Sighting

_SEEN: dict[type[FileSystemEvent], Seen] = {
    FileCreatedEvent: Seen.MADE,
    FileModifiedEvent: Seen.WRITTEN,
    FileClosedEvent: Seen.CLOSED,
}


class Sightings:
    """Events between two threads: one entry for each file, so that none can pile up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Sighting] = {}

    def add(self, sighting: Sighting) -> None:
        """Note an event; it takes the place of earlier ones of the same file."""
        with self._lock:
            earlier = self._found.pop(sighting.name, None)
            if earlier is not None:
                sighting = _joined(earlier, sighting)
            self._found[sighting.name] = sighting

    def take(self) -> list[Sighting]:
        """Return all that came since, in the order of the last event of each file."""
        with self._lock:
            found, self._found = self._found, {}
        return list(found.values())


def _joined(earlier: Sighting, later: Sighting) -> Sighting:
    seen = later.seen
    if seen is not Seen.CLOSED and earlier.seen in (Seen.CLOSED, Seen.TOUCHED):
        seen = Seen.TOUCHED
    elif seen is Seen.MADE and earlier.seen is Seen.WRITTEN:
        seen = Seen.WRITTEN
    return later._replace(seen=seen, source=later.source or earlier.source)


class Watch(FileSystemEventHandler):
    """Watches a folder on watchdog's threads.

    Parameters
    ----------
    folder
        What to watch.
    deep
        Folders within it, too.
    now_ns
        Host clock; called from another thread.
    notice
        Called with each event, from another thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        deep: bool,
        now_ns: Callable[[], int],
        notice: Callable[[Sighting], None],
    ) -> None:
        self._folder = str(folder)
        self._prefix = str(folder / "_")[:-1]  # as events begin, a separator last
        self._deep = deep
        self._now_ns = now_ns
        self._notice = notice
        self._observer = Observer()

    def start(self) -> None:
        """Begin to watch.

        Raises
        ------
        OSError
            The operating system gives no events for this folder.
        """
        self._observer.schedule(
            self, self._folder, recursive=self._deep, event_filter=[*_SEEN, FileMovedEvent]
        )
        self._observer.start()

    def stop(self) -> None:
        """End; returns when no event can come any more."""
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()

    def dispatch(self, event: FileSystemEvent) -> None:
        """Note one event; a file that is only made or changed is not done yet."""
        at_ns = self._now_ns()  # first of all
        if isinstance(event, FileMovedEvent):
            source, name = self._name(event.src_path), self._name(event.dest_path)
            self._notice(Sighting(name, at_ns, Seen.CLOSED, source))
            return
        for kind, seen in _SEEN.items():
            if isinstance(event, kind):
                self._notice(Sighting(self._name(event.src_path), at_ns, seen))

    def _name(self, path: bytes | str) -> str:
        return os.fsdecode(path).removeprefix(self._prefix).replace(os.sep, "/")
