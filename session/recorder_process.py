"""The recorder: takes messages from a pipe, writes them, outlives who sent them."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from session.capture import PreTrigger, frames_held
from session.durable import JOURNAL_SYNC_INTERVAL_S, Syncer, sync_content
from session.errors import JournalFailed, SessionError, SessionExists, SessionRefused
from session.frame_gate import FrameGate, Writer
from session.inbox import Inbox
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
    Temperatures,
    ToRecorder,
)
from session.records import RUNNER_LOST, FrameHeader, SessionHeader
from session.ring import FrameRing, RingSpec
from session.space import Space
from session.writer import SessionWriter, event_json

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The disk failed; HDF5 says so with a RuntimeError at times, which is not refined any further.
DISK_ERRORS = (OSError, RuntimeError)
# A slot goes back at the latest after this many frames, sooner when none wait.
_RELEASE_FRAMES = 8
# Threads wait for the disk most of the time, and go on at once when it is done.
_SWITCH_INTERVAL_S = 2e-4
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
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
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
        once, where there is one, since HDF5 would go on as it closes the file.
    """
    recorder = _Recording(connection)
    with connection, ExitStack() as stack:
        try:
            for camera, spec in rings.items():
                recorder.rings[camera] = ring = FrameRing.attach(spec)
                stack.callback(ring.close)
            recorder.holders = _holders(header)
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
            leave()  # HDF5 would go on
        else:
            recorder.reply(Started())
            recorder.run(files, leave)


def _holders(header: SessionHeader) -> dict[str, PreTrigger]:
    return {
        camera.name: PreTrigger(camera.capture, frames_held(camera.capture, camera.frame_rate_Hz))
        for camera in header.cameras
        if camera.capture is not None
    }


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
        """Raise what failed and nobody was told of: the disk may not have what it had taken."""
        if isinstance(self.writer, SessionWriter):
            self.writer.check()
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
        self.holders: dict[str, PreTrigger] = {}
        # Frames of each camera: that came or left what holds them, were let through to the
        # file, are done with.
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
        self._inbox = Inbox(self._connection)
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
            leave()  # HDF5 would go on as it closes the file
        self._inbox.close()

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
                self._end_frames(files)
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
            message = self._inbox.get(0)
            if message is None:
                self._collect(writer)
                self._release()
                message = self._inbox.get(writer.seconds_until_flush())
        except EOFError:
            return _Ended()
        return message

    def _write(self, files: _Files, message: ToRecorder) -> None:
        writer = files.writer
        match message:
            case Samples(rows):
                writer.append_samples(rows)
            case Frame():
                self._take(files, message)
            case Event():
                _write_small(writer, message)
                self._heed(files, message.kind, message.t_ns)
            case Flush():
                writer.flush()
                self.reply(Flushed())
            case _:
                _write_small(writer, message)

    def _take(self, files: _Files, frame: Frame) -> None:
        if (holder := self.holders.get(frame.camera)) is None:
            self._store(files, frame, frame.header)
        else:
            holder.take(frame)
            self._let_go(files, holder)

    def _heed(self, files: _Files, kind: str, t_ns: int) -> None:
        for holder in self.holders.values():
            holder.heed(kind, t_ns)
            self._let_go(files, holder)

    def _let_go(self, files: _Files, holder: PreTrigger, *, all_of_them: bool = False) -> None:
        for leaving in holder.leaving(all_of_them=all_of_them):
            self._store(files, leaving.frame, leaving.header)

    def _store(self, files: _Files, frame: Frame, header: FrameHeader | None) -> None:
        """Store a frame, unless there is no header for it or no room; give its slot back."""
        writer, camera = files.writer, frame.camera
        self._came[camera] += 1
        admitted = None if header is None else files.gate.admit(writer, camera, header)
        if admitted is not None:
            self._sent[camera] += 1
            pixels = self.rings[camera].slot_pixels(frame.slot)
            writer.begin_frame(camera, admitted, pixels)
        # One that is left out is done when all before it are: slots go back in order.
        self._done[camera] += writer.collect_frames(camera, wait=admitted is None)
        self._done[camera] += admitted is None
        if self._done[camera] >= _RELEASE_FRAMES:
            self._release()

    def _end_frames(self, files: _Files) -> None:
        """Decide on the frames that are held still, and say what became of all."""
        for camera, holder in self.holders.items():
            self._let_go(files, holder, all_of_them=True)
            files.writer.set_queue_counters(f"capture.{camera}", holder.counters)
        files.gate.end(files.writer)
        files.writer.set_queue_counters("recorder.inbox", self._inbox.counters)

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
        self._end_frames(files)
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


def _write_small(writer: Writer, message: ToRecorder) -> None:
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
