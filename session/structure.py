"""Refuses files that are not what they say, before anything of them is used."""

import math
from pathlib import Path

import h5py

from session.codecs import must_be_readable
from session.errors import SessionRefused
from session.records import MAX_FRAME_BYTES
from session.schema import ROOT, SCHEMA_NAME, SCHEMA_VERSION

_MAX_OBJECTS = 100_000
_MAX_DEPTH = 16
_MAX_ATTRIBUTE_BYTES = 2**20
# Space that may be declared without being filled: a block of frames, a few chunks.
_SLACK_CHUNKS = 128
_SLACK_BYTES = 64 * 2**20
# What h5py raises when the bytes make no sense.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
_BEST_COMPRESSION = 1100  # deflate reaches 1032


def open_checked(
    path: Path,
    mode: str = "r",
    *,
    schema: str = SCHEMA_NAME,
    version: str = SCHEMA_VERSION,
    root: str = ROOT,
) -> h5py.File:
    """Open a file of ours after looking at all that it declares.

    Raises
    ------
    SessionRefused
        The file is missing, in use, not HDF5, of another schema, refers to other files
        or declares what no file of ours holds. The message names the file, what is
        wrong and what would do.
    """
    try:
        file = h5py.File(path, mode)
    except FileNotFoundError:
        raise SessionRefused(f"{path}: no such file") from None
    except OSError as error:
        raise SessionRefused(
            f"{path} cannot be opened as HDF5 ({error}); a complete file of schema"
            f" {schema} that no other program is writing will do"
        ) from error
    try:
        _check_schema(path, file, schema, version, root)
        _Walk(path).check(file)
    except BaseException as error:
        file.close()
        if isinstance(error, HDF5_ERRORS):
            raise SessionRefused(
                f"{path} is damaged ({error}); a whole file, perhaps a copy, will do"
            ) from error
        raise
    return file


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
            f" {major}.x: a program of that version will do"
        )


class _Walk:
    """One pass over every link of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def check(self, group: h5py.Group, depth: int = 0) -> None:
        self._check_attributes(group)
        if depth > _MAX_DEPTH:
            self._refuse(group.name, f"is nested deeper than {_MAX_DEPTH} groups")
        for name in group:
            self._count += 1
            if self._count > _MAX_OBJECTS:
                self._refuse(group.name, f"brings more than {_MAX_OBJECTS} objects")
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                self._refuse(where, "is a link to elsewhere")
            child = group[name]
            if isinstance(child, h5py.Group):
                self.check(child, depth + 1)
            elif isinstance(child, h5py.Dataset):
                self._check_attributes(child)
                self._check_dataset(where, child)
            else:
                self._refuse(where, "is a named type")

    def _check_attributes(self, target: h5py.HLObject) -> None:
        for name in target.attrs:
            attribute = target.attrs.get_id(name)
            size = math.prod(attribute.shape or ()) * attribute.dtype.itemsize
            if size > _MAX_ATTRIBUTE_BYTES:
                self._refuse(f"{target.name}@{name}", f"is an attribute of {size} bytes")

    def _check_dataset(self, where: str, dataset: h5py.Dataset) -> None:
        if dataset.is_virtual or dataset.external:
            self._refuse(where, "takes its data from other files")
        if dataset.shape is None:
            self._refuse(where, "is empty")
        text = h5py.check_string_dtype(dataset.dtype) is not None
        if dataset.dtype.kind not in "biufS" and not text:
            self._refuse(where, f"holds objects of type {dataset.dtype}")
        # Chunk after chunk the declared size must be there in the file.
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        if dataset.id.get_create_plist().get_nfilters():
            must_be_readable(dataset)
            stored *= _BEST_COMPRESSION
        slack = max(_SLACK_BYTES, _SLACK_CHUNKS * chunk if dataset.ndim == 3 else 0)
        if declared > stored + slack or chunk > MAX_FRAME_BYTES:
            self._refuse(where, f"declares {declared} bytes of which the file holds {stored}")

    def _refuse(self, where: str, why: str) -> None:
        raise SessionRefused(
            f"{self._path}: {where} {why}; such a file is not read. A session as the"
            " recorder wrote it will do"
        )
