"""Refuses files that are not what they say, before anything of them is used."""

import math
import os
import time
from contextlib import suppress
from pathlib import Path

import h5py

from session.codecs import must_be_readable
from session.errors import HDF5_ERRORS, SessionInUse, SessionRefused
from session.heaps import has_endless_heap, stated_text_bytes
from session.records import MAX_FRAME_BYTES, NOT_FINISHED
from session.schema import ROOT, SCHEMA_NAME, SCHEMA_VERSION

_MAX_OBJECTS = 100_000
_MAX_DEPTH = 16
_MAX_ATTRIBUTE_BYTES = 2**20
# Space that may be declared without being filled: a block of frames, a few chunks.
_SLACK_CHUNKS = 128
_SLACK_BYTES = 64 * 2**20
_BEST_COMPRESSION = 1100  # deflate reaches 1032
_LOCKED_TRIES = 25
_LOCKED_PAUSE_S = 0.02


# On Windows a lock of HDF5 keeps others from the bytes themselves: with it neither could a
# session be read while it is recorded, nor frames be written past HDF5. Elsewhere it only
# tells other programs that use HDF5 that a file is being written.
HOW_TO_OPEN: dict[str, bool] = {"locking": False} if os.name == "nt" else {}


def open_checked(
    path: Path,
    mode: str = "r",
    *,
    schema: str = SCHEMA_NAME,
    version: str = SCHEMA_VERSION,
    root: str = ROOT,
    only: str | None = None,
) -> h5py.File:
    """Open a file of ours after looking at all that it declares.

    A session that another process records is opened without HDF5's lock, as it stands at
    its last flush.

    Parameters
    ----------
    only
        Path of the one object that will be used: no other is looked at.

    Raises
    ------
    SessionRefused
        The file is missing, in use, not HDF5, of another schema, refers to other files
        or declares what no file of ours holds. The message names the file, what is
        wrong and what would do.
    """
    file = _open(path, mode, schema)
    try:
        _check_heaps(path)
        _check_schema(path, file, schema, version, root)
        walk = _Walk(path, file.id.get_filesize())
        if only is None:
            walk.check(file.id)
        else:
            walk.check_one(file.id, only)
    except BaseException as error:
        file.close()
        if isinstance(error, HDF5_ERRORS):
            raise SessionRefused(
                f"{path} is damaged ({error}); a whole file, perhaps a copy, will do"
            ) from error
        raise
    return file


