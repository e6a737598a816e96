"""Good files of every kind that Lamella reads: what `fuzz.py` spoils."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from PIL import Image

from session.editor import SessionEditor
from session.provenance import Provenance
from session.records import (
    EDGE_DTYPE,
    EXCHANGE_DTYPE,
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.seal import seal
from session.writer import SessionWriter
from tests.cameras.files import writers
from tests.potentiostat import test_biologic, test_csv_files, test_gamry, test_pssession

ROOT = Path(__file__).parents[1]
FRAMES = writers.pictures(3)
STAMPS_NS = writers.EPOCH_NS + np.arange(3) * 10**6


# --- sessions ------------------------------------------------------------------------------------


def session(path: Path, *, finished: bool = True) -> Path:
    """Write a session with each kind of table in it."""
    camera = CameraHeader(
        name="camera",
        model="Maker One",
        height=6,
        width=8,
        dtype="uint16",
        frame_rate_Hz=20.0,
        pixel_size_m=0.8e-9,
    )
    header = SessionHeader(
        title="LCO | LiPON | Li",
        experiment_text='title = "x"\n',
        start_time="2025-03-01T10:00:00+00:00",
        host_start_ns=1_000,
        simulated=True,
        layers=("Au", "LiCoO2", "LiPON", "Li", "Cu"),
        sample={"width_m": 5e-6},
        instruments=(InstrumentHeader(name="potentiostat", attributes={"model": "6430"}),),
        cameras=(camera,),
        clocks=("camera",),
        provenance=Provenance(versions={"numpy": "2"}, host={}, files={}),
    )
    rng = np.random.default_rng(1)
    number = np.arange(12)
    rows = np.zeros(len(number), SESSION_SAMPLE_DTYPE)
    for name in SESSION_SAMPLE_DTYPE.names or ():
        if SESSION_SAMPLE_DTYPE[name].kind == "f":
            rows[name] = rng.normal(size=len(rows))
    rows["t_ns"] = 1_000 + number * 50_000_000
    rows["read_start_ns"], rows["read_end_ns"] = rows["t_ns"] - 10, rows["t_ns"] + 10
    exchanges = np.zeros(4, EXCHANGE_DTYPE)
    for offset, name in enumerate(EXCHANGE_DTYPE.names or ()):
        exchanges[name] = np.arange(4) * 1_000 + offset
    edges = np.zeros(3, EDGE_DTYPE)
    edges["source"], edges["line"], edges["t_ns"] = "camera", "a", np.arange(3)
    with SessionWriter(path, header) as writer:
        writer.append_samples(rows)
        for index in range(4):
            start_ns = 1_000 + index * 50_000_000
            frame = FrameHeader(
                t_start_ns=start_ns,
                exposure_ns=40_000_000,
                t_sigma_ns=500.0,
                index=index,
                device_start_ns=7_000_000_000 + start_ns,
                dose_per_m2=1e20 * index,
            )
            pixels = rng.integers(0, 2**16, (6, 8), np.uint16)
            writer.append_frame("camera", frame, pixels)
        writer.append_event(1_000, "step", "runner", "step 0", '{"step": 0}')
        writer.append_exchanges("camera", exchanges)
        writer.append_edges(edges)
        writer.set_queue_counters("view", {"written": 3, "dropped": 1})
        if finished:
            writer.finish("done", "2025-03-01T11:00:00+00:00")
    if finished:
        with SessionEditor.open(path) as editor:
            t_ns = 1_000 + np.arange(4) * 50_000_000
            position = {"t_ns": t_ns, "position": np.arange(4.0), "position_sigma": np.ones(4)}
            editor.put_table("tracks/front", position | {"valid": np.ones(4, np.uint8)})
    return path


def unfinished_session(path: Path) -> Path:
    """Write what a killed recorder leaves."""
    return session(path, finished=False)


def compressed_session(path: Path) -> Path:
    """Write a session whose frames another program has compressed."""
    session(path)
    with h5py.File(path, "r+") as file:
        group = file["entry/frames/camera"]
        frames = group["data"][()]
        attributes = dict(group["data"].attrs)
        del group["data"]
        data = group.create_dataset("data", data=frames, chunks=(1, 6, 8), compression="gzip")
        data.attrs["units"] = attributes["units"]
        seal(file["entry"])
    return path


# --- experiments ---------------------------------------------------------------------------------


def _example(name: str) -> Callable[[Path], Path]:
    def copy(path: Path) -> Path:
        return Path(shutil.copyfile(ROOT / name, path))

    return copy


# --- readings ------------------------------------------------------------------------------------


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def _pssession() -> bytes:
    arrays = (test_pssession.TIME, test_pssession.MEASURED, test_pssession.CURRENT)
    text = json.dumps(
        test_pssession.session(test_pssession.measurement(*arrays, test_pssession.CHARGE))
    )
    return f"\ufeff{text}\ufeff".encode("utf-16-le")


CSV = "time_s,Ewe/V,I [nA],Q (C)\n" + "".join(
    f"{i * 0.5},{3 + i * 0.01:.4f},{1 + i * 0.1:.3f},{i * 6e-10:.6e}\n" for i in range(8)
)


# --- frames --------------------------------------------------------------------------------------


def _mib(path: Path) -> Path:
    return writers.mib(path, FRAMES, [1, 2, 3], STAMPS_NS)


def _tvips(path: Path) -> Path:
    ms = [writers.EPOCH_MS, writers.EPOCH_MS + 9, writers.EPOCH_MS + 20]
    return writers.tvips(path, FRAMES, range(3), ms)


def _seq(path: Path) -> Path:
    us = [writers.EPOCH_NS // 1000 + i for i in range(3)]
    return writers.seq(path, FRAMES, us, version=4)


def _ser(path: Path) -> Path:
    return writers.ser(path, FRAMES, [writers.EPOCH_S + i for i in range(3)])


def _mrc(path: Path) -> Path:
    return writers.mrc(path, FRAMES)


def _info(path: Path) -> Path:
    writers.mrc(path.with_name("a_1_movie.mrc"), FRAMES)
    return writers.de_info(path)


def _tiff(path: Path) -> Path:
    tifffile.imwrite(path, FRAMES, photometric="minisblack")
    return path


def _packed_tiff(path: Path) -> Path:
    tifffile.imwrite(path, FRAMES, photometric="minisblack", compression="zlib")
    return path


def _ome_tiff(path: Path) -> Path:
    planes = {"Plane": {"DeltaT": [0.0, 0.1, 0.2], "DeltaTUnit": ["s"] * 3}}
    tifffile.imwrite(path, FRAMES, metadata={"axes": "TYX", **planes}, ome=True)
    return path


def _page(path: Path) -> Path:
    tifffile.imwrite(path, FRAMES[0], photometric="minisblack")
    return path


def _png(path: Path) -> Path:
    Image.fromarray(FRAMES[0].astype(np.uint8)).save(path)
    return path


def _emd(path: Path) -> Path:
    texts = [writers.velox_json(int(ns) // 1000) for ns in STAMPS_NS]
    return writers.velox(path, FRAMES, texts, lookup=3)


def _dm(version: int) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        sequence = {
            "Acquisition Start Time (epoch)": writers.Typed("q", writers.EPOCH_MS),
            "Exposure Start (ns)": writers.Typed("q", 5),
            "Exposure Time (ns)": writers.Typed("q", 1000),
            "Frame Index": writers.Typed("I", 3),
        }
        tags: dict[str, Any] = {"Acquisition": {"Frame": {"Sequence": sequence}}}
        if version == 3:
            planes = [{"added @ time": f"5:00:{27 + i} PM"} for i in range(3)]
            tags = {"plane info": dict(zip("012", planes, strict=True))}
        frames = FRAMES if version == 3 else FRAMES[:1]
        return writers.dm(path, frames, tags, version=version)

    return write


# Kind, name of the file, and what writes it. A file of frames without stamps is read with
# an interval.
SEEDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "session": ("s.h5", session),
    "session-unfinished": ("s.h5", unfinished_session),
    "session-compressed": ("s.h5", compressed_session),
    "toml-charge": ("e.toml", _example("examples/lco_lipon_li.toml")),
    "toml-techniques": ("e.toml", _example("examples/techniques.toml")),
    "toml-film": ("e.toml", _example("examples/gitt_film.toml")),
    "toml-blanking": ("e.toml", _example("examples/coded_blanking.toml")),
    "toml-template": ("e.toml", _example("runner/templates/simulated.toml")),
    "echem-csv": ("a.csv", _bytes(CSV.encode())),
    "echem-keithley": ("a.csv", _bytes(test_csv_files.BUFFER.encode())),
    "echem-dta": ("a.dta", _bytes((test_gamry.head() + test_gamry.table()).encode())),
    "echem-mpt": ("a.mpt", _bytes(test_biologic.mpt().encode("latin-1"))),
    "echem-mpr": ("a.mpr", _bytes(test_biologic.mpr())),
    "echem-pssession": ("a.pssession", _bytes(_pssession())),
    "edges-csv": ("a.csv", _bytes(b"time_s,line,polarity\n0.1,a,1\n0.2,a,0\n0.35,a,1\n")),
    "frames-mib": ("a.mib", _mib),
    "frames-tvips": ("a_000.tvips", _tvips),
    "frames-seq": ("a.seq", _seq),
    "frames-ser": ("a.ser", _ser),
    "frames-mrc": ("a.mrc", _mrc),
    "frames-info": ("a_1_info.txt", _info),
    "frames-tiff": ("a.tif", _tiff),
    "frames-packed-tiff": ("a.tif", _packed_tiff),
    "frames-ome-tiff": ("a.ome.tif", _ome_tiff),
    "frames-page": ("a_1.tif", _page),
    "frames-png": ("a_1.png", _png),
    "frames-emd": ("a.emd", _emd),
    "frames-dm3": ("a.dm3", _dm(3)),
    "frames-dm4": ("a.dm4", _dm(4)),
}
