"""Whoever looks at the frames of a session, its tracks are the same to the last bit."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage, special

from correlate import blocks
from correlate.trackers import front
from runner import spread_frames
from runner import team as teams
from runner.cli import main
from runner.session_tracks import track_session
from runner.team import WorkersRefused, open_team
from session import Session
from session.records import CameraHeader, FrameHeader, SessionHeader
from session.writer import SessionWriter

FRAMES, HEIGHT, WIDTH = 420, 64, 200
PIXEL_M = 1e-9
BLANK = {100, 256, 257, 258}  # in a block, and where one begins


def record(path, frames):
    """Make a session of frames."""
    camera = CameraHeader(
        name="camera",
        model="none",
        height=HEIGHT,
        width=WIDTH,
        dtype="uint8",
        frame_rate_Hz=100.0,
        pixel_size_m=PIXEL_M,
    )
    header = SessionHeader(
        title="many",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
        sample={"working_thickness_m": 130 * PIXEL_M},
    )
    with SessionWriter(path, header) as writer:
        for k, pixels in enumerate(frames):
            row = FrameHeader(
                t_start_ns=k * 10_000_000,
                exposure_ns=10_000_000,
                t_sigma_ns=1.0,
                index=k,
                device_start_ns=0,
            )
            writer.append_frame("camera", row, pixels)
        writer.finish("done", "")


def stand(drift_px, front_px):
    """Return a frame: collector, a film with a front, electrolyte; grains."""
    x = np.arange(WIDTH) - drift_px

    def right_of(edge):
        return 0.5 * (1 + special.erf((x - edge) / 2 / np.sqrt(2)))

    film = 0.6 * (1 + 0.2 * right_of(front_px))
    return 0.3 + (film - 0.3) * right_of(35) + (0.9 - film) * right_of(165)


@pytest.fixture(autouse=True)
def no_blocking_calls():
    """Only Dask's own loop runs here, and it asks for versions on it."""


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        for module in (blocks, front, spread_frames):
            patch.setattr(module, "BLOCK_FRAMES", 64)
        patch.setattr(spread_frames, "TASKS_EACH", 1)  # so that a task holds several blocks
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A specimen that drifts 9 px and back; some frames blank.

    The window has room for 2 px at first, and some blocks begin where the first frames
    ended, others far away.
    """
    rng = np.random.default_rng(3)
    grains = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 2.0, mode="wrap")
    texture = 1 + 0.08 * grains / grains.std()
    drift = 9 * np.sin(np.linspace(0, np.pi, FRAMES)) ** 2 + rng.normal(0, 0.2, FRAMES)
    front = np.linspace(120, 80, FRAMES)

    def frames():
        for k in range(FRAMES):
            moved = ndimage.shift(texture, (0, drift[k]), order=1, mode="wrap")
            pixels = rng.poisson(60 * stand(drift[k], front[k]) * moved).astype(np.uint8)
            yield np.zeros_like(pixels) if k in BLANK else pixels

    path = tmp_path_factory.mktemp("team") / "many.h5"
    record(path, frames())
    return path, drift, front


def columns(path):
    """Return all that a tracker wrote, as bytes."""
    with Session.open(path) as session:
        names = ["drift/camera", *(f"tracks/{name}" for name in session.tracks)]
        return {
            f"{name}/{column}": np.asarray(values).tobytes()
            for name in names
            for column, values in session.table(name).columns.items()
        }


def tracked(recorded, tmp_path, name, tracker, team):
    path = shutil.copy(recorded[0], tmp_path / f"{name}.h5")
    summary = track_session(path, tracker, team=team)
    return columns(path), summary


@pytest.fixture(scope="module")
def alone(recorded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    with open_team() as team:
        return {
            tracker: tracked(recorded, folder, tracker, tracker, team)
            for tracker in ("drift", "front")
        }


def test_two_processes_find_the_same_to_the_last_bit(recorded, alone, tmp_path):
    with open_team(workers=2) as team:
        for tracker, (expected, summary) in alone.items():
            found = tracked(recorded, tmp_path, tracker, tracker, team)
            assert found[0] == expected
            assert found[1] == summary


def test_a_dask_cluster_finds_the_same_to_the_last_bit(recorded, alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        open_team(cluster=cluster.scheduler_address) as team,
    ):
        assert team.size == 2
        found = tracked(recorded, tmp_path, "front", "front", team)
        assert found[0] == alone["front"][0]
        path = shutil.copy(recorded[0], tmp_path / "told.h5")
        told = ["track", str(path), "--tracker", "drift", "--json"]
        result = CliRunner().invoke(main, [*told, "--cluster", cluster.scheduler_address])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["valid"] == FRAMES - len(BLANK)
    assert columns(path) == alone["drift"][0]


def test_what_blocks_find_is_true(recorded, alone):
    path, drift, front_px = recorded
    with Session.open(path) as session:
        assert len(session.frames("camera")) == FRAMES
    found = {
        name: np.frombuffer(values)
        for name, values in alone["front"][0].items()
        if not name.endswith("t_ns") and len(values) == 8 * FRAMES
    }
    dx, sigma = found["drift/camera/dx"], found["drift/camera/sigma_x"]
    seen = np.isfinite(dx)
    assert np.flatnonzero(~seen).tolist() == sorted(BLANK)
    error = (dx + drift)[seen]
    error -= error.mean()
    assert 0.85 < np.sqrt(np.mean((error / sigma[seen]) ** 2)) < 1.2
    x = found["tracks/front/x_front_px"]
    error = (x - front_px)[np.isfinite(x)]
    assert len(error) > 0.95 * FRAMES
    assert np.sqrt(np.mean((error - error.mean()) ** 2)) < 1.0


def test_a_cluster_that_is_not_there_is_told(recorded, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(teams, "CONNECT_S", 0.2)
    with (
        pytest.raises(WorkersRefused, match="no Dask scheduler answers"),
        open_team(cluster="tcp://127.0.0.1:9"),
    ):
        pass


def test_other_versions_on_the_cluster_are_refused(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed.Client, "run", lambda *_: {"tcp://there": {"numpy": "1.0"}})
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        pytest.raises(WorkersRefused, match="numpy 1.0"),
        open_team(cluster=cluster.scheduler_address),
    ):
        pass
