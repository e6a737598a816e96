"""The verb ``lamella recover SESSION``: what a crash left, made whole in a new file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.plan import ExitCode
from runner.verb import conclude, exit_codes, json_option

if TYPE_CHECKING:
    from session.recover import Recovered


@click.command()
@click.argument("session", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to create.")
@json_option
def recover(session: Path, output: Path | None, *, as_json: bool) -> None:
    """Make a whole session of what a crash left of SESSION and of its journal.

    Neither is touched. Exit code 1 where something is missing all the same.

    Example: lamella recover first_charge.h5 -o first_charge.whole.h5
    """
    with exit_codes():
        from session.recover import recover as make_whole  # noqa: PLC0415

        recovered = make_whole(session, output)
        conclude(recovered, render_recovered, as_json=as_json)
        sys.exit(ExitCode.LIMIT if recovered.missing else ExitCode.DONE)


def render_recovered(recovered: "Recovered") -> str:
    """Return what was done in lines."""
    if not recovered.done:
        return "\n".join(
            [f"{recovered.path} was finished in order: nothing to do", *recovered.notes]
        )
    lines = [f"{recovered.path} is whole", *(f"  {line}" for line in recovered.done)]
    lines += [f"  missing: {line}" for line in recovered.missing] or ["  nothing is missing"]
    return "\n".join(lines)
