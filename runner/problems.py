"""What is wrong with an experiment file: all of it at once, each with its line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    key
        Path in the file, such as ``step[1].cp.current``.
    line
        Line of the file, from 1; 0 where there is none.
    what
        What is wrong, and what would do.
    """

    key: str
    line: int
    what: str

    def __str__(self) -> str:
        """Return the problem as one line."""
        place = f"line {self.line}, " if self.line else ""
        return f"{place}{self.key}: {self.what}"


class ExperimentError(ValueError):
    """An experiment cannot be run as it stands.

    Attributes
    ----------
    problems
        All of them, in the order of their lines.
    """

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(problems, key=lambda p: p.line))
        count = len(self.problems)
        head = f"{name}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {p}" for p in self.problems)]))


def spelled(key: Key) -> str:
    """Return a key path as people write it."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text


_HEADER = re.compile(r"\s*(?P<array>\[)?\[\s*(?P<name>[\w.\"'-]+)\s*\]")
_ASSIGNMENT = re.compile(r"\s*(?P<key>[\w\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")


def find_line(text: str, key: Key) -> int:
    """Return the line on which a key stands, or that of its table; 0 for none.

    TOML's own parser tells lines only for errors of syntax, so the line is looked for.
    """
    best, depth = 0, 0
    counts: dict[str, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            name = header["name"].strip("\"'")
            if header["array"]:
                counts[name] = counts.get(name, -1) + 1
                table = (name, counts[name])
            else:
                table = tuple(name.split("."))
            here = table
        elif assignment := _ASSIGNMENT.match(line):
            parts = tuple(p.strip(" \"'") for p in assignment["key"].split("."))
            here = (*table, *parts)
        else:
            continue
        if len(here) > depth and key[: len(here)] == here:
            best, depth = number, len(here)
    return best
