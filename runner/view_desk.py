"""What a page may say: words of the operator, each once; everything else changes nothing."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

LARGEST_BYTES = 48_000  # a note of 10 000 characters, however it is written
VIEW = "view"


class Orders(Protocol):
    """Carries words out."""

    def order(
        self, word: str, *, source: str, step: int | None = None, text: str = ""
    ) -> str | None:
        """Return why a word is not carried out, or None where it is done."""
        ...


class _Nonsense(Exception):
    """A message is no command; says why."""


class Desk:
    """Takes the messages of one connection.

    Parameters
    ----------
    may_command
        False for a second person, who looks.
    nonce
        Told to the page when it connected: what was said over another connection is not
        obeyed on this one.
    """

    def __init__(self, orders: Orders, *, may_command: bool, nonce: str) -> None:
        self._orders = orders
        self._may_command = may_command
        self._nonce = nonce
        self._last = 0
        self.done = 0
        self.refused = 0

    def answer(self, message: str | bytes) -> dict[str, object]:
        """Carry out a message, or say why not: ``{"kind", "n", "done", "reason"}``."""
        number = 0
        try:
            command = _read(message)
            number = command["n"]
            reason = self._why_not(command) or self._obey(command)
        except _Nonsense as error:
            reason = str(error)
        self.done += reason is None
        self.refused += reason is not None
        return {"kind": "answer", "n": number, "done": reason is None, "reason": reason or ""}

    def _why_not(self, command: Mapping[str, Any]) -> str | None:
        if not self._may_command:
            return "this page may look and not command"
        if command["nonce"] != self._nonce:
            return "replayed: it was said on another connection"
        if command["n"] <= self._last:
            return f"replayed: number {command['n']} is not beyond {self._last}"
        self._last = command["n"]
        return None

    def _obey(self, command: Mapping[str, Any]) -> str | None:
        return self._orders.order(
            command["word"], source=VIEW, step=command.get("step"), text=command.get("text", "")
        )


_NEEDED: dict[str, type] = {"n": int, "nonce": str, "word": str}
_OPTIONAL: dict[str, type] = {"step": int, "text": str}


def _read(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise _Nonsense("unreadable: a command is text")
    if len(message.encode(errors="replace")) > LARGEST_BYTES:
        raise _Nonsense(f"unreadable: more than {LARGEST_BYTES} bytes")
    try:
        command = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise _Nonsense("unreadable: it is no JSON") from error
    if not isinstance(command, dict):
        raise _Nonsense("unreadable: a command is a JSON object")
    known = _NEEDED | _OPTIONAL
    for name, value in command.items():
        if name not in known:
            raise _Nonsense(f"unreadable: a command has no {name[:40]!r}")
        if type(value) is not known[name]:
            raise _Nonsense(f"unreadable: {name!r} is of type {known[name].__name__}")
    if missing := [name for name in _NEEDED if name not in command]:
        raise _Nonsense(f"unreadable: the command lacks {missing[0]!r}")
    return command
