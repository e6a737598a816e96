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
from session.errors import JournalFailed, SessionError, SessionExists, SessionRefused
from session.frame_gate import FrameGate, Writer
from session.journal import Journal
from session.journal_alone import JournalAlone
from session.journal_words import begin
from session.messages import (
    Attributes,
    Degraded,
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
from session.space import Space
from session.writer import SessionWriter, event_json

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The disk failed; HDF5 says so with a RuntimeError at times, which is not refined any further.
DISK_ERRORS = (OSError, RuntimeError)
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
        except (SessionRefused, *DISK_ERRORS) as error:
            if isinstance(error, SessionRefused):
                recorder.reply(Failed(str(error), refused=True))
                return
            why = " ".join(str(error).split())  # HDF5 errors come in lines
            text = f"{path} cannot be written ({why}); another disk will do"
            recorder.reply(Failed(text, refused=True))
            leave()  # HDF5 would write on
        else:
            recorder.reply(Started())
            recorder.run(files, leave)


class _Files:
    """The session and its journal, open, each synced by a thread of its own.

    Where one of the two fails, the other goes on alone: see `fail_over`.
    """

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
            self.writer: Writer = SessionWriter(path, header, journal=self.journal)
        except BaseException as error:
            with suppress(OSError):
                self.journal.remove()
            if not isinstance(error, SessionExists):
                with suppress(OSError):  # what there is of it is no session
                    path.unlink(missing_ok=True)
            raise
        self._journal_works = True
        self.why = ""  # the file failed
        self._file_syncer = Syncer(path)
        self._journal_syncer = Syncer(
            self.journal.path, interval_s=JOURNAL_SYNC_INTERVAL_S, sync=sync_content
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
        self._file_syncer.close()
        self._journal_syncer.close()
        with suppress(OSError):
            self.journal.close()

    @property
    def is_whole(self) -> bool:
        """False when the session file failed: what came since is in the journal alone."""
        return isinstance(self.writer, SessionWriter)

    def check(self) -> None:
        """Raise the error of a sync that failed: the disk may not have what it had taken."""
        if self.is_whole:
            self._file_syncer.check()
        if self._journal_works:
            try:
                self._journal_syncer.check()
            except OSError as error:
                raise JournalFailed(error.errno, f"{self.journal.path}: {error.strerror}") from None

    def fail_over(self, error: Exception, frames_sent: Mapping[str, int]) -> str:
        """Go on with what still works, and return in words what that is.

        Parameters
        ----------
        frames_sent
            Frames of each camera that were let through to the file.

        Raises
        ------
        OSError, RuntimeError
            Neither of the two works: the given error.
        """
        why = " ".join(str(error).split())  # HDF5 errors come in lines
        writer = self.writer
        if isinstance(error, JournalFailed):
            if not self._journal_works or not isinstance(writer, SessionWriter):
                raise error
            self._journal_works = False
            writer.drop_journal()
            text = (
                f"writing {self.journal.path} failed ({why}); {writer.path} is written all the same"
            )
        else:
            if not self._journal_works or not isinstance(writer, SessionWriter):
                raise error
            self.why = why
            # The last flush is whole: closing would announce data that are not there.
            writer.abandon()
            self.writer = JournalAlone(writer, self.journal)
            stored = writer.frame_counts()
            self.gate.shut_for_good({n: frames_sent[n] - stored[n] for n in stored})
            text = (
                f"writing {writer.path} failed ({why}); frames are not stored from now on,"
                f" readings go to {self.journal.path}: `lamella recover {writer.path}` makes a"
                " session of both once the run is over"
            )
        self.writer.append_event(self.writer.last_t_ns, "fault", "recorder", text)
        return text

    def finish(self, exit_reason: str, end_time: str) -> None:
        """Close the session; the journal goes once the disk has all that it holds."""
        self.writer.finish(exit_reason, end_time)
        if not self.is_whole:
            return
        self._file_syncer.finish()
        self._file_syncer.close()
        self._journal_syncer.close()
        self.journal.remove()


class _Recording:
    """The loop around a writer."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self.rings: dict[str, FrameRing] = {}
        # Frames of each camera: that came, were let through to the file, are done with.
        self._came: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._released: Counter[str] = Counter()

    def reply(self, message: FromRecorder) -> None:
        # Nobody may listen any more; what was sent to us is written all the same.
        with suppress(OSError):
            self._connection.send(message)

    def run(self, files: _Files, leave: Callable[[], None]) -> None:
        """Serve; report what went wrong, and save what can be saved."""
        message: ToRecorder | _Ended | None = None
        is_broken = False
        try:
            while not isinstance(message, Finish | _Ended):
                message = None
                try:
                    files.check()
                    message = self._receive(files.writer)
                    self._do(files, message)
                except DISK_ERRORS as error:
                    self._go_on(files, message, error)
        except DISK_ERRORS as error:
            self._fail(files, error)
            if isinstance(files.writer, SessionWriter):
                files.writer.abandon()
            is_broken = True
        except (SessionError, TypeError, ValueError) as error:
            # What was sent is wrong, the file is not.
            self._fail(files, error)
            if isinstance(files.writer, SessionWriter):
                files.writer.close()
        if is_broken or not files.is_whole:
            with suppress(OSError):
                files.journal.close()
            leave()  # HDF5 would write on as it closes the file

    def _fail(self, files: _Files, error: Exception) -> None:
        why = " ".join(str(error).split())
        self.reply(Failed(f"writing {files.writer.path} failed: {why}"))

    def _do(self, files: _Files, message: "ToRecorder | _Ended | None") -> None:
        match message:
            case None:
                files.writer.flush()
            case _Ended():
                self._close_alone(files)
            case Finish(exit_reason, end_time):
                files.gate.end(files.writer)
                self._tell_news(files)
                files.finish(exit_reason, end_time)
                self._say_finished(files)
            case _:
                self._write(files, message)
                files.writer.flush_if_due()
        self._tell_news(files)

    def _tell_news(self, files: _Files) -> None:
        while files.gate.news:
            self.reply(Degraded(files.gate.news.popleft()))

    def _go_on(
        self, files: _Files, message: "ToRecorder | _Ended | None", error: Exception
    ) -> None:
        """Go on with what still works of file and journal; a second failure ends it.

        Whatever the failed call was told is in memory or in the journal by now; what has to
        be answered, or is to end the session, is done again.
        """
        text = files.fail_over(error, self._sent)
        self.reply(Degraded(text))
        if not files.is_whole:
            for camera in self.rings:
                self._done[camera] = self._came[camera] - self._released[camera]
        self._release()
        files.writer.flush()
        match message:
            case Flush():
                self.reply(Flushed())
            case Finish() | _Ended():
                self._do(files, message)

    def _say_finished(self, files: _Files) -> None:
        if files.is_whole:
            self.reply(Finished())
            return
        path = files.writer.path
        self.reply(
            Failed(
                f"the run ended, but writing {path} failed before that ({files.why}): what it does"
                f" not hold is in {files.journal.path}; `lamella recover {path}` makes a session of"
                " both"
            )
        )

    def _receive(self, writer: Writer) -> "ToRecorder | _Ended | None":
        """Return the next message, or None when none came before a flush is due."""
        try:
            if not self._poll(0):
                self._collect(writer)
                self._release()
                if not self._poll(writer.seconds_until_flush()):
                    return None
            with _end_of_pipe():
                message: ToRecorder = self._connection.recv()
        except EOFError:
            return _Ended()
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
                self._came[camera] += 1
                admitted = files.gate.admit(writer, camera, header)
                if admitted is not None:
                    self._sent[camera] += 1
                    pixels = self.rings[camera].slot_pixels(slot)
                    writer.begin_frame(camera, admitted, pixels)
                # One that is left out is done when all before it are: slots go back in order.
                self._done[camera] += writer.collect_frames(camera, wait=admitted is None)
                self._done[camera] += admitted is None
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

    def _collect(self, writer: Writer) -> None:
        """Wait for all frames on their way: nobody else waits meanwhile."""
        for camera in self.rings:
            self._done[camera] += writer.collect_frames(camera, wait=True)

    def _release(self) -> None:
        for camera, count in self._done.items():
            if count:
                self.reply(Released(camera, count))
        self._released.update(self._done)
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


class _Ended:
    """The runner is gone."""


@contextmanager
def _end_of_pipe() -> Iterator[None]:
    """Take an error of the pipe for its end, and no other error."""
    try:
        yield
    except OSError as error:
        # The other end was killed, perhaps in the middle of a message.
        raise EOFError from error
