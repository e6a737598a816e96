"""The lab day: reads an experiment, opens everything, and leaves the cell safe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.conduct import run
    from runner.experiment import Experiment

__all__ = ["Experiment", "run"]

_HOMES = {"Experiment": "runner.experiment", "run": "runner.conduct"}


def __getattr__(name: str) -> Any:
    # Only on demand: the guardian's process and ``lamella --help`` need neither.
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
