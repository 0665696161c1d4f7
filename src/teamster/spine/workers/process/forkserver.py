# SPDX-License-Identifier: BSD-3-Clause
r"""The fork server, as the program sees it: a small clean process from which workers are forked.

::

    program ==root==> fork server         one for the program, started with the first process pool
       |                 |  \             (forkserver_main.py)
       pool ==control====+   fork --> worker     ("spawn", token, ...) --> ("born", token, pid)
       pool ==control====+   fork --> worker     ("kill", token)       --> ("died", token, status,
            \__________channel__________/                                    peak_bytes)
                                                 control ends: its workers are killed at once

Why a server: a fork of the user's process copies locks that other threads hold and a CUDA context
that cannot be copied; this one has a single thread and no library of the user's loaded. Why it is
also the guard: the kernel closes its sockets however the program ends (``kill -9`` included), and
it is never busy with a user's code, so it always notices. (What a pool asks to have imported
first, `preload`, is imported by a server of its own before that forks any worker.) Each worker
leads a process group of its own; what a task started goes down with it, and a terminal's Ctrl-C
reaches the program alone.

It is the program's interpreter with the program's flags, environment and user, and has loaded
`site` as the program has: what is forked from it is what `multiprocessing` makes. The first message
of a control says that it is there (``"serving"``); what never says so is no Python, and its end is
told with that reason.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from teamster import lifetime
from teamster.errors import WorkerStartError
from teamster.machine.descriptors import fill_standard_numbers
from teamster.spine.transport.channel import Channel
from teamster.spine.transport.sockets import pair
from teamster.spine.workers.process.executable import (
    cannot_start,
    command,
    find_executable,
    patience_s,
)
from teamster.spine.workers.process.offspring import (
    KEPT_FROM,
    end_now,
    wait_for,
)

_MARKER = "teamster-forkserver"
_MOST_TRIES = 3  # it may be killed once or twice; a third time is no accident
_END_S = 2.0  # how long a server that is told to end may take


class ForkServer:
    """A fork server of this program.

    Args:
        preload: modules that it imports before it forks.
    """

    def __init__(self, preload: tuple[str, ...] = ()) -> None:
        self._preload = preload
        self._root: Channel | None = None
        self._pid = -1
        self._owner = os.getpid()
        self._rights: tuple[object, ...] = ()
        self._executable = ""
        self._only_guards = False
        self.generation = 0  # counts the servers
        self._lock = threading.Lock()

    def connect(self, *, to_guard: bool = False) -> Channel:
        """A control channel for one pool; starts the server when there is none.

        Args:
            to_guard: nothing will be started by it, it only sees to the end of what this process
                forks.

        Raises:
            WorkerStartError: there is no Python to start.
        """
        fill_standard_numbers()
        ours, theirs = pair()
        try:
            with self._lock:
                self._send(theirs.fileno(), to_guard)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours, blocking=False)

    def _send(self, descriptor: int, to_guard: bool) -> None:
        for _ in range(_MOST_TRIES):
            root = self._running(to_guard)
            try:
                root.put(("connect",), (os.dup(descriptor),))
                return
            except OSError:  # the server was killed, or never came up
                reason = self._end_of_the_server()
                self._forget()
        raise cannot_start(self._executable, f"was started and {reason}")

    def warm_up(self) -> None:
        """Start the server if there is none; it comes up while the caller goes on.

        Raises:
            WorkerStartError: there is no Python to start.
        """
        with self._lock:
            self._running(False)

    def is_of_this_user(self) -> bool:
        """Whether the program still has the rights that it had when the server was started."""
        return self._rights == _rights()

    def _is_current(self) -> bool:
        """Whether the server is there for the program as it is now.

        It is not of another user, and was not closed by the program.
        """
        return self._root is None or (self.is_of_this_user() and self._root.is_whole())

    def _running(self, to_guard: bool) -> Channel:
        if self._owner != os.getpid():
            # A forked child of the program: the server belongs to the parent
            self._root, self._pid, self._owner = None, -1, os.getpid()
        if not self._is_current() or (self._only_guards and not to_guard):
            self._forget()
        return self._root or self._start(to_guard)

    def _start(self, to_guard: bool) -> Channel:
        fill_standard_numbers()
        ours, theirs = pair()
        self._only_guards = False
        try:
            try:
                self._pid = self._spawn(theirs.fileno())
            except WorkerStartError:
                if not to_guard:
                    raise
                self._pid = _fork_copy(theirs.fileno())
                self._only_guards = True
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._rights = _rights()
        self.generation += 1
        self._root = Channel(ours, blocking=True)
        return self._root

    def _spawn(self, descriptor: int) -> int:
        self._executable = executable = find_executable()
        server = "teamster.spine.workers.process.forkserver_main"
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from {server} import serve; "
            f"serve({KEPT_FROM}, {_origins(self._preload)!r})"
        )
        moves = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, descriptor, KEPT_FROM),
        ]
        arguments = command(executable, code, _MARKER)
        # A program that has blocked SIGCHLD, or ignores it, must not have a server that never hears
        # of its workers' ends.
        clean = [signal.SIGCHLD]
        try:
            return os.posix_spawn(
                executable,
                arguments,
                os.environ,
                file_actions=moves,
                setpgroup=0,
                setsigmask=[],
                setsigdef=clean,
            )
        except OSError as error:
            raise cannot_start(executable, f"does not run ({error.strerror})") from error

    def patience_s(self) -> float:
        """How long the server may take until it answers, in seconds."""
        return patience_s(self._executable)

    def why_silent(self, generation: int) -> WorkerStartError | None:
        """The error for the server of this generation, which has never answered.

        The server is ended if it still tries.

        Returns:
            None when it was killed, or has a successor: that one may answer.
        """
        with self._lock:
            if generation != self.generation or self._pid <= 0:
                return None
            reason = self._end_of_the_server()
            self._forget()
        return cannot_start(self._executable, f"was started and {reason}") if reason else None

    def _end_of_the_server(self) -> str:
        """How it ended, or that it has to be ended; empty when it was killed."""
        pid, self._pid = self._pid, -1
        status = wait_for(pid, 0.2)
        if status is None:
            end_now(pid)
            return "does not answer"
        code = os.waitstatus_to_exitcode(status)
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return ""
        return f"ended with exit code {code}" if code >= 0 else f"crashed with signal {-code}"

    def _forget(self) -> None:
        if self._root is not None:
            self._root.close()
            self._root = None
        if self._pid > 0 and wait_for(self._pid, _END_S) is None:
            end_now(self._pid)
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


def _rights() -> tuple[object, ...]:
    """The user and the groups of the program.

    A server from before a change of user would have the rights of the other one.
    """
    return os.getresuid(), os.getresgid(), os.getgroups()


def _fork_copy(descriptor: int) -> int:
    """A server without an interpreter of its own.

    It is a copy of this process, for what was asked to be copies of it anyway.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        from teamster.spine.workers.process.forkserver_main import serve_as_copy

        serve_as_copy(descriptor)
    finally:
        os._exit(1)


def _origins(names: tuple[str, ...]) -> dict[str, str | None]:
    """Modules by name, and the files that the program has them from, where it has."""
    return {name: getattr(sys.modules.get(name), "__file__", None) for name in names}


_of_the_program: dict[tuple[str, ...], ForkServer] = {}  # by what they have imported


def the_fork_server(preload: tuple[str, ...] = ()) -> ForkServer:
    """The fork server of this program, not necessarily started.

    Args:
        preload: modules that it is to have imported; for each such choice there is one.
    """
    lifetime.end_at_exit(_close_all)
    if preload not in _of_the_program:
        _of_the_program.setdefault(preload, ForkServer(preload))
    return _of_the_program[preload]


def _close_all() -> None:
    for server in list(_of_the_program.values()):
        server.close()
