"""The signature of a finished session: its hash, in a file beside it.

``SESSION.h5.sha256`` is what ``sha256sum -c`` reads. With a key, ``SESSION.h5.hmac`` holds the
HMAC-SHA256 in the same form, which nobody can make anew who does not have the key.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from session.errors import SessionExists, SessionRefused
from session.provenance import hash_file
from session.reader import Session
from session.records import NOT_FINISHED
from session.validate import Problem

HASH_SUFFIX, KEYED_SUFFIX = ".sha256", ".hmac"
KEY_BYTES = 16  # at least
_LINE = re.compile(r"([0-9a-fA-F]{64})[ ][ *](.+)\Z")
_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 1 << 16  # of a sidecar, which has one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What was signed, and where the signatures lie; `keyed` is None without a key."""

    session: Path
    sha256: str
    sidecar: Path
    keyed: Path | None


def beside(path: Path, suffix: str) -> Path:
    """Return where a signature of a session lies."""
    return path.with_name(path.name + suffix)


def sign(path: Path, *, key: bytes | None = None, overwrite: bool = False) -> Signed:
    """Write the hash of a finished session beside it, and with a key its HMAC.

    Raises
    ------
    SessionRefused
        It is no finished session, its name cannot stand in a sidecar, or the key is short.
    SessionExists
        It is signed already.
    """
    _refuse_short(key)
    if re.search(r"[\n\r\\]", path.name):
        raise SessionRefused(f"{path.name!r}: a name without line ends and backslashes will do")
    with Session.open(path) as session:
        if session.exit_reason == NOT_FINISHED:
            raise SessionRefused(
                f"{path} was not finished: `lamella recover {path}` makes a whole session of it"
            )
    wanted = {HASH_SUFFIX: hash_file(path)}
    if key is not None:
        wanted[KEYED_SUFFIX] = _hmac(path, key)
    for suffix in wanted:
        if beside(path, suffix).exists() and not overwrite:
            raise SessionExists(
                f"{beside(path, suffix)} exists already: `lamella verify {path}` checks it; add "
                "--overwrite to sign the session as it is now"
            )
    for suffix, digest in wanted.items():
        _write(beside(path, suffix), f"{digest}  {path.name}\n")
    return Signed(
        session=path,
        sha256=wanted[HASH_SUFFIX],
        sidecar=beside(path, HASH_SUFFIX),
        keyed=None if key is None else beside(path, KEYED_SUFFIX),
    )


def check_signature(path: Path, *, key: bytes | None = None) -> Iterator[Problem]:
    """Yield what a session's signatures say against it; nothing where there are none.

    Raises
    ------
    SessionRefused
        The key is short.
    """
    _refuse_short(key)
    sidecar, keyed = beside(path, HASH_SUFFIX), beside(path, KEYED_SUFFIX)
    if sidecar.exists():
        yield from _compare(path, sidecar, hash_file(path))
    if key is None:
        return
    if not keyed.exists():
        yield Problem(path=str(keyed), message="is missing: the session has no signature by a key")
        return
    yield from _compare(path, keyed, _hmac(path, key))


def _compare(path: Path, sidecar: Path, digest: str) -> Iterator[Problem]:
    with sidecar.open("rb") as stream:
        text = stream.read(_MOST_BYTES).decode("utf-8", errors="replace")
    found = _LINE.match(text.rstrip("\r\n"))
    if found is None or found[2] != path.name:
        yield Problem(
            path=str(sidecar), message=f"is no signature of {path.name}: one line of it will do"
        )
    elif not hmac.compare_digest(found[1].lower(), digest):
        yield Problem(
            path=str(path),
            message=f"is not what was signed in {sidecar.name}: it was changed, or written into"
            " by an analysis, or the key is another one",
        )


def _hmac(path: Path, key: bytes) -> str:
    code = hmac.new(key, digestmod=hashlib.sha256)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            code.update(block)
    return code.hexdigest()


def _refuse_short(key: bytes | None) -> None:
    if key is not None and len(key) < KEY_BYTES:
        raise SessionRefused(
            f"the key has {len(key)} bytes; a file of at least {KEY_BYTES} random ones will do"
        )


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
