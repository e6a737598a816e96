"""BioLogic ``.mpr``: the maker's binary modules, read through galvani.

galvani is GPL-3-or-later: an extra, imported when such a file is read and never before.
"""

import importlib
import io
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from potentiostat.files.biologic_mpt import MARKS, assumptions, choose, in_si, marks
from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import Found, check_size, checked

MAGIC = b"BIO-LOGIC MODULAR FILE\x1a"
LIBRARY = "galvani.BioLogic"
INSTEAD = "export it as text (.mpt) in EC-Lab, which is read without it"
# A damaged file reaches every part of the library, and it has no error of its own.
_DAMAGE = (
    ValueError,
    OSError,
    AssertionError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
_WORDS = re.compile(r"[^ -~]+")


def read(path: Path) -> Recording:
    """Read a BioLogic binary file.

    Raises
    ------
    RecordingError
        It is no such file, is damaged or cut short, has columns that galvani does not know,
        or galvani is not installed.
    """
    check_size(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error
    if not raw.startswith(MAGIC):
        raise RecordingError(f"{path}: is no .mpr file: it does not begin with {MAGIC[:22]!r}")
    parsed = _parse(path, raw)
    names = [str(name) for name in parsed.data.dtype.names or ()]
    chosen = choose(path, names)
    columns = in_si(chosen, lambda name: np.asarray(parsed.data[name], dtype=np.float64))
    start = getattr(parsed, "timestamp", None)
    has_start = isinstance(start, datetime)
    flags = {name: np.asarray(parsed.data[name], np.float64) for name in MARKS if name in names}
    if "error" in parsed.flags_dict:
        flags["error"] = np.asarray(parsed.get_flag("error"), dtype=np.float64)
    return checked(
        path,
        Found(
            time_s=columns["time"],
            voltage_V=columns.get("voltage"),
            current_A=columns.get("current"),
            charge_C=columns.get("charge"),
            model="BioLogic instrument",
            start_time=start.isoformat() if isinstance(start, datetime) else "",
            said=assumptions(chosen, has_start=has_start),
            details={"date": str(getattr(parsed, "startdate", "")), **marks(flags)},
        ),
    )


def _parse(path: Path, raw: bytes) -> Any:
    try:
        library = importlib.import_module(LIBRARY)
    except ImportError as error:
        raise RecordingError(
            f"{path}: .mpr files are read with galvani, which is not installed; it is free "
            f'software under GPL-3 or later: pip install "lamella[formats]", or {INSTEAD}'
        ) from error
    try:
        return library.MPRfile(io.BytesIO(raw))
    except NotImplementedError as error:
        raise RecordingError(
            f"{path}: has a column that galvani does not know ({error}); {INSTEAD}"
        ) from error
    except _DAMAGE as error:
        why = " ".join(_WORDS.sub(" ", str(error)).split())[:200]
        raise RecordingError(
            f"{path}: is damaged, cut short, or of a kind that galvani does not know"
            f"{': ' + why if why else ''}; {INSTEAD}"
        ) from error
