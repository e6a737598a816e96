"""A microscope's program that writes frame files into a folder, in all the nasty ways.

Each way is a generator: every step does one thing to the file system (make, write a
piece, close, rename), so that whoever drives it can look in between and decide when the
next thing happens. What an operating system would tell of a step is told, too.
"""

import io
import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Manner(StrEnum):
    """How a file comes into the folder."""

    IN_PIECES = "in pieces"  # made, written to bit by bit, closed
    RENAMED = "renamed"  # written under a name that is not meant, then renamed
    MOVED_IN = "moved in"  # renamed into the folder from elsewhere: told as made, never closed
    RESERVED = "reserved"  # its whole length first, filled afterwards
    REOPENED = "reopened"  # closed after each piece
    CUT = "cut"  # closed before it is whole, and left so for ever


class Happening(StrEnum):
    """What an operating system tells of a file."""

    CREATED = "created"
    MODIFIED = "modified"
    CLOSED = "closed"
    MOVED = "moved"


Told = Callable[[Happening, str, str], None]
"""Called with what happened, the name, and the former name of a file that was renamed."""


def _nobody(happening: Happening, name: str, source: str) -> None:
    """Listen to nothing, as a network share does."""


class FolderWriter:
    """Lands files in a folder.

    Parameters
    ----------
    folder
        Where to; a folder beside it is used for what is moved in.
    told
        Hears of each step, as from the operating system.
    """

    def __init__(self, folder: Path, *, told: Told = _nobody) -> None:
        self._folder = folder
        self._aside = folder.with_name(folder.name + ".aside")
        self._told = told

    def land(
        self, name: str, data: bytes, manner: Manner, cuts: Sequence[int] = ()
    ) -> Iterator[None]:
        """Yield after each step of landing a file.

        Parameters
        ----------
        cuts
            Where the data are cut into pieces, in bytes; the last one is where a file
            that is cut ends.
        """
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
        match manner:
            case Manner.IN_PIECES:
                yield from self._write(name, pieces)
            case Manner.CUT:
                yield from self._write(name, pieces[:-1])
            case Manner.RENAMED:
                yield from self._write(name + ".part", pieces)
                (self._folder / (name + ".part")).replace(self._folder / name)
                self._told(Happening.MOVED, name, name + ".part")
                yield
            case Manner.MOVED_IN:
                self._aside.mkdir(exist_ok=True)
                aside = self._aside / Path(name).name
                aside.write_bytes(data)
                aside.replace(self._folder / name)
                self._told(Happening.CREATED, name, "")
                yield
            case Manner.RESERVED:
                yield from self._write(name, pieces, reserve=len(data))
            case Manner.REOPENED:
                yield from self._reopen(name, pieces)

    def _write(self, name: str, pieces: Sequence[bytes], reserve: int = 0) -> Iterator[None]:
        with (self._folder / name).open("wb") as file:
            self._told(Happening.CREATED, name, "")
            if reserve:
                file.truncate(reserve)
                self._told(Happening.MODIFIED, name, "")
            yield
            for piece in pieces:
                file.write(piece)
                file.flush()
                self._told(Happening.MODIFIED, name, "")
                yield
        self._told(Happening.CLOSED, name, "")
        yield

    def _reopen(self, name: str, pieces: Sequence[bytes]) -> Iterator[None]:
        for number, piece in enumerate(pieces):
            with (self._folder / name).open("ab") as file:
                if number == 0:
                    self._told(Happening.CREATED, name, "")
                file.write(piece)
            self._told(Happening.MODIFIED, name, "")
            self._told(Happening.CLOSED, name, "")
            yield


def truth(index: int, height: int, width: int, dtype: str = "uint8") -> NDArray[np.generic]:
    """Return the pixels of frame ``index``: always the same, and unlike all others."""
    rng = np.random.default_rng([7, index])
    top = min(np.iinfo(dtype).max, 2**16 - 1)
    return np.asarray(rng.integers(0, top, (height, width), endpoint=True).astype(dtype))


def encode(suffix: str, frames: Sequence[NDArray[np.generic]]) -> bytes:
    """Return the bytes of a file of a format that holds these frames.

    PNG, and TIFF as Pillow writes it, are real. MRC, MIB, SER, TVIPS and DM4 are written
    from their layouts: as much of the headers as tells how long a file is, and a Merlin
    frame's stamps, 1 ms apart.
    """
    if suffix in ("png", "tif", "tiff"):
        memory = io.BytesIO()
        first, *others = (Image.fromarray(np.asarray(frame)) for frame in frames)
        if suffix == "png":
            first.save(memory, "PNG")
        else:
            first.save(memory, "TIFF", save_all=bool(others), append_images=others)
        return memory.getvalue()
    return _LAYOUTS[suffix](frames)


def _mrc(frames: Sequence[NDArray[np.generic]]) -> bytes:
    height, width = frames[0].shape
    mode = {"uint8": 0, "uint16": 6, "float32": 2}[frames[0].dtype.name]
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", width, height, len(frames), mode)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    return bytes(header) + b"".join(frame.tobytes() for frame in frames)


def _mib(frames: Sequence[NDArray[np.generic]]) -> bytes:
    height, width = frames[0].shape
    kind = {"uint8": "U08", "uint16": "U16", "uint32": "U32"}[frames[0].dtype.name]
    data = b""
    for number, frame in enumerate(frames, start=1):
        text = (
            f"MQ1,{number:06},00384,01,{width:04},{height:04},{kind},   1x1,01,"
            f"2026-11-25 20:00:00.{number * 1000:06},0.001000,"
            f"MQ1A,2026-11-25T19:00:00.{number * 1_000_000:09}Z,1000000ns,12,"
        )
        data += (
            text.encode().ljust(384, b"\0") + frame.astype(frame.dtype.newbyteorder(">")).tobytes()
        )
    return data


def _ser(frames: Sequence[NDArray[np.generic]]) -> bytes:
    height, width = frames[0].shape
    kind = {"uint8": 1, "uint16": 2}[frames[0].dtype.name]
    data, offsets = b"", []
    for frame in frames:
        offsets.append(30 + len(data))
        data += bytes(40) + struct.pack("<H2I", kind, width, height) + frame.tobytes()
    tags = [30 + len(data) + 8 * len(frames) + 8 * i for i in range(len(frames))]
    start = struct.pack("<3H4I", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, len(frames), len(frames))
    start += struct.pack("<2I", 30 + len(data), 1)
    table = struct.pack(f"<{2 * len(frames)}I", *offsets, *tags)
    return start + data + table + bytes(8 * len(frames))


def _tvips(frames: Sequence[NDArray[np.generic]]) -> bytes:
    height, width = frames[0].shape
    bits = 8 * frames[0].dtype.itemsize
    header = bytearray(256)
    header[:20] = struct.pack("<5i", 256, 2, width, height, bits)
    header[48:52] = struct.pack("<i", 60)
    rows = (struct.pack("<3I", i, 1_700_000_000, i).ljust(60, b"\0") for i in range(len(frames)))
    return bytes(header) + b"".join(
        row + frame.tobytes() for row, frame in zip(rows, frames, strict=True)
    )


def _dm4(frames: Sequence[NDArray[np.generic]]) -> bytes:
    body = b"".join(frame.tobytes() for frame in frames)
    return struct.pack(">IQI", 4, len(body), 1) + body + bytes(8)


_LAYOUTS: dict[str, Callable[[Sequence[NDArray[np.generic]]], bytes]] = {
    "mrc": _mrc,
    "mib": _mib,
    "ser": _ser,
    "tvips": _tvips,
    "dm4": _dm4,
}
