"""The file of an open-holder calibration."""

from collections.abc import Mapping
from pathlib import Path

import h5py
from numpy.typing import ArrayLike

from session.attributes import check_attributes, write_attributes
from session.checks import check_columns
from session.columns import write_table
from session.errors import SessionExists
from session.records import AttributeValue
from session.schema import CALIBRATION
from session.structure import open_checked
from session.tables import Table, read_table

CALIBRATION_SCHEMA = "lamella-calibration"
CALIBRATION_VERSION = "1.0"
_ROOT = "calibration"


def write_calibration(
    path: Path | str,
    attributes: Mapping[str, AttributeValue],
    columns: Mapping[str, ArrayLike],
    *,
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
    unfinished.replace(path)


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
