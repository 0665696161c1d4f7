# SPDX-License-Identifier: BSD-3-Clause
"""A web server on loopback that is as slow as one far away.

It runs in a process of its own, so that its GIL is not ours.

::

    teamster lab                          python -m teamster.cli.lab.server
      stdin of the server, held open ---> read until end-of-file, then exit
      port                           <--- first line of stdout
      GET /page/7                    ---> 80 ms of silence, then 64 KiB in four parts, 5 ms apart

The parent's end closes with the parent, however it dies: the kernel sees to that. So the server
never outlives it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from teamster.errors import TeamsterError

DELAY_S = 0.080
"""Seconds until the first byte of an answer; about a round trip across an ocean."""

PAUSE_S = 0.005
"""Seconds between two parts of an answer."""

_PART = b"x" * 16_384  # bytes: what a slow line brings at once
_PARTS = 4  # so that a download waits several times
_END_S = 5.0  # it has nothing to finish


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs.

    Attributes:
        address: As in ``http://127.0.0.1:40123``.
        pid: Of its process.

    Example:
        >>> Served("http://127.0.0.1:1", 4711).pid
        4711
    """

    address: str
    pid: int


@contextmanager
def serve() -> Iterator[Served]:
    """Run a server while a ``with`` block runs.

    Yields:
        Where it is.

    Raises:
        TeamsterError: it did not start.

    Example:
        >>> with serve() as server:
        ...     server.address.rpartition(":")[0]
        'http://127.0.0.1'
    """
    # A session of its own: Ctrl-C in the terminal is for us, and our end is its end. -P: no file
    # beside us shadows a module.
    command = [sys.executable, "-P", "-m", "teamster.cli.lab.server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else b""
            if not port:
                raise TeamsterError(
                    f"the web server of the lab ended before it began, with code {process.wait()}"
                )
            yield Served(f"http://127.0.0.1:{int(port)}", process.pid)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # "auto" may come with 64 threads at once
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(DELAY_S)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(_PARTS * len(_PART)))
        self.end_headers()
        for part in range(_PARTS):
            if part:
                time.sleep(PAUSE_S)
            self.wfile.write(_PART)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Answer; a client that went away before the end does not matter."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True


def _serve_until_orphaned() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    while os.read(0, 4096):  # nothing is ever sent; what comes is the end
        pass
    os._exit(0)  # at once, whichever client is being answered


if __name__ == "__main__":
    _serve_until_orphaned()
