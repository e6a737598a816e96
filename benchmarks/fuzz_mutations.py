"""Ways to spoil a file: bytes, texts, and the objects of HDF5 and JSON."""

import json
import math
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

EXTREME_INTEGERS = (0, 1, -1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1)
EXTREME_INTEGERS += (2**53, 2**62, 2**63 - 1, -(2**63), 2**64 - 1)
EXTREME_FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-300, 1e20)
EXTREME_TEXTS = (
    *("0", "-0", "-1", "1e999", "1e-999", "nan", "inf", "-inf", "1e308", "9" * 400, "1_000"),
    *("0x10", "١٢", "1,5", "1.5.5", "", " ", "null", "true", "-9223372036854775808"),
    *("1e18", "1e400", "99999999999999999999", "../../etc/passwd", "a\0b", "\u202e", "x" * 5000),
)
_NUMBER = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


# --- bytes ---------------------------------------------------------------------------------------


def spoil_bytes(rng: random.Random, content: bytes, other: bytes) -> tuple[bytes, str]:
    """Return the bytes with one to three damages, and what was done."""
    data, said = bytearray(content), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        how = rng.choice((_flip, _flip, _number, _number, _cut, _splice, _delete, _again, _blank))
        said.append(how(rng, data, other))
    return bytes(data), "; ".join(said)


def _flip(rng: random.Random, data: bytearray, _other: bytes) -> str:
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
    return f"bits flipped at {places}"


def _number(rng: random.Random, data: bytearray, _other: bytes) -> str:
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    if rng.random() < 0.7:
        value: float = rng.choice(EXTREME_INTEGERS)
        order = rng.choice(("little", "big"))
        raw = (int(value) % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    else:
        value = rng.choice(EXTREME_FLOATS)
        raw = struct.pack(rng.choice("<>") + "d", value)
    data[at : at + len(raw)] = raw[: len(data) - at]
    return f"{value} put at {at} in {len(raw)} bytes"


def _cut(rng: random.Random, data: bytearray, _other: bytes) -> str:
    at = rng.randrange(len(data))
    del data[at:]
    return f"cut at {at}"


def _splice(rng: random.Random, data: bytearray, other: bytes) -> str:
    source = other if rng.random() < 0.5 else bytes(data)
    begin = rng.randrange(len(source))
    piece = source[begin : begin + rng.choice((1, 8, 64, 512, len(source)))]
    at = rng.randrange(len(data))
    if rng.random() < 0.5:
        data[at : at + len(piece)] = piece
    else:
        data[at:at] = piece
    return f"{len(piece)} bytes from {begin} put at {at}"


def _delete(rng: random.Random, data: bytearray, _other: bytes) -> str:
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 100))
    del data[at : at + length]
    return f"{length} bytes taken out at {at}"


def _again(rng: random.Random, data: bytearray, _other: bytes) -> str:
    at, length = rng.randrange(len(data)), rng.choice((1, 16, 200, 2000))
    data[at:at] = data[at : at + length]
    return f"{length} bytes doubled at {at}"


def _blank(rng: random.Random, data: bytearray, _other: bytes) -> str:
    at, length = rng.randrange(len(data)), rng.choice((4, 32, 256))
    length = min(length, len(data) - at)
    data[at : at + length] = rng.choice((b"\0", b"\xff", b"%")) * length
    return f"{length} bytes blanked at {at}"


# --- text ----------------------------------------------------------------------------------------


def spoil_text(rng: random.Random, content: bytes, other: bytes) -> tuple[bytes, str]:
    """Return a text with numbers, lines or cells changed."""
    if rng.random() < 0.2:
        return spoil_bytes(rng, content, other)
    if rng.random() < 0.6:
        found = list(_NUMBER.finditer(content))
        if found:
            hit, new = rng.choice(found), rng.choice(EXTREME_TEXTS)
            said = f"{hit[0]!r} at {hit.start()} became {new[:40]!r}"
            return content[: hit.start()] + new.encode() + content[hit.end() :], said
    lines = content.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[at], lines[to] = lines[to], lines[at]
            said = f"lines {at} and {to} exchanged"
        case 1:
            del lines[at]
            said = f"line {at} taken out"
        case 2:
            lines.insert(to, lines[at])
            said = f"line {at} doubled at {to}"
        case _:
            mark = rng.choice((b",", b"\t", b";", b"=", b'"', b"[", b"]"))
            lines[at] = lines[at].replace(mark, rng.choice((b"", mark * 2, b"\t", b",")), 1)
            said = f"{mark!r} changed in line {at}"
    return b"\n".join(lines), said


# --- JSON ----------------------------------------------------------------------------------------


def spoil_json(rng: random.Random, content: bytes, encoding: str) -> tuple[bytes, str]:
    """Return a JSON text with one of its values replaced or taken out."""
    tree = json.loads(content.decode(encoding).strip("\ufeff"))
    places = list(_places(tree))
    holder, key = rng.choice(places)
    said = f"{key!r} became "
    if rng.random() < 0.2:
        del holder[key]
        said = f"{key!r} taken out"
    else:
        new: Any = rng.choice((*EXTREME_TEXTS, *EXTREME_INTEGERS, *EXTREME_FLOATS, None, [], {}))
        if rng.random() < 0.05:
            new = json.loads("[" * 200 + "]" * 200)
        holder[key] = new
        said += repr(new)[:60]
    return json.dumps(tree).encode(encoding), said


def _places(tree: Any) -> Any:
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(inside):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


# --- HDF5 ----------------------------------------------------------------------------------------


