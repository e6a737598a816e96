"""A whole run whose frames come from a Merlin detector on loopback."""

import asyncio
import threading

import numpy as np
import pytest

from mocks.merlin import MerlinServer, Misbehaviour, serve
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

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

PLAN = """
title = "frames of a Merlin"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "merlin"
control_port = CONTROL
data_port = DATA
frame_rate = "40 Hz"
pixel_size = "0.8 nm"
dose_rate = "2 e/angstrom^2/s"
[mock]
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
ocv = { for = "0.6 s" }
"""


class Detector:
    """A simulated Merlin in a thread of its own, in real time."""

    def __init__(self, **how):
        self._how = how
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        scenario = load("lco_lipon_li", pixel_size_m=4e-9, height=48, width=200, dropped_ratio=0.0)
        self.world = World(scenario, seed=2, start_ns=real_now_ns())
        pace = RealPace(self.world, real_now_ns, 1.0)
        async with serve(MerlinServer(self.world, pace, **self._how), pace) as self.server:
            self._ready.set()
            await self._over.wait()


async def record(tmp_path, detector):
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "a test"}
    write_calibration(tmp_path / "holder.h5", attributes, {"voltage": np.zeros(3)})
    text = PLAN.replace("CONTROL", str(detector.server.control_port))
    text = text.replace("DATA", str(detector.server.data_port))
    experiment = await asyncio.to_thread(Experiment.loads, text, folder=tmp_path)
    return await run(experiment, output=tmp_path / "a.h5")


async def test_a_run_records_each_frame_with_its_stamp_and_what_is_no_frame(tmp_path):
    wrong = Misbehaviour(lost=frozenset({2}), other_shape=frozenset({4}))
    with Detector(depth=12, wrong=wrong) as detector:
        summary = await record(tmp_path, detector)
        server, truth = detector.server, detector.world.truth()["frames/camera"]
    assert summary.exit_code == ExitCode.DONE
    with Session.open(tmp_path / "a.h5") as session:
        table, stack = session.frame_table("camera"), session.frames("camera")
        attributes = session.attributes("frames/camera")
        faults = [event for event in session.events() if event.kind == "frame_fault"]
        pixels = np.asarray(stack[3])
    # Each frame that was sent before the detector was stopped is there.
    index = table["index"]
    assert index[:4].tolist() == [1, 3, 5, 6]
    assert index.tolist() == truth["index"].tolist()
    assert len(index) == summary.frames
    # Produced = stored + missing by the counter; of these, the faults tell what came.
    assert table["dropped_before"].tolist()[:2] == [0, 1]
    assert table["dropped_before"].sum() == 2
    assert index.max() == len(index) + table["dropped_before"].sum()
    assert [fault.data["index"] for fault in faults] == [4]
    assert "24 x 200 uint16 where the detector announced 48 x 200" in faults[0].message
    # Stamps as the detector gave them, to the nanosecond.
    wanted = [server.stamp_ns(n, int(t)) for n, t in zip(index, truth["t_start_ns"], strict=True)]
    assert table["device_start_ns"].tolist() == wanted
    assert table["exposure_ns"].tolist() == truth["exposure_ns"].tolist()
    assert attributes["stamp"] == "unknown"
    # Of one machine: a frame is not here before it has been exposed.
    assert (table["arrival_ns"] >= truth["t_start_ns"] + truth["exposure_ns"]).all()
    assert (np.diff(table["arrival_ns"]) > 0).all()
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, counts(detector, int(truth["t_start_ns"][3])))
    assert validate(tmp_path / "a.h5") == []


def counts(detector, start_ns):
    """Return what was to be seen in frame 6."""
    truth, world = detector.world.truth()["frames/camera"], detector.world
    end_ns = start_ns + int(truth["exposure_ns"][3])
    front_m = world.mean("front", start_ns, end_ns)
    return detector.server._scene.frame(5, front_m, world.drift_px(start_ns, end_ns))
