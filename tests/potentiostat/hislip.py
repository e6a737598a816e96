"""A scripted instrument that speaks HiSLIP 1.0 (IVI-6.1), as pyvisa-py's client does."""

import contextlib
import socket
import struct
import threading

HEADER = struct.Struct("!2sBBIQ")
INITIALIZE, INITIALIZED, DATA, DATA_END = 0, 1, 6, 7
MAX_SIZE, MAX_SIZE_ANSWER, ASYNC_INITIALIZE, ASYNC_INITIALIZED = 15, 16, 17, 18


class HislipInstrument:
    """Answers each line as the script says: text, bytes, or None for silence.

    An answer may be a pair of a text and an event: then it waits for the event.
    """

    def __init__(self, answer):
        self._answer = answer
        self.lines = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.resource = f"TCPIP::127.0.0.1::hislip0,{port}::INSTR"
        self._ends = [self._listener]
        self._threads = []
        self._start(self._accept)

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                self._start(self._serve, end)

    def _serve(self, end):
        with contextlib.suppress(OSError, struct.error), end:
            line = b""
            while True:
                _, kind, _, parameter, length = HEADER.unpack(_exactly(end, HEADER.size))
                payload = _exactly(end, length)
                if kind == INITIALIZE:
                    self._send(end, INITIALIZED, (0x0100 << 16) | 1)
                elif kind == ASYNC_INITIALIZE:
                    self._send(end, ASYNC_INITIALIZED, 0x4C4D0000)
                elif kind == MAX_SIZE:
                    self._send(end, MAX_SIZE_ANSWER, 0, struct.pack("!Q", 1 << 20))
                elif kind in (DATA, DATA_END):
                    line += payload
                    if kind == DATA_END:
                        self._obey(end, line.decode().rstrip("\n"), parameter)
                        line = b""

    def _obey(self, end, line, message_id):
        self.lines.append(line)
        answer = self._answer(line)
        if isinstance(answer, tuple):
            answer, event = answer
            assert event.wait(10)
        if answer is None:
            return
        data = answer if isinstance(answer, bytes) else answer.encode()
        # In several messages, as a long reply comes.
        for start in range(0, len(data), 16_384):
            part = data[start : start + 16_384]
            last = start + len(part) == len(data)
            self._send(end, DATA_END if last else DATA, message_id, part)

    def _send(self, end, kind, parameter, payload=b""):
        end.sendall(HEADER.pack(b"HS", kind, 0, parameter, len(payload)) + payload)

    def stop(self):
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


def _exactly(end, count):
    data = b""
    while len(data) < count:
        more = end.recv(count - len(data))
        if not more:
            raise OSError("the other end has closed")
        data += more
    return data
