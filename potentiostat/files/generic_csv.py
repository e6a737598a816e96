"""Any CSV whose columns say what they are: ``time_s``, ``Ewe/V``, ``I [nA]``, ``Q (mA.h)``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from potentiostat.files import keithley_csv
from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import Found, Line, Numbers, checked, lines_of, read_rows, splitter
from potentiostat.files.units import SCALES, quantity_of, to_si

SIGN = "a positive current is taken as the current that charges the cell"
EXAMPLE = 'such as {"time": "t [s]", "current": "I [nA]"}'
_FORMS = (
    re.compile(r"(.+?)\s*\[([^\[\]]+)\]"),
    re.compile(r"(.+?)\s*\(([^()]+)\)"),
    re.compile(r"(.+?)\s*/\s*([^/]+)"),
    re.compile(r"(.+)_([^_\s]+)"),
)
# A unit alone does not tell: T_C is a temperature and dE/V a difference. Neither does a word:
# the time of a step begins again, and the charge of half a cycle is no sum.
_NAMES: Mapping[str, re.Pattern[str]] = {
    "time": re.compile(r"t|(?!.*(step|cycle))(.*[\W_])?time([\W_].*)?|elapsed.*", re.IGNORECASE),
    "voltage": re.compile(
        r"<?(e|u|v|vf|vm|ewe|ecell|e_?we|e_?cell|v_?cell)>?|.*(voltage|potential).*", re.IGNORECASE
    ),
    "current": re.compile(r"<?(i|im|iwe|i_?we|i_?cell)>?|.*current.*", re.IGNORECASE),
    "charge": re.compile(r"q|\(q-qo\)|(?!.*(discharge|capacity|rate)).*charge.*", re.IGNORECASE),
}
_A_NUMBER = re.compile(r"\s*[+-]?[0-9.,]+(?:[eE][+-]?[0-9]+)?\s*")


def read(path: Path, columns: Mapping[str, str] | None = None) -> Recording:
    """Read a table of comma-, semicolon- or tab-separated columns.

    Parameters
    ----------
    path
        The file. Its first line names the columns; lines with ``#`` before it are skipped,
        unless only they name them.
    columns
        Which column is the time, voltage, current and charge, each with its unit:
        ``{"time": "t [s]", "current": "I [nA]"}``. Without it they are recognised by name
        and unit, and a Keithley reading buffer by its own names.

    Raises
    ------
    RecordingError
        A column is missing, ambiguous or has no unit, or the table is damaged.
    """
    if columns is None and keithley_csv.recognises(path):
        return keithley_csv.read(path)
    header, lines = _header(path)
    delimiter = _delimiter(path, header)
    split = splitter(delimiter)
    names = [name.strip() for name in split(header)]
    while names and not names[-1]:
        names.pop()
    chosen = _recognised(path, names) if columns is None else _mapped(path, names, columns)
    places = {quantity: at for quantity, (at, _) in chosen.items()}
    rows = read_rows(lines, split, len(names), places, Numbers(path))
    found = {
        quantity: values * to_si(quantity, chosen[quantity][1])
        for quantity, values in rows.numbers.items()
    }
    return checked(
        path,
        Found(
            time_s=found["time"],
            voltage_V=found.get("voltage"),
            current_A=found.get("current"),
            charge_C=found.get("charge"),
            model="unknown (CSV)",
            said=[SIGN, *rows.said],
            details={f"{q}_column": names[at] for q, (at, _) in chosen.items()},
        ),
    )


def _header(path: Path) -> tuple[str, Iterator[Line]]:
    """Return the line that names the columns, and the lines after it."""
    lines = lines_of(path)
    comment = ""
    for line in lines:
        text = line.text.strip()
        if text.startswith("#"):
            comment = text.lstrip("# ")
        elif text:
            cells = re.split(r"[;\t]", text) if re.search(r"[;\t]", text) else text.split(",")
            if all(_A_NUMBER.fullmatch(cell) or not cell.strip() for cell in cells):
                if not comment:
                    break
                return comment, chain([line], lines)
            return line.text, lines
    raise RecordingError(
        f"{path}: has no line that names the columns; one such as time_s,voltage_V,current_A "
        "is expected first"
    )


def _delimiter(path: Path, header: str) -> str:
    for delimiter in (";", "\t", ","):
        if delimiter in header:
            return delimiter
    raise RecordingError(
        f"{path}: its first line names one column only ({header[:80]!r}); columns are expected "
        "between commas, semicolons or tabs"
    )


def _parts(name: str) -> tuple[str, str]:
    """Return a column's name without its unit, and the unit; empty where it has none."""
    for form in _FORMS:
        found = form.fullmatch(name)
        if found and quantity_of(found[2]):
            return found[1], found[2]
    return name, ""


def _recognised(path: Path, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    chosen: dict[str, tuple[int, str]] = {}
    for quantity, known in _NAMES.items():
        there = [
            (i, unit)
            for i, (name, unit) in enumerate(map(_parts, names))
            if unit and quantity_of(unit) == quantity and known.fullmatch(name)
        ]
        if len(there) > 1:
            candidates = ", ".join(repr(names[i]) for i, _ in there)
            raise RecordingError(
                f"{path}: its {quantity} may be any of {candidates}; say which with a column "
                f"map, {EXAMPLE}"
            )
        if there:
            chosen[quantity] = there[0]
    return _enough(path, names, chosen)


def _mapped(
    path: Path, names: Sequence[str], columns: Mapping[str, str]
) -> dict[str, tuple[int, str]]:
    chosen: dict[str, tuple[int, str]] = {}
    for quantity, said in columns.items():
        if quantity not in SCALES:
            raise RecordingError(f"{path}: {quantity!r} cannot be mapped; {', '.join(SCALES)} can")
        name, unit = _parts(said.strip())
        there = [i for i, header in enumerate(names) if header in (said.strip(), name)]
        if len(there) != 1:
            raise RecordingError(
                f"{path}: {said!r} names {len(there)} columns; there are {_listed(names)}"
            )
        if quantity_of(unit) != quantity:
            raise RecordingError(
                f"{path}: the column {said!r} needs a unit of {quantity}: "
                f"{', '.join(SCALES[quantity])}; write it {EXAMPLE}"
            )
        chosen[quantity] = there[0], unit
    places = [at for at, _ in chosen.values()]
    if len(set(places)) != len(places):
        raise RecordingError(f"{path}: the column map names one column twice")
    return _enough(path, names, chosen)


def _enough(
    path: Path, names: Sequence[str], chosen: dict[str, tuple[int, str]]
) -> dict[str, tuple[int, str]]:
    if "time" in chosen and {"voltage", "current"} & set(chosen):
        return chosen
    lacking = "time" if "time" not in chosen else "voltage or current"
    raise RecordingError(
        f"{path}: no column is recognised as {lacking}; names with units such as time_s, Ewe/V "
        f"or I [nA] were looked for, and there are {_listed(names)}; a column map would do, "
        f"{EXAMPLE}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)[:400] or "none"
