"""Run an experiment from Python, and read back what came of it."""

import asyncio
import math
import sys
import tempfile
from pathlib import Path

from runner import Experiment, run
from session import Session

EXPERIMENT = Path(__file__).with_name("lco_lipon_li.toml")


async def main(folder: Path) -> None:
    """Charge the simulated lamella as fast as it goes, then look at the session."""
    experiment = Experiment.load(EXPERIMENT)
    summary = await run(experiment, output=folder / "first_charge.h5", speed=math.inf)
    print(summary.title, "ended:", summary.exit_reason)
    for step in summary.steps:
        ionic, speed = step.charge_C["ionic"], step.front_speed_m_s
        print(
            f"{step.name}: {ionic.value:.4g} ± {ionic.sigma:.2g} C ionic, "
            f"front at {speed.value:.4g} ± {speed.sigma:.2g} m/s"
        )
    with Session.open(folder / "first_charge.h5") as session:
        samples = session.samples()  # pandas, SI units, indexed by host time
        frames = session.frames("camera")  # lazy, NumPy-like
        print(samples[["voltage", "current"]].describe())
        print(frames.shape, frames.dtype)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        asyncio.run(main(where))
