"""Frame files made byte by byte from the layouts that are known of them.

No public movie of most of these formats is at hand: these are synthetic, and a reader that
agrees with them agrees with the layouts as RosettaSciIO and LiberTEM read them, too.
"""

import json
import struct
from datetime import UTC, datetime, timedelta

import h5py
import numpy as np

EPOCH_S = 1_700_000_000  # 2023-11-14 22:13:20 UTC
EPOCH_MS = EPOCH_S * 1000
EPOCH_NS = EPOCH_S * 10**9


def pictures(count, height=4, width=6, dtype="uint16"):
    """Frames that differ in every pixel and are not square."""
    size = count * height * width
    return (np.arange(size) % 251).astype(dtype).reshape(count, height, width)


def utc_text(ns):
    whole = datetime.fromtimestamp(ns // 10**9, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09}Z"


# --- Merlin --------------------------------------------------------------------------------------


def mib_header(
    counter, stamp_ns, *, shape, pixels="U16", header_bytes=384, exposure_ns=10**6, tail=True
):
    """One header; the local time is an hour ahead of the UTC of the tail, as in real ones."""
    local = utc_text(stamp_ns + 3600 * 10**9)[:-4].replace("T", " ")
    chips, layout = (1, "   1x1") if header_bytes == 384 else (4, "   2x2")
    fields = ["MQ1", counter if isinstance(counter, str) else f"{counter:06}"]
    fields += [f"{header_bytes:05}", f"{chips:02}", f"{shape[1]:04}", f"{shape[0]:04}", pixels]
    fields += [layout, f"{2**chips - 1:02X}", local, f"{exposure_ns / 1e9:.6f}", "0", "0", "0"]
    fields += ["120", "511"] * chips
    if tail:
        fields += ["MQ1A", utc_text(stamp_ns), f"{exposure_ns}ns", "12"]
    text = (",".join(fields) + ",").encode()
    return text.ljust(header_bytes, b"\0")


def mib(path, frames, counters, stamps_ns, **others):
    pixels = {1: "U08", 2: "U16", 4: "U32"}[frames.dtype.itemsize]
    others = {"pixels": pixels, **others}
    with path.open("wb") as file:
        for frame, counter, ns in zip(frames, counters, stamps_ns, strict=True):
            file.write(mib_header(counter, ns, shape=frame.shape, **others))
            file.write(frame.astype(frame.dtype.newbyteorder(">")).tobytes())
    return path


# --- TVIPS ---------------------------------------------------------------------------------------


def tvips_frames(frames, counters, stamps_ms, header_bytes):
    for frame, counter, ms in zip(frames, counters, stamps_ms, strict=True):
        head = struct.pack("<III", counter, ms // 1000, ms % 1000)
        yield head.ljust(header_bytes, b"\0") + frame.tobytes()


def tvips(path, frames, counters, stamps_ms, *, version=2, header_bytes=None, first=True):
    header_bytes = header_bytes or {1: 12, 2: 108}[version]
    _, height, width = frames.shape
    with path.open("wb") as file:
        if first:
            bits = 8 * frames.dtype.itemsize
            words = (256, version, width, height, bits, 0, 0, 1, 1, 1, 300, 1, header_bytes)
            file.write(struct.pack("<13I", *words).ljust(256, b"\0"))
        for record in tvips_frames(frames, counters, stamps_ms, header_bytes):
            file.write(record)
    return path


# --- SEQ -----------------------------------------------------------------------------------------


def seq(path, frames, stamps_us, *, version=5, pad=100, allocated=None, image_format=100):
    count, height, width = frames.shape
    image = frames[0].nbytes
    stride = image + 8 + pad
    head = bytearray(8192 if version >= 5 else 1024)
    struct.pack_into("<I", head, 0, 0xFEED)
    struct.pack_into("<ii", head, 28, version, 1024)
    words = (width, height, 8 * frames.dtype.itemsize, 8 * frames.dtype.itemsize, image)
    struct.pack_into("<5I", head, 548, *words)
    count = count if allocated is None else allocated
    struct.pack_into("<4I", head, 568, image_format, count, 0, stride)
    with path.open("wb") as file:
        file.write(head)
        for frame, us in zip(frames, stamps_us, strict=True):
            stamp = struct.pack("<IHH", us // 10**6, us // 1000 % 1000, us % 1000)
            stamp = stamp if version >= 5 else stamp[:6]
            file.write((frame.tobytes() + stamp).ljust(stride, b"\xaa"))
    return path


# --- SER -----------------------------------------------------------------------------------------


def ser(path, frames, seconds, *, version=0x0220, total=None, tag=0x4152, kind=0x4122):
    """Images, each with its tag behind it, and the two tables of offsets before them."""
    count, height, width = frames.shape
    total = count if total is None else total
    wide = version > 0x0210
    offset = "Q" if wide else "I"
    dimension = struct.pack("<IddI", count, 0.0, 1.0, 0) + struct.pack("<I", 0) * 2
    table_at = 22 + (8 if wide else 4) + 4 + len(dimension)
    at = table_at + 2 * total * (8 if wide else 4)
    image = struct.pack("<ddIddI", 0, 1, 0, 0, 1, 0)
    code = {"uint8": 1, "uint16": 2, "uint32": 3, "int16": 5, "int32": 6, "float32": 7}
    image += struct.pack("<HII", code[frames.dtype.name], width, height)
    images_at, tags_at, body = [], [], b""
    for frame, second in zip(frames, seconds, strict=True):
        images_at.append(at + len(body))
        body += image + frame.tobytes()
        tags_at.append(at + len(body))
        body += struct.pack("<HHI", tag, 0, second)
        body += struct.pack("<dd", 0, 0) if tag == 0x4142 else b""
    gap = [0] * (total - count)
    head = struct.pack("<HHHIIII", 0x4949, 0x0197, version, kind, tag, total, count)
    head += struct.pack(f"<{offset}I", table_at, 1) + dimension
    head += struct.pack(f"<{2 * total}{offset}", *images_at, *gap, *tags_at, *gap)
    path.write_bytes(head + body)
    return path


# --- MRC and DE ----------------------------------------------------------------------------------


def mrc(path, frames, *, told=None, extended=b"", order="<", mode=None, behind=b""):
    count, height, width = frames.shape
    modes = {"uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
    head = bytearray(1024)
    number = modes[frames.dtype.name] if mode is None else mode
    told = count if told is None else told
    struct.pack_into(f"{order}4i", head, 0, width, height, told, number)
    struct.pack_into(f"{order}3i", head, 28, width, height, told)
    struct.pack_into(f"{order}3f", head, 40, 10.0 * width, 10.0 * height, 10.0 * told)
    struct.pack_into(f"{order}i", head, 92, len(extended))
    head[208:212] = b"MAP "
    head[212:214] = b"\x44\x44" if order == "<" else b"\x11\x11"
    pixels = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(head) + extended + pixels + behind)
    return path


DE_INFO = {
    "Timestamp (seconds since Epoch)": EPOCH_S,
    "Autosave Movie Sum Count": 1,
    "Camera Model": "DESim",
    "Frame Exposure Time (nanoseconds)": 1_427_500,
    "Frame Time (nanoseconds)": 1_428_500,
    "Frames Per Second": 700,
    "Exposure Time (seconds)": 0.045712,
    "Frame Count": 32,
    "Grabber Dropped Frames": 0,
    "Readout - Shutter": "Rolling",
}


def de_info(path, **changes):
    """The text beside a movie, with the fields of a real one that count here."""
    told = DE_INFO | {name: value for name, value in changes.items() if value is not None}
    for name in (name for name, value in changes.items() if value is None):
        del told[name]
    path.write_text("".join(f"{name:64}= {value}\n" for name, value in told.items()))
    return path


# --- Velox ---------------------------------------------------------------------------------------


def velox_json(stamp_us=None, exposure_s="0.8", start_s=EPOCH_S, frame_time_s=None):
    told = {
        "BinaryResult": {"DetectorIndex": "0", "PixelUnitX": "m"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": str(start_s)}},
        "Detectors": {"Detector-0": {"DetectorName": "BM-Ceta", "ExposureTime": exposure_s}},
        "Scan": {} if frame_time_s is None else {"FrameTime": frame_time_s},
        "CustomProperties": {},
        "Optics": {},
    }
    told["BinaryResult"]["PixelSize"] = {"height": "1e-10", "width": "1e-10"}
    if stamp_us is not None:
        value = {"type": "int64", "value": str(stamp_us)}
        told["CustomProperties"]["Detectors[BM-Ceta].TimeStamp"] = value
    return json.dumps(told)


def velox(path, frames, texts, *, lookup=None, name="a" * 32):
    with h5py.File(path, "a") as file:
        if "Version" not in file:
            version = json.dumps({"format": "Velox", "version": "1.10"})
            file.create_dataset("Version", data=[version], dtype=h5py.string_dtype())
        group = file.create_group(f"Data/Image/{name}")
        group.create_dataset("Data", data=np.moveaxis(frames, 0, -1), chunks=True)
        metadata = np.zeros((6000, len(texts)), np.uint8)
        for i, text in enumerate(texts):
            content = text.encode()
            metadata[: len(content), i] = np.frombuffer(content, np.uint8)
        group.create_dataset("Metadata", data=metadata)
        if lookup is not None:
            group.create_dataset("FrameLookupTable", data=np.zeros(lookup, np.uint32))
    return path


# --- DigitalMicrograph ---------------------------------------------------------------------------

DM_TYPES = {"h": 2, "i": 3, "H": 4, "I": 5, "f": 6, "d": 7, "B": 8, "q": 11, "Q": 12}


class Typed:
    """A simple value of one DM type."""

    def __init__(self, code, value):
        self.code, self.value = code, value


class Dm:
    """Writes a tag tree: dicts are groups, lists groups without names."""

    def __init__(self, version=3, order="<"):
        self.version, self.order = version, order

    def number(self, value):
        return struct.pack(">i" if self.version == 3 else ">q", value)

    def group(self, tags):
        named = tags.items() if isinstance(tags, dict) else [("", value) for value in tags]
        body = b"".join(self.tag(name, value) for name, value in named)
        return b"\x01\x00" + self.number(len(tags)) + body

    def tag(self, name, value):
        is_group = isinstance(value, dict | list)
        body = self.group(value) if is_group else self.value(value)
        label = name.encode("latin-1")
        head = struct.pack(">BH", 20 if is_group else 21, len(label)) + label
        return head + (struct.pack(">q", len(body)) if self.version == 4 else b"") + body

    def value(self, value):
        info, content = self.encoded(value)
        return b"%%%%" + self.number(len(info)) + b"".join(map(self.number, info)) + content

    def encoded(self, value):
        if isinstance(value, Typed):
            content = struct.pack(self.order + value.code, value.value)
            return [DM_TYPES[value.code]], content
        if isinstance(value, str):
            content = value.encode("utf-16-le" if self.order == "<" else "utf-16-be")
            return [20, 4, len(value)], content
        if isinstance(value, bytes):
            return [18, len(value)], value
        if isinstance(value, tuple):
            info = [15, 0, len(value)]
            for part in value:
                info += [0, DM_TYPES[part.code]]
            return info, b"".join(self.encoded(part)[1] for part in value)
        code = {"f": 6, "d": 7}.get(value.dtype.char) or DM_TYPES.get(value.dtype.char, 10)
        return [20, code, value.size], value.astype(value.dtype.newbyteorder(self.order)).tobytes()

    def file(self, path, tags):
        body = self.group(tags)
        little = 1 if self.order == "<" else 0
        size = self.number(len(body))
        path.write_bytes(
            struct.pack(">i", self.version) + size + struct.pack(">i", little) + body + bytes(8)
        )
        return path


def dm(path, frames, image_tags, *, version=3, order="<", axis=None, data_type=None, cut=0):
    """A stack, or a single image, behind a small thumbnail as DigitalMicrograph has it."""
    kinds = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "uint16": 10}
    thumbnail = image_of(np.zeros((2, 2), np.int32), 7, {})
    pixels = frames if frames.shape[0] > 1 else frames[0]
    code = kinds[frames.dtype.name] if data_type is None else data_type
    image = image_of(pixels, code, image_tags, axis)
    tags = {
        "ApplicationBounds": (Typed("i", 0), Typed("i", 0), Typed("i", 10), Typed("i", 10)),
        "ImageList": [thumbnail, image],
        "Image Behavior": {"Version": b"abc", "Lut": np.zeros(5000, np.uint16)},
    }
    Dm(version, order).file(path, tags)
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


def image_of(pixels, code, tags, axis=None):
    flat = pixels.ravel()
    dimension = {"Origin": Typed("f", 0), "Scale": Typed("f", 1), "Units": "nm"}
    dimensions = [dimension for _ in pixels.shape]
    if axis is not None:
        dimensions[-1] = {"Origin": Typed("f", 0), "Scale": Typed("f", axis), "Units": "s"}
    return {
        "ImageData": {
            "Calibrations": {"Brightness": dimension, "Dimension": dimensions},
            "Data": flat,
            "DataType": Typed("I", code),
            "Dimensions": [Typed("I", side) for side in pixels.shape[::-1]],
            "PixelDepth": Typed("I", flat.itemsize),
        },
        "ImageTags": tags,
        "Name": "made",
    }


def sequence_tags(start_ms, after_ns, *, number=0, exposure_ns=400_000_000):
    return {
        "Acquisition": {
            "Frame": {
                "Sequence": {
                    "Acquisition Start Time (epoch)": Typed("q", start_ms),
                    "Exposure Start (ns)": Typed("q", after_ns),
                    "Exposure Time (ns)": Typed("q", exposure_ns),
                    "Frame Index": Typed("I", number),
                    "Frame Time (ns)": Typed("q", -530_000_000_000_000),
                }
            }
        }
    }


def filetime(ns):
    return ns // 100 + 116_444_736_000_000_000


def day_text(ns):
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ns // 10**9)
    return f"{moment.hour % 12 or 12}:{moment:%M:%S %p}"
