"""Who may come near the broker: passwords, certificates, rules; and secrets that stay secret."""

import asyncio
import json
import os

import aiomqtt
import pytest

from runner.bus import Bus
from runner.bus_address import BusError, PublishRefused
from runner.bus_feed import BusFeed
from runner.bus_security import PASSWORD_VARIABLE, BadCredentials, BusSecurity
from tests.runner.brokers import address, broker, make_certificates, until

USERS = {"runner": "right horse", "viewer": "look only"}
RULES = """
user runner
topic readwrite lamella/em2/#
user viewer
topic read lamella/em2/#
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("right horse\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_password_from_outside(monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


async def test_the_right_password_opens_and_no_other(tmp_path, password_file, monkeypatch):
    async with asyncio.timeout(60), broker(tmp_path, users=USERS, rules=RULES) as served:
        known = BusSecurity(username="runner", password_file=password_file)
        async with Bus(address(served, security=known)) as bus:
            await bus.publish("status", {"state": "running"})
        with pytest.raises(BusError, match="Not authorized"):
            async with Bus(address(served)):
                pass
        monkeypatch.setenv(PASSWORD_VARIABLE, "wrong horse")  # it comes before the file
        with pytest.raises(BusError, match="Not authorized") as refusal:
            async with Bus(address(served, security=known)):
                pass
        assert "horse" not in str(refusal.value)


async def test_a_feed_with_a_wrong_password_goes_on_without_a_broker(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong horse")
    async with asyncio.timeout(60), broker(tmp_path, users=USERS, rules=RULES) as served:
        here = address(served, security=BusSecurity(username="runner"))
        async with BusFeed(here, first_pause_s=0.01) as feed:
            feed.put("samples", {})
            await until(lambda: "Not authorized" in feed._link.why_away)
            monkeypatch.setenv(PASSWORD_VARIABLE, "right horse")
            await until(lambda: feed.counters.published >= 2)


async def test_a_viewer_may_look_and_not_command(tmp_path, monkeypatch):
    async with asyncio.timeout(60), broker(tmp_path, users=USERS, rules=RULES) as served:
        monkeypatch.setenv(PASSWORD_VARIABLE, USERS["runner"])
        runner = address(served, security=BusSecurity(username="runner"))
        async with BusFeed(runner) as feed:
            await until(lambda: feed.counters.connects)
            monkeypatch.setenv(PASSWORD_VARIABLE, USERS["viewer"])
            viewer = address(served, security=BusSecurity(username="viewer"))
            async with Bus(viewer) as bus:
                await bus.subscribe([f"{runner.prefix}/status"])
                message = await anext(bus.messages())
                assert json.loads(message.payload)["state"] == "running"
                assert message.retained
                with pytest.raises(PublishRefused, match="command"):
                    await bus.publish("command", {"command": "halt"})
        assert feed.counters.commands_refused == 0


async def test_tls_with_both_certificates(tmp_path, certificates):
    ca, cert, key = (certificates.path(n) for n in ("ca.crt", "client.crt", "client.key"))
    async with (
        asyncio.timeout(60),
        broker(tmp_path, tls=certificates, client_certs=True) as served,
    ):
        known = BusSecurity(ca_file=ca, cert_file=cert, key_file=key)
        async with BusFeed(address(served, security=known)) as feed:
            feed.put("samples", {"voltage": [3.9] * 2000})  # more than a TLS record
            await until(lambda: feed.counters.published >= 2)
            await served.kill()
            feed.put("samples", {"n": 1})
            await served.start()
            await until(lambda: feed.counters.published >= 4)
        for stranger in (
            BusSecurity(ca_file=ca),  # no certificate of its own
            BusSecurity(ca_file=certificates.path("stranger.crt"), cert_file=cert, key_file=key),
            BusSecurity(),  # no TLS at all
        ):
            with pytest.raises(BusError, match="cannot be reached"):
                async with Bus(address(served, security=stranger)) as bus:
                    # TLS 1.3 tells a client only later that its certificate is missing.
                    await bus.publish("status", {})


async def test_the_brokers_certificate_must_be_for_its_address(tmp_path, certificates, monkeypatch):
    async with asyncio.timeout(60), broker(tmp_path, tls=certificates) as served:
        (certificates.folder / "other").mkdir(exist_ok=True)
        known = BusSecurity(ca_file=certificates.path("ca.crt"))
        context = known.tls_context()
        assert context.check_hostname
        async with Bus(address(served, security=known, host="localhost")) as bus:
            await bus.publish("status", {})


# --- secrets and files -------------------------------------------------------------------


def test_a_password_comes_from_the_environment_first(password_file, monkeypatch):
    known = BusSecurity(username="runner", password_file=password_file)
    assert known.password() == "right horse"
    monkeypatch.setenv(PASSWORD_VARIABLE, "other")
    assert known.password() == "other"
    assert BusSecurity().password() is None


def test_a_password_that_is_nowhere_is_asked_for(tmp_path):
    with pytest.raises(BadCredentials, match=PASSWORD_VARIABLE):
        BusSecurity(username="runner").password()
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    with pytest.raises(BadCredentials, match="empty"):
        BusSecurity(username="runner", password_file=empty).password()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such file modes")
def test_a_secret_that_others_may_read_is_none(password_file):
    password_file.chmod(0o640)
    with pytest.raises(BadCredentials, match="chmod 600") as refusal:
        BusSecurity(username="runner", password_file=password_file).password()
    assert "horse" not in str(refusal.value)


def test_a_key_must_be_long_and_a_secret_small(tmp_path):
    short, huge = tmp_path / "short", tmp_path / "huge"
    short.write_bytes(b"k" * 31)
    huge.write_bytes(b"k" * 5000)
    for path in (short, huge):
        path.chmod(0o600)
    with pytest.raises(BadCredentials, match="31 bytes; 32 or more"):
        BusSecurity(command_key_file=short).command_key()
    with pytest.raises(BadCredentials, match="too large"):
        BusSecurity(command_key_file=huge).command_key()
    with pytest.raises(BadCredentials, match="cannot be read"):
        BusSecurity(command_key_file=tmp_path / "none").command_key()
    assert BusSecurity().command_key() is None


def test_files_that_are_no_certificates_are_named(tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for path in (wrong, tmp_path / "none.pem"):
        with pytest.raises(BadCredentials, match=path.name):
            BusSecurity(ca_file=path).tls_context()
    assert BusSecurity().tls_context() is None


async def test_unfit_parts_are_refused_before_anything_is_sent(tmp_path):
    file = tmp_path / "x"
    for unfit, host, why in (
        (BusSecurity(password_file=file), "127.0.0.1", "no username"),
        (BusSecurity(ca_file=file, cert_file=file), "127.0.0.1", "belong together"),
        (BusSecurity(cert_file=file, key_file=file), "127.0.0.1", "needs ca_file"),
        (BusSecurity(username="runner"), "10.0.0.5", "plain text"),
    ):
        with pytest.raises(BusError, match=why):
            async with Bus(address(type("S", (), {"port": 1}), host=host, security=unfit)):
                pass
    BusSecurity(username="runner", ca_file=file).refuse_unfit("10.0.0.5")


async def test_nothing_that_is_shown_holds_a_secret(tmp_path, password_file):
    known = BusSecurity(username="runner", password_file=password_file)
    async with asyncio.timeout(60), broker(tmp_path) as served:
        here = address(served, security=known)
        assert "horse" not in repr(here)
        async with (
            aiomqtt.Client("127.0.0.1", served.port) as client,
            BusFeed(here) as feed,
        ):
            await client.subscribe("#")
            await until(lambda: feed.counters.connects)
            message = await anext(aiter(client.messages))
        assert b"horse" not in message.payload
