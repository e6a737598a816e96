"""What HDF5 could not write as Python let go of an object is heard of before the file ends."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files there")

# The file may not grow past a place for a moment: a disk that fails once.
BEGIN = """
import os, resource, signal, sys
from pathlib import Path
import h5py
from session.swallowed import SwallowedErrors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def may_grow_to(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
"""
# HDF5 ends a process that closes such a file.
END = "sys.stdout.flush(); os._exit(0)"


def said_by(path, program):
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([BEGIN, textwrap.dedent(program), END]), path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/session'}"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_what_h5py_swallows_is_raised_by_the_next_check(tmp_path):
    said, errors = said_by(
        tmp_path / "s.h5",
        """
        with SwallowedErrors() as swallowed:
            file = h5py.File(path, "w", libver="earliest")
            dataset = file.create_dataset("few", data=[1, 2, 3])
            swallowed.check()
            may_grow_to(8)
            del dataset
            try:
                swallowed.check()
            except OSError as error:
                print(error)
        """,
    )
    assert said.startswith("as it let go of an object: ")
    assert "file write failed" in said
    assert "Exception ignored" not in errors


def test_errors_of_others_go_where_they_went(tmp_path):
    said, errors = said_by(
        tmp_path / "s.h5",
        """
        class Bad:
            def __del__(self):
                raise ValueError("of another")
        with SwallowedErrors() as swallowed:
            Bad()
            swallowed.check()
        print(sys.unraisablehook is sys.__unraisablehook__)
        """,
    )
    assert said == "True\n"
    assert "of another" in errors


def test_a_disk_that_fails_once_as_a_session_is_made_refuses_it(tmp_path):
    said, _ = said_by(
        tmp_path / "s.h5",
        """
        from streaming_client import HEADER
        from session.writer import SessionWriter
        create = h5py.Group.create_dataset
        made = []
        def fails_after_the_first(*arguments, **named):
            may_grow_to(resource.RLIM_INFINITY)
            dataset = create(*arguments, **named)
            made.append(dataset.name)
            if len(made) == 1:
                may_grow_to(8)
            return dataset
        h5py.Group.create_dataset = fails_after_the_first
        try:
            SessionWriter(path, HEADER)
        except (OSError, RuntimeError) as error:
            print(error, flush=True)
            os._exit(0)  # as the recorder does: HDF5 has the file still
        print("nobody was told")
        """,
    )
    assert "Unable to flush" in said
