"""The table of supported models: what they reach, and what they do to a cell."""

from dataclasses import dataclass

from rich.table import Table

from potentiostat.registry import potentiostat_class, potentiostat_names
from runner.format import in_unit
