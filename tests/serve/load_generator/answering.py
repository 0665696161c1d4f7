# SPDX-License-Identifier: BSD-3-Clause
"""A server of a few lines, that does what a test says with each request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

Answer = Callable[[bytes], Awaitable[bytes | None]]
"""Of a request's body, the whole answer; None to close the connection without one."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def status(number: int, *, keep: bool = True) -> bytes:
    more = "" if keep else "connection: close\r\n"
    return f"HTTP/1.1 {number} X\r\n{more}content-length: 0\r\n\r\n".encode()


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    server = _Server(answer)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert server.up.wait(10)
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.stop()
        thread.join()


class _Server:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._talks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.up = threading.Event()

    async def serve(self) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self.stop = lambda: loop.call_soon_threadsafe(end.set)
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.up.set()
        await end.wait()
        server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        for writer in self._writers:  # a talk that had not begun has not closed its own
            writer.close()
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int((head.partition(b"content-length: ")[2] or b"0").split(b"\r\n")[0])
        found = await self._answer(await reader.readexactly(length))
        if found is None:
            return False
        writer.write(found)
        return b"connection: close" not in found
