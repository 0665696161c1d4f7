# SPDX-License-Identifier: BSD-3-Clause
"""The ASGI application: paths, bodies, limits, and errors as JSON.

::

    POST /predict         the body is the input, the answer the output     (one model)
    POST /NAME/predict    the same                                        (several)
    /v2/...               the same, by the Open Inference Protocol
    GET  /healthz         the process lives
    GET  /readyz          it takes requests
    GET  /metrics         for Prometheus
    GET  /debug/slow      why the slowest of the last requests were slow
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from importlib.metadata import version
from time import perf_counter_ns
from typing import Any

import msgspec

from teamster.serve.decompression import decompressed
from teamster.serve.endpoint import Endpoint
from teamster.serve.errors import (
    NotFound,
    NotReady,
    Refused,
    TooLarge,
    Unauthorized,
    WrongMethod,
    told,
)
from teamster.serve.exchange import Dialect, Incoming
from teamster.serve.open_inference.routes import ROOT, Routes
from teamster.serve.request import Reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TEXT = b"text/plain; charset=utf-8"


class Application:
    """Serves endpoints.

    Args:
        endpoints: by path.
        most_bytes: of a body.
        token: that a client has to bring as ``Authorization: Bearer``; None for no such.

    Attributes:
        failure: why it could not start; None where it could.
    """

    def __init__(
        self, endpoints: Mapping[str, Endpoint], most_bytes: int, token: str | None = None
    ) -> None:
        self._endpoints = endpoints
        self._most_bytes = most_bytes
        self._token = None if token is None else f"Bearer {token}".encode()
        self._routes = Routes(endpoints.values(), version("teamster"))
        self._started: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None
        self._pages: dict[str, Callable[[], Reply]] = {
            "/": self._about,
            "/healthz": lambda: Reply(200, b"ok\n", _TEXT),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/debug/slow": self._slow,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    # --- a request --------------------------------------------------------------------------------

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        came_ns = perf_counter_ns()
        method: str = scope["method"]
        try:
            answer = await self._answer(scope, method, receive, came_ns)
        except _Gone:
            return
        except Refused as error:
            answer = told(error)
        headers = [(b"content-type", answer.content_type), *answer.headers]
        if answer.parts is None:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.parts is not None:
            await _send_parts(answer.parts, send)
            return
        body = b"" if method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, method: str, receive: Receive, came_ns: int) -> Reply:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        endpoint = self._endpoints.get(path)
        if endpoint is None and (path == ROOT or path.startswith(f"{ROOT}/")):
            return await self._open_inference(scope, path, method, receive, came_ns)
        if endpoint is None:
            return self._page(path, method)
        if method != "POST":
            return _other_method("POST")
        return await self._computed(endpoint, None, scope, receive, came_ns)

    async def _computed(
        self,
        endpoint: Endpoint,
        dialect: Dialect | None,
        scope: Message,
        receive: Receive,
        came_ns: int,
    ) -> Reply:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._check_token(headers)
        body = await self._body(headers, receive)
        if "content-encoding" in headers:
            body = decompressed(body, headers["content-encoding"].lower(), self._most_bytes)
        if self._started is None:  # mounted into an application that runs no lifespan of ours
            await self.start()
        incoming = Incoming(headers, lambda: _until_gone(receive), came_ns)
        return await endpoint.answer(body, incoming, dialect)

    async def _open_inference(
        self, scope: Message, path: str, method: str, receive: Receive, came_ns: int
    ) -> Reply:
        try:
            found = self._routes.find(path, method)
            if isinstance(found, Reply):
                return found
            return await self._computed(found.endpoint, found.rows, scope, receive, came_ns)
        except Refused as error:
            return self._routes.told(error)

    def _page(self, path: str, method: str) -> Reply:
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(self._endpoints)
            raise NotFound(f"there is nothing under {path}; models: {known}")
        if method not in ("GET", "HEAD"):
            return _other_method("GET, HEAD")
        return page()

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self._token is None:
            return
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._token):
            raise Unauthorized("Authorization: Bearer and the server's token are needed")

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most_bytes:
            raise TooLarge(f"the body has {length} bytes, of at most {self._most_bytes}")
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most_bytes:
                raise TooLarge(f"the body has more than {self._most_bytes} bytes")
            if not message.get("more_body"):
                return b"".join(parts)

    # --- pages ------------------------------------------------------------------------------------

    def _about(self) -> Reply:
        models = {
            path: {"model": each.name, "ready": each.is_ready, "plan": str(each.plan)}
            for path, each in self._endpoints.items()
        }
        return Reply(200, msgspec.json.encode({"models": models}))

    def _ready(self) -> Reply:
        missing = [each.name for each in self._endpoints.values() if not each.is_ready]
        if missing:
            return told(NotReady(f"not ready: {', '.join(missing)}"))
        return Reply(200, b"ready\n", _TEXT)

    def _metrics(self) -> Reply:
        text = "".join(
            each.metrics.text(each.scheduler.in_flight) for each in self._endpoints.values()
        )
        return Reply(200, text.encode(), b"text/plain; version=0.0.4; charset=utf-8")

    def _slow(self) -> Reply:
        models = {path: each.why() for path, each in self._endpoints.items()}
        return Reply(200, msgspec.json.encode({"models": models}))

    # --- start and end ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Have all models ready; several may ask for it."""
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        await asyncio.shield(self._started)

    async def _start(self) -> None:
        try:
            for each in self._endpoints.values():
                await each.start()
        except BaseException as error:
            self.failure = error
            for each in self._endpoints.values():
                each.close()
            raise

    async def stop(self) -> None:
        """Answer all that were let in, and end the replicas."""
        for each in self._endpoints.values():
            await each.drain()
            each.close()
        self._started = None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except Exception as error:
                    self._started = None
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Gone(Exception):
    """The client has gone while it sent its body: there is nobody to answer."""


async def _send_parts(parts: AsyncGenerator[bytes, None], send: Send) -> None:
    try:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await parts.aclose()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _other_method(allowed: str) -> Reply:
    answer = told(WrongMethod(f"this path is for {allowed}"))
    return answer._replace(headers=((b"allow", allowed.encode()),))
