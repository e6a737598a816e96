"""The view over real sockets: who is let in, what nonsense does, and what a page is told."""

import asyncio
import http.client
import json
import socket
import struct
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from runner import view_server
from runner.control import Control
from runner.errors import exit_code_of
from runner.plan import ExitCode
from runner.view_desk import LARGEST_BYTES
from runner.view_port import ViewError, listen
from runner.view_server import MOST_VIEWERS
from runner.view_state import ViewState
from tests.runner.live_run import LiveRun


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with LiveRun(tmp_path_factory.mktemp("live") / "a.h5") as run:
        yield run


def get(address, path=None, *, method="GET", host=None, **headers):
    """Return status, headers and body of a request."""
    parts = urlsplit(address)
    wire = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        wire.putrequest(method, parts.path if path is None else path, skip_host=True)
        wire.putheader("Host", host or parts.netloc)
        for name, value in headers.items():
            wire.putheader(name, value)
        wire.endheaders()
        answer = wire.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        wire.close()


class Page:
    """One connection of a page."""

    def __init__(self, socket):
        self._socket = socket
        self.number = 0
        self.hello = json.loads(socket.recv(timeout=10))

    def next(self, want):
        """Return the next message of a kind."""
        while True:
            message = self._socket.recv(timeout=10)
            if isinstance(message, bytes):
                if want in ("rows", "frame") and (message[0] == 3) == (want == "frame"):
                    return message
            elif (told := json.loads(message))["kind"] == want:
                return told

    def until(self, test):
        """Return the first status of which something is true."""
        while not test(status := self.next("status")):
            pass
        return status

    def raw(self, message):
        self._socket.send(message)
        return self.next("answer")

    def say(self, word, **more):
        self.number += 1
        command = {"n": self.number, "nonce": self.hello["nonce"], "word": word, **more}
        return self.raw(json.dumps(command))


def dial(address, *, origin=None, host=None, path=None, **options):
    parts = urlsplit(address)
    url = f"ws://{host or parts.netloc}{parts.path if path is None else path}live"
    sock = socket.create_connection((parts.hostname, parts.port), timeout=10)
    return connect(
        url, sock=sock, origin=origin or f"http://{parts.netloc}", max_size=None, **options
    )


@contextmanager
def opened(address, **options):
    with dial(address, **options) as wire:
        yield Page(wire)


# --- who is let in ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "view.css", "view.js", "uPlot.iife.min.js", "uPlot.min.css"])
@pytest.mark.parametrize("which", ["address", "look"])
def test_with_a_token_all_parts_of_the_page_are_served(live, name, which):
    path = urlsplit(getattr(live, which)).path + name
    status, headers, body = get(live.address, path)
    assert status == 200
    assert len(body) > 500
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_a_page_names_no_other_server(live):
    for name in ("", "view.js", "view.css"):
        body = get(live.address, urlsplit(live.address).path + name)[2]
        assert b"//" not in body.replace(b"/^http/", b"").replace(b"// ", b""), name


def wrong_tokens(live):
    token = urlsplit(live.address).path.strip("/")
    return ["", "x", token[:-1], token + "x", token.swapcase(), "%2e%2e", "\u00e9".encode().hex()]


def test_without_the_token_everything_is_refused_and_nothing_told(live):
    told = set()
    for token in wrong_tokens(live):
        for path in (f"/{token}", f"/{token}/", f"/{token}/view.js", f"/{token}/nothing"):
            told.add((get(live.address, path)[0], get(live.address, path)[2]))
    assert told == {(403, b"")}
    assert get(live.address)[0] == 200
    path = urlsplit(live.address).path
    assert get(live.address, path + "nothing")[0] == 404
    status, headers, _ = get(live.address, path.rstrip("/"))
    assert (status, headers["location"]) == (307, path)


@pytest.mark.parametrize(
    "host", ["lamella.example", "127.0.0.1", "127.0.0.1:1", "[::1]:80", "0.0.0.0"]
)
def test_another_name_of_this_computer_is_refused(live, host):
    assert get(live.address, host=host)[::2] == (403, b"")
    with pytest.raises(InvalidStatus, match="403"), dial(live.address, host=host):
        pass


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(live, method):
    assert get(live.address, method=method)[0] == 403


def test_this_computer_may_be_called_localhost(live):
    port = urlsplit(live.address).port
    assert get(live.address, host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://lamella.example", "null", "https://{}", "http://{}1", ""]
)
def test_a_socket_from_another_page_is_refused(live, origin):
    netloc = urlsplit(live.address).netloc
    with (
        pytest.raises(InvalidStatus, match="403"),
        dial(live.address, origin=origin.format(netloc) or " "),
    ):
        pass


