# SPDX-License-Identifier: BSD-3-Clause
"""The application behind a socket: uvicorn's server, with signals that end it in order.

::

    SIGTERM, SIGINT   not ready --> no more connections --> answer those let in --> exit code 0
    once more         end at once
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from teamster.errors import UsageError
from teamster.serve.application import Application

_START_S = 60.0  # how long models may take to be ready in the background
_END_S = 30.0  # how long answers may take that are under way at the end


class _Uvicorn(uvicorn.Server):
    """As uvicorn's, but a signal is not raised once more when all is over."""

    on_start: Callable[[], object] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def config_of(app: Application, **options: Any) -> uvicorn.Config:
    """How uvicorn runs it.

    Args:
        app: to run.
        **options: of uvicorn's.
    """
    return uvicorn.Config(
        app,
        lifespan="on",
        access_log=False,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        date_header=True,
        timeout_graceful_shutdown=int(_END_S),
        **options,
    )


def not_started(error: BaseException) -> UsageError:
    """Why a server has not started, for people."""
    return UsageError(f"the server could not start: {error}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections.

    Raises:
        UsageError: the port is taken, or the host is not this one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}:{port}: {reason}; take another port") from None
    return found


def url_of(listening: socket.socket) -> str:
    """Where clients find it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(
    app: Application, listening: socket.socket, on_start: Callable[[], object], **options: Any
) -> None:
    """Serve until a signal ends it.

    Args:
        app: to serve.
        listening: a socket of `listen`.
        on_start: called when it takes requests.
        **options: of uvicorn's.

    Raises:
        UsageError: a model could not be made ready.
    """
    server = _Uvicorn(config_of(app, **options))
    server.on_start = on_start
    with listening:
        server.run(sockets=[listening])
    if app.failure is not None:
        raise not_started(app.failure) from app.failure


class Background:
    """A server in a thread, for notebooks and tests.

    Args:
        app: to serve.
        listening: a socket of `listen`.
        **options: of uvicorn's.

    Attributes:
        url: where it is.

    Raises:
        UsageError: a model could not be made ready.
    """

    def __init__(self, app: Application, listening: socket.socket, **options: Any) -> None:
        self.url = url_of(listening)
        self._app, self._server = app, _Uvicorn(config_of(app, **options))
        self._error: BaseException | None = None
        self._up = threading.Event()
        self._server.on_start = self._up.set
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="teamster-server", daemon=True
        )
        self._thread.start()
        if not self._up.wait(_START_S):
            self._error = TimeoutError(f"its models are not ready after {_START_S:.0f} s")
        if self._error is not None:
            self.close()
            raise not_started(self._error) from self._error

    def _run(self, listening: socket.socket) -> None:
        try:
            factory = self._server.config.get_loop_factory()
            with listening, asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._server.serve(sockets=[listening]))
        except BaseException as error:
            self._error = error
        self._error = self._app.failure or self._error
        self._up.set()

    def close(self) -> None:
        """End it when those that were let in have their answers."""
        self._server.should_exit = True
        self._thread.join(_END_S)

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
