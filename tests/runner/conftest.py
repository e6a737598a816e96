"""A finished session for whoever shows one."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.conduct import run
from runner.experiment import Experiment

ROOT = Path(__file__).parents[2]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one worker fills for all of them; the others wait, and only read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # where each worker has a folder of its own
    folder = base / name
    made, failed = base / f"{name}.made", base / f"{name}.failed"
    try:
        folder.mkdir()
    except FileExistsError:
        while not made.exists():
            assert not failed.exists(), f"another worker could not make {name!r}, and says why"
            time.sleep(0.05)
        return folder
    try:
        make(folder)
    except BaseException:
        failed.touch()
        raise
    made.touch()
    return folder


def short_run(folder: Path) -> None:
    """Make a short simulated run with everything in it: calibration, front, ledger."""
    text = (ROOT / "examples" / "lco_lipon_li.toml").read_text("utf-8")
    for old, new in (
        ('for = "20 s"', 'for = "6 s"'),
        ('for = "30 s"', 'for = "6 s"'),
        ("t > 120 s", "t > 40 s"),
        ("t > 80 s", "t > 30 s"),
        ('dose_rate = "0.5', 'dose_rate = "1.0'),
    ):
        assert old in text
        text = text.replace(old, new)

    async def work():
        return await run(
            Experiment.loads(text, folder=folder), output=folder / "run.h5", speed=math.inf
        )

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        loop.run(work())


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A short simulated run, to be read: it is the same for all tests of all workers."""
    return made_once(tmp_path_factory, "finished", short_run) / "run.h5"
