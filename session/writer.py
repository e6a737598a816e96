"""Writes a session, append only, from one thread; a kill at any moment leaves it whole.

The order on disk is what makes that true: the end of the file first, then pixels, then
the stamps that name them.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import check_attributes, write_attributes
from session.codecs import find_codec
from session.columns import GrowingTable
from session.errors import SessionRefused
from session.frame_file import FrameFile
from session.journal import Journal
from session.layout import (
    check_header,
    check_name,
    create_edges,
    create_exchanges,
    create_layout,
    create_temperature,
    ensure_group,
    write_now,
)
from session.pages import PAGE_BYTES
from session.pixel_store import Stored
from session.placed_file import PlacedFile
from session.records import (
    EDGE_DTYPE,
    EVENT_DTYPE,
    EXCHANGE_DTYPE,
    NOT_FINISHED,
    SESSION_SAMPLE_DTYPE,
    TEMPERATURE_DTYPE,
    AttributeValue,
    FrameHeader,
    SessionHeader,
)
from session.schema import ROOT, find_group
from session.seal import make_room, seal
from session.superblock import AnnouncedEnd

FLUSH_INTERVAL_NS = 200_000_000


class SessionWriter:
    """Creates a session file and appends to it.

    Parameters
    ----------
    path
        The file to create; it must not exist.
    header
        What is known before the first reading.
    journal
        Takes all that is appended, but for the pixels; whoever made it ends it.
    monotonic_ns
        Real time, for the flush interval only.

    Raises
    ------
    SessionExists
        The file is there already.
    SessionRefused
        The header holds a name or a size that cannot be stored, or the folder cannot
        take the file.
    """

    def __init__(
        self,
        path: Path | str,
        header: SessionHeader,
        *,
        journal: Journal | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.path = Path(path)
        check_header(header)
        self._journal = journal
        self._monotonic_ns = monotonic_ns
        self._codecs = {camera.name: find_codec(camera.compression) for camera in header.cameras}
        self._placed = PlacedFile(self.path)
        with ExitStack() as undo:
            undo.callback(self._placed.close)  # whatever HDF5 may still write: it is no session
            self._create(header)
            undo.callback(self._end.leave)
            self.flush()
            undo.pop_all()

    def _create(self, header: SessionHeader) -> None:
        # Frames at whole pages can be written past the page cache.
        self._file = h5py.File(
            self._placed,
            "w",  # it is new and empty
            libver="earliest",
            alignment_threshold=PAGE_BYTES,
            alignment_interval=PAGE_BYTES,
        )
        create_layout(self._file, header)
        make_room(self._file[ROOT])
        self._entry = self._file[ROOT]
        self._samples = GrowingTable(self._entry["samples"], SESSION_SAMPLE_DTYPE)
        self._events = GrowingTable(self._entry["events"], EVENT_DTYPE)
        self._cameras = {camera.name: self._frame_file(camera.name) for camera in header.cameras}
        self._clocks = {clock: self._clock_table(clock) for clock in header.clocks}
        self._edges: GrowingTable | None = None  # made when the first ones come
        self._temperature: GrowingTable | None = None  # the same
        self._last_t_ns = header.host_start_ns
        self._last_flush_ns = 0
        self._file.flush()
        self._end = AnnouncedEnd(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def last_t_ns(self) -> int:
        """Latest host stamp that was appended; the start where there is none."""
        return self._last_t_ns

    @property
    def sample_count(self) -> int:
        """Number of samples appended."""
        return len(self._samples)

    def frame_count(self, camera: str) -> int:
        """Return the number of frames appended."""
        frames = self._camera(camera)
        frames.settle()
        return frames.count

    def frame_counts(self) -> dict[str, int]:
        """Return how many frames of each camera are in the file, without a wait for more."""
        return {name: camera.count for name, camera in self._cameras.items()}

    def drop_journal(self) -> None:
        """Go on without the journal: it failed."""
        self._journal = None

    def append_samples(self, rows: NDArray[np.void]) -> None:
        """Append readings, shape (n,), of ``SESSION_SAMPLE_DTYPE``."""
        self._say({"kind": "samples"}, rows)
        self._samples.append(rows)
        if len(rows):
            self._note(int(rows["t_ns"][-1]))
        if self._samples.is_full:
            self._samples.commit()
        self.flush_if_due()

    def append_frame(self, camera: str, header: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """Write one frame, shape (height, width), of the camera's pixel type.

        The pixels go to the file at once, the stamps with the next flush.
        """
        self.begin_frame(camera, header, pixels)
        self._camera(camera).settle()
        self.flush_if_due()

    def begin_frame(self, camera: str, header: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """Begin to write a frame; its pixels must not change until it was collected."""
        self._camera(camera).begin(header, pixels)
        self._note(header.t_start_ns)

    def collect_frames(self, camera: str, *, wait: bool = False) -> int:
        """Return how many frames' pixels got into the file since this was asked last.

        Parameters
        ----------
        wait
            Until all that were begun are there.
        """
        return self._camera(camera).collect(wait=wait)

    def append_event(
        self, t_ns: int, kind: str, source: str, message: str, data_json: str = "{}"
    ) -> None:
        """Append an event; ``data_json`` holds its details."""
        row = (t_ns, kind, source, message.replace("\0", ""), data_json)
        self._say({"kind": "event", "row": row})
        self._events.append(np.array([row], dtype=EVENT_DTYPE))
        self._note(t_ns)
        self.flush_if_due()

    def append_exchanges(self, clock: str, rows: NDArray[np.void]) -> None:
        """Append exchanges with a clock, shape (n,), of ``EXCHANGE_DTYPE``."""
        check_name("clock", clock)
        self._say({"kind": "exchanges", "clock": clock}, rows)
        if clock not in self._clocks:
            create_exchanges(self._entry, clock)
            self._clocks[clock] = self._clock_table(clock)
        self._clocks[clock].append(rows)
        self.flush_if_due()

    def append_edges(self, rows: NDArray[np.void]) -> None:
        """Append edges of trigger lines, shape (n,), of ``EDGE_DTYPE``."""
        for row in rows:
            self._say({"kind": "edge", "row": row.item()})
        if self._edges is None:
            self._edges = GrowingTable(create_edges(self._entry), EDGE_DTYPE)
        self._edges.append(rows)
        self.flush_if_due()

    def append_temperatures(self, rows: NDArray[np.void]) -> None:
        """Append what a thermometer said, shape (n,), of ``TEMPERATURE_DTYPE``."""
        if self._temperature is None:
            self._temperature = GrowingTable(create_temperature(self._entry), TEMPERATURE_DTYPE)
        self._temperature.append(rows)
        self._say({"kind": "temperature"}, rows)
        if len(rows):
            self._note(int(rows["t_ns"][-1]))
        self.flush_if_due()

    def set_queue_counters(self, queue: str, counters: Mapping[str, int]) -> None:
        """Store the counters of a bounded queue, in place of earlier ones."""
        check_name("queue", queue)
        self._say({"kind": "queue", "queue": queue, "counters": dict(counters)})
        group = ensure_group(self._entry, f"queues/{queue}")
        write_attributes(group, dict(counters))

    def put_attributes(self, path: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Write attributes on a group that may carry more than the schema names.

        Raises
        ------
        SessionRefused
            The schema has no such group, or it carries only its own attributes.
        """
        spec = find_group(path)
        if spec is None or not spec.free_attributes:
            raise SessionRefused(
                f"{path}: no attributes can be added here; 'sample' or 'instrument/<name>' will do"
            )
        check_attributes(path, attributes)
        self._say({"kind": "attributes", "path": path, "attributes": dict(attributes)})
        write_attributes(ensure_group(self._entry, path), attributes)

    def seconds_until_flush(self) -> float:
        """Return the real time until a flush is due, at least 0."""
        elapsed_ns = self._monotonic_ns() - self._last_flush_ns
        return max(0.0, (FLUSH_INTERVAL_NS - elapsed_ns) * 1e-9)

    def flush_if_due(self) -> None:
        """Flush when the last time was long enough ago."""
        if self.seconds_until_flush() == 0.0:
            self.flush()

    def flush(self) -> None:
        """Hand all that was appended to the operating system, readings and events first.

        Raises
        ------
        OSError
            It does not take all of it, or has not taken something before.
        """
        if self._journal is not None:
            self._journal.write()
        for camera in self._cameras.values():
            camera.settle()
        if self._journal is not None:
            self._journal.write()
        self.check()
        self._end.move_ahead(self._file.id.get_filesize())
        for camera in self._cameras.values():
            camera.flush_pixels()
        for table in (
            self._samples,
            self._events,
            *(table for table in (self._edges, self._temperature) if table is not None),
            *self._clocks.values(),
            *(camera.table for camera in self._cameras.values()),
        ):
            table.commit()
        self._file.flush()
        self.check()
        self._last_flush_ns = self._monotonic_ns()

    def check(self) -> None:
        """Raise what could not be written since the last flush, and HDF5 does not know of.

        Raises
        ------
        OSError
            There is something: nothing that came after it is in the file.
        """
        self._placed.check()

    def finish(self, exit_reason: str, end_time: str) -> None:
        """Say why and when it ended, trim, put checksums on all of it, and close the file."""
        self._say({"kind": "end", "exit_reason": exit_reason, "end_time": end_time})
        self.flush()
        for name, camera in self._cameras.items():
            camera.trim()
            if self._codecs[name] is not None:
                self.set_queue_counters(f"compression.{name}", camera.store.counters())
        # Killed in between, the file is still an unfinished one, whose seals nobody asks for.
        if exit_reason != NOT_FINISHED:
            seal(self._entry)
        for name, text in (("end_time", end_time), ("exit_reason", exit_reason)):
            dataset = self._entry[name]
            dataset[()] = text.replace("\0", "")
            write_now(dataset)
            if exit_reason != NOT_FINISHED:
                seal(dataset)
        self.close()

    def close(self) -> None:
        """Close the file as it is; without `finish` it stays marked as unfinished."""
        if self._file:
            self.flush()
            self._close_frames()
            self._file.close()
            self.check()
            self._placed.close()
            self._end.close()

    def abandon(self) -> None:
        """Let go of the file without a word to it.

        Frames whose pixels are there are counted still, and the journal gets their stamps.
        """
        for camera in self._cameras.values():
            camera.abandon()
        self._placed.leave()
        with suppress(OSError):
            self._end.leave()

    def _close_frames(self) -> None:
        for camera in self._cameras.values():
            camera.close()

    def _frame_file(self, camera: str) -> FrameFile:
        codec = self._codecs[camera]

        def note(row: NDArray[np.void], stored: Stored) -> None:
            said = {"kind": "frame", "camera": camera, "place": stored.place}
            if codec is not None and not stored.raw:
                said |= {"size": stored.size, "compression": codec.name.value}
            self._say(said, row)

        group = self._entry[f"frames/{camera}"]
        frames = FrameFile(group, self._placed, note, codec=codec)
        group = ensure_group(self._entry, f"instrument/{camera}")
        write_attributes(group, {"frames_written": frames.way})
        return frames

    def _camera(self, name: str) -> FrameFile:
        if name not in self._cameras:
            known = ", ".join(self._cameras) or "none"
            raise SessionRefused(f"camera {name!r} is not in the header; it has {known}")
        return self._cameras[name]

    def _clock_table(self, clock: str) -> GrowingTable:
        return GrowingTable(self._entry[f"clocks/{clock}/exchanges"], EXCHANGE_DTYPE)

    def _say(self, said: Mapping[str, object], rows: NDArray[np.void] | None = None) -> None:
        if self._journal is not None:
            self._journal.add(said, rows)

    def _note(self, t_ns: int) -> None:
        self._last_t_ns = max(self._last_t_ns, t_ns)


def event_json(data: Mapping[str, object] | None) -> str:
    """Return the details of an event as JSON, whatever they hold.

    Values that JSON has no word for become null (NaN, infinity) or text: an event is
    never lost for its details.
    """
    return json.dumps(_plain(data or {}), sort_keys=True, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
