"""Where an export goes: written beside its place, then moved there whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.outputs import OutputRefused, refuse_existing

SIDE = ".json"
CONTENTS = "session.json"  # in a folder of tables: what it holds


def side_path(output: Path) -> Path:
    """Return where the description of a file stands: beside it."""
    return output.with_name(output.name + SIDE)


@contextmanager
def staged(session: Path, outputs: list[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Yield paths to write to; when all is well, they become the outputs, in order.

    Raises
    ------
    OutputRefused
        One of the outputs exists and ``overwrite`` is False, has no folder, or is the
        session itself.
    """
    for path in outputs:
        _refuse_session(session, path)
        refuse_existing(path, overwrite=overwrite)
    with _workshop(outputs[0]) as room:
        parts = [room / path.name for path in outputs]
        yield parts
        for part in parts:
            _sync(part)
        for path in outputs:  # another program may have been quicker
            refuse_existing(path, overwrite=overwrite)
        # Last comes the first: where it is, what describes it is there too.
        for part, path in reversed(list(zip(parts, outputs, strict=True))):
            part.replace(path)


@contextmanager
def staged_folder(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to fill; when all is well, it becomes the output.

    With ``overwrite``, only a folder that an export made, and in which nothing else
    lies, is replaced.

    Raises
    ------
    OutputRefused
        The folder exists, or is not one to be replaced.
    """
    _refuse_folder(output, overwrite=overwrite)
    with _workshop(output) as room:
        part = room / "new"
        part.mkdir()
        yield part
        for path in part.iterdir():
            _sync(path)
        _refuse_folder(output, overwrite=overwrite)
        old = room / "old"
        if output.exists():
            output.rename(old)
        try:
            part.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise


@contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """Yield a folder on the output's own disk, from which a move is one step."""
    room = Path(
        tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.absolute().parent)
    )
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _refuse_session(session: Path, output: Path) -> None:
    if output.exists() and output.samefile(session):
        raise OutputRefused(f"{output} is the session itself; choose another name")


def _refuse_folder(output: Path, *, overwrite: bool) -> None:
    if not output.absolute().parent.is_dir():
        raise OutputRefused(f"the folder {output.absolute().parent} does not exist; make it first")
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputRefused(f"{output} is a file; tables go into a folder: choose another name")
    if not overwrite:
        raise OutputRefused(f"{output} exists already; choose another name, or add --overwrite")
    foreign = {path.name for path in output.iterdir()} - _exported(output)
    if foreign:
        raise OutputRefused(
            f"{output} holds {', '.join(sorted(foreign)[:3])}, which no export put there;"
            " choose another name"
        )


def _exported(folder: Path) -> set[str]:
    """Return the names of the files that an earlier export says it put there."""
    try:
        listed: Any = json.loads((folder / CONTENTS).read_text("utf-8"))
        return {CONTENTS, *(table["file"] for table in listed["tables"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
