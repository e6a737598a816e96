"""A recorder whose session file cannot be written from some write on; it says what it hears.

Not a test: started by test_fail_over.py as a program of its own, since HDF5 may end a process
that goes on with a file that failed.
"""

import errno
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import numpy as np
from streaming_client import HEADER

from session import placed_file
from session.messages import Failed, Finish, Finished, Flush, Flushed, Frame, Samples, Started
from session.positioned import PositionedFile
from session.recorder_process import record
from session.records import SESSION_SAMPLE_DTYPE, FrameHeader
from session.ring import FrameRing

ROUNDS, ROWS = 3, 4


class BadFile(PositionedFile):
    """Takes writes of HDF5 until there is no space left, for a while or for good."""

    writes, bad_from, bad_count = 0, sys.maxsize, 0

    def __init__(self, path, flags):
        super().__init__(path, flags)
        self._is_of_hdf5 = flags & os.O_CREAT

    def write(self, content, place):
        BadFile.writes += bool(self._is_of_hdf5)
        if 0 <= BadFile.writes - BadFile.bad_from < BadFile.bad_count and self._is_of_hdf5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(content, place)


def rows_of(number):
    rows = np.zeros(ROWS, SESSION_SAMPLE_DTYPE)
    rows["step"] = np.arange(ROWS * number, ROWS * number + ROWS)
    rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = 1_000 * (rows["step"] + 1)
    return rows


def frame_of(number):
    header = FrameHeader(
        t_start_ns=1_000 * (number + 1),
        exposure_ns=1_000,
        t_sigma_ns=1.0,
        index=number,
        device_start_ns=1_000 * (number + 1),
    )
    return header, np.full((64, 64), number, np.uint16)


def hearing(pipe):
    """Return what hears the recorder and says it again, and what leaves once all was heard."""
    told = threading.Event()

    def hear(*wanted):
        while True:
            reply = pipe.recv()
            sys.stdout.write(f"{type(reply).__name__} {getattr(reply, 'text', '')}\n")
            sys.stdout.flush()
            if isinstance(reply, Failed):
                told.set()
            if isinstance(reply, (*wanted, Failed)):
                return reply

    def leave():
        told.wait(30)
        os._exit(0)

    return hear, leave


def main(path, bad_round, bad_write, bad_count):
    """Record; in a round, ``-1`` the creation, the file fails at a write and those after."""
    BadFile.bad_count = bad_count
    placed_file.PositionedFile = BadFile
    ring = FrameRing.create(slots=8, height=64, width=64, dtype="uint16")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    hear, leave = hearing(ours)
    if bad_round < 0:
        BadFile.bad_from = bad_write
    threading.Thread(
        target=record,
        args=(theirs, Path(path), HEADER, {"camera": ring.spec}),
        kwargs={"leave": leave},
    ).start()

    if not isinstance(hear(Started), Started):
        return
    ring.unlink()
    for number in range(ROUNDS):
        if number == bad_round:
            BadFile.bad_from = BadFile.writes + bad_write
        ours.send(Samples(rows_of(number)))
        header, pixels = frame_of(number)
        ours.send(Frame("camera", ring.put(pixels), header))
        ours.send(Flush())
        hear(Flushed)
    ours.send(Finish("charge limit", "2025-03-01T10:00:01+00:00"))
    hear(Finished)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