def test_a_socket_without_the_token_is_refused(live):
    with pytest.raises(InvalidStatus, match="403"), dial(live.address, path="/x/"):
        pass


def test_tokens_are_long_and_of_two_kinds(live):
    tokens = {urlsplit(a).path.strip("/") for a in (live.address, live.look)}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)
    assert urlsplit(live.address).hostname == "127.0.0.1"


def test_a_port_that_is_taken_is_named():
    with listen(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ViewError, match=f"port {port} .*--view-port") as caught:
            listen(port)
    assert exit_code_of(caught.value) is ExitCode.REFUSED


# --- what a page is told ------------------------------------------------------------------------


def rows_of(message):
    kind, count = message[0], struct.unpack_from("<I", message, 4)[0]
    times = struct.unpack_from(f"<{count}d", message, 8)
    return kind, times


def test_a_page_is_told_state_traces_events_and_frames(live):
    with opened(live.address) as page:
        assert page.hello["title"] == "a run to look at"
        assert page.hello["may_command"] is True
        kind, times = rows_of(page.next("rows"))
        assert kind == 2  # all there was
        assert list(times) == sorted(times)
        assert page.next("event")["message"].startswith("step 1: ocv")
        frame = page.next("frame")
        length = struct.unpack_from("<I", frame, 4)[0]
        about = json.loads(frame[8 : 8 + length])
        assert (about["width"], about["height"]) == (128, 96)
        assert frame[8 + length :].startswith(b"\xff\xd8")
        kind, more = rows_of(page.next("rows"))
        assert kind == 1
        assert more[0] > times[-1]
        status = page.until(lambda s: s["step"] == 1)
        assert (status["steps"], status["name"]) == (4, "cp")


def test_a_page_that_comes_back_is_told_all_again(live):
    with opened(live.address) as page:
        first = page.hello["nonce"]
        before = rows_of(page.next("rows"))[1]
    with opened(live.address) as page:
        assert page.hello["nonce"] != first
        kind, times = rows_of(page.next("rows"))
        assert kind == 2
        assert len(times) >= len(before)
        assert times[0] == before[0]
        assert page.next("event")["number"] == 1


# --- nonsense -------------------------------------------------------------------------------------


