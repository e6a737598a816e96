"""The recorder: takes messages from a pipe, writes them, outlives who sent them."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from session.durable import Syncer
from session.errors import SessionError, SessionExists, SessionRefused
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
    ToRecorder,
)
from session.records import RUNNER_LOST, SessionHeader
from session.ring import FrameRing, RingSpec
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
            writer = SessionWriter(path, header)
            syncer = stack.enter_context(Syncer(path))
        except SessionExists as error:
            recorder.reply(Failed(str(error), exists=True))
        except (SessionRefused, OSError) as error:
            recorder.reply(Failed(str(error), refused=True))
        else:
            recorder.reply(Started())
            recorder.run(writer, syncer, leave)


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

    def run(self, writer: SessionWriter, syncer: Syncer, leave: Callable[[], None]) -> None:
        """Serve; report what went wrong, and save what can be saved."""
        try:
            self._serve(writer, syncer)
        except (SessionError, TypeError, ValueError) as error:
            # What was sent is wrong, the file is not.
            self._fail(writer, error)
            writer.close()
        except (OSError, RuntimeError) as error:
            # The disk failed; HDF5 says so with a RuntimeError at times. The last
            # flush is whole: closing would announce data that are not there.
            self._fail(writer, error)
            leave()
            writer.abandon()

    def _fail(self, writer: SessionWriter, error: Exception) -> None:
        why = " ".join(str(error).split())  # HDF5 errors come in lines
        self.reply(Failed(f"writing {writer.path} failed: {why}"))

    def _serve(self, writer: SessionWriter, syncer: Syncer) -> None:
        while True:
            syncer.check()
            try:
                message = self._receive(writer)
            except EOFError:
                self._close_alone(writer)
                syncer.finish()
                return
            match message:
                case None:
                    writer.flush()
                case Finish(exit_reason, end_time):
                    writer.finish(exit_reason, end_time)
                    syncer.finish()
                    self.reply(Finished())
                    return
                case _:
                    self._write(writer, message)
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

    def _write(self, writer: SessionWriter, message: ToRecorder) -> None:
        match message:
            case Samples(rows):
                writer.append_samples(rows)
            case Frame(camera, slot, header):
                pixels = self.rings[camera].slot_pixels(slot)
                writer.begin_frame(camera, header, pixels)
                self._done[camera] += writer.collect_frames(camera)
                if self._done[camera] >= _RELEASE_FRAMES:
                    self._release()
            case Event(t_ns, kind, source, text, data_json):
                writer.append_event(t_ns, kind, source, text, data_json)
            case Exchanges(clock, rows):
                writer.append_exchanges(clock, rows)
            case QueueCounters(queue, counters):
                writer.set_queue_counters(queue, counters)
            case Attributes(path, attributes):
                writer.put_attributes(path, attributes)
            case Flush():
                writer.flush()
                self.reply(Flushed())
            case _:
                raise SessionRefused(f"the recorder does not know {message!r}")

    def _collect(self, writer: SessionWriter) -> None:
        """Wait for all frames on their way: nobody else waits meanwhile."""
        for camera in self.rings:
            self._done[camera] += writer.collect_frames(camera, wait=True)

    def _release(self) -> None:
        for camera, count in self._done.items():
            if count:
                self.reply(Released(camera, count))
        self._done.clear()

    def _close_alone(self, writer: SessionWriter) -> None:
        """Close the file in order although the runner is gone without a word."""
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
        writer.finish(RUNNER_LOST, datetime.now(UTC).isoformat())
        for ring in self.rings.values():
            ring.unlink()


@contextmanager
def _end_of_pipe() -> Iterator[None]:
    """Take an error of the pipe for its end, and no other error."""
    try:
        yield
    except OSError as error:
        # The other end was killed, perhaps in the middle of a message.
        raise EOFError from error
