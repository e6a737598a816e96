"""The microscope behind temscript's server: its state, its blanker, and all that can fail."""

import asyncio
import itertools
import math
import threading
from contextlib import asynccontextmanager, contextmanager

import pytest

from cameras.microscope import (
    MicroscopeLost,
    MicroscopeState,
    StagePosition,
    UnknownMicroscope,
    microscope_class,
    microscope_names,
)
from cameras.microscopes.temscript import MAX_ANSWER, TemscriptMicroscope
from mocks.temscript_server import TemscriptServer
from runner.clock import real_now_ns


@asynccontextmanager
async def connected(*, timeout_s=10.0, now_ns=real_now_ns, latency_s=0.0):
    async with (
        TemscriptServer(now_ns=now_ns, latency_s=latency_s) as server,
        TemscriptMicroscope.at(
            "127.0.0.1", server.port, now_ns=now_ns, timeout_s=timeout_s
        ) as microscope,
    ):
        yield server, microscope


def test_it_is_found_by_its_name():
    assert microscope_class("temscript") is TemscriptMicroscope
    assert "temscript" in microscope_names()
    with pytest.raises(UnknownMicroscope, match="did you mean 'temscript'"):
        microscope_class("temskript")
    with pytest.raises(UnknownMicroscope, match="known are"):
        microscope_class("x")
    assert TemscriptMicroscope.at("h", now_ns=int)._port == 8080


async def test_it_reads_what_the_microscope_is_set_to():
    async with connected() as (server, microscope):
        state = await microscope.state()
        assert state == MicroscopeState(
            magnification=20_000.0,
            pixel_size_m=state.pixel_size_m,
            stage=StagePosition(x_m=1.25e-5, y_m=-3e-6, z_m=0.0, a_rad=0.01, b_rad=-0.02),
            beam_current_A=state.beam_current_A,
            beam_blanked=False,
        )
        # The current is measured on the screen, and a camera sees nothing while it is down.
        assert math.isnan(state.beam_current_A)
        assert math.isnan(state.pixel_size_m)
        server.values |= {"screen_position": "DOWN", "instrument_mode": "STEM"}
        state = await microscope.state()
        assert state.beam_current_A == 1.5e-9
        assert state.magnification == 100_000.0


async def test_what_it_does_not_know_is_unknown_and_never_zero():
    async with connected() as (server, microscope):
        server.values["indicated_magnification"] = 0.0  # diffraction, and some old versions
        server.values["stage_position"] = {"x": 1e-6, "b": None}
        server.refused = {"beam_blanked"}
        state = await microscope.state()
        assert math.isnan(state.magnification)
        assert state.stage.x_m == 1e-6
        assert math.isnan(state.stage.y_m)
        assert math.isnan(state.stage.b_rad)
        assert state.beam_blanked is None
        server.values["indicated_magnification"] = True
        server.values["stage_position"] = "nowhere"
        state = await microscope.state()
        assert math.isnan(state.magnification)
        assert math.isnan(state.stage.x_m)
        del server.values["screen_position"]  # a server that never heard of it
        assert math.isnan((await microscope.state()).beam_current_A)


async def test_the_blanker_moves_between_the_stamps_of_each_command():
    ticks = itertools.count(1_000, 10)
    async with connected(now_ns=lambda: next(ticks)) as (server, microscope):
        commands = [await microscope.blank(on=on) for on in (True, False, True)]
        assert (await microscope.state()).beam_blanked is True
        assert [c.blanked for c in commands] == [on for _, on in server.blanks]
        for command, (moved_ns, _) in zip(commands, server.blanks, strict=True):
            assert command.sent_ns < moved_ns < command.done_ns


async def test_a_blanker_that_refuses_is_told():
    async with connected() as (server, microscope):
        server.refused = {"beam_blanked"}
        with pytest.raises(MicroscopeLost, match="refuses.*500"):
            await microscope.blank(on=True)
        assert server.blanks == []


async def test_a_microscope_that_is_not_there_is_named():
    async with TemscriptServer(now_ns=real_now_ns) as server:
        port = server.port
    with pytest.raises(MicroscopeLost, match=f"127.0.0.1:{port}"):
        async with TemscriptMicroscope.at("127.0.0.1", port, now_ns=real_now_ns):
            pass


