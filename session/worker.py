"""Where the recorder runs: a process of its own, or a thread."""

import multiprocessing
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from session.recorder_process import record, run_recorder
from session.records import SessionHeader
from session.ring import RingSpec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


class Worker:
    """Starts and ends the recorder; its methods block.

    Parameters
    ----------
    in_process
        Use a thread of this process.
    """

    def __init__(self, *, in_process: bool) -> None:
        self._in_process = in_process
        self._thread: threading.Thread | None = None
        self._process: SpawnProcess | None = None
        self.pid: int | None = None

    def start(
        self, path: Path, header: SessionHeader, rings: Mapping[str, RingSpec]
    ) -> "Connection[Any, Any]":
        """Start the recorder and return our end of the pipe to it."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, path, header, rings)
        if self._in_process:
            self._thread = threading.Thread(
                target=record, args=arguments, name="recorder", daemon=True
            )
            self._thread.start()
            return ours
        # Whatever happens, the recorder must have the only other end, or the death of
        # one side would go unnoticed by the other.
        with theirs:
            process = context.Process(target=run_recorder, args=arguments, name="recorder")
            process.start()
        self._process, self.pid = process, process.pid
        return ours

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the recorder; end the process when it does not come."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._process is not None:
            self._process.join(timeout_s)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
            self._process.close()
            self._process = None