def test_nonsense_changes_nothing_and_is_answered(live):
    with opened(live.address) as page:
        nonce = page.hello["nonce"]
        good = {"n": 1, "nonce": nonce, "word": "abort"}
        for message, reason in (
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[" * 2000, "no JSON"),
            (b"\x00\xff", "a command is text"),
            ("[]", "a command is a JSON object"),
            ("null", "a command is a JSON object"),
            (json.dumps({**good, "n": "1"}), "'n' is of type int"),
            (json.dumps({**good, "n": True}), "'n' is of type int"),
            (json.dumps({**good, "word": ["abort"]}), "'word' is of type str"),
            (json.dumps({**good, "__proto__": 1}), "a command has no '__proto__'"),
            (json.dumps({"n": 1, "word": "abort"}), "lacks 'nonce'"),
            (json.dumps({**good, "nonce": "x"}), "replayed: it was said on another connection"),
            (json.dumps({**good, "word": "ABORT"}), "is no command of a run"),
            (json.dumps({**good, "n": 2, "word": "off; abort"}), "is no command of a run"),
            (json.dumps({**good, "n": 2}), "replayed: number 2 is not beyond 2"),
            (json.dumps({**good, "n": -7}), "replayed"),
            (json.dumps({**good, "n": 3, "word": "note", "text": ""}), "a note has 1 to"),
            (json.dumps({**good, "n": 4, "word": "note", "text": "x" * 10_001}), "a note has 1 to"),
            ("x" * (LARGEST_BYTES + 1), f"more than {LARGEST_BYTES} bytes"),
        ):
            answer = page.raw(message)
            assert not answer["done"]
            assert reason in answer["reason"], (message[:60], answer)
        status = page.next("status")
        assert (status["wish"], status["is_paused"]) == ("nothing", False)


def test_a_huge_message_ends_its_connection_and_no_other(live):
    with opened(live.address) as other:
        with opened(live.address) as page, pytest.raises(ConnectionClosed) as closed:
            page.raw("x" * 10**6)
        # The word may be lost with the connection; where it came, it says why.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        assert other.next("status")["wish"] == "nothing"


def test_what_was_said_on_one_connection_is_not_obeyed_on_another(live):
    with opened(live.address) as first, opened(live.address) as second:
        said = {"n": 5, "nonce": first.hello["nonce"], "word": "halt"}
        answer = second.raw(json.dumps(said))
        assert answer["reason"] == "replayed: it was said on another connection"


def test_whoever_only_looks_commands_nothing(live):
    with opened(live.look) as page:
        assert page.hello["may_command"] is False
        for word in ("pause", "resume", "stop", "abort", "halt", "next", "note"):
            answer = page.say(word, text="hm")
            assert answer["reason"] == "this page may look and not command"
        status = page.next("status")
        assert (status["wish"], status["is_paused"]) == ("nothing", False)


def test_there_is_room_for_so_many_pages_and_no_more(live):
    pages = [dial(live.address) for _ in range(MOST_VIEWERS)]
    wires = [page.__enter__() for page in pages]
    try:
        Page(wires[-1]).until(lambda s: s["viewers"] == MOST_VIEWERS)
        with pytest.raises(InvalidStatus, match="403"), dial(live.address):
            pass
    finally:
        for page in pages:
            page.__exit__(None, None, None)


# --- each word, through to the session ---------------------------------------------------


def test_each_word_is_done_told_and_recorded(tmp_path):
    with LiveRun(tmp_path / "a.h5", frames=False) as run, opened(run.address) as page:
        page.until(lambda s: s["step"] == 1)
        assert page.say("resume")["reason"] == "nothing is paused or held"
        assert page.say("pause")["done"]
        rested = page.until(lambda s: s["paused"] == "paused")
        assert rested["is_paused"]
        assert page.say("next", step=1)["reason"] == "the run is paused: resume it first"
        assert page.say("note", text="the beam was moved; µ")["done"]
        assert page.say("resume")["done"]
        page.until(lambda s: not s["paused"])
        assert page.say("next", step=0)["reason"] == "step 1 is over: step 2 is on"
        assert page.say("next", step=1)["done"]
        page.until(lambda s: s["step"] == 2)
        assert page.say("stop")["done"]
        ended = page.until(lambda s: s["ended"])
        assert ended["ended"] == "stopped by the operator"
        assert page.say("abort")["reason"] == "the plan is over"
    told = [(e.kind, e.source, e.message) for e in run.events() if e.source == "view"]
    assert told == [
        ("order", "view", "pause, by view"),
        ("note", "view", "the beam was moved; µ"),
        ("order", "view", "resume, by view"),
        ("order", "view", "next, by view"),
        ("order", "view", "stop, by view"),
    ]
    kinds = [e.kind for e in run.events()]
    assert kinds.index("paused") < kinds.index("resumed")
    reasons = [e.data["reason"] for e in run.events() if e.kind == "step_ended"]
    assert reasons[1:3] == ["next step: the operator went on", "stopped by the operator"]
    counters = run.view.counters
    assert (counters["commands"], counters["commands_refused"]) == (5, 4)
    assert run.told == []


@pytest.mark.parametrize(("word", "reason"), [("abort", "aborted"), ("halt", "halted")])
def test_what_closes_the_session_does(tmp_path, word, reason):
    with LiveRun(tmp_path / "a.h5", frames=False) as run, opened(run.address) as page:
        page.until(lambda s: s["step"] == 1)
        assert page.say(word)["done"]
        assert page.until(lambda s: s["ended"])["ended"] == f"{reason} by the operator"
    assert [e.source for e in run.events() if e.kind == "order"] == ["view"]


# --- a viewer that takes nothing -----------------------------------------------------------


async def test_a_viewer_that_takes_nothing_is_let_go_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(view_server, "STALLED_S", 0.05)
    control = Control()
    state = ViewState("a title", control)
    server = view_server.ViewServer(state, control, {})
    taken, gone = [], asyncio.Event()

    async def receive():
        if not taken:
            return {"type": "websocket.connect"}
        await gone.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message):
        taken.append(message)
        if message["type"] == "websocket.send" and len(taken) > 3:
            await asyncio.Event().wait()  # its socket is full, for ever

    scope = {"type": "websocket", "path": "/live", "headers": [], "state": {"may_command": True}}
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(server.app()(scope, receive, send))
        while len(taken) < 4:
            server.beat_once()
            state.tell("something")  # whoever tells the view waits for nobody
            await asyncio.sleep(0)
        assert len(state.viewers) == 1
        await server.last_words()  # nor does the end of a run, for long
        await stuck
    assert state.viewers == []
    assert len(taken) == 4
    state.close()


async def test_a_view_that_fails_says_so_and_its_end_waits_for_nobody():
    control, said = Control(), []
    state = ViewState("a title", control)
    state.tick = lambda: 1 / 0
    async with view_server.serve(state, control, port=0, say=said.append) as addresses:
        viewer = state.enter(may_command=True)
        while not said:
            await asyncio.sleep(0.01)
        state.leave(viewer)
        state.tick = lambda: None
        assert len(addresses) == 2
    assert said == ["warning: the view has ended (ZeroDivisionError: division by zero)"]
