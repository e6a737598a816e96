"""``lamella node camera``: what is refused, what failed, and what is said at the end."""

import json

import pytest
from click.testing import CliRunner

from runner.cli import main
from runner.node import CameraNode, NodeSummary
from runner.plan import ExitCode
from tests.runner.brokers import free_port


def run(tmp_path, *words, port, more="", keep="stream"):
    path = tmp_path / "node.toml"
    path.write_text(
        f'[camera]\ndriver = "stream"\nport = {port}\n'
        f'[node]\nname = "n"\nkeep = "{keep}"\nframes_port = 0\nclock_port = 0\n{more}'
    )
    return CliRunner().invoke(main, ["node", "camera", str(path), *words])


def test_its_help_shows_an_example():
    found = CliRunner().invoke(main, ["node", "camera", "--help"])
    assert found.exit_code == 0
    assert "lamella node camera merlin.toml" in found.output


def test_a_file_that_is_wrong_is_refused(tmp_path):
    found = run(tmp_path, port=0)
    assert found.exit_code == ExitCode.REFUSED
    assert "camera.port: is missing" in found.output


def test_a_camera_that_is_not_there_has_failed(tmp_path):
    found = run(tmp_path, port=(port := free_port()))
    assert found.exit_code == ExitCode.FAILED
    assert f"127.0.0.1:{port}: cannot be reached" in found.output


@pytest.mark.parametrize("as_json", [True, False])
def test_it_says_what_it_did(tmp_path, monkeypatch, as_json):
    async def done(_):
        return NodeSummary(name="n", recordings=("a.h5",), frames=7, counters={})

    monkeypatch.setattr(CameraNode, "run", done)
    found = run(tmp_path, *(["--json"] if as_json else []), port=1)
    assert found.exit_code == ExitCode.DONE
    if as_json:
        assert json.loads(found.output.splitlines()[-1])["recordings"] == ["a.h5"]
    else:
        assert "n: 7 frames" in found.output


def test_a_key_that_cannot_be_used_is_refused(tmp_path, monkeypatch):
    from runner.bus_address import BusError

    async def refused(_):
        raise BusError("commands.key: others may read it")

    monkeypatch.setattr(CameraNode, "run", refused)
    found = run(tmp_path, port=1)
    assert found.exit_code == ExitCode.REFUSED
    assert "others may read it" in found.output
