"""The trigger model of a simulated Keithley 2450: building blocks, run one after the other."""

from collections.abc import Awaitable, Callable

from mocks.scpi import ScpiError
from mocks.world import World

LINES = tuple(range(1, 7))  # of the digital port

Measure = Callable[[int | None], Awaitable[None]]
"""Takes a reading into the buffer; told when the edge came that begins it, or None."""


class TriggerModel:
    """Building blocks by number, and how far they have been run.

    It goes on when somebody asks for what it does: the asker waits for the readings whose
    time has come.

    Parameters
    ----------
    line_is_input
        Tells whether a digital line is a trigger input now.
    """

    def __init__(
        self, world: World, measure: Measure, line_is_input: Callable[[int], bool]
    ) -> None:
        self._world = world
        self._measure = measure
        self._line_is_input = line_is_input
        self._blocks: dict[int, tuple[str, list[str]]] = {}
        self._next: int | None = None  # block to run; None when it is idle
        self._seen_ns = 0  # edges up to here do not count
        self._counts: dict[int, int] = {}

    def load(self, argument: str) -> None:
        """Begin a model anew."""
        if argument.strip().strip("\"'").upper() != "EMPTY":
            raise ScpiError(-224, "Illegal parameter value")
        self._blocks.clear()
        self._next = None

    def add(self, kind: str, argument: str) -> None:
        """Define a block; they are numbered without gaps."""
        parts = [part.strip() for part in argument.split(",")]
        if not parts[0].isdigit() or not 1 <= int(parts[0]) <= len(self._blocks) + 1:
            raise ScpiError(-222, "Parameter data out of range")
        self._blocks[int(parts[0])] = (kind, parts[1:])

    def initiate(self) -> None:
        """Start; nothing is waited for."""
        if not self._blocks:
            raise ScpiError(2731, "Trigger model cannot start, no blocks are defined")
        if self._next is not None:
            raise ScpiError(-213, "Init ignored")
        self._next = 1
        self._seen_ns = self._world.now_ns
        self._counts.clear()

    def abort(self) -> None:
        """Stop where it is."""
        self._next = None

    async def go_on(self) -> None:
        """Run until it is idle or waits for an edge."""
        edge_ns: int | None = None
        while self._next is not None and self._next in self._blocks:
            kind, arguments = self._blocks[self._next]
            if kind == "WAIT":
                edge_ns = self._edge(arguments[0])
                if edge_ns is None:
                    return
            elif kind == "MEAS":
                await self._measure(edge_ns)
                edge_ns = None
            elif kind == "COUN" and self._count(self._next) < int(arguments[0]):
                self._next = int(arguments[1])
                continue
            self._next += 1
        self._next = None

    def _count(self, block: int) -> int:
        self._counts[block] = self._counts.get(block, 0) + 1
        return self._counts[block]

    def _edge(self, event: str) -> int | None:
        line = int(event.upper().removeprefix("DIGIO").removeprefix("DIG"))
        if not self._line_is_input(line):
            return None
        edge_ns = self._world.exposures.first_after(self._seen_ns, line)
        if edge_ns is not None:
            self._seen_ns = edge_ns
        return edge_ns
