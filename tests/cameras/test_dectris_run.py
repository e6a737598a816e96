"""A whole run with a DECTRIS detector: through all processes, into a session file."""

import asyncio
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from mocks.dectris import DectrisServer, Fault
from mocks.pace import RealPace
from mocks.scenario import load
from mocks.world import World
from runner.clock import real_now_ns
from runner.conduct import run
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.calibration_file import write_calibration
from session.validate import validate

PLAN = """
title = "a short film"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = {{ material = "LiCoO2", thickness = "500 nm" }}
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "dectris"
port = {port}
data_port = {data_port}
frame_rate = "25 Hz"
pixel_size = "4 nm"
dose_rate = "2 e/angstrom^2/s"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
ocv = {{ for = "0.6 s" }}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a calibration in it, so that none is made."""
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "a test"}
    write_calibration(tmp_path / "holder.h5", attributes, {"voltage": np.zeros(3)})
    return tmp_path


@asynccontextmanager
async def detector():
    scenario = load(
        "lco_lipon_li",
        height=48,
        width=200,
        pixel_size_m=4e-9,
        frame_rate_Hz=25.0,
        dropped_ratio=0.0,
    )
    world = World(scenario, seed=2, start_ns=real_now_ns())
    pace = RealPace(world, real_now_ns, 1.0)
    passing = asyncio.create_task(pace.run())
    try:
        async with DectrisServer(world, pace) as server:
            yield world, server
    finally:
        passing.cancel()
        with suppress(asyncio.CancelledError):
            await passing


async def test_a_run_films_with_the_detector_and_keeps_every_frame(folder):
    async with detector() as (world, server):
        server.misbehaviour.at = {3: Fault.SHAPE, 5: Fault.DROPPED}
        text = PLAN.format(port=server.port, data_port=server.data_port)
        plan = await asyncio.to_thread(Experiment.loads, text, folder=folder)
        summary = await run(plan, output=folder / "a.h5")
        assert server.state == "idle"
        truth = world.truth()["frames/camera"]
    assert summary.exit_code == ExitCode.DONE
    assert not [p for p in validate(folder / "a.h5") if p.severity == "error"]
    with Session.open(folder / "a.h5") as session:
        table, pixels = session.frame_table("camera"), session.frames("camera")
        faults = [event for event in session.events() if event.kind == "frame_fault"]
        assert table["index"].tolist() == truth["index"].tolist()
        assert table["index"].tolist()[:5] == [0, 1, 2, 4, 6]
        assert table["dropped_before"].tolist()[:5] == [0, 0, 0, 1, 1]
        stamps = table["device_start_ns"]
        np.testing.assert_allclose(np.diff(stamps), np.diff(truth["t_start_ns"]), rtol=1e-4)
        assert len(pixels) == len(table["index"])
        assert pixels[0].shape == (48, 200)
        assert pixels[0].dtype == np.uint16
    (fault,) = faults
    assert "image 3 has shape 24 x 200 instead of 48 x 200" in fault.message
