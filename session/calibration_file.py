"""The file of an open-holder calibration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import ArrayLike

from session.attributes import check_attributes, write_attributes
from session.checks import check_columns
from session.columns import write_table
from session.errors import SessionExists, SessionRefused
from session.records import AttributeValue
from session.schema import CALIBRATION, find_group
from session.spec import Group
from session.structure import open_checked
from session.tables import Table, read_table

CALIBRATION_SCHEMA = "lamella-calibration"
CALIBRATION_VERSION = "1.1"  # 1.1 adds tables by current range
_ROOT = "calibration"


def write_calibration(
    path: Path | str,
    attributes: Mapping[str, AttributeValue],
    columns: Mapping[str, ArrayLike],
    *,
    tables: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    units: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a calibration: results as attributes, raw readings as columns.

    Parameters
    ----------
    attributes
        SI units, named by a suffix: ``capacitance_F``, ``conductance_S``.
    columns
        Arrays of any shape, by name.
    tables
        Columns of further tables, by their path below the calibration in the schema:
        ``"ranges"``, ``"spectrum/100 pA"``.
    overwrite
        Replace a file that is there; the old one stays until the new one is whole.

    Raises
    ------
    SessionExists
        The file is there and may not be replaced.
    SessionRefused
        A name or a value cannot be stored.
    """
    path = Path(path)
    arrays = check_columns(_ROOT, CALIBRATION, columns)
    check_attributes(_ROOT, attributes)
    parts = [(name, *_checked(name, part)) for name, part in (tables or {}).items()]
    if path.exists() and not overwrite:
        raise SessionExists(f"{path} exists already and is not overwritten; another name will do")
    unfinished = path.with_name(path.name + ".part")
    with h5py.File(unfinished, "w") as file:
        write_attributes(
            file,
            {
                "NX_class": "NXroot",
                "schema": CALIBRATION_SCHEMA,
                "schema_version": CALIBRATION_VERSION,
            },
        )
        group = file.create_group(_ROOT)
        write_table(group, CALIBRATION, arrays, units or {})
        write_attributes(group, attributes)
        for name, spec, part in parts:
            write_table(group.create_group(name), spec, part, {})
    unfinished.replace(path)


def _checked(name: str, columns: Mapping[str, ArrayLike]) -> tuple[Group, dict[str, Any]]:
    path = f"{_ROOT}/{name}"
    spec = find_group(path)
    if spec is None or not spec.columns:
        raise SessionRefused(f"a calibration has no table {name!r}; the schema names those it has")
    return spec, check_columns(path, spec, columns)


def read_calibration(path: Path | str) -> Table:
    """Read a calibration.

    Raises
    ------
    SessionRefused
        The file is not a calibration.
    """
    with open_checked(
        Path(path),
        schema=CALIBRATION_SCHEMA,
        version=CALIBRATION_VERSION,
        root=_ROOT,
    ) as file:
        return read_table(file[_ROOT], CALIBRATION, _ROOT)


def read_calibration_tables(path: Path | str) -> dict[str, Table]:
    """Read the further tables of a calibration by their path below it; {} in old files.

    Raises
    ------
    SessionRefused
        The file is not a calibration.
    """
    found: dict[str, Table] = {}
    with open_checked(
        Path(path),
        schema=CALIBRATION_SCHEMA,
        version=CALIBRATION_VERSION,
        root=_ROOT,
    ) as file:

        def take(name: str, item: object) -> None:
            spec = find_group(f"{_ROOT}/{name}")
            if isinstance(item, h5py.Group) and spec is not None and spec.columns:
                found[name] = read_table(item, spec, name)

        file[_ROOT].visititems(take)
    return found
