"""Experiment files to begin with, from the templates that come with the program."""

import difflib
from importlib.resources import files
from pathlib import Path

from runner.outputs import refuse_existing


class UnknownTemplate(ValueError):
    """There is no template of that name."""


def template_names() -> tuple[str, ...]:
    """Return the names of all templates, sorted."""
    folder = files("runner") / "templates"
    return tuple(
        sorted(
            item.name.removesuffix(".toml")
            for item in folder.iterdir()
            if item.name.endswith(".toml")
        )
    )


def write_template(name: str, target: Path, *, overwrite: bool) -> None:
    """Write a template to a file.

    Raises
    ------
    UnknownTemplate
        There is none of that name.
    OutputRefused
        The file exists and ``overwrite`` is False.
    """
    if name not in template_names():
        near = difflib.get_close_matches(name, template_names(), 1)
        hint = f"did you mean {near[0]}?" if near else "see lamella new --list"
        raise UnknownTemplate(f"no template is called {name!r}; {hint}")
    refuse_existing(target, overwrite=overwrite)
    text = (files("runner") / "templates" / f"{name}.toml").read_text("utf-8")
    target.write_text(text, "utf-8")
