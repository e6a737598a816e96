"""Commands over the bus: signed, numbered, soon stale; and the gate that refuses the rest.

A command is a JSON object of two texts: ``command``, itself the JSON of who orders what,
and ``signature``, HMAC-SHA256 over the topic and that very text. Signing the text as it is
sent leaves nothing to two programs' ideas of how JSON is written.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from runner.bus_address import BusAddress, BusError
from runner.bus_security import BadCredentials

LIFE_S = 10.0
LONGEST_LIFE_S = 60.0
AHEAD_S = 2.0  # by which a sender's clock may be ahead of ours
LARGEST_BYTES = 8192
MOST_SENDERS = 64

WallNs = Callable[[], int]
"""Reads the time of day, ns since 1970: two computers share no other clock."""


class RefusedCommand(Exception):
    """A command is not obeyed.

    Attributes
    ----------
    command_id
        Of the command; empty where it could not be read or trusted.
    """

    def __init__(self, reason: str, command_id: str = "") -> None:
        super().__init__(reason)
        self.command_id = command_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An order that is signed, fresh, and the first of its number.

    Parameters
    ----------
    sequence
        Number that grows with every command of a sender.
    issued_ns, expires_ns
        Time of day, ns since 1970.
    """

    command_id: str
    sender: str
    sequence: int
    word: str
    issued_ns: int
    expires_ns: int
    arguments: Mapping[str, object] = field(default_factory=dict)


def sign(key: bytes, topic: str, text: str) -> str:
    """Return the signature of a command's text for a topic."""
    signed = f"{topic}\n{text}".encode("utf-8", errors="surrogatepass")  # as JSON may hold
    return hmac.new(key, signed, hashlib.sha256).hexdigest()


class CommandSigner:
    """Writes commands for one topic.

    Parameters
    ----------
    key
        Shared with whoever obeys.
    topic
        Whole topic: a command for one node is worth nothing to another.
    sender
        Name of this program; numbers are counted for each.
    """

    def __init__(self, key: bytes, topic: str, *, sender: str, wall_ns: WallNs) -> None:
        self._key = key
        self._topic = topic
        self._sender = sender
        self._wall_ns = wall_ns
        # Numbers that begin with the time go on growing when this program starts anew.
        self._numbers = itertools.count(wall_ns())

    def write(
        self, word: str, arguments: Mapping[str, object] | None = None, *, life_s: float = LIFE_S
    ) -> dict[str, str]:
        """Return the message that orders ``word``."""
        now_ns = self._wall_ns()
        text = json.dumps(
            {
                "id": secrets.token_hex(16),
                "sender": self._sender,
                "sequence": next(self._numbers),
                "word": word,
                "arguments": dict(arguments or {}),
                "issued_ns": now_ns,
                "expires_ns": now_ns + round(life_s * 1e9),
            }
        )
        return {"command": text, "signature": sign(self._key, self._topic, text)}


