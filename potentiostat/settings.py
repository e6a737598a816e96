"""One setting at a time over SCPI: refused if unsafe, sent, and read back."""

import math
from collections.abc import Callable

from potentiostat.errors import InstrumentError, NoReply, NotApplied, ReplyError
from potentiostat.records import Identity
from potentiostat.scpi import Link, read_number, write_number

Refuse = Callable[[str], None]
"""Raises UnsafeRequest for a command that could harm a cell."""


class Settings:
    """The settings of one instrument, on one link.

    Parameters
    ----------
    link
        Open; owned by the calling thread.
    refuse
        Asked before each command.
    """

    def __init__(self, link: Link, refuse: Refuse) -> None:
        self._link = link
        self._refuse = refuse

    def send(self, command: str) -> None:
        """Send a command that has no reply."""
        self._refuse(command)
        self._link.write(command)

    def set_number(self, header: str, value: float, *, rel_tol: float = 1e-6) -> None:
        """Send a number and read it back.

        Raises
        ------
        NotApplied
            It reads back otherwise.
        """
        self.send(f"{header} {write_number(value)}")
        found = self.number(f"{header}?")
        if not math.isclose(found, value, rel_tol=rel_tol, abs_tol=1e-18):
            raise self._not_applied(header, f"{value:g}", f"{found:g}")

    def set_integer(self, header: str, value: int) -> None:
        """Send a whole number, without a point or an exponent, and read it back.

        Raises
        ------
        NotApplied
            It reads back otherwise.
        """
        self.send(f"{header} {value:d}")
        found = self.number(f"{header}?")
        if found != value:
            raise self._not_applied(header, f"{value:d}", f"{found:g}")

    def set_flag(self, header: str, *, on: bool) -> None:
        """Switch something on or off and read it back.

        Raises
        ------
        NotApplied
            It reads back otherwise.
        """
        self.send(f"{header} {'ON' if on else 'OFF'}")
        if self.flag(f"{header}?") is not on:
            raise self._not_applied(header, str(on), str(not on))

    def set_word(self, header: str, word: str) -> None:
        """Send a word and read it back; the reply may be a longer or quoted form.

        Raises
        ------
        NotApplied
            It reads back otherwise.
        """
        self.send(f"{header} {word}")
        found = self.word(f"{header}?")
        if not found.startswith(word.strip("\"'").upper()):
            raise self._not_applied(header, word, found)

    def number(self, query: str) -> float:
        """Ask for a number."""
        return read_number(self._link.query(query).text)

    def flag(self, query: str) -> bool:
        """Ask for something that is on or off.

        Raises
        ------
        ReplyError
            The reply says neither.
        """
        text = self._link.query(query).text.strip().upper()
        if text in ("ON", "OFF"):
            return text == "ON"
        value = read_number(text)
        if value not in (0.0, 1.0):
            raise ReplyError(f"{self._link.resource}: {query} answered {text!r}, not 0 or 1")
        return bool(value)

    def word(self, query: str) -> str:
        """Ask for a word; quotes are taken off."""
        return self._link.query(query).text.strip().strip("\"'").upper()

    def _not_applied(self, header: str, wanted: str, found: str) -> NotApplied:
        try:
            errors = self._link.query(":SYST:ERR?").text
        except InstrumentError as error:
            errors = str(error)
        return NotApplied(
            f"{self._link.resource}: {header} was set to {wanted} and reads back {found} ({errors})"
        )


def identify(link: Link, models: tuple[str, ...], *, abort: str = "") -> Identity:
    """Ask who is there, and accept only one of some models.

    Parameters
    ----------
    abort
        What makes an instrument listen that waits for a trigger of somebody who is gone.

    Raises
    ------
    ReplyError
        Another instrument answers.
    """
    raw = _asked_who(link, abort)
    parts = [part.strip() for part in raw.split(",")]
    model = parts[1].upper().removeprefix("MODEL ").strip() if len(parts) >= 4 else ""
    if model not in models:
        raise ReplyError(
            f"{link.resource}: is no {' or '.join(models)}, it says {raw!r}; "
            "name the driver of that model instead"
        )
    return Identity(
        maker=parts[0],
        model=model,
        serial=parts[2],
        firmware=",".join(parts[3:]),
        raw=raw,
    )


def _asked_who(link: Link, abort: str) -> str:
    if not abort:
        return link.query("*IDN?").text
    try:
        return link.query("*IDN?", abort=abort).text
    except NoReply:
        return link.query("*IDN?").text
