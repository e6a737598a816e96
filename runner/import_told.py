"""What an import takes for granted, what it was told, and which option would tell it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from potentiostat.files.recording import Recording, RecordingError

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_COLUMNS = ("time", "voltage", "current", "charge")
_EXAMPLE = '--columns "time=t [s],current=I [nA]"'
# What the sentence of a reader is about, by a word of it, and what would tell it.
_ABOUT = (
    ("charges the cell", "sign", "--sign"),
    ("zone", "time zone", "--time-zone"),
    ("local time", "time zone", "--time-zone"),
    ("share no clock", "clock", "--edges, or lamella align afterwards"),
    ("apart by number", "frame times", "--frame-interval"),
    ("open-holder", "holder", "lamella correlate --post"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """One thing that the files do not say.

    Parameters
    ----------
    about
        Such as ``"time zone"``; ``"file"`` for what a reader says of its format.
    text
        What is taken for granted, or was told.
    option
        What would tell it; empty where nothing would.
    told
        True where an option has told it.
    """

    about: str
    text: str
    option: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a person knows of a potentiostat's file that is not in it.

    Parameters
    ----------
    columns
        Which column is what, each with its unit; None to recognise them.
    sign
        1 where a positive current charges the cell, -1 where it discharges it; 0 where it
        was not told.
    zone
        Of the file's local times; None where it was not told.
    """

    columns: Mapping[str, str] | None = None
    sign: int = 0
    zone: tzinfo | None = None


NOTHING_TOLD = Told()


def parse_column_map(text: str) -> dict[str, str]:
    """Return a column map from such as ``time=t [s],current=I [nA]``.

    Raises
    ------
    RecordingError
        It is none, or names a quantity twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, column = (piece.strip() for piece in part.partition("="))
        if name not in _COLUMNS or not column:
            raise RecordingError(
                f"--columns {part!r}: NAME=COLUMN with its unit is wanted, with one of "
                f"{', '.join(_COLUMNS)}, such as {_EXAMPLE}"
            )
        if name in found:
            raise RecordingError(f"--columns: {name} is named twice; once will do")
        found[name] = column
    return found


def parse_zone(text: str) -> tzinfo:
    """Return a time zone from ``UTC``, ``+02:00`` or ``Europe/Berlin``.

    Raises
    ------
    RecordingError
        It is none that this computer knows.
    """
    if text.upper() in ("UTC", "Z"):
        return UTC
    if (offset := _OFFSET.fullmatch(text)) is not None:
        hours, minutes = int(offset[2]), int(offset[3])
        if hours < 15 and minutes < 60:
            size = timedelta(hours=hours, minutes=minutes)
            return timezone(size if offset[1] == "+" else -size)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RecordingError(
            f"--time-zone {text!r} is no zone that this computer knows; the offset from UTC "
            "will do, such as +02:00"
        ) from error


def apply_told(recording: Recording, told: Told) -> Recording:
    """Return a recording with what was told of it.

    Raises
    ------
    RecordingError
        The file says otherwise, or has nothing that it could be told of.
    """
    if told.sign < 0:
        charge_C = recording.logged_charge_C
        recording = replace(
            recording,
            current_A=-recording.current_A,
            logged_charge_C=None if charge_C is None else -charge_C,
        )
    return recording if told.zone is None else _in_zone(recording, told.zone)


def _in_zone(recording: Recording, zone: tzinfo) -> Recording:
    try:
        start = datetime.fromisoformat(recording.start_time)
    except ValueError:
        raise RecordingError(
            "--time-zone: the potentiostat's file does not say when it began; leave it out"
        ) from None
    if start.tzinfo is not None:
        raise RecordingError(
            f"--time-zone: the file says {recording.start_time}, with its zone; leave it out"
        )
    return replace(recording, start_time=start.replace(tzinfo=zone).isoformat())


def assumed_of_recording(recording: Recording, told: Told) -> list[Assumption]:
    """Return what is taken for granted of a potentiostat's file, and what was told of it."""
    found = []
    mapped = [
        f"{name} from {recording.details[f'{name}_column']!r}"
        for name in _COLUMNS
        if f"{name}_column" in recording.details
    ]
    if mapped:
        is_told = told.columns is not None
        how = "as told" if is_told else "by their names and units"
        found.append(
            Assumption(
                about="columns",
                text=f"columns {how}: {', '.join(mapped)}",
                option="--columns",
                told=is_told,
            )
        )
    found += [a for a in map(assumed, recording.assumptions) if not _is_told(a, told)]
    if told.sign:
        what = "charges" if told.sign > 0 else "discharges"
        turned = "" if told.sign > 0 else ": currents and charges were turned round"
        text = f"a positive current of the file {what} the cell, as told{turned}"
        found.append(Assumption(about="sign", text=text, option="--sign", told=True))
    if told.zone is not None:
        text = f"the start is {recording.start_time}, in the time zone as told"
        found.append(Assumption(about="time zone", text=text, option="--time-zone", told=True))
    return found


def _is_told(assumption: Assumption, told: Told) -> bool:
    known = {"sign": told.sign != 0, "time zone": told.zone is not None}
    return known.get(assumption.about, False)


def assumed(text: str) -> Assumption:
    """Return what a reader's sentence is about."""
    about, option = next(
        ((about, option) for word, about, option in _ABOUT if word in text), ("file", "")
    )
    return Assumption(about=about, text=text, option=option)


def assumed_pixel_size(pixel_size_m: float | None) -> Assumption:
    """Return what is known of the edge of a pixel."""
    if pixel_size_m is None:
        text = "the edge of a pixel is not known: lengths are in pixels"
        return Assumption(about="pixel size", text=text, option="--pixel-size")
    text = f"the edge of a pixel is {pixel_size_m:.6g} m, as told"
    return Assumption(about="pixel size", text=text, option="--pixel-size", told=True)
