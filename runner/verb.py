"""What the verbs of the command line share: options, exit codes, how a result is printed."""

import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from runner.completion_cli import completing, scenarios
from runner.plain import plain

SCREEN = Console(stderr=True)
PAGE = Console()
IN_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
OUT_FILE = click.Path(path_type=Path, dir_okay=False)


class Speed(click.ParamType[float]):
    """A factor, or ``max``."""

    name = "speed"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the factor; ``max`` is infinite."""
        if isinstance(value, float):
            return value
        if str(value).lower() == "max":
            return math.inf
        try:
            factor = float(value)
        except ValueError:
            factor = math.nan
        if not (0 < factor < math.inf):
            self.fail(f"{value!r} is no speed; write 1, 10 or max", param, ctx)
        return factor


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object as the last line."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace output files that exist."
)
key_option = click.option(
    "--key",
    type=IN_FILE,
    help="File with at least 16 secret bytes, for a keyed signature.",
)
scenario_option = click.option(
    "--scenario",
    default="lco_lipon_li",
    show_default=True,
    shell_complete=completing(scenarios),
    help="Which specimen.",
)
continue_option = click.option(
    "--continue",
    "continues",
    type=IN_FILE,
    help="Session of a run that died, to go on with.",
)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn an error into its exit code and a message without a traceback."""
    try:
        yield
    except Exception as error:
        from runner.errors import exit_code_of, message_of  # noqa: PLC0415

        code = exit_code_of(error)
        if code is None:
            raise
        click.echo(message_of(error), err=True)
        sys.exit(code)


def conclude(result: Any, render: Callable[[Any], Any], *, as_json: bool) -> None:
    """Print a result for a person, or as the last line for a program."""
    if as_json:
        click.echo(json.dumps(plain(result)))
    else:
        PAGE.print(render(result))


def run_async(work: Callable[[], Any]) -> Any:
    """Run a coroutine on a loop that every library here can use.

    aiomqtt needs the selector loop, which is not the default on Windows.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        return loop.run(work())
