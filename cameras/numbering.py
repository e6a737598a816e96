"""The order, the indices and the gaps of files that carry numbers in their names.

Files may land out of order. One that comes too early is held for a short while and no
longer: a number that stays out is a gap, and a frame that comes after its gap was counted
still has the index of its own number.
"""

import heapq
import itertools
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cameras.landing import Landed

MAX_NUMBER = 2**63 - 1
MAX_GAP = 1_000_000  # a longer jump is no loss: the numbers count something else
MAX_GAPS = 10_000  # kept, for late frames to be known by
MAX_SERIES = 64
_NUMBER = re.compile(r"\d+")

Key = tuple[int, ...]


def key_of(name: str) -> Key:
    """Return all numbers of a name, the frame's own last; none without a usable one."""
    path = PurePosixPath(name)
    numbers = tuple(int(text) for text in _NUMBER.findall(str(path.with_suffix(""))))
    if not _NUMBER.search(path.stem) or numbers[-1] > MAX_NUMBER:
        return ()
    return numbers


class Order:
    """Hands files out by their numbers, as far as they come in time.

    Parameters
    ----------
    hold_ns
        For how long a file is held at most while a lower number is missing.
    most
        How many files are held at most.
    """

    def __init__(self, *, hold_ns: int, most: int = 256) -> None:
        self._hold_ns = hold_ns
        self._most = most
        self._held: list[tuple[Key, int, int, Landed]] = []
        self._ticket = itertools.count()
        self._last: Key | None = None

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._held)

    def add(self, landed: Landed, now_ns: int) -> None:
        """Take a file that is whole."""
        heapq.heappush(self._held, (key_of(landed.name), next(self._ticket), now_ns, landed))

    def next(self, now_ns: int, *, ended: bool = False) -> Landed | None:
        """Return the next file that need not wait for others; all when it has ended."""
        if not self._held:
            return None
        key, _, _, landed = self._held[0]
        if not (ended or self._is_next(key) or self._is_overdue(now_ns)):
            return None
        heapq.heappop(self._held)
        if key and (self._last is None or key > self._last):
            self._last = key
        return landed

    def _is_next(self, key: Key) -> bool:
        if not key:
            return True
        if self._last is None:
            return key[-1] <= 1  # below others, lower ones may be on their way
        return key <= self._last or key == (*self._last[:-1], self._last[-1] + 1)

    def _is_overdue(self, now_ns: int) -> bool:
        due_ns = self.next_due_ns()
        return len(self._held) > self._most or (due_ns is not None and due_ns <= now_ns)

    def next_due_ns(self) -> int | None:
        """Return when a held file is handed out at the latest; None where none is held."""
        since_ns = min((held_ns for _, _, held_ns, _ in self._held), default=None)
        return None if since_ns is None else since_ns + self._hold_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a frame stands among the others."""

    index: int
    dropped_before: int


class Misplaced(ValueError):
    """A file has no place among the others; says why."""


class Count:
    """Gives frames their indices, and counts the gaps.

    A file of one frame has the number of its name for an index. When other numbers of
    the name change (an hour, a second) and the last one begins anew, the index counts on.
    A file of many frames counts on where the last one ended; where its frames carry the
    camera's own counter, and that goes on from file to file, its gaps are gaps.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.last: int | None = None
        self.stacked = False  # some file had many frames
        self._numbered: bool | None = None
        self._missing: list[range] = []
        self._bases: dict[Key, int] = {}  # of each series: its index less its number
        self._origin = 0
        self._key: Key = ()
        self._counter: int | None = None

    def index_of(self, name: str) -> int | None:
        """Return the index that a file would have; None where that cannot be told."""
        key = key_of(name)
        base = self._bases.get(key[:-1]) if key else None
        if base is None and key and not self._bases and not self.stacked:
            base = 0
        return None if base is None or self.stacked else base + key[-1]

    # --- files of one frame ----------------------------------------------------------------

    def place(self, name: str) -> tuple[Place, str]:
        """Return the place of a file's only frame, and what is odd about it, if anything.

        Raises
        ------
        Misplaced
            It has no number or one that another file had.
        """
        key = key_of(name)
        if self._numbered is None:
            self._numbered = bool(key)
        if not self._numbered:
            return self._put(0 if self.last is None else self.last + 1)
        if not key:
            raise Misplaced("has no number in its name, as the files before it have")
        index = self._base(key) + key[-1]
        if index > MAX_NUMBER:
            raise Misplaced("has a number that is too large to count with")
        found = self._put(index)
        self._key = max(self._key, key)
        return found

    def _base(self, key: Key) -> int:
        series, number = key[:-1], key[-1]
        if series not in self._bases:
            if not self._bases:
                base, self._origin = 0, number
            elif key < self._key:
                raise Misplaced("belongs to a series before the present one, and comes too late")
            elif number > self._key[-1]:
                base = self._bases[self._key[:-1]]  # the last number counts on
            else:
                self._origin = min(self._origin, number)
                base = (self.last or 0) + 1 - self._origin
            self._bases[series] = base
            if len(self._bases) > MAX_SERIES:
                del self._bases[next(iter(self._bases))]
        return self._bases[series]

    def _put(self, index: int) -> tuple[Place, str]:
        if self.first is None or self.last is None:
            self.first = self.last = index
            return Place(index=index, dropped_before=0), ""
        if index > self.last:
            gap, odd = index - self.last - 1, ""
            if gap > MAX_GAP:
                odd = f"its number is {gap} past the last one: that is taken for no loss"
                gap = 0
            self._miss(range(index - gap, index))
            self.last = index
            return Place(index=index, dropped_before=gap), odd
        if index < self.first:
            self._miss(range(index + 1, self.first))
            self.first = index
        else:
            self._find(index)
        return Place(index=index, dropped_before=0), ""

    def _miss(self, gap: range) -> None:
        if gap:
            self._missing.append(gap)
            del self._missing[:-MAX_GAPS]

    def _find(self, index: int) -> None:
        for i, gap in enumerate(self._missing):
            if index in gap:
                halves = range(gap.start, index), range(index + 1, gap.stop)
                self._missing[i : i + 1] = [half for half in halves if half]
                return
        raise Misplaced("carries the number of a frame that was there already")

    def give_back(self, index: int) -> None:
        """Let an index be used later: its file was there, and could not be read."""
        self._miss(range(index, index + 1))

    # --- files of many frames --------------------------------------------------------------

    def place_stack(
        self, name: str, counters: NDArray[np.int64], skip: int = 0
    ) -> tuple[list[Place], str]:
        """Return the places of a file's frames from ``skip`` on, and what is odd about them."""
        self.stacked = True
        odd = "" if skip else self._odd_stack(key_of(name))
        own = [int(c) for c in counters]
        if any(b <= a for a, b in itertools.pairwise(own)):
            own = list(range(len(own)))
            odd = odd or "its frames do not count upwards: they are numbered as they come"
        own = own[skip:]
        if self.last is None:
            base = 0
        elif self._counter is not None and own[0] > self._counter:
            base = self.last - self._counter
        else:
            base = self.last + 1 - own[0]
        self._counter = own[-1]
        places = []
        for counter in own:
            place, jump = self._put(base + counter)
            places.append(place)
            odd = odd or jump
        return places, odd

    def _odd_stack(self, key: Key) -> str:
        last, self._key = self._key, max(self._key, key)
        if not key or not last or key[:-1] != last[:-1]:
            return ""
        if key <= last:
            return "came after a file of a higher number: its frames are numbered after those"
        if key[-1] > last[-1] + 1:
            return (
                f"files {last[-1] + 1} to {key[-1] - 1} are missing before it; "
                "how many frames those held is unknown"
            )
        return ""
