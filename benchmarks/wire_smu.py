"""An instrument as quick as its wire: a 6430 that has every reading ready.

It keeps what it is told and says it again, and each reading is one more line or block.
So what a benchmark measures with it is the host's share alone, the same for all.
"""

import multiprocessing
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

IDENTITY = "KEITHLEY INSTRUMENTS INC.,MODEL 6430,0000001,C32"
REST_V, PLATEAU_A = 3.9, 2e-11
TICKS_PER_S = 1.024  # of the TIME element


class WireSmu:
    """The instrument's memory and its readings.

    Parameters
    ----------
    crossing
        Readings after a change of current until one is beyond 4.2 V; 0 for never.
    """

    def __init__(self, crossing: int = 0) -> None:
        self._told: dict[str, str] = {":SOUR:FUNC": "CURR", ":OUTP": "1", ":TRIG:COUN": "1"}
        self._crossing = crossing
        self._readings = 0
        self._current_A = 0.0
        self._timer_from_s = time.monotonic()
        self.crossed_ns = 0
        self.latencies_ns: list[int] = []

    def answer(self, line: str) -> bytes | None:
        """Obey a line; return what goes back."""
        replies = [r for part in line.split(";") if (r := self._obey(part.strip())) is not None]
        return b";".join(replies) + b"\n" if replies else None

    def _obey(self, command: str) -> bytes | None:
        if command in (":READ?", ":FETC?", "READ?"):
            return self._read()
        if command == "*IDN?":
            return IDENTITY.encode()
        if command == ":SYST:ERR?":
            return b'0,"No error"'
        if command == ":SYST:TIME?":
            return f"{self._timer():.3f}".encode()
        header, _, value = command.partition(" ")
        if header.endswith("?"):
            return self._told.get(header[:-1], "0").encode()
        self._told[header] = {"ON": "1", "OFF": "0"}.get(value, value)
        if header == ":SOUR:CURR":
            self._set_current(float(value))
        elif header == ":SYST:TIME:RES":
            self._timer_from_s = time.monotonic()
        return None

    def _timer(self) -> float:
        return (time.monotonic() - self._timer_from_s) * TICKS_PER_S

    def _set_current(self, current_A: float) -> None:
        if current_A == 0 and self.crossed_ns:
            self.latencies_ns.append(time.monotonic_ns() - self.crossed_ns)
        if current_A != self._current_A:
            self._readings = 0
        self.crossed_ns, self._current_A = 0, current_A

    def _read(self) -> bytes:
        count = int(float(self._told[":TRIG:COUN"]))
        binary = self._told.get(":FORM:DATA", "ASC").upper().startswith("SRE")
        time_s = self._timer()
        if binary:
            rows = b"".join(
                struct.pack("<4f", REST_V, PLATEAU_A, time_s + 1e-5 * i, 0.0) for i in range(count)
            )
            return b"#0" + rows
        self._readings += 1
        beyond = 0 < self._crossing <= self._readings and self._current_A != 0
        if beyond and not self.crossed_ns:
            self.crossed_ns = time.monotonic_ns()
        voltage_V = 4.25 if beyond else REST_V
        rows_text = [
            f"{voltage_V:+.6E},{self._current_A:+.6E},{time_s + 1e-5 * i:+.6E},+0.000000E+00"
            for i in range(count)
        ]
        return ",".join(rows_text).encode()


class ServedSmu:
    """A `WireSmu` on a port of this machine, in a process of its own.

    Parameters
    ----------
    crossing
        As of `WireSmu`.
    """

    def __init__(self, crossing: int = 0) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        self._process = multiprocessing.Process(
            target=_serve, args=(theirs, crossing), name="wire smu", daemon=True
        )

    def __enter__(self) -> Self:
        """Start it."""
        self._process.start()
        self.port = int(self._pipe.recv())
        self.resource = f"TCPIP::127.0.0.1::{self.port}::SOCKET"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    def latencies_ns(self) -> list[int]:
        """Return, once the client has gone, how long each way back to 0 A took."""
        found: list[int] = self._pipe.recv()
        return found


def _serve(pipe: Connection, crossing: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            smu = WireSmu(crossing)
            with client:
                for line in _lines(client):
                    reply = smu.answer(line)
                    if reply is not None:
                        client.sendall(reply)
            if crossing:
                pipe.send(smu.latencies_ns)


def _lines(client: socket.socket) -> Iterator[str]:
    kept = b""
    while data := client.recv(65536):
        *lines, kept = (kept + data).split(b"\n")
        for line in lines:
            yield line.decode("ascii")


@contextmanager
def served(crossing: int = 0) -> Iterator[ServedSmu]:
    """Serve an instrument while the context lasts."""
    with ServedSmu(crossing) as smu:
        yield smu
