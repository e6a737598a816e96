"""Frames that a node kept get the true times, through two clocks that both are wrong."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from runner.check import Severity, check
from runner.experiment import Experiment, ExperimentError
from runner.remote_times import put_remote
from session import Session
from session.recorder import Recorder
from session.records import EXCHANGE_DTYPE, SESSION_SAMPLE_DTYPE, SessionHeader
from session.validate import validate
from tests.end_to_end.test_camera_node import PLAN

START_NS = 1_700_000_000_000_000_000
EXPOSURE_NS, PERIOD_NS = 8_000_000, 50_000_000


@dataclass(frozen=True)
class Clock:
    """A clock that reads another one wrongly."""

    offset_ns: int
    rate: float

    def reads(self, t_ns):
        elapsed = np.asarray(t_ns, np.int64) - START_NS
        return START_NS + self.offset_ns + elapsed + np.round(elapsed * self.rate).astype(np.int64)


NODE = Clock(-3_600_000_000_000, 20e-6)  # an hour behind, 20 ppm fast
CAMERA = Clock(5_000_000_000, -40e-6)  # against the node's


def exchanges(asker, asked, t_ns, rng):
    """What a program reads on its clock when it asks another for its own."""
    there, back = rng.exponential(20_000, (2, len(t_ns))).astype(np.int64) + 50_000
    rows = np.zeros(len(t_ns), EXCHANGE_DTYPE)
    rows["t0_ns"], rows["t3_ns"] = asker(t_ns), asker(t_ns + there + back)
    rows["t1_ns"] = rows["t2_ns"] = asked(t_ns + there)
    return rows


def host(t_ns):
    return np.asarray(t_ns, np.int64)


def node_reads(t_ns):
    return NODE.reads(t_ns)


def camera_reads(t_ns):
    return CAMERA.reads(NODE.reads(t_ns))


def headers(true_ns, first, recording, *, stamped=True):
    index = list(range(first, first + len(true_ns)))
    arrival_ns = node_reads(true_ns + EXPOSURE_NS + 3_000_000)
    return {
        "topic": "frames",
        "recording": recording,
        "index": index,
        "t_start_ns": (arrival_ns - EXPOSURE_NS).tolist(),
        "t_sigma_ns": [None] * len(index),
        "exposure_ns": [EXPOSURE_NS] * len(index),
        "device_start_ns": camera_reads(true_ns).tolist() if stamped else [0] * len(index),
        "arrival_ns": arrival_ns.tolist(),
        "dropped_before": [0] * len(index),
        "blanked": [False] * len(index),
    }


def track(index, recording, position):
    return {
        "topic": "tracks/front",
        "recording": recording,
        "provisional": False,
        "index": index,
        "units": {"position": "m", "gone": "m"},
        "valid": [1] * len(index),
        "t_ns": [0] * len(index),
        "position": position,  # what is no list is no column
    }


def record(path, events, clocks, *, about=None):
    header = SessionHeader(
        title="a run",
        experiment_text="",
        start_time=datetime.now(UTC).isoformat(),
        host_start_ns=START_NS,
        simulated=True,
    )
    readings = np.zeros(600, SESSION_SAMPLE_DTYPE)
    readings["t_ns"] = START_NS + np.arange(600) * 20_000_000
    readings["read_start_ns"] = readings["read_end_ns"] = readings["t_ns"]
    readings["device_time_s"] = np.nan
    readings["aperture_s"] = 0.02
    readings["voltage"] = 3.0 + np.arange(600) * 1e-3

    async def work():
        async with Recorder(path, header, in_process=True) as recorder:
            await recorder.samples(readings)
            await recorder.attributes("instrument/far", about or {"model": "a test"})
            for kind, body in events:
                await recorder.event(START_NS, kind, "far", "said", body)
            await recorder.event(START_NS, "remote_frames", "another", "said", {"index": [1]})
            for name, rows in clocks.items():
                await recorder.exchanges(name, rows)

    asyncio.run(work())


@pytest.fixture
def clocks():
    rng = np.random.default_rng(5)
    t_ns = START_NS + np.arange(12) * 1_000_000_000
    return {
        "far": exchanges(host, node_reads, t_ns, rng),
        "far.camera": exchanges(node_reads, camera_reads, t_ns, rng),
    }


TRUE_NS = START_NS + 500_000_000 + np.arange(120, dtype=np.int64) * PERIOD_NS


def test_a_frame_gets_its_true_time_through_both_clocks(tmp_path, clocks):
    path = tmp_path / "a.h5"
    events = [("remote_frames", headers(TRUE_NS, 0, "one.h5"))]
    record(path, events, clocks)
    put_remote(path, "far")
    put_remote(path, "far")  # fits may be replaced
    with Session.open(path) as session:
        table, readings = session.table("tracks/far"), session.table("frame_samples/far")
        bound_ns = max(f.bound_ns for name in clocks for f in session.clock_fits(name))
    error_ns = (table["t_start_ns"] - TRUE_NS).astype(float)
    assert np.abs(error_ns).max() < bound_ns
    assert np.sqrt(np.mean((error_ns / table["t_sigma_ns"]) ** 2)) < 3
    assert table["t_ns"].tolist() == (table["t_start_ns"] + EXPOSURE_NS // 2).tolist()
    true_V = 3.0 + (TRUE_NS + EXPOSURE_NS // 2 - START_NS) / 20e6 * 1e-3
    assert readings["voltage_mean"] == pytest.approx(true_V, abs=1e-3)
    assert validate(path) == []


def test_what_both_ways_over_mqtt_may_differ_by_is_in_the_sigma(tmp_path, clocks):
    path = tmp_path / "a.h5"
    late_ns = 600_000  # every question waits in the broker, no answer does: no exchange sees it
    clocks["far"]["t0_ns"] -= late_ns
    events = [("remote_frames", headers(TRUE_NS, 0, "one.h5"))]
    record(path, [*events, ("clock_path", {"path": "mqtt"})], clocks)
    put_remote(path, "far")
    with Session.open(path) as session:
        table = session.table("tracks/far")
    error_ns = np.abs(table["t_start_ns"] - TRUE_NS)
    assert error_ns.min() > 200_000
    assert np.all(error_ns < 2 * table["t_sigma_ns"])
    assert np.all(table["t_sigma_ns"] < 300_000)


def test_a_stamp_of_the_end_is_moved_to_the_start(tmp_path, clocks):
    path = tmp_path / "a.h5"
    body = headers(TRUE_NS, 0, "one.h5")
    body["device_start_ns"] = camera_reads(TRUE_NS + EXPOSURE_NS).tolist()
    record(path, [("remote_frames", body)], clocks, about={"stamp": "exposure_end"})
    put_remote(path, "far")
    with Session.open(path) as session:
        error_ns = session.table("tracks/far")["t_start_ns"] - TRUE_NS
    assert np.abs(error_ns).max() < 200_000


@pytest.mark.parametrize(
    ("stamped", "about"),
    [
        (True, {"stamp": "exposure_start", "clock": "camera"}),
        (True, {"stamp": "unknown", "clock": "camera"}),
        (False, {"stamp": "arrival", "clock": "host"}),
    ],
)
def test_a_camera_without_a_clock_is_tied_by_its_quickest_frames(tmp_path, clocks, stamped, about):
    path = tmp_path / "a.h5"
    del clocks["far.camera"]
    record(
        path,
        [("remote_frames", headers(TRUE_NS, 0, "one.h5", stamped=stamped))],
        clocks,
        about=about,
    )
    put_remote(path, "far")
    with Session.open(path) as session:
        table = session.table("tracks/far")
    late_ns = table["t_start_ns"] - TRUE_NS
    assert late_ns == pytest.approx(3_000_000, abs=200_000)  # as late as the frames came
    assert np.all(np.isfinite(table["t_sigma_ns"]))


def test_few_frames_or_stamps_that_stand_still_keep_the_nodes_times(tmp_path, clocks):
    path = tmp_path / "a.h5"
    del clocks["far.camera"]
    still = headers(TRUE_NS[10:20], 0, "two.h5")
    still["index"] = [0] * 10
    still["device_start_ns"] = [7] * 10
    events = [("remote_frames", headers(TRUE_NS[:3], 0, "one.h5")), ("remote_frames", still)]
    record(path, events, clocks)
    put_remote(path, "far")
    with Session.open(path) as session:
        table = session.table("tracks/far")
    assert np.all(np.isinf(table["t_sigma_ns"]))
    assert np.abs(table["t_start_ns"][:3] - TRUE_NS[:3] - 3_000_000).max() < 200_000


def test_tracks_go_to_the_frames_of_their_own_recording(tmp_path, clocks):
    path = tmp_path / "a.h5"
    later_ns = TRUE_NS[:20] + 7_000_000_000
    drift = {"dx": [0.1, None, 0.3], "dy": [0.0] * 3, "sigma_x": [0.1] * 3, "sigma_y": [0.1] * 3}
    drift |= {"sigma": [0.1] * 3, "quality": [2.0] * 3, "topic": "tracks/moves"}
    events = [
        ("remote_frames", headers(TRUE_NS, 0, "one.h5")),
        ("remote_frames", headers(later_ns, 0, "two.h5")),  # the node began anew, and counts anew
        ("remote_track", track([0, 1], "one.h5", [1e-9, None]) | {"provisional": True}),
        ("remote_track", track([0], "one.h5", [1e-9]) | {"not_tracked": "no front"}),
        ("remote_track", track([0, 1], "one.h5", [1e-9, None])),
        ("remote_track", track([0, 999], "two.h5", [3e-9, 4e-9])),
        ("remote_track", track([0, 1, 2], "two.h5", 0) | drift),
    ]
    record(path, events, clocks)
    put_remote(path, "far")
    with Session.open(path) as session:
        frames, front = session.table("tracks/far"), session.table("tracks/far.front")
        moves = session.table("drift/far")
    assert frames.attributes["recordings"] == ("one.h5", "two.h5")
    assert frames["recording"].tolist() == [0] * 120 + [1] * 20
    assert front["position"] == pytest.approx([1e-9, np.nan, 3e-9], nan_ok=True)
    assert front.units["position"] == "m"
    assert front["t_ns"].tolist() == frames["t_ns"][[0, 1, 120]].tolist()
    assert moves["dx"] == pytest.approx([0.1, np.nan, 0.3], nan_ok=True)
    assert validate(path) == []


def test_without_exchanges_there_are_no_times_and_it_is_said(tmp_path, clocks):
    path = tmp_path / "a.h5"
    record(path, [("remote_frames", headers(TRUE_NS, 0, "one.h5"))], {"far": clocks["far"][:1]})
    put_remote(path, "far")
    with Session.open(path) as session:
        (told,) = [e.message for e in session.events() if e.kind == "not_fitted"]
        assert "never compared" in told
        assert session.tracks == ()


def test_a_node_that_told_nothing_leaves_the_session_as_it_is(tmp_path, clocks):
    path = tmp_path / "a.h5"
    record(path, [], clocks)
    put_remote(path, "far")
    with Session.open(path) as session:
        assert session.tracks == ()


# --- what an experiment says of its node ------------------------------------------------


def plan(folder, *changes):
    (folder / "commands.key").write_bytes(b"k" * 32)
    (folder / "commands.key").chmod(0o600)
    text = PLAN.format(port=1883, dose=100).replace('calibration = "holder.h5"\n', "")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return Experiment.loads(text, folder=folder)


BUS = '[bus]\nbroker = "127.0.0.1:1883"\nlab = "em2"\ncommand_key_file = "commands.key"\n'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('node = "merlin"', ""), "camera.node: is missing"),
        (('node = "merlin"', 'node = "a/b"'), "made of letters"),
        (('node = "merlin"', 'node = "a"\nnode_session = ""'), "node_session: is the session"),
        (('command_key_file = "commands.key"\n', ""), "needs a command_key_file"),
        (('lab = "em2"', 'lab = "em2"\nversion = 3'), "must be 5"),
        (("[limits]", '[[track]]\nname = "f"\ntracker = "front"\n[limits]'), "needs the pixels"),
        (
            ("[limits]", '[blanker]\n[microscope]\ndriver = "mock"\n[limits]'),
            "read from the pixels",
        ),
        ((BUS, ""), "is reached over MQTT; add"),
    ],
)
def test_a_plan_that_cannot_reach_its_node_is_refused(tmp_path, change, says):
    with pytest.raises(ExperimentError) as refused:
        plan(tmp_path, change)
    assert says in str(refused.value)


def test_check_tells_where_the_node_is_and_how_its_clock_is_asked(tmp_path):
    found = {f.what: f for f in check(plan(tmp_path)).findings}
    assert "merlin of session cameras, lab em2" in found["camera node"].arithmetic
    assert found["clock of the camera node"].severity is Severity.WARN
    named = plan(tmp_path, ('node = "merlin"', 'node = "merlin"\nhost = "10.0.0.2"'))
    found = {f.what: f for f in check(named).findings}
    assert found["clock of the camera node"].severity is Severity.OK
    assert "10.0.0.2" in found["clock of the camera node"].arithmetic
