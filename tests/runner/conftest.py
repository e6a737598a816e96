"""A finished session for whoever shows one."""

import asyncio
import math
from pathlib import Path

import pytest

from runner.conduct import run
from runner.experiment import Experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A short simulated run with everything in it: calibration, front, ledger."""
    folder = tmp_path_factory.mktemp("finished")
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
    return folder / "run.h5"
