# SPDX-License-Identifier: BSD-3-Clause
r"""The fork server: a small clean process from which workers are forked, and which sees to it that none outlives its pool.

::

    program ==root==> fork server          one for the program, started with the first process pool
       |                 |  \\
       pool ==control====+   fork --> worker      ("spawn", token, ...)  -->  ("born", token, pid)
       pool ==control====+   fork --> worker      ("kill", token)        -->  ("died", token, status, peak_bytes)
            \\__________channel__________/         control ends: its workers are killed at once

Why a server: a fork of the user's process copies locks that other threads hold and a CUDA context that cannot be copied; this
one has a single thread and no library loaded. Why it is also the guard: the kernel closes its sockets however the program ends
(``kill -9`` included), and it is never busy with a user's code, so it always notices. Each worker leads a process group of its
own; what a task started goes down with it, and a terminal's Ctrl-C reaches the program alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any

from teamster.spine.transport.channel import Channel, pair

_KEPT_FROM = 3
_MARKER = "teamster-forkserver"
_PR_SET_PDEATHSIG = 1


# --- the program's side ----------------------------------------------------------------------------------------------------


class Nursery:
    """The one fork server of this program."""

    def __init__(self) -> None:
        self._root: Channel | None = None
        self._pid = -1
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def connect(self) -> Channel:
        """A control channel for one pool; starts the server when there is none."""
        fill_standard_numbers()
        ours, theirs = pair()
        with self._lock:
            for _ in range(2):
                root = self._running()
                try:
                    root.put(("connect",), (os.dup(theirs.fileno()),))
                    break
                except OSError:  # somebody killed the server
                    self._forget()
        theirs.close()
        return Channel(ours, blocking=False)

    def warm_up(self) -> None:
        """Start the server if there is none; it comes up while the caller goes on."""
        with self._lock:
            self._running()

    def _running(self) -> Channel:
        if self._owner != os.getpid():  # a forked child of the program: the server belongs to the parent
            self._root, self._owner = None, os.getpid()
        return self._root or self._start()

    def _start(self) -> Channel:
        fill_standard_numbers()
        ours, theirs = pair()
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({_KEPT_FROM})"
        moves = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), _KEPT_FROM),
        ]
        command = [sys.executable, *interpreter_flags(), "-S", "-c", code, _MARKER]
        self._pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=moves, setpgroup=0)
        theirs.close()
        self._root = Channel(ours, blocking=True)
        return self._root

    def _forget(self) -> None:
        if self._root is not None:
            self._root.close()
            self._root = None
        self._reap()

    def _reap(self) -> None:
        if self._pid > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = -1

    def close(self) -> None:
        """End the server and with it every worker that is left; at the exit of the program."""
        with self._lock:
            if self._owner == os.getpid():
                self._forget()

    @property
    def pid(self) -> int:
        """Process id of the server, -1 when none runs."""
        return self._pid


def fill_standard_numbers() -> None:
    """Open /dev/null as 0, 1 and 2 where those are closed.

    A daemon closes them, and whatever is opened next gets their numbers. A channel that is also number 1 receives what is printed.
    (A test found the output of a task in the control channel of the fork server.)
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _KEPT_FROM:
        pass
    os.close(descriptor)


def interpreter_flags() -> list[str]:
    """The flags this interpreter was started with, for another one."""
    import subprocess

    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]


_nursery: Nursery | None = None


def the_nursery() -> Nursery:
    """The fork server of this program, not necessarily started."""
    global _nursery
    if _nursery is None:
        import atexit

        _nursery = Nursery()
        atexit.register(_nursery.close)
    return _nursery


# --- the server's side -----------------------------------------------------------------------------------------------------


class _Pool:
    """One control channel and the workers that it asked for."""

    def __init__(self, control: Channel) -> None:
        self.control = control
        self.workers: dict[int, int] = {}  # token -> pid
        self.guarded: set[int] = set()  # workers that the program forked itself


