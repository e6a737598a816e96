"""Shell completion: the script that a shell reads, and the names that are completed."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish", "powershell")
VARIABLE = "_LAMELLA_COMPLETE"  # by which the script asks; click derives it from the name
Names = Callable[[], Iterable[str]]
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def completing(names: Names) -> Complete:
    """Return what click asks for completions; the names are looked up only then."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        return [name for name in names() if name.startswith(begun)]

    return complete


def templates() -> Iterable[str]:
    """Return the names of the templates of ``lamella new``."""
    from runner.newfile import template_names  # noqa: PLC0415

    return template_names()


def trackers() -> Iterable[str]:
    """Return the names of the trackers."""
    from correlate.registry import tracker_names  # noqa: PLC0415

    return tracker_names()


def simulated_models() -> Iterable[str]:
    """Return the drivers that are simulated, and the models that stand behind them."""
    simulated: Any = importlib.import_module("mocks.instruments")
    models = simulated.simulated_models()
    return (*models, *models.values())


def scenarios() -> Iterable[str]:
    """Return the names of the simulated specimens."""
    simulated: Any = importlib.import_module("mocks.scenario")
    names: Iterable[str] = simulated.names()
    return names


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes verbs, options and names in a SHELL.

    Example: lamella completion bash > lamella.bash
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click {_click_version()} knows no {shell}; install a newer click")
    root = context.find_root().command
    click.echo(kind(root, {}, "lamella", VARIABLE).source(), nl=False)


def _click_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return version("click")
