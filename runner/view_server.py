"""The page of a run on loopback: the only door to the web framework.

The address holds a secret, a second one for whoever only looks. Without it, or under another
name than this computer's own, or from another page, everything is 403 and empty.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from runner.view_desk import LARGEST_BYTES, Desk, Orders
from runner.view_port import LOOPBACK, listen
from runner.view_state import MOST_ANSWERS, TICK_S, Viewer, ViewState, as_json

TOKEN_BYTES = 24
MOST_VIEWERS = 16
STALLED_S = 20.0  # without room for one message, after which a viewer is let go
BETWEEN_MESSAGES_S = 0.02  # of one page: a flood waits in its own connection
LAST_WORDS_S = 0.5
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
ASSETS = ("view.html", "view.css", "view.js", "uPlot.iife.min.js", "uPlot.min.css")


def policy(port: int) -> str:
    """Return what a page may load and connect to: this server, and nothing else."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        f"connect-src 'self' ws://{LOOPBACK}:{port} ws://localhost:{port}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Guard:
    """Lets through who knows a token, under our own name, from our own page.

    Parameters
    ----------
    tokens
        Each with whether it may command.
    """

    def __init__(self, app: ASGIApp, *, tokens: dict[str, bool], port: int) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
        self._headers = [
            (b"content-security-policy", policy(port).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it without a word."""
        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        may_command = self._judge(token)
        if may_command is None or not self._is_ours(scope):
            await _refuse(scope, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        if not slash and scope["type"] == "http":  # the page asks for its parts beside itself
            await _answer(send, 307, (b"location", f"/{token}/".encode()))
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "root_path": ""}
        inner["state"] = {"may_command": may_command}
        await self._app(inner, receive, with_headers)

    def _judge(self, token: str) -> bool | None:
        """Tell whether a token may command; None for one that is none."""
        found = None
        for known, may_command in self._tokens.items():
            # All are compared, in constant time: how long it takes tells nothing.
            if secrets.compare_digest(known.encode(), token.encode(errors="replace")):
                found = may_command
        return found

    def _is_ours(self, scope: Scope) -> bool:
        """Tell whether a request names this computer, and comes from a page of ours."""
        headers = {bytes(k).lower(): bytes(v).decode("latin-1") for k, v in scope["headers"]}
        # A name of the web that was bent to loopback still calls itself by its own name.
        if (host := headers.get(b"host", "")) not in self._hosts:
            return False
        if scope["type"] == "websocket":
            return headers.get(b"origin", "") == f"http://{host}"
        return scope["method"] in ("GET", "HEAD")


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        return
    await _answer(send, 403, (b"connection", b"close"))


async def _answer(send: Send, status: int, header: tuple[bytes, bytes]) -> None:
    """Send an answer without a body."""
    headers = [(b"content-length", b"0"), header]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class ViewServer:
    """Serves the assets, and tells each viewer what it has not seen."""

    def __init__(self, state: ViewState, orders: Orders, assets: dict[str, bytes]) -> None:
        self._state = state
        self._orders = orders
        self._assets = assets
        self._beat = asyncio.Event()

    def app(self) -> Starlette:
        """Return the application behind its guard."""
        return Starlette(
            routes=[
                Route("/", self._asset),
                Route("/{name}", self._asset),
                WebSocketRoute("/live", self._live),
            ]
        )

    async def _asset(self, request: Request) -> Response:
        name = request.path_params.get("name", "view.html")
        if (content := self._assets.get(name)) is None:
            return Response(status_code=404)
        kind = TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=f"{kind}; charset=utf-8")

    async def beat(self) -> None:
        """Tell all viewers what is new, at an even pace; never returns by itself."""
        while True:
            if self._state.viewers:
                self.beat_once()
            await asyncio.sleep(TICK_S)

    def beat_once(self) -> None:
        """Tell all viewers what is new."""
        self._state.tick()
        beat, self._beat = self._beat, asyncio.Event()
        beat.set()

    async def last_words(self) -> None:
        """Tell all viewers the last that there is, if they listen."""
        self.beat_once()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while any(map(self._state.lacks, self._state.viewers)):  # noqa: ASYNC110 - a moment
                    await asyncio.sleep(TICK_S / 4)

    async def _live(self, page: WebSocket) -> None:
        if len(self._state.viewers) >= MOST_VIEWERS:
            await page.close(1013)
            return
        nonce = secrets.token_urlsafe(TOKEN_BYTES)
        viewer = self._state.enter(may_command=page.state.may_command)
        desk = Desk(self._orders, may_command=viewer.may_command, nonce=nonce)
        try:
            await page.accept()
            await page.send_text(self._state.hello(nonce, viewer))
            # One task ends the other: a page that went away is told nothing more.
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(page, viewer), name="runner.view.tell")
                await self._listen(page, viewer, desk)
                telling.cancel()
        except* (WebSocketDisconnect, TimeoutError, OSError):
            pass  # it has gone, or takes nothing any more
        finally:
            self._state.leave(viewer)
            self._state.counters["commands"] += desk.done
            self._state.counters["commands_refused"] += desk.refused

    async def _tell(self, page: WebSocket, viewer: Viewer) -> None:
        self._state.tick()
        while True:
            beat = self._beat
            for message in self._state.due(viewer):
                async with asyncio.timeout(STALLED_S):
                    if isinstance(message, str):
                        await page.send_text(message)
                    else:
                        await page.send_bytes(message)
            await beat.wait()

    async def _listen(self, page: WebSocket, viewer: Viewer, desk: Desk) -> None:
        while True:
            message = await page.receive()
            if message["type"] == "websocket.disconnect":
                return
            said = message.get("text")
            answer = desk.answer(message.get("bytes") or b"" if said is None else said)
            while len(viewer.answers) >= MOST_ANSWERS:  # noqa: ASYNC110 - of one page alone
                await asyncio.sleep(TICK_S)
            viewer.answers.append(as_json(answer))
            await asyncio.sleep(BETWEEN_MESSAGES_S)


class _Server(uvicorn.Server):
    """uvicorn, which leaves Ctrl-C to the run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve(
    state: ViewState, orders: Orders, *, port: int, say: Callable[[str], None]
) -> AsyncIterator[tuple[str, str]]:
    """Serve a state while the context lasts; yield the addresses to command and to look.

    Parameters
    ----------
    say
        Told why it ended, should it end by itself.

    Raises
    ------
    ViewError
        The port cannot be had.
    """
    listener = listen(port)
    port = listener.getsockname()[1]
    tokens = {secrets.token_urlsafe(TOKEN_BYTES): may for may in (True, False)}
    assets = await asyncio.to_thread(_read_assets)
    server = ViewServer(state, orders, assets)
    web = _Server(
        uvicorn.Config(
            Guard(server.app(), tokens=tokens, port=port),
            http="h11",
            ws="websockets-sansio",
            ws_max_size=2 * LARGEST_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="critical",  # its lines hold the token
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=4 * MOST_VIEWERS,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(web.serve([listener]), name="runner.view")
    beating = asyncio.create_task(server.beat(), name="runner.view.beat")
    for task in (serving, beating):
        task.add_done_callback(lambda done: _tell_of_end(say, done))
    try:
        command, look = (f"http://{LOOPBACK}:{port}/{token}/" for token in tokens)
        yield command, look
    finally:
        await server.last_words()
        beating.cancel()
        web.should_exit = True
        await asyncio.wait([serving, beating])
        listener.close()
        state.close()


def _tell_of_end(say: Callable[[str], None], task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        say(f"warning: the view has ended ({type(error).__name__}: {error})")


def _read_assets() -> dict[str, bytes]:
    folder = files("runner") / "static"
    return {name: (folder / name).read_bytes() for name in ASSETS}