class Server:
    """Forks, reaps and kills; runs nobody's code."""

    def __init__(self, root: Channel) -> None:
        self._root = root
        self._pools: dict[int, _Pool] = {}
        self._owners: dict[int, tuple[_Pool, int]] = {}  # pid -> pool and token
        self._poll = select.poll()
        self._poll.register(root.fileno(), select.POLLIN)
        self._signals = self._watch_children()

    def _watch_children(self) -> socket.socket:
        wake_read, wake_write = socket.socketpair()
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write.detach(), warn_on_full_buffer=False)
        self._poll.register(wake_read.fileno(), select.POLLIN)
        return wake_read

    def run(self) -> None:
        """Serve until the program is gone."""
        while True:
            ready = self._poll.poll(0) or self._poll.poll(None if self._preload() else 0)
            for descriptor, _ in ready:
                if descriptor == self._signals.fileno():
                    self._signals.recv(4096)
                    self._reap()
                elif descriptor == self._root.fileno():
                    if not self._read_root():
                        return
                elif descriptor in self._pools:
                    self._read_pool(self._pools[descriptor])

    def _preload(self) -> bool:
        """With nothing to do, load what unpickles functions by value: workers forked from now on have it."""
        if self._owners and "cloudpickle" not in sys.modules:
            import cloudpickle  # noqa: F401

            return False
        return True

    def _read_root(self) -> bool:
        messages = self._root.take()
        if messages is None:
            return False
        for _ in messages:
            control = Channel(socket.socket(fileno=self._root.attached.pop(0)), blocking=True)
            self._pools[control.fileno()] = _Pool(control)
            self._poll.register(control.fileno(), select.POLLIN)
        return True

    def _read_pool(self, pool: _Pool) -> None:
        messages = pool.control.take()
        if messages is None:
            self._end_pool(pool)
            return
        for message in messages:
            if message[0] == "spawn":
                self._spawn(pool, *message[1:])
            elif message[0] == "guard":
                pool.guarded.add(message[1])
            elif message[0] == "unguard":
                pool.guarded.discard(message[1])
            elif message[1] in pool.workers:
                kill_group(pool.workers[message[1]])

    def _spawn(self, pool: _Pool, token: int, executable: list[str] | None) -> None:
        descriptors = [pool.control.attached.pop(0) for _ in range(4)]  # channel, slate, stdout, stderr
        pid = os.fork()
        if pid == 0:
            become_worker(descriptors, executable)
        for descriptor in descriptors:
            os.close(descriptor)
        pool.workers[token] = pid
        self._owners[pid] = pool, token
        self._tell(pool, ("born", token, pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            kill_group(pid)  # what its tasks started
            pool, token = self._owners.pop(pid, (None, 0))
            if pool is not None:
                del pool.workers[token]
                self._tell(pool, ("died", token, status, usage.ru_maxrss * 1024))

    def _tell(self, pool: _Pool, message: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):  # the pool is closing; its end of file comes next
            pool.control.put(message)

    def _end_pool(self, pool: _Pool) -> None:
        self._poll.unregister(pool.control.fileno())
        del self._pools[pool.control.fileno()]
        self._learn_guarded(pool)
        for pid in [*pool.workers.values(), *pool.guarded]:
            kill_group(pid)
        pool.control.close()

    def _learn_guarded(self, pool: _Pool) -> None:
        """Read what the program could still say: it may have died right after it forked a worker and told of it."""
        pool.control.set_blocking(False)
        with contextlib.suppress(BlockingIOError):
            while (messages := pool.control.take()) is not None:
                pool.guarded.update(message[1] for message in messages if message[0] == "guard")

    def end(self) -> None:
        """Kill every worker of every pool."""
        for pool in list(self._pools.values()):
            self._end_pool(pool)


def serve(root_descriptor: int) -> None:
    """Be the fork server; never returns."""
    try:
        fill_standard_numbers()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        from teamster.spine.workers import process_main  # noqa: F401 - loaded once, here, for every worker

        server = Server(Channel(socket.socket(fileno=root_descriptor), blocking=True))
        try:
            server.run()
        finally:
            server.end()
    finally:
        os._exit(0)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads, or to `pid` where it had no time to found one."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def become_worker(descriptors: Iterable[int], executable: list[str] | None) -> None:
    """In a fresh child of the server: keep nothing that is not the worker's, and live as one. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        _place(list(descriptors))
        os.closerange(_KEPT_FROM + 2, _highest_descriptor())
        _die_with_parent()
        if executable is not None:
            os.execv(executable[0], executable)
        from teamster.spine.workers.process_main import main

        main(_KEPT_FROM, _KEPT_FROM + 1)
    finally:
        os._exit(1)


def _place(descriptors: list[int]) -> None:
    """Move channel and slate to 3 and 4, stdout and stderr to 1 and 2; sources may stand where others have to go."""
    import fcntl

    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in descriptors]
    for source, target in zip(high, (_KEPT_FROM, _KEPT_FROM + 1, 1, 2), strict=True):
        os.dup2(source, target)


def _highest_descriptor() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    except OSError:
        return os.sysconf("SC_OPEN_MAX")


def _die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the server dies; the end of file on the channel is what counts everywhere else.

    The signal is bound to the *thread* that forked and races with the start; the server has one thread, and a worker whose
    server died before this line finds its channel closed.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass
