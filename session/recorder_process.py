"""The recorder: takes messages from a pipe, writes them, outlives who sent them."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from session.durable import JOURNAL_SYNC_INTERVAL_S, Syncer, sync_content
from session.errors import SessionError, SessionExists, SessionRefused
from session.frame_gate import FrameGate
from session.journal import Journal
from session.journal_words import begin
from session.messages import (
    Attributes,
    Event,
    Exchanges,
    Failed,
    Finish,
    Finished,
    Flush,
    Flushed,
    Frame,
    FromRecorder,
    QueueCounters,
    Released,
    Samples,
    Started,
    Temperatures,
    ToRecorder,
)
from session.records import RUNNER_LOST, SessionHeader
from session.ring import FrameRing, RingSpec
from session.space import Space
from session.writer import SessionWriter, event_json

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# A slot goes back at the latest after this many frames, sooner when none wait.
_RELEASE_FRAMES = 8
# Signals for the runner: when it goes, the pipe ends, and the file is closed in order.
_SIGNALS_OF_THE_RUNNER = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def run_recorder(
    connection: "Connection[Any, Any]",
    path: Path,
    header: SessionHeader,
    rings: Mapping[str, RingSpec],
) -> None:
    """Record until told to finish: the entry point of the recorder process."""
    for name in _SIGNALS_OF_THE_RUNNER:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    record(connection, path, header, rings, leave=lambda: os._exit(1))


def record(
    connection: "Connection[Any, Any]",
    path: Path,
    header: SessionHeader,
    rings: Mapping[str, RingSpec],
    *,
    leave: Callable[[], None] = lambda: None,
) -> None:
    """Record until told to finish, or until the pipe ends.

    Parameters
    ----------
    leave
        Called when the disk failed, with the file still open: ends the process at
        once, where there is one, since HDF5 would write on as it closes the file.
    """
    recorder = _Recording(connection)
    with connection, ExitStack() as stack:
        try:
            for camera, spec in rings.items():
                recorder.rings[camera] = ring = FrameRing.attach(spec)
                stack.callback(ring.close)
            files = stack.enter_context(_Files(path, header))
        except SessionExists as error:
            recorder.reply(Failed(str(error), exists=True))
        except (SessionRefused, OSError) as error:
            recorder.reply(Failed(str(error), refused=True))
        else:
            recorder.reply(Started())
            recorder.run(files, leave)


class _Files:
    """The session and its journal, open, each synced by a thread of its own."""

    def __init__(self, path: Path, header: SessionHeader) -> None:
        if path.exists():
            raise SessionExists(
                f"{path} exists already and is not overwritten; another name will do"
            )
        self.journal = Journal(path)
        try:
            begin(self.journal, header)
            largest = max((camera.frame_bytes for camera in header.cameras), default=0)
            self.gate = FrameGate(Space(path.parent, largest))
            self.writer = SessionWriter(path, header, journal=self.journal)
        except BaseException:
            self.journal.remove()
            raise
        self._syncers = (
            Syncer(path),
            Syncer(self.journal.path, interval_s=JOURNAL_SYNC_INTERVAL_S, sync=sync_content),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the files; a journal that is still there stays."""
        for syncer in self._syncers:
            syncer.close()
        with suppress(OSError):
            self.journal.close()

    def check(self) -> None:
        """Raise the error of a sync that failed."""
        for syncer in self._syncers:
            syncer.check()

    def finish(self, exit_reason: str, end_time: str) -> None:
        """Close the session; the journal goes once the disk has all that it holds."""
        self.writer.finish(exit_reason, end_time)
        self._syncers[0].finish()
        for syncer in self._syncers:
            syncer.close()
        self.journal.remove()


class _Recording:
    """The loop around a writer."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self.rings: dict[str, FrameRing] = {}
        self._done: Counter[str] = Counter()

    def reply(self, message: FromRecorder) -> None:
        # Nobody may listen any more; what was sent to us is written all the same.
        with suppress(OSError):
            self._connection.send(message)

    def run(self, files: _Files, leave: Callable[[], None]) -> None:
        """Serve; report what went wrong, and save what can be saved."""
        writer = files.writer
        try:
            self._serve(files)
        except (SessionError, TypeError, ValueError) as error:
            # What was sent is wrong, the file is not.
            self._fail(writer, error)
            writer.close()
        except (OSError, RuntimeError) as error:
            # The disk failed; HDF5 says so with a RuntimeError at times. The last
            # flush is whole: closing would announce data that are not there.
            self._fail(writer, error)
            with suppress(OSError):
                files.journal.write()  # it may lie on a part of the disk that still works
            leave()
            writer.abandon()

    def _fail(self, writer: SessionWriter, error: Exception) -> None:
        why = " ".join(str(error).split())  # HDF5 errors come in lines
        self.reply(Failed(f"writing {writer.path} failed: {why}"))

    def _serve(self, files: _Files) -> None:
        writer = files.writer
        while True:
            files.check()
            try:
                message = self._receive(writer)
            except EOFError:
                self._close_alone(files)
                return
            match message:
                case None:
                    writer.flush()
                case Finish(exit_reason, end_time):
                    files.gate.end(writer)
                    files.finish(exit_reason, end_time)
                    self.reply(Finished())
                    return
                case _:
                    self._write(files, message)
                    writer.flush_if_due()

    def _receive(self, writer: SessionWriter) -> ToRecorder | None:
        """Return the next message, or None when none came before a flush is due."""
        if not self._poll(0):
            self._collect(writer)
            self._release()
            if not self._poll(writer.seconds_until_flush()):
                return None
        with _end_of_pipe():
            message: ToRecorder = self._connection.recv()
        return message

    def _poll(self, timeout_s: float) -> bool:
        with _end_of_pipe():
            return self._connection.poll(timeout_s)

    def _write(self, files: _Files, message: ToRecorder) -> None:
        writer = files.writer
        match message:
            case Samples(rows):
                writer.append_samples(rows)
            case Frame(camera, slot, header):
                admitted = files.gate.admit(files.writer, camera, header)
                if admitted is not None:
                    pixels = self.rings[camera].slot_pixels(slot)
                    writer.begin_frame(camera, admitted, pixels)
                # One that is left out is done when all before it are: slots go back in order.
                self._done[camera] += writer.collect_frames(camera, wait=admitted is None)
                self._done[camera] += admitted is None
                if self._done[camera] >= _RELEASE_FRAMES:
                    self._release()
            case Flush():
                writer.flush()
                self.reply(Flushed())
            case _:
                _write_small(writer, message)

    def _collect(self, writer: SessionWriter) -> None:
        """Wait for all frames on their way: nobody else waits meanwhile."""
        for camera in self.rings:
            self._done[camera] += writer.collect_frames(camera, wait=True)

    def _release(self) -> None:
        for camera, count in self._done.items():
            if count:
                self.reply(Released(camera, count))
        self._done.clear()

    def _close_alone(self, files: _Files) -> None:
        """Close the file in order although the runner is gone without a word."""
        writer = files.writer
        files.gate.end(writer)
        details = {"samples": writer.sample_count} | {
            f"frames of {camera}": writer.frame_count(camera) for camera in self.rings
        }
        writer.append_event(
            writer.last_t_ns,
            "fault",
            "recorder",
            "the runner is gone; the session ends with what it had sent",
            event_json(details),
        )
        files.finish(RUNNER_LOST, datetime.now(UTC).isoformat())
        for ring in self.rings.values():
            ring.unlink()


def _write_small(writer: SessionWriter, message: ToRecorder) -> None:
    """Write what needs nothing but the writer."""
    match message:
        case Event(t_ns, kind, source, text, data_json):
            writer.append_event(t_ns, kind, source, text, data_json)
        case Exchanges(clock, rows):
            writer.append_exchanges(clock, rows)
        case Temperatures(rows):
            writer.append_temperatures(rows)
        case QueueCounters(queue, counters):
            writer.set_queue_counters(queue, counters)
        case Attributes(path, attributes):
            writer.put_attributes(path, attributes)
        case _:
            raise SessionRefused(f"the recorder does not know {message!r}")


@contextmanager
def _end_of_pipe() -> Iterator[None]:
    """Take an error of the pipe for its end, and no other error."""
    try:
        yield
    except OSError as error:
        # The other end was killed, perhaps in the middle of a message.
        raise EOFError from error
