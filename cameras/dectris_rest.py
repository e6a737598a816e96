"""The SIMPLON REST interface of a DECTRIS detector, as far as a film needs it.

Blocking, one connection a request: it is spoken from a thread.
"""

import http.client
import json
import math
import re
from typing import Any

from cameras.errors import CameraError, CameraLost

NEEDED_API = (1, 8, 0)
NEEDED_FIRMWARE = (2022, 1)  # stream v2 begins there
MAX_ANSWER = 1024 * 1024


class Simplon:
    """Reads and sets parameters, and gives commands.

    Parameters
    ----------
    timeout_s
        For each answer that is not given another.
    """

    def __init__(self, name: str, host: str, port: int, *, timeout_s: float) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._api = ""

    def check_version(self) -> str:
        """Return the version of the interface; it must be one that has stream v2.

        Raises
        ------
        CameraError
            It is too old, or says nothing of itself.
        """
        api = str(self._value("/detector/api/version", "its api version"))
        self._api = api
        found = tuple(int(part) for part in re.findall(r"\d+", api))
        if found < NEEDED_API:
            raise CameraError(
                f"{self._name}: speaks version {api} of SIMPLON; stream v2 needs "
                f"{'.'.join(map(str, NEEDED_API))}, so update the detector's software"
            )
        return api

    def get(self, module: str, task: str, name: str) -> Any:
        """Return the value of a parameter.

        Raises
        ------
        CameraLost, CameraError
            No answer, or one without a value.
        """
        return self._value(self._path(module, task, name), f"{module}/{task}/{name}")

    def limits(self, module: str, name: str) -> dict[str, Any]:
        """Return all that the detector says of a configuration parameter."""
        path = self._path(module, "config", name)
        return self._record(path, f"{module}/config/{name}")

    def get_number(self, name: str) -> float:
        """Return a number of the detector's configuration, which must be above 0.

        Raises
        ------
        CameraError
            It is none.
        """
        value = self.get("detector", "config", name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CameraError(f"{self._name}: its {name} is {value!r}, which is no number")
        if not (math.isfinite(value) and value > 0):
            raise CameraError(f"{self._name}: its {name} is {value:g}, which cannot be")
        return value

    def put(self, module: str, name: str, value: object) -> None:
        """Set a parameter.

        Raises
        ------
        CameraError
            The detector refuses; its answer is in the message.
        """
        body = json.dumps({"value": value}).encode()
        what = f"{module} {name} = {value!r}"
        self._ask("PUT", self._path(module, "config", name), body, what, self._timeout_s)

    def command(self, name: str, *, timeout_s: float | None) -> dict[str, Any]:
        """Give the detector a command and return its answer; None waits for ever.

        Raises
        ------
        CameraLost, CameraError
            No answer, or a refusal.
        """
        path = self._path("detector", "command", name)
        answer = self._ask("PUT", path, b"", f"the command {name}", timeout_s)
        try:
            found = json.loads(answer) if answer.strip() else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _path(self, module: str, task: str, name: str) -> str:
        return f"/{module}/api/{self._api}/{task}/{name}"

    def _value(self, path: str, what: str) -> Any:
        return self._record(path, what)["value"]

    def _record(self, path: str, what: str) -> dict[str, Any]:
        answer = self._ask("GET", path, None, what, self._timeout_s)
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or "value" not in found:
            raise CameraError(
                f"{self._name}: answers {_brief(answer)} when asked for {what}; "
                "a SIMPLON interface would give a value"
            )
        return found

    def _ask(
        self, method: str, path: str, body: bytes | None, what: str, timeout_s: float | None
    ) -> bytes:
        link = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        headers = {"Content-Type": "application/json; charset=utf-8", "Connection": "close"}
        try:
            link.request(method, path, body, headers)
            answer = link.getresponse()
            content = answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise CameraLost(
                f"{self._name}: no answer to {what} ({str(error) or type(error).__name__}); "
                "check the address, and that the detector's control unit runs"
            ) from error
        finally:
            link.close()
        if answer.status != http.client.OK:
            raise Refused(f"{self._name}: refuses {what}: HTTP {answer.status}, {_brief(content)}")
        return content


class Refused(CameraError):
    """The detector answered, and not with what was asked."""


def check_firmware(name: str, version: object) -> None:
    """Raise CameraError for a release that has no stream v2; a name of no release passes."""
    found = re.search(r"(20\d\d)\.(\d+)", str(version))
    if found and (int(found[1]), int(found[2])) < NEEDED_FIRMWARE:
        raise CameraError(
            f"{name}: its software is release {found[0]}; stream v2 needs "
            f"{'.'.join(map(str, NEEDED_FIRMWARE))}, so update it"
        )


def _brief(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