class CommandGate:
    """Lets through what is signed, in time and new.

    What was issued before the gate opened is refused, so that nothing can be played again
    to a program that was started anew and remembers no numbers.

    Parameters
    ----------
    key
        Shared with those who may command.
    topic
        Whole topic on which the commands come.
    """

    def __init__(self, key: bytes, topic: str, *, wall_ns: WallNs) -> None:
        self._key = key
        self._topic = topic
        self._wall_ns = wall_ns
        self._opened_ns = wall_ns()
        self._numbers: dict[str, int] = {}

    def judge(self, payload: bytes, *, retained: bool) -> Command:
        """Return the command that a message is.

        Raises
        ------
        RefusedCommand
            It is retained, unreadable, unsigned, stale, from the future, or was here before.
        """
        if retained:
            raise RefusedCommand("retained: commands are for the moment; send it without retain")
        command = self._read(self._trusted(payload))
        self._check_time(command)
        last = self._numbers.get(command.sender, -1)
        if command.sequence <= last:
            raise RefusedCommand(
                f"replayed: number {command.sequence} of {command.sender} is not beyond {last}",
                command.command_id,
            )
        self._remember(command)
        return command

    def _trusted(self, payload: bytes) -> str:
        """Return the text of a message that is signed."""
        if len(payload) > LARGEST_BYTES:
            raise RefusedCommand(f"unreadable: more than {LARGEST_BYTES} bytes")
        try:
            message = json.loads(payload)
            text, signature = message["command"], message["signature"]
        except KeyError as error:
            raise RefusedCommand(f"unsigned: it has no {error}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise RefusedCommand("unreadable: it is no JSON object") from error
        if not (isinstance(text, str) and isinstance(signature, str)):
            raise RefusedCommand("unreadable: command and signature are texts")
        wanted = sign(self._key, self._topic, text)
        # In constant time: how long a comparison takes would tell how much is right.
        if not hmac.compare_digest(wanted.encode(), signature.encode(errors="replace")):
            raise RefusedCommand("unsigned: the signature is not that of our key and topic")
        return text

    def _read(self, text: str) -> Command:
        try:
            body = json.loads(text)
            return Command(
                command_id=str(body["id"]),
                sender=str(body["sender"]),
                sequence=int(body["sequence"]),
                word=str(body["word"]),
                arguments=dict(body.get("arguments", {})),
                issued_ns=int(body["issued_ns"]),
                expires_ns=int(body["expires_ns"]),
            )
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise RefusedCommand(f"unreadable: the command lacks {error}") from error

    def _check_time(self, command: Command) -> None:
        now_ns = self._wall_ns()
        late_s = (now_ns - command.expires_ns) / 1e9
        ahead_s = (command.issued_ns - now_ns) / 1e9
        life_s = (command.expires_ns - command.issued_ns) / 1e9
        if late_s > 0:
            raise RefusedCommand(f"stale: it expired {late_s:.1f} s ago", command.command_id)
        if ahead_s > AHEAD_S:
            raise RefusedCommand(
                f"from the future: issued in {ahead_s:.1f} s by our clock; set both clocks right",
                command.command_id,
            )
        if life_s > LONGEST_LIFE_S:
            raise RefusedCommand(
                f"unreadable: it would be good for {life_s:.0f} s; {LONGEST_LIFE_S:.0f} s are "
                "the longest",
                command.command_id,
            )
        if command.issued_ns < self._opened_ns:
            raise RefusedCommand("stale: issued before this program began", command.command_id)

    def _remember(self, command: Command) -> None:
        if command.sender not in self._numbers and len(self._numbers) >= MOST_SENDERS:
            # A name that is forgotten could be played again, so no new one is let in.
            raise RefusedCommand(
                f"unreadable: {MOST_SENDERS} senders are known already", command.command_id
            )
        self._numbers[command.sender] = command.sequence


Obey = Callable[[Command], str | None]
"""Carries a command out; returns why not, or None where it is done. Must return at once."""


class CommandDesk:
    """Takes messages, has the good ones carried out, and says what became of each."""

    def __init__(self, gate: CommandGate, obey: Obey) -> None:
        self._gate = gate
        self._obey = obey

    def take(self, payload: bytes, *, retained: bool) -> tuple[bool, dict[str, object]]:
        """Return whether it was done, and the answer for the bus."""
        command_id, reason = "", None
        try:
            command = self._gate.judge(payload, retained=retained)
            command_id, reason = command.command_id, self._obey(command)
        except RefusedCommand as error:
            command_id, reason = error.command_id, str(error)
        done = reason is None
        return done, {"id": command_id, "done": done, "reason": reason or ""}


async def open_desk(
    address: BusAddress, obey: Obey, wall_ns: Callable[[], int] = time.time_ns
) -> CommandDesk | None:
    """Return what takes an address's commands; None where it has no key for them.

    Raises
    ------
    BusError
        The key cannot be used, or the protocol hides which messages were kept.
    """
    try:
        key = await asyncio.to_thread(address.security.command_key)
    except BadCredentials as error:
        raise BusError(str(error)) from error
    if key is None:
        return None
    if address.version != 5:
        raise BusError("commands need version 5 of the protocol; leave command_key_file out")
    gate = CommandGate(key, f"{address.prefix}/command", wall_ns=wall_ns)
    return CommandDesk(gate, obey)
