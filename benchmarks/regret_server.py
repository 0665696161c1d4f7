# SPDX-License-Identifier: BSD-3-Clause
"""The loopback HTTP server of the regret suite: every answer is late."""

from __future__ import annotations

import asyncio
import multiprocessing as mp
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

_DELAY_S = 0.05
_BODY = bytes(20_000)


@contextmanager
def slow_server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    context = mp.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(sender,), daemon=True)
    process.start()
    sender.close()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}/"
    finally:
        process.terminate()
        process.join()


def serve(port: Connection) -> None:
    """Answer each request after a delay, on a loopback port that is sent first, until the process
    is ended.
    """
    asyncio.run(_serve(port))


async def _serve(port: Connection) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1_024)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(_DELAY_S)
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY)
    await writer.drain()
    writer.close()
