"""PalmSens ``.pssession``: JSON in UTF-16 with a byte-order mark at both ends."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import check_sizes

MAX_BYTES = 512 * 1024 * 1024
MARK = "\ufeff"
# Array types of the maker's software, as they stand in its files.
TIME, POTENTIAL, CURRENT, CHARGE, MEASURED_POTENTIAL = 0, 1, 2, 3, 30
UNITS = {
    "Time": 1.0,
    "Volt": 1.0,
    "MilliVolt": 1e-3,
    "Ampere": 1.0,
    "MilliAmpere": 1e-3,
    "MicroAmpere": 1e-6,
    "NanoAmpere": 1e-9,
    "PicoAmpere": 1e-12,
    "Coulomb": 1.0,
    "MilliCoulomb": 1e-3,
    "MicroCoulomb": 1e-6,
    "NanoCoulomb": 1e-9,
}


def read(path: Path, *, measurement: int = 0) -> Recording:
    """Read one measurement of a session.

    Parameters
    ----------
    path
        The ``.pssession`` file.
    measurement
        Which, from 0, where there are several.

    Raises
    ------
    RecordingError
        It is no such file, or lacks a part; the message names it.
    """
    session = _load(path)
    measurements = session.get("Measurements")
    if not isinstance(measurements, list) or not measurements:
        raise RecordingError(f"{path}: holds no measurement")
    if not 0 <= measurement < len(measurements):
        raise RecordingError(
            f"{path}: has {len(measurements)} measurements, not number {measurement + 1}"
        )
    chosen = measurements[measurement]
    try:
        arrays = {a["ArrayType"]: a for a in chosen["DataSet"]["Values"]}
        time_s = _values(arrays[TIME])
        current_A = _values(arrays[CURRENT])
        measured = arrays.get(MEASURED_POTENTIAL, arrays.get(POTENTIAL))
        voltage_V = np.full(len(time_s), np.nan) if measured is None else _values(measured)
        charge_C = _values(arrays[CHARGE]) if CHARGE in arrays else None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordingError(f"{path}: lacks or misspells {error} in its data") from error
    columns = [time_s, current_A, voltage_V, *([] if charge_C is None else [charge_C])]
    if len({len(column) for column in columns}) != 1:
        raise RecordingError(f"{path}: its columns have different lengths")
    check_sizes(path, time_s, (voltage_V, current_A, charge_C))
    if len(time_s) < 2 or not (np.all(np.isfinite(time_s)) and np.all(np.diff(time_s) > 0)):
        raise RecordingError(f"{path}: its times do not rise")
    return Recording(
        time_s=time_s,
        voltage_V=voltage_V,
        current_A=current_A,
        logged_charge_C=charge_C,
        model=f"PalmSens instrument, device code {chosen.get('DeviceUsed', 'unknown')}",
        serial=str(chosen.get("DeviceSerial", "")),
        technique=str(chosen.get("Title", "")),
        start_time=_start(chosen),
        assumptions=_assumptions(measurement, len(measurements), arrays),
        details={
            "firmware": str(chosen.get("DeviceFW", "")),
            "software": str(session.get("CoreVersion", "")),
        },
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordingError(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
        raw = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        session = json.loads(raw.decode("utf-16-le").strip(MARK))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RecordingError(
            f"{path}: is no .pssession file (UTF-16 JSON is expected): {error}"
        ) from error
    if not isinstance(session, dict):
        raise RecordingError(f"{path}: is no .pssession file: it holds no object")
    return session


def _values(array: Mapping[str, Any]) -> NDArray[np.float64]:
    unit = str(array["Unit"]["Type"]).rpartition(".")[2]
    if unit not in UNITS:
        raise ValueError(f"the unit {unit!r}")
    numbers = [float(item["V"]) for item in array["DataValues"]]
    return np.array(numbers, dtype=np.float64) * UNITS[unit]


def _start(chosen: Mapping[str, Any]) -> str:
    """Return the start in UTC; the file counts ticks of 100 ns from the year 1."""
    ticks = chosen.get("UTCTimeStamp")
    if not isinstance(ticks, int) or not 0 < ticks < 3_155_378_975_999_999_999:
        return ""
    start = datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)
    return start.isoformat()


def _assumptions(measurement: int, count: int, arrays: Mapping[int, Any]) -> tuple[str, ...]:
    said = ["the maker's anodic current is taken as the current that charges the cell"]
    if count > 1:
        said.append(f"measurement {measurement + 1} of {count} was taken")
    if MEASURED_POTENTIAL not in arrays:
        said.append("no measured potential in the file: the applied one was taken")
    said.append("times are the nominal ones of the file")
    return tuple(said)
