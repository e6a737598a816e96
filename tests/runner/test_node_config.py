"""The file of a camera node: all that is wrong with it at once, each with its line."""

import math

import pytest

from runner.config_node import MAX_FILE_BYTES, NodeSettings
from runner.problems import ExperimentError

GOOD = """\
[camera]
driver = "stream"
host = "10.0.0.7"
port = 5040
frame_rate = "20 Hz"
pixel_size = "0.8 nm"
path = "there"

[node]
name = "merlin"
keep = "frames"
film_thickness = "500 nm"
spool_mib = 2

[bus]
broker = "localhost:1883"
lab = "em2"
session = "day 1"
username = "merlin"
password_file = "password"
ca_file = "ca.crt"
cert_file = "client.crt"
key_file = "client.key"
command_key_file = "commands.key"

[[track]]
name = "front"
tracker = "front"
"""


def problems(text):
    with pytest.raises(ExperimentError) as refusal:
        NodeSettings.loads(text)
    return [str(p) for p in refusal.value.problems]


def test_all_that_is_written_is_taken(tmp_path):
    path = tmp_path / "node.toml"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    node = NodeSettings.load(path)
    assert (node.name, node.driver, node.on_command) == ("merlin", "stream", False)
    assert (node.options.host, node.options.port) == ("10.0.0.7", 5040)
    assert (node.options.frame_rate_Hz, node.options.pixel_size_m) == (20.0, pytest.approx(8e-10))
    assert node.options.path == str(tmp_path / "there")
    assert node.keep == tmp_path / "frames"
    assert node.spool == tmp_path / "frames" / "merlin.spool"
    assert node.spool_bytes == 2 * 1024**2
    assert node.film_thickness_m == pytest.approx(5e-7)
    assert node.bus.prefix == "lamella/em2/day 1/merlin"
    assert node.bus.broker == "localhost:1883"
    security = node.bus.security
    assert security.username == "merlin"
    for name in ("password_file", "ca_file", "cert_file", "key_file", "command_key_file"):
        assert getattr(security, name).parent == tmp_path
    assert [(t.name, t.tracker) for t in node.tracks] == [("front", "front")]


def test_little_need_be_written():
    node = NodeSettings.loads(
        '[camera]\ndriver = "stream"\nport = 1\n[node]\nname = "n"\nkeep = "stream"\n'
    )
    assert (node.keep, node.bus, node.spool) == (None, None, None)
    assert math.isnan(node.options.frame_rate_Hz)
    assert math.isnan(node.film_thickness_m)
    assert node.listen == "127.0.0.1"


def test_the_spool_may_be_elsewhere(tmp_path):
    text = GOOD.replace("spool_mib", 'spool = "other"\nspool_mib')
    assert NodeSettings.loads(text, folder=tmp_path).spool == tmp_path / "other"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('driver = "stream"', 'driver = "sream"', "line 2, camera.driver: no camera"),
        ('driver = "stream"', 'driver = "mock"', "lamella mock camera"),
        ("port = 5040", "", "line 1, camera.port: is missing"),
        ('"20 Hz"', '"20 s"', "line 5, camera.frame_rate"),
        ('name = "merlin"', 'name = "a/b"', "line 10, node.name"),
        ('keep = "frames"', 'keep = ""', "line 11, node.keep"),
        ('keep = "frames"', "", "node.keep: Field required"),
        ('keep = "frames"', 'keep = "stream"', "track: is for a node that keeps"),
        ("spool_mib = 2", "frames_port = 70000", "line 13, node.frames_port: is no port"),
        ("spool_mib = 2", "spool_mib = 0", "line 13, node.spool_mib"),
        ("spool_mib = 2", "spol = 2", "line 13, node.spol"),
        ("localhost:1883", "localhost", "line 16, bus.broker: is a host and a port"),
        ("localhost:1883", ":1883", "line 16, bus.broker"),
        ('key_file = "client.key"\n', "", "belong together"),
        ('ca_file = "ca.crt"\n', "", "needs ca_file"),
        ('tracker = "front"', 'tracker = "frnt"', "line 28, track[1].tracker"),
        ("[camera]", "[camera", "TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old, new, what):
    assert old in GOOD
    assert any(what in line for line in problems(GOOD.replace(old, new, 1)))


def test_commands_need_a_key_and_a_node_that_keeps():
    text = GOOD.replace("spool_mib = 2", 'begin = "on command"')
    assert NodeSettings.loads(text).on_command
    found = problems(text.replace('command_key_file = "commands.key"\n', ""))
    assert any("command_key_file" in line for line in found)
    found = problems(text.replace('keep = "frames"', 'keep = "stream"'))
    assert any("node.begin" in line and "stream" in line for line in found)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ExperimentError, match=r"none\.toml.*\n.*cannot be read"):
        NodeSettings.load(tmp_path / "none.toml")
    latin, huge = tmp_path / "latin.toml", tmp_path / "huge.toml"
    latin.write_bytes(b'title = "\xb5m"')
    huge.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(ExperimentError, match="cannot be read"):
        NodeSettings.load(latin)
    with pytest.raises(ExperimentError, match="too large"):
        NodeSettings.load(huge)
