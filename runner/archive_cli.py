"""The verbs that keep a session: ``verify``, ``note`` and ``sign``."""

import sys
from pathlib import Path

import click

from runner.plan import ExitCode
from runner.verb import (
    IN_FILE,
    conclude,
    exit_codes,
    json_option,
    key_option,
    overwrite_option,
)


@click.command()
@click.argument("session", type=IN_FILE)
@key_option
@json_option
def verify(session: Path, key: Path | None, *, as_json: bool) -> None:
    """Check a SESSION against its schema, its checksums, its own stamps and its signature.

    Example: lamella verify first_charge.h5
    """
    with exit_codes():
        from session.manifest import check_signature  # noqa: PLC0415
        from session.validate import validate  # noqa: PLC0415

        secret = None if key is None else key.read_bytes()
        problems = [*validate(session), *check_signature(session, key=secret)]
        conclude(
            problems,
            lambda found: "\n".join(str(p) for p in found) or "no problem found",
            as_json=as_json,
        )
        sys.exit(ExitCode.LIMIT if problems else ExitCode.DONE)


@click.command()
@click.argument("session", type=IN_FILE)
@click.argument("text")
@click.option("--at", help="Time since the session began that it is about, such as 95 s.")
@json_option
def note(session: Path, text: str, at: str | None, *, as_json: bool) -> None:
    """Keep a note of the operator's in a SESSION that was recorded.

    Example: lamella note first_charge.h5 "the beam was moved" --at "95 s"
    """
    with exit_codes():
        from runner.notes import add_note  # noqa: PLC0415
        from runner.quantities import parse  # noqa: PLC0415

        t_ns = add_note(session, text, at_s=None if at is None else parse(at, "time"))
        conclude({"t_ns": t_ns}, lambda _: f"noted in {session}", as_json=as_json)


@click.command()
@click.argument("session", type=IN_FILE)
@key_option
@overwrite_option
@json_option
def sign(session: Path, key: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Write the hash of a finished SESSION beside it, as sha256sum -c reads it.

    Sign last: what an analysis writes into the session changes it. With --key a second
    file can only be made by who has the key.

    Example: lamella sign first_charge.h5
    """
    with exit_codes():
        from session.manifest import sign as sign_session  # noqa: PLC0415

        secret = None if key is None else key.read_bytes()
        signed = sign_session(session, key=secret, overwrite=overwrite)
        conclude(signed, lambda what: f"{what.sha256}  {what.session.name}", as_json=as_json)
