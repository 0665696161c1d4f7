# SPDX-License-Identifier: BSD-3-Clause
"""How a worker process comes to life: forked from the fork server, spawned by it, or forked from the program itself."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from time import perf_counter_ns
from typing import Any

from teamster.errors import StartMethodRefused
from teamster.machine.native_threads import environment
from teamster.spine.transport.channel import SILENTLY, Channel, pair
from teamster.spine.transport.parcel import Parcel
from teamster.spine.workers import streams
from teamster.spine.workers.nursery import interpreter_flags, kill_group, the_nursery


class Setup:
    """What a worker is told first: whose environment it lives in, and the initializer to run."""

    def __init__(self, start_method: str, initializer: Parcel, native_threads: int) -> None:
        self.start_method = start_method
        self.initializer = initializer
        self._native_threads = native_threads

    def settings(self) -> dict[str, Any]:
        """The state of the program now, in a form that travels."""
        return {
            "asked_ns": perf_counter_ns(),
            "environ": {**os.environ, **environment(self._native_threads)},
            "native_threads": self._native_threads,
            "path": [_absolute(entry) for entry in sys.path],
            "argv": list(sys.argv),
            "folder": _folder(),
            "main": None if self.start_method == "fork" else _describe_main(),
            **streams.snapshot(),
        }


def _describe_main() -> dict[str, Any]:
    """What ``__main__`` knows of itself; of its spec the name and the origin."""
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    told = {name: main.get(name) for name in ("__package__", "__doc__")}
    if (file := main.get("__file__")) is not None:
        told["__file__"] = file
    spec = main.get("__spec__")
    told["__spec__"] = None if spec is None else {"name": spec.name, "origin": spec.origin}
    return told


def _absolute(entry: str) -> str:
    """An entry of ``sys.path`` as the import system understands it: a relative one was meant from where it was first used."""
    finder = sys.path_importer_cache.get(entry) if entry and not os.path.isabs(entry) else None
    return getattr(finder, "path", entry)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


class Starter:
    """Starts workers and knows how they ended."""

    def __init__(self, method: str) -> None:
        if method == "fork":
            refuse_unsafe_fork()
        self._method = method
        self.control: Channel = the_nursery().connect()
        self.generation = 0  # how many servers died under it
        self._forked: dict[int, int] = {}  # token -> pid, of those forked from this process

    def start(self, token: int, theirs: socket.socket, slate_descriptor: int) -> None:
        """Start a worker on its end of the channel, which is closed here."""
        if self._method == "fork":
            self._fork(token, theirs, slate_descriptor)
            return
        executable = _spawn_command() if self._method == "spawn" else None
        descriptors = (theirs.detach(), os.dup(slate_descriptor), _standard(1), _standard(2))
        try:
            self.control.put(("spawn", token, executable), descriptors)
        except OSError:
            self.reconnect()
            self.control.put(("spawn", token, executable), descriptors)

    def _fork(self, token: int, theirs: socket.socket, slate_descriptor: int) -> None:
        refuse_unsafe_fork()
        permit, grant = pair()
        pid = os.fork()
        if pid == 0:
            grant.close()
            _live_as_fork(permit, theirs, slate_descriptor)
        theirs.close()
        permit.close()
        self._forked[token] = pid
        self.control.put(("guard", pid))
        # A parent that was killed between the fork and the guard left a worker that nobody knew of; now it waits for this.
        with contextlib.suppress(OSError):  # somebody killed it
            grant.send(b"1", SILENTLY)
        grant.close()

    def reconnect(self) -> None:
        """The fork server died: its workers die with it, the next ones come from a new server."""
        self.control.close()
        self.control = the_nursery().connect()
        self.generation += 1

    def kill(self, token: int) -> None:
        """End a worker at once."""
        if token in self._forked:
            kill_group(self._forked[token])
            return
        with contextlib.suppress(OSError):  # the server is gone, and so is the worker
            self.control.put(("kill", token))

    def status(self, token: int) -> tuple[int, int] | None:
        """Exit status and peak memory (bytes) of a worker that this process forked; None while it lives, or is another's."""
        if token not in self._forked:
            return None
        try:
            pid, status, usage = os.wait4(self._forked[token], os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        kill_group(pid)
        self.control.put(("unguard", self._forked.pop(token)))
        return status, usage.ru_maxrss * 1024

    def close(self) -> None:
        """Let go of the server, which kills whatever is left."""
        for pid in self._forked.values():
            kill_group(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._forked.clear()
        self.control.close()


def _spawn_command() -> list[str]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from teamster.spine.workers.process_main import main; main(3, 4)"
    return [sys.executable, *interpreter_flags(), "-c", code, "teamster-worker"]


def _standard(number: int) -> int:
    """A duplicate of a standard descriptor; /dev/null where the program has closed it.

    A number that was closed is given to whatever is opened next. Python opens nothing that children inherit, and a standard stream
    is there to be inherited: that tells them apart.
    """
    return os.dup(number) if os.get_inheritable(number) else os.open(os.devnull, os.O_WRONLY)


def _live_as_fork(permit: socket.socket, theirs: socket.socket, slate_descriptor: int) -> None:
    try:
        os.setpgid(0, 0)
        if not permit.recv(1):
            os._exit(0)
        permit.close()
        atexit._clear()  # what the program registered is the program's to run
        signal.set_wakeup_fd(-1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        from teamster.spine.workers.process_main import main
        from teamster.spine.workers.seeds import scatter_state

        scatter_state()
        main(theirs.detach(), slate_descriptor)
    finally:
        os._exit(1)


def refuse_unsafe_fork() -> None:
    """Raise where a fork of this process would hang or corrupt.

    Raises:
        StartMethodRefused: CUDA is initialised, Python threads run, or OpenMP threads do.
    """
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    instead = "leave start_method out (the default is a fork server), or fork before that"
    if cuda is not None and cuda.is_initialized():
        raise StartMethodRefused(f"start_method='fork' after CUDA was initialised: a forked CUDA context cannot be used; {instead}")
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if others:
        recorded = "teamster-recorder" in others
        hint = " (a recording is under way: open the pool before it)" if recorded else ""
        raise StartMethodRefused(
            f"start_method='fork' while other threads run ({', '.join(others[:3])}): a lock that one of them holds would never"
            f" be released in the worker{hint}; {instead}"
        )
    if _native_threads() > 1 and _openmp_loaded():
        raise StartMethodRefused(
            f"start_method='fork' after OpenMP has started its threads: a parallel region in the worker would hang; {instead}"
        )


def _native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def _openmp_loaded() -> bool:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            mapped = maps.read()
    except OSError:
        return False
    return any(name in mapped for name in ("libgomp", "libiomp", "libomp"))
