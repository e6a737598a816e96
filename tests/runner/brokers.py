"""Brokers for tests: a real mosquitto, or amqtt where there is none; and a network to cut."""

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cameras.open_port import open_port
from runner.bus_address import BusAddress

MOSQUITTO = shutil.which("mosquitto") or (
    "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else None
)
AMQTT = importlib.util.find_spec("amqtt") is not None
PASSWD = shutil.which("mosquitto_passwd")
OPENSSL = shutil.which("openssl")
START_TIMEOUT_S = 30  # a busy machine is slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def open_to_the_broker(folder):
    """Let the user ``mosquitto`` in, to whom it changes when root starts it."""
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)


@dataclass
class Certificates:
    folder: Path

    def path(self, name):
        return self.folder / name


def make_certificates(folder):
    """A CA, the broker's certificate for loopback, a client's, and a CA that nobody knows."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    open_to_the_broker(folder)

    def openssl(*words):
        subprocess.run([OPENSSL, *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "stranger"):
        openssl(
            *("req", "-x509", *curve, "-keyout", f"{ca}.key", "-out", f"{ca}.crt"),
            *("-days", "2", "-subj", f"/CN={ca}"),
        )
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("broker", "client"):
        openssl(
            *("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={name}"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.crt"),
        )
    for file in folder.iterdir():
        file.chmod(0o644)
    return Certificates(folder)


class Broker:
    """A mosquitto on loopback that can be killed and started again on the same port."""

    version = 5

    def __init__(self, folder, *, rules=None, users=None, tls=None, client_certs=False):
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "set_tcp_nodelay true"]
        lines.append(f"allow_anonymous {'false' if users else 'true'}")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            lines.append("user root")  # else it could not read what pytest keeps for its user
        if rules is not None:
            lines.append(f"acl_file {self._write(folder, 'acl', rules)}")
        if users:
            if PASSWD is None:
                pytest.skip("mosquitto_passwd is not installed")
            plain = "".join(f"{name}:{password}\n" for name, password in users.items())
            path = self._write(folder, "passwords", plain)
            subprocess.run([PASSWD, "-U", str(path)], check=True, capture_output=True)
            path.chmod(0o644)
            lines.append(f"password_file {path}")
        if tls is not None:
            lines += [f"cafile {tls.path('ca.crt')}", f"certfile {tls.path('broker.crt')}"]
            lines.append(f"keyfile {tls.path('broker.key')}")
            lines.append(f"require_certificate {str(client_certs).lower()}")
        self.command = [MOSQUITTO, "-c", str(self._write(folder, "conf", "\n".join(lines) + "\n"))]
        self.process = None

    @staticmethod
    def _write(folder, name, text):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    async def start(self):
        self.process = await asyncio.to_thread(
            subprocess.Popen,
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def kill(self):
        self.process.kill()
        await asyncio.to_thread(self.process.wait)


class EmbeddedBroker(Broker):
    """amqtt in a process of its own; it knows version 3.1.1 of the protocol only."""

    version = 3
    PROGRAM = """
import asyncio
from amqtt.broker import Broker
plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
listeners = {"default": {"type": "tcp", "bind": "127.0.0.1:%d"}}
async def main():
    broker = Broker({"listeners": listeners, "plugins": plugins})
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""

    def __init__(self, folder):
        self.port = free_port()
        self.command = [sys.executable, "-c", self.PROGRAM % self.port]
        self.process = None


def a_broker(folder, kind="any"):
    """Return the broker of a name; of any: a mosquitto, or amqtt where there is none."""
    open_to_the_broker(folder)
    if kind != "amqtt" and MOSQUITTO is not None:
        return Broker(folder)
    if kind != "mosquitto" and AMQTT:
        return EmbeddedBroker(folder)
    return pytest.skip(f"{kind}: no such broker; mosquitto, or amqtt from .[broker], will do")


@asynccontextmanager
async def running(served):
    await served.start()
    try:
        yield served
    finally:
        await served.kill()


@asynccontextmanager
async def broker(folder, **options):
    if MOSQUITTO is None:
        pytest.skip("the broker mosquitto is not installed")
    open_to_the_broker(folder)
    async with running(Broker(folder, **options)) as served:
        yield served


def address(served, **changes):
    """Where a test's run is shown, by this broker or through a proxy before it."""
    defaults = {
        "host": "127.0.0.1",
        "port": served.port,
        "lab": "em2",
        "session": "day 1",
        "version": getattr(served, "version", 5),
    }
    return BusAddress(**(defaults | changes))


class Proxy:
    """A network between a client and a broker: whole, cut, or silent in both directions."""

    def __init__(self, target):
        self.target = target
        self.port = 0
        self.silent = False
        self.connections = 0
        self._open = asyncio.Event()
        self._open.set()
        self._writers = set()
        self._listening = AsyncExitStack()

    async def __aenter__(self):
        self.port = await self._listening.enter_async_context(open_port(self._serve))
        return self

    async def __aexit__(self, *_):
        self.cut()
        await self._listening.aclose()

    def partition(self):
        """Let nothing through, and tell nobody."""
        self._open.clear()

    def heal(self):
        """Let through what waits, and all that follows."""
        self._open.set()

    def cut(self):
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        back = None
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.target.port)
            self._writers.add(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, back))
                group.create_task(self._pipe(there, writer))
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            if back is not None:
                self._writers.discard(back)
                back.close()

    async def _pipe(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
        writer.close()


async def until(true):
    """Wait until something is so; the test's own timeout says when to give up."""
    while not true():
        await asyncio.sleep(0.01)
