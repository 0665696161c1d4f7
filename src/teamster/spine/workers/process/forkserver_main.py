# SPDX-License-Identifier: BSD-3-Clause
"""The fork server itself, which forks, reaps and kills workers (forkserver.py).

It is a process with one thread, and without code of the user's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any

from teamster.machine.descriptors import fill_standard_numbers
from teamster.spine.transport.channel import Channel
from teamster.spine.workers.process import preloading
from teamster.spine.workers.process.allocator import keep_freed_memory
from teamster.spine.workers.process.offspring import KEPT_FROM, kill_group
from teamster.spine.workers.process.resource_tracker import TrackerOnDemand

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# The numbers of a worker's channel, scoreboard, tracker, stdout and stderr
_PLACES = (KEPT_FROM, KEPT_FROM + 1, KEPT_FROM + 2, 1, 2)


class _Pool:
    """One control channel and the workers that it asked for."""

    def __init__(self, control: Channel) -> None:
        self.control = control
        self.workers: dict[int, int] = {}  # token -> pid
        self.guarded: set[int] = set()  # workers that the program forked itself


class ForkLoop:
    """Forks, reaps and kills; runs no code of the user's."""

    def __init__(self, root: Channel) -> None:
        self._root = root
        self._pools: dict[int, _Pool] = {}
        self._owners: dict[int, tuple[_Pool, int]] = {}  # pid -> pool and token
        self._poll = select.poll()
        self._poll.register(root.fileno(), select.POLLIN)
        self._signals = self._watch_children()
        self._tracker = TrackerOnDemand()
        self._poll.register(self._tracker.fileno(), select.POLLIN)

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
                elif descriptor == self._tracker.fileno():
                    self._poll.unregister(descriptor)
                    self._tracker.start()
                    for pool in self._pools.values():
                        self._tell_of_the_tracker(pool)

    def _preload(self) -> bool:
        """With nothing to do, load what unpickles functions by value.

        Workers forked from now on have it.
        """
        if self._owners and "teamster.spine.transport.by_value.pickler" not in sys.modules:
            from teamster.spine.transport.by_value import pickler as by_value  # noqa: F401

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
            self._tell(self._pools[control.fileno()], ("serving",))
            if self._tracker.runs:
                self._tell_of_the_tracker(self._pools[control.fileno()])
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
            elif message[1] not in pool.workers:
                continue  # it has ended
            elif message[0] == "signal":
                os.kill(pool.workers[message[1]], message[2])
            else:
                kill_group(pool.workers[message[1]])

    def _spawn(self, pool: _Pool, token: int, executable: list[str] | None) -> None:
        descriptors = [pool.control.attached.pop(0) for _ in _PLACES]
        if not stat.S_ISFIFO(os.fstat(descriptors[2]).st_mode):
            # The program has no resource tracker
            os.dup2(self._tracker.writer, descriptors[2], inheritable=False)
        pid = preloading.fork()
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

    def _tell(
        self, pool: _Pool, message: tuple[Any, ...], descriptors: tuple[int, ...] = ()
    ) -> None:
        with contextlib.suppress(OSError):  # the pool is closing; its end of file comes next
            pool.control.put(message, descriptors)

    def _tell_of_the_tracker(self, pool: _Pool) -> None:
        self._tell(pool, ("tracker",), (os.dup(self._tracker.writer),))

    def _end_pool(self, pool: _Pool) -> None:
        self._poll.unregister(pool.control.fileno())
        del self._pools[pool.control.fileno()]
        self._learn_guarded(pool)
        for pid in [*pool.workers.values(), *pool.guarded]:
            kill_group(pid)
        pool.control.close()

    def _learn_guarded(self, pool: _Pool) -> None:
        """Read what the program could still say.

        It may have died right after it forked a worker and told of it.
        """
        pool.control.set_blocking(False)
        with contextlib.suppress(BlockingIOError):
            while (messages := pool.control.take()) is not None:
                pool.guarded.update(message[1] for message in messages if message[0] == "guard")

    def end(self) -> None:
        """Kill every worker of every pool."""
        for pool in list(self._pools.values()):
            self._end_pool(pool)


def serve(root_descriptor: int, preload: dict[str, str | None] | None = None) -> None:
    """Be the fork server; never returns.

    Args:
        root_descriptor: of the socket to the program.
        preload: modules to import first, with the files that the program has them from.
    """
    try:
        fill_standard_numbers()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        # Loaded once, here, for every worker. multiprocessing costs 7 ms; it has to be told about
        # each worker.
        from teamster.spine.workers.process import child_main, kinship, worker  # noqa: F401

        if preload:
            preloading.import_all(preload, root_descriptor)
        keep_freed_memory()
        server = ForkLoop(Channel(socket.socket(fileno=root_descriptor), blocking=True))
        try:
            server.run()
        finally:
            server.end()
    finally:
        os._exit(0)


def serve_as_copy(root_descriptor: int) -> None:
    """Be a server in a forked copy of the program, of which nothing is kept; never returns."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.dup2(root_descriptor, KEPT_FROM, inheritable=False)
    os.closerange(KEPT_FROM + 1, _highest_descriptor())
    serve(KEPT_FROM)


def become_worker(descriptors: Iterable[int], executable: list[str] | None) -> None:
    """In a fresh child of the server: keep nothing that is not the worker's, and live as one.

    Never returns.
    """
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        _place(list(descriptors))
        os.closerange(KEPT_FROM + 3, _highest_descriptor())
        _die_with_parent()
        if executable is not None:
            os.execv(executable[0], executable)
        from teamster.spine.workers.process.child_main import main

        main(KEPT_FROM, KEPT_FROM + 1, KEPT_FROM + 2)
    finally:
        os._exit(1)


def _place(descriptors: list[int]) -> None:
    """Move each to its number; sources may stand where others have to go."""
    import fcntl

    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, max(_PLACES) + 1) for descriptor in descriptors]
    for source, target in zip(high, _PLACES, strict=True):
        os.dup2(source, target)


def _highest_descriptor() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    except OSError:
        return os.sysconf("SC_OPEN_MAX")


def _die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the server dies.

    The end of file on the channel is what counts everywhere else. The signal is bound to the
    *thread* that forked and races with the start; the server has one thread, and a worker finds
    its channel closed if its server died before this line.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass
