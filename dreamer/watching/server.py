"""Serves the page on this machine alone, and connects all who watch to one session.

Everything lies below a random token, ``http://127.0.0.1:PORT/TOKEN/``; without it a request gets
403. A web socket must come from the page itself (its Origin), so that no other site that the
browser has open can reach the session. The page loads nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dreamer.errors import UserError
from dreamer.system.messages import Message, encode
from dreamer.watching.recorder import Recorder
from dreamer.watching.session import Session, notice

HOST = "127.0.0.1"
LOOK_EVERY = 5.0  # seconds between two looks for new checkpoints
_TYPES = {"watch.html": "text/html", "watch.css": "text/css", "watch.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}  # fmt: skip
_MOST_WAITING = 100  # messages; a watcher that is further behind is disconnected
_MAX_COMMAND = 10_000  # bytes


def open_port(port: int) -> socket.socket:
    """Returns a socket that listens on this machine's own address; port 0: a free one.

    Raises UserError if the port is taken.
    """
    try:
        # It listens at once, so that who opens the link early waits for the page.
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # error.strerror repeats the address
        raise UserError(
            f"port {port} of {HOST} cannot be used ({reason}): choose another --port, or leave it "
            "out for a free one"
        ) from error


class Server:
    """The page, and the loop that steps the session and tells all who watch.

    Args:
        session: Only this server calls it from now on.
        sock: From `open_port`.
    """

    def __init__(self, session: Session, sock: socket.socket):
        self._session, self._sock = session, sock
        self._port, self._token = sock.getsockname()[1], secrets.token_urlsafe(16)
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._commands: asyncio.Queue[dict | asyncio.Queue[bytes | None]] = asyncio.Queue()
        self._recorder = Recorder()
        self._failed: BaseException | None = None

    @property
    def link(self) -> str:
        return f"http://{HOST}:{self._port}/{self._token}/"

    def serve(self) -> None:
        """Serves until a signal comes."""
        routes = [
            Route("/{token}/", self._page), Route("/{token}/recording", self._recording),
            Route("/{token}/{name}", self._page), WebSocketRoute("/{token}/socket", self._watch),
        ]  # fmt: skip
        app = Starlette(routes=routes, lifespan=self._lifespan)
        config = uvicorn.Config(
            self._guarded(app), log_level="warning", ws="websockets-sansio", lifespan="on",
            ws_max_size=_MAX_COMMAND, ws_per_message_deflate=False, server_header=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        asyncio.run(self._server.serve(sockets=[self._sock]))
        if self._failed is not None:
            raise self._failed

    # ---------------------------------------------------------------- requests

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        """Refuses what comes without the token, by another name of this host, or from a site."""
        own = [f"{name}:{self._port}" for name in (HOST, "localhost")]

        async def guard(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket"):
                headers = {key.decode("latin-1"): value.decode("latin-1")
                           for key, value in scope["headers"]}  # fmt: skip
                token = scope["path"].removeprefix("/").partition("/")[0]  # of OPTIONS, "*"
                allowed = hmac.compare_digest(token.encode(), self._token.encode())
                allowed = allowed and headers.get("host") in own
                origins = [f"http://{name}" for name in own]
                if scope["type"] == "websocket" or "origin" in headers:
                    allowed = allowed and headers.get("origin") in origins
                if not allowed and scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})  # becomes 403
                    return
                if not allowed:
                    text = "403: open the link that python -m dreamer.watch has printed\n"
                    await Response(text, 403, _HEADERS, "text/plain")(scope, receive, send)
                    return
            await app(scope, receive, send)

        return guard

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "watch.html")
        if name not in _TYPES:
            return Response("404: there is no such page\n", 404, _HEADERS, "text/plain")
        content = (files("dreamer.watching") / "page" / name).read_bytes()
        return Response(content, 200, _HEADERS, _TYPES[name])

    async def _recording(self, request: Request) -> Response:
        found = self._recorder.file
        if found is None:
            return Response("404: nothing was recorded yet\n", 404, _HEADERS, "text/plain")
        name, content = found
        kind = "image/gif" if name.endswith("gif") else "video/mp4"
        headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, 200, headers, kind)

    async def _watch(self, socket: WebSocket) -> None:
        """Takes a watcher's commands and sends the session's messages, until either ends."""
        await socket.accept()
        messages: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._commands.put_nowait(messages)  # the loop adds it between two steps

        async def send() -> None:
            while (message := await messages.get()) is not None:
                await socket.send_bytes(message)
            await socket.close(1013)  # the page connects again

        sender = asyncio.create_task(send())
        try:
            while True:
                try:
                    command = json.loads(await socket.receive_text())
                except (ValueError, KeyError, RecursionError):
                    continue
                if isinstance(command, dict):
                    self._commands.put_nowait(command)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            sender.cancel()
            self._watchers.discard(messages)

    # -------------------------------------------------------------------- loop

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.create_task(self._drive())
        loop.add_done_callback(self._ended)
        yield
        loop.cancel()

    def _ended(self, loop: asyncio.Task[None]) -> None:
        """Ends the server with its loop; `serve` raises what the loop raised."""
        if not loop.cancelled():
            self._failed, self._server.should_exit = loop.exception(), True

    async def _drive(self) -> None:
        """Steps the session at its speed while somebody watches, and carries out commands."""
        self._tell(await asyncio.to_thread(self._session.start))
        due, looked = time.monotonic(), time.monotonic()
        while True:
            wait = self._session.wait() if self._watchers else None
            now = time.monotonic()
            due = now + LOOK_EVERY if wait is None else min(max(due, now - 1.0), now + wait)
            try:
                if due <= now:  # wait_for would not look into the queue
                    command = self._commands.get_nowait()
                else:
                    command = await asyncio.wait_for(self._commands.get(), due - now)
            except (TimeoutError, asyncio.QueueEmpty):
                if wait is not None:
                    self._tell(await asyncio.to_thread(self._session.tick))
                    due += self._session.wait() or 0.0
            else:
                await self._obey(command)
            if time.monotonic() - looked > LOOK_EVERY:
                looked = time.monotonic()
                self._tell(await asyncio.to_thread(self._session.look_for_checkpoints))

    async def _obey(self, command: dict | asyncio.Queue[bytes | None]) -> None:
        if isinstance(command, asyncio.Queue):
            snapshot = await asyncio.to_thread(self._session.snapshot)
            self._watchers.add(command)
            self._send(command, snapshot)
        elif command.get("do") == "record":
            await self._record(command)
        else:
            self._tell(await asyncio.to_thread(self._session.do, command))

    async def _record(self, command: dict) -> None:
        """Begins a recording, or ends it and tells where the file is."""
        try:
            if command.get("on"):
                self._recorder.begin(str(command.get("ending", ".gif")))
                self._tell([({"kind": "recording", "on": True, "name": ""}, {})])
                self._tell(await asyncio.to_thread(self._session.snapshot))
            elif self._recorder.running:
                name = await asyncio.to_thread(self._recorder.end)
                self._tell([({"kind": "recording", "on": False, "name": name}, {})])
        except UserError as error:
            self._tell([notice(str(error)), ({"kind": "recording", "on": False, "name": ""}, {})])

    def _tell(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._recorder.take(message)
        for watcher in list(self._watchers):
            self._send(watcher, messages)
        if self._recorder.full:
            self._commands.put_nowait({"do": "record", "on": False})

    def _send(self, watcher: asyncio.Queue[bytes | None], messages: Sequence[Message]) -> None:
        """Puts messages into a watcher's queue; one that is too far behind is disconnected."""
        if watcher.qsize() + len(messages) >= _MOST_WAITING:
            while not watcher.empty():
                watcher.get_nowait()
            self._watchers.discard(watcher)
            watcher.put_nowait(None)
            return
        for header, arrays in messages:
            watcher.put_nowait(encode(header, arrays))