def is_recorded_now(path: Path) -> bool:
    """Say whether a process holds HDF5's lock on a file; False where nobody can say."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where there is no such lock
    except ImportError:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _open(path: Path, mode: str, schema: str) -> h5py.File:
    """Open a file; who holds its lock for a moment is waited for.

    A file that is closed is still locked while a process that was forked in the meantime
    has a copy of it: until it runs its own program.
    """
    for _ in range(_LOCKED_TRIES - 1):
        with suppress(SessionInUse):
            return _open_now(path, mode, schema)
        time.sleep(_LOCKED_PAUSE_S)
    return _open_now(path, mode, schema)


def _open_now(path: Path, mode: str, schema: str) -> h5py.File:
    try:
        return h5py.File(path, mode, **HOW_TO_OPEN)
    except FileNotFoundError:
        raise SessionRefused(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        # The second one: this process has it open already, as `_open_recorded` does.
        if mode == "r" and (is_recorded_now(path) or "flag values don't match" in str(error)):
            return _open_recorded(path)
        refused = SessionInUse if isinstance(error, BlockingIOError) else SessionRefused
        raise refused(
            f"{path} cannot be opened as HDF5 ({error}); a complete file of schema"
            f" {schema} that no other program is writing will do"
        ) from error


def _open_recorded(path: Path) -> h5py.File:
    """Open what a recorder writes; a file that something else writes is refused."""
    try:
        file = h5py.File(path, "r", locking=False)
    except (OSError, ValueError) as error:
        raise SessionRefused(
            f"{path} is in use: another program changes it, or is just writing ({error}); try"
            " again, and leave the variable HDF5_USE_FILE_LOCKING unset"
        ) from error
    try:
        reason = file[ROOT]["exit_reason"].asstr(errors="replace")[()]
    except HDF5_ERRORS:
        reason = ""
    if reason != NOT_FINISHED and is_recorded_now(path):
        file.close()
        raise SessionInUse(
            f"{path} is in use: another program changes it; try again when that is done"
        )
    return file


def _check_heaps(path: Path) -> None:
    if has_endless_heap(path):
        raise SessionRefused(
            f"{path} is damaged: a heap of text in it has no end; a whole file, perhaps a"
            " copy, will do"
        )


def _check_schema(path: Path, file: h5py.File, schema: str, version: str, root: str) -> None:
    found = file.attrs.get("schema", "none")
    if found != schema or not isinstance(file.get(root, getlink=True), h5py.HardLink):
        raise SessionRefused(
            f"{path} is HDF5 of schema {found!r}; a file of schema {schema!r} will do"
        )
    found = str(file.attrs.get("schema_version", "none"))
    major = version.partition(".")[0]
    if found.partition(".")[0] != major:
        raise SessionRefused(
            f"{path} has version {found} of {schema}; this program reads"
            f" {major}.x: install the Lamella that wrote it (attribute 'creator'), or a later"
            " one; plain h5py reads it too"
        )


class _Walk:
    """One pass over every link of a file.

    It speaks to HDF5 through h5py's low-level calls: a session is opened by everything that
    is done with it, and through the high-level ones the pass takes five times as long.
    """

    def __init__(self, path: Path, file_bytes: int) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._count = 0

    def check(self, group: h5py.h5g.GroupID, where: str = "", depth: int = 0) -> None:
        self._check_attributes(where or "/", group)
        if depth > _MAX_DEPTH:
            self._refuse(where, f"is nested deeper than {_MAX_DEPTH} groups")
        for name in group:
            self._count += 1
            if self._count > _MAX_OBJECTS:
                self._refuse(where or "/", f"brings more than {_MAX_OBJECTS} objects")
            child_at = f"{where}/{name.decode(errors='replace')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                self._refuse(child_at, "is a link to elsewhere")
            child = h5py.h5o.open(group, name)
            if isinstance(child, h5py.h5g.GroupID):
                self.check(child, child_at, depth + 1)
            elif isinstance(child, h5py.h5d.DatasetID):
                self._check_attributes(child_at, child)
                self._check_dataset(child_at, child)
            else:
                self._refuse(child_at, "is a named type")

    def check_one(self, root: h5py.h5g.GroupID, name: str) -> None:
        """Check the one dataset of this path, and the links to it."""
        place = root
        for part in filter(None, name.split("/")):
            link = part.encode()
            is_there = isinstance(place, h5py.h5g.GroupID) and place.links.exists(link)
            if not is_there or place.links.get_info(link).type != h5py.h5l.TYPE_HARD:
                self._refuse(name, "is not there, or a link to elsewhere")
            place = h5py.h5o.open(place, link)
        if not isinstance(place, h5py.h5d.DatasetID):
            self._refuse(name, "is no dataset")
        self._check_dataset(name, place)

    def _check_attributes(self, where: str, target: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> None:
        for index in range(h5py.h5a.get_num_attrs(target)):
            size = h5py.h5a.get_info(target, index=index).data_size
            if size > _MAX_ATTRIBUTE_BYTES:
                name = h5py.h5a.open(target, index=index).name.decode(errors="replace")
                self._refuse(f"{where}@{name}", f"is an attribute of {size} bytes")

    def _check_dataset(self, where: str, dataset: h5py.h5d.DatasetID) -> None:
        made = dataset.get_create_plist()
        layout = made.get_layout()
        if layout == h5py.h5d.VIRTUAL or made.get_external_count():
            self._refuse(where, "takes its data from other files")
        dtype, shape = dataset.dtype, dataset.shape
        if not shape and dataset.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            self._refuse(where, "is empty")
        text = h5py.check_string_dtype(dtype) is not None
        if dtype.kind not in "biufS" and not text:
            self._refuse(where, f"holds objects of type {dtype}")
        if text and dtype.kind == "O":
            self._check_text(where, dataset)
        declared = math.prod(shape) * dtype.itemsize
        is_chunked = layout == h5py.h5d.CHUNKED
        chunk = math.prod(made.get_chunk() if is_chunked else (1,)) * dtype.itemsize
        # Frames are read one by one, and each is looked for then: for them it is enough
        # that the file is as long as that. To add up the chunks of an hour takes seconds.
        # Columns are read as a whole, so that all they declare must be there.
        is_stack = len(shape) == 3 and is_chunked
        stored = self._file_bytes if is_stack else dataset.get_storage_size()
        if made.get_nfilters():
            must_be_readable(where, made)
            stored *= _BEST_COMPRESSION
        slack = max(_SLACK_BYTES, _SLACK_CHUNKS * chunk if is_stack else 0)
        if declared > stored + slack or chunk > MAX_FRAME_BYTES:
            self._refuse(where, f"declares {declared} bytes of which the file holds {stored}")

    def _check_text(self, where: str, dataset: h5py.h5d.DatasetID) -> None:
        with self._path.open("rb") as file:
            stated = stated_text_bytes(file, dataset)
        if stated > self._file_bytes:
            self._refuse(where, f"has {stated} bytes of text in a file of {self._file_bytes}")

    def _refuse(self, where: str, why: str) -> None:
        raise SessionRefused(
            f"{self._path}: {where} {why}; such a file is not read. A session as the"
            " recorder wrote it will do"
        )
