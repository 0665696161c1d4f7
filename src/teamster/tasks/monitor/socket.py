# SPDX-License-Identifier: BSD-3-Clause
"""A window through which others can look at a program that runs.

``teamster top`` asks, and gets a snapshot of its pools.

::

    a call that lasts a second --> socket, mode 0600, in the runtime folder <-- teamster top
                                     a thread that sleeps in accept()

Where no user looks, nothing happens: the thread never wakes up. The end of the program takes the
socket away; after a ``kill -9`` a shell does, which waits for the end of a pipe and for nothing
else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from teamster import lifetime
from teamster.machine.descriptors import Descriptor, OwnedSocket
from teamster.machine.own_threads import own_thread
from teamster.spine.transport.rendezvous import LONGEST_PATH, check_folder, guard, runtime_folder
from teamster.spine.transport.sockets import SILENTLY
from teamster.spine.workers.worker_info import is_inside_worker

_JOIN_S = 1.0  # an answer is written in milliseconds
_BREATH_S = 0.1  # until another descriptor may be free


class MonitorSocket:
    """The socket of this program."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self._pid = os.getpid()
        # That of the listener, and of each program that looks
        self._sockets: dict[OwnedSocket, threading.Thread] = {}
        self._guard: Descriptor | None = None
        self.path = ""

    def open(self) -> None:
        """Let others look from now on; where the folder cannot be had, none can."""
        folder = runtime_folder()
        with contextlib.suppress(FileExistsError, OSError):
            os.mkdir(folder, 0o700)
        path = f"{folder}/{self._pid}.sock"
        if not check_folder(folder) or len(os.fsencode(path)) > LONGEST_PATH:
            return
        listener = OwnedSocket.of(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            # Until it can be asked; a program that had this number before may have left one
            hidden = f"{folder}/.{self._pid}"
            for old in (hidden, path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(old)
            self._guard = guard(path)
            listener.bind(hidden)
            os.chmod(hidden, 0o600)
            listener.listen()
            os.rename(hidden, path)
            self.path = path
            self._attend(self._serve, listener)
        except (OSError, RuntimeError):  # the latter: there is no thread to be had
            self._sockets.clear()
            listener.close()
            self.close()

    def _attend(self, serve: Callable[[OwnedSocket], None], end: OwnedSocket) -> None:
        thread = self._sockets[end] = own_thread(
            threading.Thread(target=serve, args=(end,), name="teamster-window", daemon=True)
        )
        thread.start()

    def _serve(self, listener: OwnedSocket) -> None:
        while listener.is_whole():
            try:
                connection, _ = listener.accept()
            except OSError:
                if not self.path:  # closed
                    return
                time.sleep(_BREATH_S)  # no descriptor to be had
                continue
            with contextlib.suppress(RuntimeError):
                self._attend(self._answer, OwnedSocket.of(connection))

    def _answer(self, connection: OwnedSocket) -> None:
        """A line for each line that comes."""
        # Whatever goes wrong here is nothing that the program should hear of: the one that looks
        # asks again.
        with connection, contextlib.suppress(Exception), connection.makefile("rb") as stream:
            for _ in stream:
                connection.sendall(json.dumps(self._snapshot()).encode() + b"\n", SILENTLY)
        self._sockets.pop(connection, None)

    def let_go(self) -> None:
        """Close what a forked copy of the program has of it."""
        for end in self._sockets:
            end.close()
        if self._guard is not None:
            self._guard.close()

    def close(self) -> None:
        """Take the socket away."""
        if self._pid != os.getpid():  # a forked copy of the program: it is not its own
            return
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.path = ""
        for end, thread in list(self._sockets.items()):
            with contextlib.suppress(OSError):
                if end.is_whole():
                    end.shutdown(socket.SHUT_RDWR)  # which wakes the thread up; closing would not
            thread.join(_JOIN_S)  # code that forks next counts threads
            end.close()
        self._sockets.clear()
        if self._guard is not None:
            self._guard.close()


_socket: MonitorSocket | None = None
_lock = threading.RLock()  # a pool may be collected, and end, in the middle of it
_closed_for_good = False


def announce() -> None:
    """A call takes its time: others may want to look."""
    global _socket
    if _socket is not None or _closed_for_good or is_inside_worker():
        return
    from teamster.tasks.monitor.snapshot import take_snapshot

    with _lock:
        if _socket is None:
            lifetime.in_forked_copy(_forget)
            lifetime.end_at_exit(retire)
            _socket = MonitorSocket(take_snapshot)
            _socket.open()


def shut() -> None:
    """Close the window, and open none any more.

    The program forks, which is safe without threads only.
    """
    global _closed_for_good
    with _lock:
        _closed_for_good = True
        if _socket is not None:
            _socket.close()


def retire() -> None:
    """The last pool has ended: close the window until another call lasts.

    That is a thread less for a program that forks.
    """
    global _socket
    with _lock:
        window, _socket = _socket, None
        if window is not None:
            window.close()


def _forget() -> None:
    """In a forked copy of the program: let go of the window.

    The window is the original's, and what the copy has of it would keep that open.
    """
    global _socket, _lock
    if _socket is not None:
        _socket.let_go()
    _socket, _lock = None, threading.RLock()
