"""Lossless compression of frames, each by itself, as HDF5 filters read it.

Two ways: deflate, which every HDF5 program reads and which is slow; bitshuffle and LZ4 in a
Blosc frame (HDF5 filter 32001), ten times as fast, which needs hdf5plugin to be read. Frames
are noise above all, so that no other deflate strategy gains over runs and Huffman codes.
"""

import importlib
import zlib
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused

if TYPE_CHECKING:
    from collections.abc import Callable

BLOSC = 32001
_BLOSC_OPTIONS = (2, 2, 0, 0, 5, 2, 1)  # versions, two that HDF5 fills in, level, bitshuffle, LZ4
_DEFLATE_LEVEL = 1


class Compression(StrEnum):
    """How the frames of a camera are stored.

    ``AUTO`` is ``BITSHUFFLE`` where the extra ``compress`` is installed, else ``DEFLATE``.
    """

    NONE = "none"
    AUTO = "auto"
    DEFLATE = "deflate"
    BITSHUFFLE = "bitshuffle-lz4"


class Codec(Protocol):
    """One way to compress a frame.

    Parameters
    ----------
    name
        As `Compression` has it.
    stated
        What the session says of it, and of what it takes to read it.
    """

    name: Compression
    stated: str

    def describe(self, properties: h5py.h5p.PropDCID, itemsize: int) -> None:
        """Add the filters to the properties of a dataset."""
        ...

    def compress(self, pixels: NDArray[np.generic]) -> bytes:
        """Return a frame, contiguous, as the filters read it; without Python's lock."""
        ...

    def expand(self, content: bytes, dtype: np.dtype[Any], size: int) -> bytes:
        """Return the bytes of a frame of ``size``.

        Raises
        ------
        ValueError
            The content is not whole, or of another size.
        """
        ...


class Deflate:
    """zlib's deflate, after the bytes of like weight were put together."""

    name = Compression.DEFLATE
    stated = "deflate; any HDF5 program reads it"

    def describe(self, properties: h5py.h5p.PropDCID, itemsize: int) -> None:
        """Add the filters to the properties of a dataset."""
        if itemsize > 1:
            properties.set_shuffle()
        properties.set_deflate(_DEFLATE_LEVEL)

    def compress(self, pixels: NDArray[np.generic]) -> bytes:
        """Return a frame as the filters read it."""
        size = pixels.dtype.itemsize
        if size > 1:
            pixels = np.ascontiguousarray(pixels.reshape(-1).view(np.uint8).reshape(-1, size).T)
        stream = zlib.compressobj(_DEFLATE_LEVEL, strategy=zlib.Z_RLE)
        return stream.compress(pixels.data) + stream.flush()

    def expand(self, content: bytes, dtype: np.dtype[Any], size: int) -> bytes:
        """Return the bytes of a frame."""
        try:
            flat = zlib.decompressobj().decompress(content, size)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if len(flat) != size:
            raise ValueError(f"{len(flat)} bytes of {size}")
        return np.frombuffer(flat, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()


class BitshuffleLz4:
    """Bitshuffle and LZ4 in a Blosc frame, by numcodecs.

    Raises
    ------
    ImportError
        numcodecs or hdf5plugin is missing.
    """

    name = Compression.BITSHUFFLE
    stated = "bitshuffle and LZ4 in a Blosc frame (HDF5 filter 32001); import hdf5plugin to read it"

    def __init__(self) -> None:
        importlib.import_module("hdf5plugin")  # by which HDF5 knows the filter
        module = importlib.import_module("numcodecs")
        blosc: Any = module.Blosc(cname="lz4", clevel=5, shuffle=module.Blosc.BITSHUFFLE)
        self._encode: Callable[[NDArray[np.generic]], bytes] = blosc.encode
        self._decode: Callable[[bytes], Any] = blosc.decode

    def describe(self, properties: h5py.h5p.PropDCID, itemsize: int) -> None:
        """Add the filter to the properties of a dataset."""
        properties.set_filter(BLOSC, h5py.h5z.FLAG_MANDATORY, _BLOSC_OPTIONS)

    def compress(self, pixels: NDArray[np.generic]) -> bytes:
        """Return a frame as the filter reads it."""
        return self._encode(pixels)

    def expand(self, content: bytes, dtype: np.dtype[Any], size: int) -> bytes:
        """Return the bytes of a frame."""
        # A Blosc frame says how long it gets: not to be believed, or it fills the memory.
        if content[4:8] != size.to_bytes(4, "little"):
            raise ValueError(f"no Blosc frame of {size} bytes")
        try:
            return bytes(self._decode(content))
        except RuntimeError as error:
            raise ValueError(str(error)) from error


def find_codec(wanted: str) -> Codec | None:
    """Return what compresses frames as is wanted; None where nothing shall.

    Raises
    ------
    SessionRefused
        There is no such way, or it is not installed.
    """
    try:
        compression = Compression(wanted)
    except ValueError:
        known = ", ".join(repr(way.value) for way in Compression)
        raise SessionRefused(f"no compression is called {wanted!r}; {known} will do") from None
    if compression is Compression.NONE:
        return None
    if compression is Compression.DEFLATE:
        return Deflate()
    try:
        return BitshuffleLz4()
    except ImportError as error:
        if compression is Compression.AUTO:
            return Deflate()
        raise SessionRefused(
            f"compression {wanted!r} needs a package that is missing ({error.name}):"
            " pip install 'lamella[compress]', or write 'deflate', which needs none"
        ) from error


def must_be_readable(name: str, properties: h5py.h5p.PropDCID) -> None:
    """Load what HDF5 needs for the filters of a dataset, by how it was created.

    Raises
    ------
    SessionRefused
        It cannot be read here; the message says what to install.
    """
    for number in range(properties.get_nfilters()):
        code = properties.get_filter(number)[0]
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            raise SessionRefused(
                f"{name} is compressed with HDF5 filter {code}, which is not installed;"
                " pip install 'lamella[compress]' (hdf5plugin) will do"
            )
