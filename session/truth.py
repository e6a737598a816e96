"""The hidden truth of a simulated run, beside the session and never inside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from session.columns import describe_column, read_column
from session.errors import SessionExists, SessionRefused
from session.schema import find_group, is_name, unit_of
from session.structure import open_checked

TRUTH_SCHEMA = "lamella-truth"
TRUTH_VERSION = "1.0"
TRUTH_ROOT = "truth"


def write_truth(
    path: Path | str,
    tables: Mapping[str, Mapping[str, ArrayLike]],
    *,
    overwrite: bool = False,
) -> None:
    """Write truth tables under ``/truth``, with the paths of the session.

    Parameters
    ----------
    tables
        Columns by name, by path below the root: ``{"tracks/front": {"t_ns": ...,
        "position": ...}}``. SI units, host time.

    Raises
    ------
    SessionExists
        The file is there and may not be replaced.
    SessionRefused
        A path or column name cannot be stored.
    """
    for table in tables:
        for part in (*table.split("/"), *tables[table]):
            if not is_name(part):
                raise SessionRefused(f"truth {table}: {part!r} cannot name a column")
    try:
        file = h5py.File(path, "w" if overwrite else "x")
    except FileExistsError:
        raise SessionExists(
            f"{path} exists already and is not overwritten; another name will do"
        ) from None
    with file:
        file.attrs["schema"] = TRUTH_SCHEMA
        file.attrs["schema_version"] = TRUTH_VERSION
        file.attrs["NX_class"] = "NXroot"
        root = file.create_group(TRUTH_ROOT)
        root.attrs["NX_class"] = "NXentry"
        for table, columns in tables.items():
            _write_table(root, table, columns)


def _write_table(root: h5py.Group, path: str, columns: Mapping[str, ArrayLike]) -> None:
    spec = find_group(path)
    group = root.require_group(path)
    group.attrs["NX_class"] = "NXcollection"
    for name, values in columns.items():
        array = np.asarray(values)
        text = array.dtype.kind in "UO"
        dataset = group.create_dataset(
            name,
            data=array.astype(object) if text else array,
            dtype=h5py.string_dtype() if text else None,
        )
        describe_column(dataset, unit_of(spec, name) if spec else "", "")


def read_truth(path: Path | str) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the tables of a truth file: columns by name, by path.

    Raises
    ------
    SessionRefused
        The file is not a truth file.
    """
    tables: dict[str, dict[str, NDArray[Any]]] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            table, _, column = name.rpartition("/")
            tables.setdefault(table, {})[column] = read_column(item)

    with open_checked(
        Path(path), schema=TRUTH_SCHEMA, version=TRUTH_VERSION, root=TRUTH_ROOT
    ) as file:
        file[TRUTH_ROOT].visititems(collect)
    return tables