def spoil_hdf5(rng: random.Random, path: Path) -> str:
    """Change one or two objects of an HDF5 file in place, and say which."""
    said = []
    with h5py.File(path, "r+") as file:
        for _ in range(rng.choice((1, 1, 2))):
            objects: list[str] = ["/"]
            file.visit(objects.append)
            name = rng.choice(objects)
            how = rng.choice(_ON_HDF5)
            try:
                said.append(f"{how.__name__[1:]} {name}: {how(rng, file, name)}")
            except (ValueError, TypeError, KeyError, OSError, RuntimeError, OverflowError) as error:
                said.append(f"{how.__name__[1:]} {name} could not be done: {error}")
    return "; ".join(said)


def _any_value(rng: random.Random) -> Any:
    pool: tuple[Any, ...] = (
        *(rng.choice(EXTREME_INTEGERS[:14]), rng.choice(EXTREME_FLOATS), rng.choice(EXTREME_TEXTS)),
        *(np.array([1.5, math.nan]), np.bytes_(b"\xff\xfe"), h5py.Empty("f8"), np.zeros((2, 2))),
        *(np.float32(3), np.int8(-1), np.array(["a", "b"], dtype=object), True),
    )
    return rng.choice(pool)


def _attribute(rng: random.Random, file: h5py.File, name: str) -> str:
    target = file[name]
    attributes = list(target.attrs)
    if not attributes or rng.random() < 0.1:
        attributes = [rng.choice(("units", "NX_class", "pixel_size", "x" * 300))]
    attribute = rng.choice(attributes)
    if rng.random() < 0.2 and attribute in target.attrs:
        del target.attrs[attribute]
        return f"@{attribute} taken out"
    value = _any_value(rng)
    target.attrs[attribute] = value
    return f"@{attribute} = {str(value)[:40]}"


def _values(rng: random.Random, file: h5py.File, name: str) -> str:
    data = file[name]
    if not isinstance(data, h5py.Dataset) or not data.size:
        return "no values"
    if data.dtype.kind in "iuf":
        limits: tuple[float, ...] = EXTREME_FLOATS
        if data.dtype.kind != "f":
            info = np.iinfo(data.dtype)
            limits = (info.min, info.max, 0, 1)
        value: Any = rng.choice(limits)
    else:
        value = rng.choice(EXTREME_TEXTS).replace("\0", "")
    place = tuple(rng.randrange(n) for n in data.shape)
    data[place] = value
    return f"{place} = {str(value)[:40]}"


def _length(rng: random.Random, file: h5py.File, name: str) -> str:
    data = file[name]
    if not isinstance(data, h5py.Dataset) or not data.chunks:
        return "no chunks"
    new = rng.choice((0, 1, data.shape[0] - 1, data.shape[0] + 1, 10**4, 10**7, 2**40))
    data.resize(max(0, new), axis=0)
    return f"{new} rows"


def _kind(rng: random.Random, file: h5py.File, name: str) -> str:
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        return "a group"
    attributes = {key: data.attrs[key] for key in ("units",) if key in data.attrs}
    new = rng.choice(("f4", "i2", "u8", "S3", "f2", "i8", "complex64", ">f8", "bool"))
    content = np.zeros(data.shape, "f8") if data.dtype.kind not in "iufb" else data[()]
    parent, _, own = name.rpartition("/")
    del file[name]
    made = file[parent or "/"].create_dataset(own, data=content.astype(new))
    made.attrs.update(attributes)
    return new


def _shape(rng: random.Random, file: h5py.File, name: str) -> str:
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        return "a group"
    shape = rng.choice(((), (1,), (2, 2), (0,), (3, 4, 5, 6), (0, 6, 8), (4, 0, 8), (4, 8, 6)))
    dtype = data.dtype
    parent, _, own = name.rpartition("/")
    del file[name]
    file[parent or "/"].create_dataset(own, shape, dtype)
    return str(shape)


def _delete_object(rng: random.Random, file: h5py.File, name: str) -> str:
    if name == "/":
        return "kept"
    del file[name]
    return "taken out"


def _move(rng: random.Random, file: h5py.File, name: str) -> str:
    others = ["/"]
    file.visit(others.append)
    to = rng.choice(others)
    if name in ("/", to) or to == "/":
        return "kept"
    kept = file[name]
    other = file[to]
    del file[name], file[to]
    file[name], file[to] = other, kept
    return f"exchanged with {to}"


def _link(rng: random.Random, file: h5py.File, name: str) -> str:
    target: Any = rng.choice(
        (h5py.SoftLink("/entry"), h5py.ExternalLink("/etc/passwd", "/"), file["/"])
    )
    if name == "/":
        return "kept"
    del file[name]
    file[name] = target
    return f"is {type(target).__name__}"


def _add(rng: random.Random, file: h5py.File, name: str) -> str:
    group = file[name] if isinstance(file[name], h5py.Group) else file[name].parent
    own = rng.choice(("extra", "..", "a b", "\u202ename", "x" * 200, "samples", "CON", "-rf"))
    if rng.random() < 0.5:
        group.create_group(own)
        return f"group {own[:20]!r}"
    group.create_dataset(own, data=rng.choice((1.0, np.zeros(3), np.zeros((2, 2, 2)), "text")))
    return f"dataset {own[:20]!r}"


_ON_HDF5: tuple[Callable[[random.Random, h5py.File, str], str], ...] = (
    *(_attribute, _attribute, _values, _values, _length, _kind, _shape, _delete_object),
    *(_move, _link, _add),
)