async def test_one_that_falls_silent_is_given_up():
    async with connected(timeout_s=0.05) as (server, microscope):
        server.silent = True
        with pytest.raises(MicroscopeLost, match=r"no answer in 0\.05 s"):
            await microscope.blank(on=True)
        with pytest.raises(MicroscopeLost):
            await microscope.state()


@pytest.mark.parametrize("version", ["1.0.10", "new", None])
async def test_a_server_of_another_kind_is_refused(version):
    async with TemscriptServer(now_ns=real_now_ns) as server:
        server.values["version"] = version
        with pytest.raises(MicroscopeLost, match="too old|no temscript server"):
            async with TemscriptMicroscope.at("127.0.0.1", server.port, now_ns=real_now_ns):
                pass


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.0\r\n\r\n",
        b"HTTP/1.0 what\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\nshort",
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER + 1),
        b"x" * (MAX_ANSWER + 10),
        b"HTTP/1.0 200",
    ],
)
async def test_nonsense_is_a_loss(answer):
    async with connected() as (server, microscope):
        server.raw_answer = answer
        with pytest.raises(MicroscopeLost):
            await microscope.state()


@pytest.mark.parametrize("body", [b"no JSON", b"[" * 5000])
async def test_an_answer_without_length_ends_with_the_connection(body):
    async with connected() as (server, microscope):
        server.raw_answer = b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n" + body
        state = await microscope.state()
        assert math.isnan(state.magnification)
        server.raw_answer = b"HTTP/1.0 200 OK\r\n\r\n12.5"
        assert (await microscope.state()).magnification == 12.5


async def test_names_that_cannot_be_set_are_unknown_to_the_simulator():
    async with connected() as (_, microscope):
        with pytest.raises(Exception, match="HTTP 404"):
            await microscope._request("PUT", "screen_current", "1")
        await microscope._request("PUT", "stage_position", '{"x": 2e-6}')
        assert (await microscope.state()).stage.x_m == 2e-6


# --- the real server -----------------------------------------------------------------------


@contextmanager
def null_microscope():
    """temscript's own server with its simulated microscope, in a thread."""
    server_module = pytest.importorskip("temscript.server", reason="temscript is not installed")
    null_module = pytest.importorskip("temscript.null_microscope")
    handler = server_module.MicroscopeHandler
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    server_module.MicroscopeHandler = quiet
    try:
        server = server_module.MicroscopeServer(("127.0.0.1", 0), null_module.NullMicroscope)
    finally:
        server_module.MicroscopeHandler = handler
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.peers
async def test_it_works_with_temscripts_own_server():
    with null_microscope() as server:
        theirs, port = server.microscope, server.server_address[1]
        theirs.set_stage_position({"x": 1e-5, "a": 0.1})
        async with TemscriptMicroscope.at("127.0.0.1", port, now_ns=real_now_ns) as microscope:
            state = await microscope.state()
            assert state.magnification == theirs.get_indicated_magnification()
            assert (state.stage.x_m, state.stage.a_rad) == (1e-5, 0.1)
            assert state.beam_current_A == theirs.get_screen_current()  # its screen is down
            assert state.beam_blanked is False
            command = await microscope.blank(on=True)
            assert theirs.get_beam_blanked() is True
            assert command.sent_ns < command.done_ns
            assert (await microscope.state()).beam_blanked is True
            await microscope.blank(on=False)
            assert theirs.get_beam_blanked() is False
            theirs.set_screen_position("UP")
            theirs.set_projection_mode("DIFFRACTION")
            state = await microscope.state()
            assert math.isnan(state.beam_current_A)
            assert math.isnan(state.magnification)


@pytest.mark.peers
async def test_temscripts_own_client_works_with_our_simulator():
    remote = pytest.importorskip("temscript", reason="temscript is not installed")
    async with TemscriptServer(now_ns=real_now_ns) as server:

        def work():
            theirs = remote.RemoteMicroscope(("127.0.0.1", server.port), timeout=10)
            theirs.set_beam_blanked(True)
            return (
                theirs.get_beam_blanked(),
                theirs.get_stage_position(),
                theirs.get_indicated_magnification(),
                theirs.get_screen_position(),
            )

        assert await asyncio.to_thread(work) == (
            True,
            server.values["stage_position"],
            20_000.0,
            "UP",
        )
        assert [on for _, on in server.blanks] == [True]
