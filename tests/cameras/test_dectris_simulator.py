"""The simulated detector itself: what it refuses, and how it is served alone."""

import asyncio
import json
import sys

import cbor2
import pytest

from mocks import dectris as simulator
from mocks.dectris import DectrisServer
from mocks.dectris_rest import Parameter, Refusal
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

START_NS = 1_000_000_000


def make(**settings):
    scenario = load("lco_lipon_li", height=48, width=200, pixel_size_m=4e-9, **settings)
    world = World(scenario, seed=1, start_ns=START_NS)
    pace = LockstepPace(world, lambda _: None)
    return DectrisServer(world, pace), world, pace


async def ask(port, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else None, json.loads(body) if body else None


def put(path, body):
    return b"PUT %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)


def get(path):
    return b"GET %s HTTP/1.1\r\n\r\n" % path.encode()


CONFIG = "/detector/api/1.8.0/config"


@pytest.mark.parametrize(
    ("request_", "status", "answer"),
    [
        (get("/detector/api/version"), 200, {"value": "1.8.0"}),
        (get("/detector/api/1.8.0/status/state"), 200, {"value": "idle"}),
        (get(f"{CONFIG}/nimages"), 200, {"value": 1, "min": 1, "value_type": "uint"}),
        (get(f"{CONFIG}/nothing"), 404, "no such parameter"),
        (get("/detector/api/1.6.0/config/nimages"), 404, "no such path"),
        (get("/"), 404, "no such path"),
        (get("/detector/api/1.8.0/command/arm"), 404, "no such command"),
        (put("/detector/api/1.8.0/command/fly", b""), 404, "no such command"),
        (put("/detector/api/1.8.0/command/trigger", b""), 400, "cannot trigger in state idle"),
        (put(f"{CONFIG}/description", b'{"value": "x"}'), 403, "parameter is read only"),
        (put(f"{CONFIG}/compression", b'{"value": "zip"}'), 400, "value must be one of"),
        (put(f"{CONFIG}/nimages", b'{"value": "ten"}'), 400, "value must be a number"),
        (put(f"{CONFIG}/nimages", b'{"value": 0}'), 400, "value must be within 1 and"),
        (put(f"{CONFIG}/count_time", b'{"value": 1e9}'), 400, "value must be within"),
        (put(f"{CONFIG}/nimages", b"ten"), 400, "the body must be a JSON object"),
        (put(f"{CONFIG}/nimages", b'{"value": 7}'), 200, ["nimages"]),
        (put(f"{CONFIG}/count_time", b'{"value": 3.0}'), 200, ["count_time", "frame_time"]),
        (b"hello\r\n\r\n", None, None),
    ],
)
async def test_its_interface_answers_as_simplon_does(request_, status, answer):
    server, _, _ = make()
    async with server:
        found_status, found = await ask(server.port, request_)
    assert found_status == status
    if isinstance(answer, dict):
        assert answer.items() <= found.items()
    elif isinstance(answer, str):
        assert found.startswith(answer)
    else:
        assert found == answer


def test_a_parameter_without_limits_takes_any_number():
    parameter = Parameter(value=1.5)
    parameter.set(-3)
    assert parameter.record() == {"value": -3, "value_type": "uint", "access_mode": "rw"}


async def test_it_is_armed_once_and_disarmed_as_often_as_one_likes():
    server, _, _ = make()
    sent = []

    async def put_(raw):
        sent.append(cbor2.loads(raw)["type"])

    server._put = put_
    async with server:
        assert await server.cancel() == {"sequence id": 0}
        assert await server.arm() == {"sequence id": 1}
        with pytest.raises(Refusal, match="cannot arm in state ready"):
            await server.arm()
        await server.disarm()
        await server.disarm()
        assert server.state == "idle"
    assert sent == ["start", "end"]


async def test_its_exposures_are_seen_on_the_trigger_line_until_it_is_cancelled():
    server, world, pace = make(frame_rate_Hz=10.0, exposure_line=2, dropped_ratio=0)
    server.misbehaviour.trigger_returns = True
    server.simplon.parameters["detector/config/nimages"].value = 100
    async with server:
        await server.arm()
        await server.trigger()
        await pace.take(450_000_000)
        assert world.exposures.first_after(START_NS + 250_000_000, 2) == pytest.approx(
            START_NS + 300_000_000, abs=50_000
        )
        assert server.produced == 4
        await server.cancel()
        last_ns = world.exposures.last_ns
        await pace.take(450_000_000)
        assert (world.exposures.last_ns, server.produced) == (last_ns, 4)


async def test_alone_it_says_where_it_listens(monkeypatch):
    said = []
    monkeypatch.setattr(sys.stdout, "write", said.append)
    for rate_Hz in (float("nan"), 50.0):
        serving = asyncio.create_task(simulator._serve_alone((0, 0), "lco_lipon_li", 1, rate_Hz))
        while not said:
            await asyncio.sleep(0)
        port = int(said.pop().split("port = ")[1].split(",")[0])
        status, found = await ask(port, get(f"{CONFIG}/frame_time"))
        assert status == 200
        assert found["value"] == pytest.approx(0.2 if rate_Hz != 50 else 0.02)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving


def test_its_command_line_reads_what_it_is_told(monkeypatch):
    asked = []

    async def serve(*what):
        asked.append(what)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator, "_serve_alone", serve)
    simulator.main(["--port", "81", "--data-port", "82", "--seed", "7", "--frame-rate", "20"])
    assert asked == [((81, 82), "lco_lipon_li", 7, 20.0)]
