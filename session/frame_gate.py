"""Frames that the disk has no room for are left out, and counted."""

import dataclasses
from collections import Counter, deque
from collections.abc import Mapping

from session.journal_alone import JournalAlone
from session.records import FrameHeader
from session.space import Space
from session.writer import SessionWriter, event_json

Writer = SessionWriter | JournalAlone
_LATEST = 8


class FrameGate:
    """Lets frames through while there is room.

    Parameters
    ----------
    space
        What is left of the disk.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._is_shut = False
        self._is_shut_for_good = False
        self._left_out: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        # What was told in events, for whoever tells people.
        self.news: deque[str] = deque(maxlen=_LATEST)

    def shut_for_good(self, lost: Mapping[str, int]) -> None:
        """Let no frame through any more: the file takes none.

        Parameters
        ----------
        lost
            Frames of each camera that were let through and did not get there.
        """
        self._is_shut = self._is_shut_for_good = True
        self._left_out.update(lost)

    def admit(self, writer: Writer, camera: str, header: FrameHeader) -> FrameHeader | None:
        """Return the header with which a frame is stored; None where it is left out.

        The first one after others were left out counts them as dropped before it.
        """
        if self._is_shut_for_good or self._space.is_short:
            if not self._is_shut:
                self._is_shut = True
                self._tell(
                    writer,
                    header.t_start_ns,
                    "the disk is nearly full: frames are not stored from now on, readings are",
                )
            self._left_out[camera] += 1
            self._gaps[camera] += 1 + header.dropped_before + header.left_out
            return None
        if self._is_shut:
            self._open(writer, header.t_start_ns)
        gap = self._gaps.pop(camera, 0)
        if not gap:
            return header
        return dataclasses.replace(header, dropped_before=header.dropped_before + gap)

    def end(self, writer: Writer) -> None:
        """Say how many frames were left out, where some were at the end."""
        if self._is_shut:
            self._open(writer, writer.last_t_ns, "until the end")

    def _open(self, writer: Writer, t_ns: int, until: str = "until now") -> None:
        self._is_shut = False
        counts = dict(self._left_out)
        self._left_out.clear()
        if not sum(counts.values()):
            return  # a file that failed while no camera ran
        self._tell(
            writer, t_ns, f"{sum(counts.values())} frames were not stored {until}", frames=counts
        )

    def _tell(self, writer: Writer, t_ns: int, message: str, **data: dict[str, int]) -> None:
        details = {
            "free_bytes": self._space.left_bytes,
            "kept_bytes": self._space.floor_bytes,
            **data,
        }
        self.news.append(message)
        writer.append_event(t_ns, "fault", "recorder", message, event_json(details))
