"""Scripts and stream of the MethodSCRIPT driver on an independent simulator (labmcp-palmsens).

It knows CA, but neither OCP, nor blocks, nor arithmetic: `LEFT_OUT` says what is taken out of
a script before it goes there, and why. What is left goes there word for word.
"""

from collections import deque

import pytest

from potentiostat.errors import InstrumentRefused, NoReply
from potentiostat.methodscript import read_package
from potentiostat.methodscript_scripts import Terms, hold_script, open_script
from potentiostat.methodscript_stream import Stream
from potentiostat.palmsens_models import MODELS
from potentiostat.protocol import Setpoint
from potentiostat.visa import Reply

pytestmark = pytest.mark.peers

# Command: what becomes of it, and why the simulator cannot have it.
LEFT_OUT = {
    "meas_loop_ocp": "with its body: it measures no open cell; a voltage is stored instead",
    "if": "with its body: it has no conditions, so no limit, window or lease is tried here",
    "loop": "its body stays, once: it has no loops but those that measure",
    "copy_var": "only limits use it",
    "add_var": "only steps and limits use it",
    "sub_var": "only the lease uses it",
}
REST_V = "500m"


def reduced(script):
    """Return a script without what the simulator does not know, and what was left out."""
    kept, used, ends, skipping = [], set(), [], 0
    for line in script.split("\n"):
        name = line.split(" ")[0]
        if name in ("if", "loop", "meas_loop_ocp", "meas_loop_ca"):
            ends.append(name)
        # The guard on the window stands around all that the script does.
        guards = name == "if" and line.startswith("if p") and "meas_loop_ca" not in "".join(kept)
        skips = name == "meas_loop_ocp" or (name == "if" and not guards)
        if name == "meas_loop_ocp":
            kept.append(f"store_var p {REST_V} ab")
        if name in LEFT_OUT:
            used.add(name)
        if guards:
            ends[-1] = "guard"
        skipping += skips
        if name in ("endif", "endloop"):
            opened = ends.pop()
            if opened in ("if", "meas_loop_ocp"):
                skipping -= 1
            elif opened == "meas_loop_ca" and not skipping:
                kept.append(line)
        elif not skipping and name not in LEFT_OUT:
            kept.append(line)
    return "\n".join(kept), used


class PeerLink:
    """The simulator as a link, in a time of its own."""

    resource = "labmcp-palmsens"

    def __init__(self):
        simulators = pytest.importorskip(
            "labmcp_palmsens.simulator", reason="the peer is not installed"
        )
        self.simulator = simulators.MethodScriptSimulator(speed=1.0)
        self.simulator._clock = lambda: self.now / 1e9
        self.now = 0
        self.lines = deque()

    def now_ns(self):
        return self.now

    def write(self, command):
        for line in command.split("\n"):
            said = self.simulator.handle(line)
            self.lines.extend([said] if isinstance(said, str) else said or [])

    def listen(self):
        for _ in range(400):
            self.lines.extend(self.simulator.poll())
            if self.lines:
                return Reply(self.lines.popleft(), self.now, self.now)
            self.now += 5_000_000
        raise NoReply("silent")

    def close(self):
        pass


@pytest.fixture
def stream():
    link = PeerLink()
    return Stream(link, link.now_ns), link


def ca_script(interval_s=0.05, lease_s=1.0):
    model = MODELS["espico"]
    terms = Terms(
        interval_s=interval_s, lease_s=lease_s, reach_V=model.reach_V, window_V=(0.1, 1.9)
    )
    return hold_script(
        terms, Setpoint(mode="voltage", level=0.45, clamp=9e-8, range_A=1e-7), step=1e-3
    )


def test_only_what_is_declared_is_left_out():
    _, used = reduced(ca_script())
    assert used == set(LEFT_OUT)


def test_the_simulator_takes_what_is_left_of_a_script(stream):
    talk, link = stream
    assert talk.greet().startswith("tespico")
    assert talk.serial() == "ESPSIM01"
    script, _ = reduced(ca_script())
    assert {line.split(" ")[0] for line in script.split("\n")} >= {
        "set_pgstat_chan", "set_pgstat_mode", "set_max_bandwidth", "set_range_minmax",
        "set_range", "set_autoranging", "set_e", "cell_on", "meas_loop_ca", "timer_start",
        "timer_get", "send_string", "pck_start", "pck_add", "pck_end", "on_finished:",
    }  # fmt: skip
    talk.start(script)
    found = []
    while (package := talk.next_package()) is not None:
        found.append(read_package(package.text))
    assert len(found) == 21  # a lease of 20 readings, and why it ended
    assert [f["da"].value for f in found[:20]] == pytest.approx([0.45] * 20, rel=1e-9)
    assert [round(f["eb"].value, 6) for f in found[:20]] == [
        round(0.05 * n, 6) for n in range(1, 21)
    ]
    assert all(f["ba"].range_index is not None for f in found[:20])
    assert found[20]["aa"].value == 0
    assert not link.simulator.cell_powered


def test_a_script_is_stopped_there(stream):
    talk, link = stream
    talk.start(reduced(ca_script())[0])
    assert talk.next_package() is not None
    talk.stop()
    assert not talk.running
    assert not link.simulator.running
    talk.stop()  # where nothing runs
    talk.open_cell()
    assert not link.simulator.cell_powered


def test_a_turn_is_ended_there_without_an_end_of_the_script(stream):
    """The next turn is left out, so that the script comes to its end."""
    talk, _ = stream
    talk.start(reduced(ca_script())[0])
    assert talk.next_package() is not None
    with pytest.raises(InstrumentRefused, match="the script ended before M"):
        talk.next_turn()
    # What stands behind the loop was done: the last package tells of no limit and no lease.
    assert read_package(talk.packages[-1].text)["aa"].value == 0


def test_the_upload_of_another_host_is_refused_there(stream):
    talk, link = stream
    link.write(reduced(ca_script())[0])
    assert talk.greet().startswith("tespico")
    assert not link.simulator.running
    assert not link.simulator.cell_powered


def test_an_error_of_the_text_is_told_there(stream):
    talk, _ = stream
    with pytest.raises(InstrumentRefused, match=r"e!4001: Line 1.*; the cell was opened"):
        talk.start(open_script().replace("cell_off", "cell_of", 1))


def test_an_error_that_leaves_the_cell_on_there_is_followed_by_an_open_cell(stream):
    talk, link = stream
    bad = reduced(ca_script())[0].replace("meas_loop_ca p c s", "set_e 3\nmeas_loop_ca p c s")
    talk.start(bad)
    assert link.simulator.cell_powered  # an error does not obey on_finished:
    with pytest.raises(InstrumentRefused, match=r"!000F: Line \d+ .*; the cell was opened"):
        talk.next_package()
    assert not link.simulator.cell_powered
