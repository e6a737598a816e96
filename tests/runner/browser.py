"""A headless browser for tests, driven over its debugging protocol."""

import json
import shutil
import subprocess
import time
from contextlib import contextmanager

from websockets.sync.client import connect

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE_S = 120.0  # a page whose condition never comes true still tells of all that it does
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic", "--remote-debugging-port=0"),
    "--window-size=1280,900",
)


class Page:
    """A page, driven over the browser's debugging protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._number = 0
        self.events = []

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        until_s = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < until_s, f"no answer to {method} {parameters}"
            answer = json.loads(self._socket.recv(timeout=30))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def value(self, expression):
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression):
        """Return when an expression of the page is true."""
        self.value(
            f"new Promise(r => {{ const t = setInterval(() => {{ if ({expression}) {{"
            " clearInterval(t); r(1); } }, 20); })"
        )

    def settle(self):
        """Let two pictures pass, so that what was asked for is drawn."""
        self.value(
            "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() =>"
            " setTimeout(r, 60))))"
        )

    def of(self, method):
        return [e["params"] for e in self.events if e.get("method") == method]


@contextmanager
def browsed(url, profile, *, ready="window.lamella && window.lamella.ready"):
    """Open a page in a browser of its own while the context lasts."""
    process = subprocess.Popen(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            for line in process.stderr:
                if "DevTools listening on " in line:
                    address = line.split("DevTools listening on ")[1].strip()
                    break
            else:
                raise AssertionError("the browser did not start")
            with connect(address, max_size=None, ping_interval=None) as wire:
                target = Page(wire).call("Target.createTarget", url="about:blank")["targetId"]
                host = address.split("/devtools/")[0]
                url_of_page = f"{host}/devtools/page/{target}"
                with connect(url_of_page, max_size=None, ping_interval=None) as wire_of_page:
                    page = Page(wire_of_page)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        page.call(f"{domain}.enable")
                    page.call("Page.navigate", url=url)
                    page.wait_for(ready)
                    page.settle()
                    yield page
        finally:
            process.kill()
