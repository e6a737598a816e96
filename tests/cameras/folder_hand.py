"""A folder reader turned by hand: a clock that a test moves, and events that it tells."""

import time

import numpy as np

from cameras.folder_reader import FolderReader, Patience
from cameras.landed_files import describe
from cameras.landing import Seen, Sighting
from cameras.records import Frame, FrameFault
from mocks.folder_writer import FolderWriter, Happening, Manner, encode, truth

MS = 1_000_000
SHAPE = (5, 7)
SEEN = {
    Happening.CREATED: Seen.MADE,
    Happening.MODIFIED: Seen.WRITTEN,
    Happening.CLOSED: Seen.CLOSED,
    Happening.MOVED: Seen.CLOSED,
}


def picture(index, suffix="png", dtype="uint8", shape=SHAPE):
    return encode(suffix, [truth(index, *shape, dtype)])


class Hand:
    def __init__(self, folder, pattern="", *, deaf=False, refuses=False, **patience):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.now_ns = 1_000_000_000
        self.deaf = deaf  # events are lost
        self.refuses = refuses  # the system gives none
        self.found = []
        self.watches = 0
        self.writer = FolderWriter(folder, told=self.tell)
        sample = folder.with_name(folder.name + "-sample.png")
        sample.write_bytes(picture(0))
        self.reader = FolderReader(
            folder,
            pattern,
            info=describe(sample, "test"),
            exposure_ns=100 * MS,
            patience=Patience(**patience),
            now_ns=lambda: self.now_ns,
            put=self.found.append,
            make_watch=self.watch,
        )

    def watch(self, folder, *, deep, now_ns, notice):
        self.notice = notice
        return self

    def start(self):
        if self.refuses:
            raise OSError("no inotify watches are left")
        self.watches += 1

    def stop(self):
        self.watches -= 1

    def tell(self, happening, name, source=""):
        if not self.deaf and self.watches:
            self.notice(Sighting(name, self.now_ns, SEEN[happening], source))

    # --- what a test does ---

    def begin(self):
        self.reader.begin()
        return self

    def turn(self, after_ms=0.0):
        self.now_ns += round(after_ms * MS)
        idle_ns = self.reader.turn()
        assert idle_ns is None or idle_ns >= 0
        return idle_ns

    def wait(self, for_ms):
        """Let time pass as the thread does: turned whenever it asked to be."""
        until_ns = self.now_ns + round(for_ms * MS)
        while self.now_ns < until_ns:
            idle_ns = self.turn()
            if idle_ns is None:
                return
            self.now_ns = min(self.now_ns + max(idle_ns, MS), until_ns)
        self.turn()

    def land(self, name, data=None, manner=Manner.IN_PIECES, cuts=()):
        if data is None:
            data = picture(int("".join(c for c in name if c.isdigit()) or 0), name.split(".")[-1])
        for _ in self.writer.land(name, data, manner, cuts):
            pass

    def finish(self):
        self.reader.stop()
        for _ in range(2000):
            idle_ns = self.turn()
            if idle_ns is None:
                return self.found
            self.now_ns += max(idle_ns, MS)
        raise AssertionError("it does not end")

    @property
    def frames(self):
        return [each for each in self.found if isinstance(each, Frame)]

    @property
    def faults(self):
        return [each for each in self.found if isinstance(each, FrameFault)]

    @property
    def indices(self):
        return [each.info.index for each in self.frames]


def assert_true(frame, index=None, dtype="uint8"):
    """Compare a frame's pixels with what was written under its index."""
    index = frame.info.index if index is None else index
    np.testing.assert_array_equal(frame.pixels, truth(index, *SHAPE, dtype))


def rewrite_later(path, data):
    """Write a file again, with a later time even where the file system's clock is coarse."""
    before = path.stat().st_mtime_ns
    path.write_bytes(data)
    while path.stat().st_mtime_ns <= before:
        time.sleep(0.001)
        path.write_bytes(data)
