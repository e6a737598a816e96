"""The tree of tags in a DigitalMicrograph file of version 3 or 4.

Names and sizes are big-endian, values in the order that the header tells. Long arrays are
not read: the tree says where they lie.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cameras.files.recording import FrameFileError

GROUP, VALUE = 20, 21
STRUCT, STRING, ARRAY = 15, 18, 20
SIMPLE = {
    2: "h",
    3: "i",
    4: "H",
    5: "I",
    6: "f",
    7: "d",
    8: "B",
    9: "b",
    10: "b",
    11: "q",
    12: "Q",
}
CHARACTER = 4
MAX_TEXT = 4096
MAX_DEPTH = 64
DELIMITER = b"%%%%"


@dataclass(frozen=True, slots=True)
class Block:
    """An array that was left in the file.

    Parameters
    ----------
    offset, size
        Bytes.
    count
        Elements.
    """

    offset: int
    size: int
    count: int


Tags = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    code: int
    size: int
    count: int = 1
    fields: tuple["_Kind", ...] = ()


def read_tags(path: Path) -> tuple[Tags, str]:
    """Return the tree, groups as dicts, and ``<`` or ``>`` for the order of its values.

    Members without a name are called ``"0"``, ``"1"`` and so on.

    Raises
    ------
    FrameFileError
        It is no such file, or is damaged.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _Parser(path, content).parse()
    except (OSError, ValueError) as error:
        if isinstance(error, FrameFileError):
            raise
        raise FrameFileError(f"{path}: cannot be read: {error}") from error
    except (struct.error, StopIteration, RecursionError) as error:
        raise FrameFileError(f"{path}: ends within its tags, or they are damaged") from error


class _Parser:
    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content = path, content
        self._at = 0
        self._size = "i"
        self._order = "<"

    def parse(self) -> tuple[Tags, str]:
        version = self._take(">i")
        if version not in (3, 4):
            raise FrameFileError(
                f"{self._path}: is no DigitalMicrograph file of version 3 or 4: it begins with "
                f"{version}"
            )
        self._size = "i" if version == 3 else "q"
        self._length()
        self._order = "<" if self._take(">i") else ">"
        return self._group(0), self._order

    @property
    def _is_4(self) -> bool:
        return self._size == "q"

    def _take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return value

    def _length(self) -> int:
        found = int(self._take(">" + self._size))
        if not 0 <= found < 2**48:
            raise FrameFileError(f"{self._path}: a length of {found} at byte {self._at}: damaged")
        return found

    def _group(self, depth: int) -> Tags:
        if depth > MAX_DEPTH:
            raise FrameFileError(f"{self._path}: tags within tags within tags: damaged")
        self._at += 2  # sorted and open, for its own browser
        tags: Tags = {}
        unnamed = 0
        for _ in range(self._length()):
            kind = self._take(">B")
            length = self._take(">H")
            name = self._content[self._at : self._at + length].decode("latin-1")
            self._at += length + (8 if self._is_4 else 0)
            if not name:
                name, unnamed = str(unnamed), unnamed + 1
            if kind == GROUP:
                tags[name] = self._group(depth + 1)
            elif kind == VALUE:
                tags[name] = self._value(is_data=name == "Data")
            else:
                raise FrameFileError(f"{self._path}: a tag of kind {kind} at byte {self._at}")
        return tags

    def _value(self, *, is_data: bool) -> Any:
        if self._content[self._at : self._at + 4] != DELIMITER:
            raise FrameFileError(f"{self._path}: no value at byte {self._at}: damaged")
        self._at += 4
        told = iter([self._length() for _ in range(self._length())])
        kind = self._kind(told)
        begin = self._at
        self._at += kind.size
        if self._at > len(self._content):
            raise FrameFileError(f"{self._path}: ends within its data")
        if kind.code == ARRAY:
            is_text = kind.fields[0].code == CHARACTER and not is_data
            if is_text and kind.count <= MAX_TEXT:
                text = self._content[begin : self._at]
                return text.decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")
            return Block(begin, kind.size, kind.count)
        return self._simple(kind, begin)

    def _kind(self, told: Iterator[int]) -> _Kind:
        code = next(told)
        if code in SIMPLE:
            return _Kind(code, struct.calcsize("=" + SIMPLE[code]))
        if code == STRING:
            return _Kind(code, next(told))
        if code == STRUCT:
            next(told)
            fields = []
            for _ in range(next(told)):
                next(told)
                fields.append(self._kind(told))
            return _Kind(code, sum(field.size for field in fields), 1, tuple(fields))
        if code == ARRAY:
            element = self._kind(told)
            count = next(told)
            return _Kind(code, element.size * count, count, (element,))
        raise FrameFileError(f"{self._path}: a value of type {code} at byte {self._at}")

    def _simple(self, kind: _Kind, begin: int) -> Any:
        if kind.code == STRUCT:
            values = []
            for field in kind.fields:
                values.append(self._simple(field, begin))
                begin += field.size
            return tuple(values)
        if kind.code in SIMPLE:
            return struct.unpack_from(self._order + SIMPLE[kind.code], self._content, begin)[0]
        return self._content[begin : begin + kind.size].decode("latin-1")
