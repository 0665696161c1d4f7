# SPDX-License-Identifier: BSD-3-Clause
"""Finds this user's jobs, and asks them what they do.

::

    runtime folder/
      123.sock  refused ------------------> the job died and could not clean up: the file is removed
      456.sock  connected -- a line ------>
                          <- a JSON line -- in time:  what it says
                                            late:     what it said last, and for how long it says
                                                      nothing
                                            nonsense: one sentence about that

Connections stay open between looks. Nothing here blocks: a job that is stopped, or busy with
something that holds the GIL, costs a look no more than the time that it was given.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import time
from dataclasses import dataclass

from teamster.cli.top.answers import Answer, read_answer
from teamster.cli.top.rates import History, PoolView
from teamster.spine.transport.rendezvous import check_folder, runtime_folders
from teamster.tasks.monitor.long_calls import PATIENCE_S

_QUIET_S = 1.0  # a busy machine answers later than an idle one
_MOST_BYTES = 32 << 20
"""Of an answer; a job with 10,000 workers needs a tenth of it."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is shown.

    Attributes:
        pid: its process id.
        answer: what it said last; None when it has not said anything yet.
        pools: what that means, with rates.
        quiet_s: seconds since a question that it has not answered; 0 when it has.
        problem: why it cannot be understood; empty when it can.
        age_s: seconds since the start of its first call that took its time.
    """

    pid: int
    answer: Answer | None
    pools: tuple[PoolView, ...] = ()
    quiet_s: float = 0.0
    problem: str = ""
    age_s: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether it is worth telling that it does not answer.

        A program may be busy for a moment.
        """
        return self.quiet_s >= _QUIET_S or (self.answer is None and self.quiet_s > 0)

    @property
    def items_per_s(self) -> float:
        """Of all pools together."""
        return sum(pool.items_per_s for pool in self.pools)


class Jobs:
    """The jobs that can be looked at.

    Args:
        folder: where their sockets are; None for this user's.
        pid: only this one.

    Example:
        >>> jobs = Jobs("/no/such/folder")
        >>> jobs.look()
        []
    """

    def __init__(self, folder: str | None = None, pid: int | None = None) -> None:
        self._folders = runtime_folders() if folder is None else [folder]
        self._pid = pid
        self._jobs: dict[str, _Job] = {}
        self.problem = ""

    def look(self, seconds: float = 0.2) -> list[JobView]:
        """Ask all jobs, and wait a little for what they say.

        Args:
            seconds: how long to wait at most. A job that was late the last time is not waited for.

        Returns:
            What is known now, by process id.
        """
        self._find()
        self._receive([], 0.0)  # what came too late for the last look
        asked = [job for job in self._jobs.values() if job.ask()]
        self._receive(asked, seconds)
        self._drop([job for job in self._jobs.values() if job.ended])
        return [job.view() for job in sorted(self._jobs.values(), key=lambda job: job.pid)]

    def close(self) -> None:
        """Let go of all."""
        self._drop(list(self._jobs.values()))

    def _find(self) -> None:
        self.problem = ""
        paths = []
        for folder in self._folders:
            if check_folder(folder):
                with contextlib.suppress(OSError):
                    names = [
                        name
                        for name in os.listdir(folder)
                        if name.endswith(".sock") and name[:-5].isdecimal()
                    ]
                    paths += [
                        f"{folder}/{name}"
                        for name in names
                        if self._pid is None or int(name[:-5]) == self._pid
                    ]
            elif os.path.lexists(folder):
                self.problem = (
                    f"the folder {folder} is not yours alone, so what it holds is not shown"
                )
        for path in paths:
            if path not in self._jobs:
                self._jobs[path] = _Job(path)
        self._drop(
            [job for path, job in self._jobs.items() if path not in paths and not job.connected]
        )
        self._drop([job for job in self._jobs.values() if not job.connect()])

    def _receive(self, awaited: list[_Job], seconds: float) -> None:
        """Take what comes, until all of `awaited` have answered or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            poller = select.poll()
            by_file = {job.fileno(): job for job in self._jobs.values() if job.connected}
            for file in by_file:
                poller.register(file, select.POLLIN)
            pause_s = (
                max(0.0, deadline - time.monotonic()) if any(job.waits for job in awaited) else 0.0
            )
            ready = poller.poll(pause_s * 1000)
            for file, _ in ready:
                by_file[file].receive()
            if not ready:
                return

    def _drop(self, jobs: list[_Job]) -> None:
        for job in jobs:
            job.close()
            self._jobs.pop(job.path, None)


class _Job:
    """The connection to one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = int(os.path.basename(path)[:-5])
        self.ended = False
        self._problem = ""
        self._connection: socket.socket | None = None
        self._asked_s: float | None = None
        self._received = bytearray()
        self._answer: Answer | None = None
        self._history = History()
        self._born_s = time.time()
        with contextlib.suppress(OSError):
            self._born_s = os.stat(path).st_mtime - PATIENCE_S

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def waits(self) -> bool:
        """Whether an answer is due."""
        return self._asked_s is not None and self.connected

    def fileno(self) -> int:
        assert self._connection is not None
        return self._connection.fileno()

    def connect(self) -> bool:
        """Be connected, or try again later; False when no process is there to connect to."""
        if self._connection is not None or self._problem:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(self.path)
        except BlockingIOError:  # it is stopped, and others wait for it, too
            connection.close()
            self._asked_s = self._asked_s or time.monotonic()
            return True
        except ConnectionRefusedError:
            connection.close()
            _remove_stale(self.path, self.pid)
            return False
        except OSError:
            connection.close()
            return False
        self._connection, self._asked_s = connection, None
        return True

    def ask(self) -> bool:
        """Send the question, unless the last one is still open; whether it was sent."""
        if self._connection is None or self._asked_s is not None:
            return False
        self._asked_s = time.monotonic()
        try:
            self._connection.send(b"\n")
        except OSError:
            self._end()
            return False
        return True

    def receive(self) -> None:
        """Read what is there."""
        if self._connection is None:
            return
        try:
            data = self._connection.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._received += data
        line, newline, rest = self._received.partition(b"\n")
        if rest or len(self._received) > _MOST_BYTES:
            self._refuse("what it answers does not end")
        elif newline:
            self._received, self._asked_s = rest, None
            self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        try:
            self._answer = read_answer(line)
        except ValueError as error:
            self._refuse(str(error))
            return
        self._history.add(self._answer)

    def _refuse(self, problem: str) -> None:
        """It is shown, and not asked any more."""
        self.close()
        self._problem = problem

    def _end(self) -> None:
        self.close()
        self.ended = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._asked_s = None
        self._received.clear()

    def view(self) -> JobView:
        quiet_s = time.monotonic() - self._asked_s if self._asked_s is not None else 0.0
        age_s = max(0.0, time.time() - self._born_s)
        return JobView(self.pid, self._answer, self._history.pools, quiet_s, self._problem, age_s)


def _remove_stale(path: str, pid: int) -> None:
    """No process listens any more.

    Or none does yet, between the making of a socket and the call of listen(), so ask for the
    process.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
    except OSError:
        return
