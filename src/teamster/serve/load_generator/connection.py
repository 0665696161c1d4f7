# SPDX-License-Identifier: BSD-3-Clause
"""A client's connection: one request at a time, kept alive, with as little work as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from teamster.errors import UsageError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        host, port: of the server.
        is_secure: whether by TLS.
        path: with the query.
        url: as it was given.

    Example:
        >>> Target.of("localhost:8000/predict").port
        8000
    """

    host: str
    port: int
    is_secure: bool
    path: str
    url: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Read an address.

        Raises:
            UsageError: it is none of HTTP.
        """
        address = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(f"{url} is no address, as http://localhost:8000/predict")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        is_secure = parts.scheme == "https"
        return cls(parts.hostname, port or _PORTS[parts.scheme], is_secure, path, address)

    def request(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The bytes of a request: POST, or GET where there is no body.

        Args:
            body: whole.
            headers: more than those of every request.
        """
        lines = [
            f"{'POST' if body else 'GET'} {self.path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            "user-agent: teamster-load",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if body:
            lines.append(f"content-length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Owner(Protocol):
    """Who is told what becomes of a connection's requests."""

    def answered(self, connection: Connection, status: int) -> None:
        """The request of a connection has its answer."""

    def broke(self, connection: Connection, reason: str) -> None:
        """A connection has ended; where it had a request, that has no answer."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        owner: is told.

    Attributes:
        is_busy: whether a request has no answer yet.
        intended: when it should have been sent, for the owner.
        number: of requests that it has sent.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_busy = False
        self.intended = 0.0
        self.number = 0

    def send(self, request: bytes, intended: float) -> None:
        """One request; the one before has its answer.

        Args:
            request: its bytes.
            intended: when it should have been sent.
        """
        assert self._transport is not None
        self.is_busy, self.intended = True, intended
        self.number += 1
        self._transport.write(request)

    def close(self) -> None:
        """End it; nobody is told."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether it can send."""
        return self._transport is not None

    # --- of asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no common class

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"no answer of HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._end(str(exc) if exc is not None else "the server has closed the connection")

    def _end(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._owner.broke(self, reason)

    # --- of httptools -----------------------------------------------------------------------------

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue
            return
        if not self._parser.should_keep_alive():
            self.close()
        self.is_busy = False
        self._owner.answered(self, status)
