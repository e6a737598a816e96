"""What an index asks for of frames on disk: NumPy's rules, without the pixels."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = slice(None)
_NO_INDEX = "whole numbers, slices, masks, lists of whole numbers, None and ... will do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which part to read, and how to index it.

    Parameters
    ----------
    frames
        Numbers of the frames, rising, each once.
    rows, columns
        The part of each frame.
    key
        Index into what was read, shape (len(frames), rows, columns), that gives what NumPy
        would have given of all.
    """

    frames: Sequence[int]
    rows: slice
    columns: slice
    key: tuple[Any, ...]


def select(key: Any, shape: tuple[int, int, int]) -> Selection:
    """Return what ``array[key]`` needs of an array of this shape.

    Raises
    ------
    IndexError
        NumPy would refuse it, too: it is out of bounds, of too many dimensions, a mask of
        another shape, or no index at all. A single true or false is refused as well.
    """
    parts = _by_axis(key, shape)
    axes = [i for i, part in enumerate(parts) if part is not None]
    first, rest = axes[0], axes[1:]
    frames, parts[first] = _frames(parts[first], shape[0])
    boxes = [_WHOLE, _WHOLE]
    if not any(isinstance(parts[i], np.ndarray) for i in rest):
        for axis, i in enumerate(rest):
            boxes[axis], parts[i] = _box(parts[i], shape[axis + 1], axis + 1)
    return Selection(frames=frames, rows=boxes[0], columns=boxes[1], key=tuple(parts))


def _by_axis(key: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the parts of an index, one for each axis, and None for each new one."""
    given = [_part(part) for part in (key if isinstance(key, tuple) else (key,))]
    used = sum(_width(part) for part in given)
    if used > len(shape):
        raise IndexError(f"{used} indices for frames of {len(shape)} dimensions")
    dots = [i for i, part in enumerate(given) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("... can stand once in an index")
    at = dots[0] if dots else len(given)
    given[at : at + 1] = [_WHOLE] * (len(shape) - used)
    parts: list[Any] = []
    axis = 0
    for part in given:
        if isinstance(part, np.ndarray) and part.dtype.kind == "b":
            there = shape[axis : axis + part.ndim]
            if part.shape != there:
                raise IndexError(f"a mask of shape {part.shape} for frames of shape {there}")
            parts += part.nonzero()
        else:
            parts.append(part)
        axis += _width(part)
    return parts


def _part(part: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    array = np.asarray(part)
    if array.size == 0 and not isinstance(part, np.ndarray):
        array = array.astype(np.intp)
    if array.dtype.kind == "b" and array.ndim:
        return array
    if array.dtype.kind not in "iu":
        raise IndexError(f"{part!r} is no index of frames: {_NO_INDEX}")
    return (
        operator.index(part if isinstance(part, int) else array.item())
        if _is_one(part)
        else (array.astype(np.intp))
    )


def _is_one(part: Any) -> bool:
    return np.ndim(part) == 0


def _width(part: Any) -> int:
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def _frames(part: Any, count: int) -> tuple[Sequence[int], Any]:
    if isinstance(part, slice):
        numbers = range(*part.indices(count))
        rising = numbers if numbers.step > 0 else numbers[::-1]
        return rising, slice(None, None, 1 if numbers.step > 0 else -1)
    if isinstance(part, int):
        number = _within(part, count, 0)
        return range(number, number + 1), 0
    wanted = _all_within(part, count)
    frames, places = np.unique(wanted, return_inverse=True)
    return frames.tolist(), places.reshape(wanted.shape)


def _box(part: Any, length: int, axis: int) -> tuple[slice, Any]:
    """Return the smallest run that holds an index, and the index into it."""
    if isinstance(part, int):
        at = _within(part, length, axis)
        return slice(at, at + 1), 0
    wanted = range(*part.indices(length))
    if not wanted:
        return slice(0, 0), _WHOLE
    low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
    return slice(low, high + 1), slice(None, None, wanted.step)


def _within(index: int, length: int, axis: int) -> int:
    if not -length <= index < length:
        name = ("frame", "row", "column")[axis]
        raise IndexError(f"{name} {index} of {length}")
    return index % length


def _all_within(wanted: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    outside = wanted[(wanted < -count) | (wanted >= count)]
    if outside.size:
        raise IndexError(f"frame {outside.flat[0]} of {count}")
    return np.where(wanted < 0, wanted + count, wanted)
