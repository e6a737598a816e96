"""The words in which the schema is written: groups, columns, attributes."""

from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    """How a dataset grows."""

    SCALAR = "scalar"
    ROWS = "(n,)"
    FRAMES = "(n, height, width)"
    HEIGHT = "(height,)"
    WIDTH = "(width,)"
    FREE = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One dataset of a group.

    Parameters
    ----------
    dtype
        NumPy name, ``"str"`` for UTF-8 strings, ``"pixel"`` for the camera's own type.
    unit
        As written in the ``units`` attribute; empty for a bare number or text.
    provisional
        True when a later fit of the time base or the ledger may rewrite it. All other
        datasets are raw and stay.
    required
        False when a file may leave it out.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    shape: Shape = Shape.ROWS
    provisional: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of a group."""

    name: str
    dtype: str
    unit: str
    meaning: str
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of the file.

    Parameters
    ----------
    path
        Below ``/entry``, with ``<name>`` where there may be several; empty for
        ``/entry`` itself.
    results
        True when it is computed from raw data and may be replaced as a whole.
    free_columns, free_attributes
        True when more datasets or attributes than those listed may stand here.
    signal, axes
        Names of the default plot, as NeXus writes them.
    """

    path: str
    nx_class: str
    meaning: str
    columns: tuple[Column, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    results: bool = False
    free_columns: bool = False
    free_attributes: bool = False
    signal: str = ""
    axes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Column, ...]:
        """The columns that grow together, one value for each row."""
        return tuple(c for c in self.columns if c.shape is Shape.ROWS)


def sigma(name: str, unit: str, meaning: str, *, provisional: bool = False) -> Column:
    """Return a column of uncertainties."""
    return Column(name=name, dtype="<f8", unit=unit, meaning=meaning, provisional=provisional)


def stamp(name: str, meaning: str, *, provisional: bool = False) -> Column:
    """Return a column of integer nanoseconds."""
    return Column(name=name, dtype="<i8", unit="ns", meaning=meaning, provisional=provisional)


def real(name: str, unit: str, meaning: str, *, required: bool = True) -> Column:
    """Return a column of float numbers."""
    return Column(name=name, dtype="<f8", unit=unit, meaning=meaning, required=required)


def text(name: str, meaning: str, shape: Shape = Shape.ROWS) -> Column:
    """Return a column of strings."""
    return Column(name=name, dtype="str", unit="", meaning=meaning, shape=shape)
