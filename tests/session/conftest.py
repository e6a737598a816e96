"""What most tests of the session start from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from session.provenance import Provenance
from session.records import (
    EXCHANGE_DTYPE,
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.writer import SessionWriter


def make_header(**changes: Any) -> SessionHeader:
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
        title="LCO | LiPON | Li, first charge",
        experiment_text='title = "x"\n# µm and Å stay\n',
        start_time="2025-03-01T10:00:00+00:00",
        host_start_ns=1_000,
        simulated=True,
        layers=("Au", "LiCoO2", "LiPON", "Li", "Cu"),
        sample={"width_m": 5e-6, "area_m2": 1e-11},
        instruments=(
            InstrumentHeader(
                name="potentiostat",
                attributes={"model": "6430", "ranges_A": (1e-12, 1e-11)},
            ),
        ),
        cameras=(camera,),
        clocks=("camera",),
        provenance=Provenance(
            versions={"numpy": "2"}, host={"system": "x"}, files={"experiment": "ab"}
        ),
    )
    return dataclasses.replace(header, **changes)


def make_samples(count: int, first: int = 0) -> np.ndarray[Any, Any]:
    rows = np.zeros(count, SESSION_SAMPLE_DTYPE)
    number = np.arange(first, first + count)
    rows["t_ns"] = 1_000 + number * 50_000_000
    rows["read_start_ns"] = rows["t_ns"] - 10
    rows["read_end_ns"] = rows["t_ns"] + 10
    rows["voltage"] = 3.5 + number * 1e-3
    rows["current"] = 5e-12
    return rows


def make_frame_header(index: int, **changes: Any) -> FrameHeader:
    header = FrameHeader(
        t_start_ns=1_000 + index * 50_000_000,
        exposure_ns=40_000_000,
        t_sigma_ns=500.0,
        index=index,
        device_start_ns=7_000_000_000 + index * 50_000_000,
        dose_per_m2=1e20 * index,
    )
    return dataclasses.replace(header, **changes)


def make_pixels(index: int) -> np.ndarray[Any, Any]:
    return (np.arange(48, dtype=np.uint16) + index).reshape(6, 8)


def make_exchanges(count: int) -> np.ndarray[Any, Any]:
    rows = np.zeros(count, EXCHANGE_DTYPE)
    for offset, name in enumerate(EXCHANGE_DTYPE.names):
        rows[name] = np.arange(count) * 1_000 + offset
    return rows


@pytest.fixture
def make() -> Any:
    """The builders above, since test files cannot import a conftest."""

    class Make:
        header = staticmethod(make_header)
        samples = staticmethod(make_samples)
        frame_header = staticmethod(make_frame_header)
        pixels = staticmethod(make_pixels)
        exchanges = staticmethod(make_exchanges)

    return Make


@pytest.fixture
def write_session(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a finished session and tells where."""

    def write(name: str = "session.h5", *, frames: int = 70, samples: int = 30) -> Path:
        path = tmp_path / name
        with SessionWriter(path, make_header()) as writer:
            writer.append_samples(make_samples(samples))
            for index in range(frames):
                writer.append_frame("camera", make_frame_header(index), make_pixels(index))
            writer.append_event(1_000, "step", "runner", "step 0", '{"step": 0}')
            writer.append_exchanges("camera", make_exchanges(5))
            writer.append_exchanges("potentiostat", make_exchanges(3))
            writer.set_queue_counters("view", {"written": 3, "dropped": 1})
            writer.finish("done", "2025-03-01T11:00:00+00:00")
        return path

    return write
