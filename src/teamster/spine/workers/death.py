# SPDX-License-Identifier: BSD-3-Clause
"""What is said when a worker dies.

That is what ran, how it ended, the likely cause with its evidence, and what to do.
"""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import dataclass

from teamster.errors import TeamsterError, WorkerDied
from teamster.machine.memory import oom_kills
from teamster.units import show_bytes

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Death:
    """What is known of the end of a worker process.

    Attributes:
        status: as ``os.waitpid`` gave it; None when it was not seen.
        peak_bytes: the most memory that it had, in bytes.
        last_words: what faulthandler wrote.
        killed_before: OOM kills of this cgroup counted when the team started; None where that
            cannot be read.
        initialising: whether it was in the middle of the pool's initializer.
        forked: whether the program itself forked it; else the fork server did.
        refusal: why it could not even be started.
        hung_up: whether it had closed its connection to the program, and was killed since nothing
            could be had of it any more.
    """

    worker: int
    status: int | None
    peak_bytes: int
    last_words: str
    killed_before: int | None
    initialising: bool = False
    forked: bool = False
    refusal: TeamsterError | None = None
    hung_up: bool = False

    @property
    def signal(self) -> int | None:
        """Number of the signal that ended it, if one did."""
        return (
            os.WTERMSIG(self.status)
            if self.status is not None and os.WIFSIGNALED(self.status)
            else None
        )

    @property
    def exitcode(self) -> int | None:
        """Its exit code, if it ended by itself."""
        return (
            os.WEXITSTATUS(self.status)
            if self.status is not None and os.WIFEXITED(self.status)
            else None
        )

    def by_memory(self) -> bool:
        """Whether the kernel's out-of-memory killer is the likely cause."""
        if self.signal != signal.SIGKILL:
            return False
        now = oom_kills()
        return now is not None and self.killed_before is not None and now > self.killed_before

    def error(self, index: int, attempts: int) -> TeamsterError:
        """The error for the item that ran (-1: a call of `submit`).

        After 0 attempts it is the error for a worker that never got ready.
        """
        if self.refusal is not None:
            return self.refusal
        doing = (
            f"ran item {index}" if index >= 0 else "ran a submitted call" if attempts else "started"
        )
        tries = f" (attempt {attempts})" if attempts > 1 else ""
        message = (
            f"worker {self.worker} died while it {doing}{tries}: {self._end()}. "
            f"{self._cause(started=attempts > 0)}"
        )
        if self.last_words:
            message += f"\n{self.last_words.rstrip()}"
        return WorkerDied(
            message, index=index, worker=self.worker, exitcode=self.exitcode, signal=self.signal
        )

    def error_of_call(self, name: str, asked: str = "") -> TeamsterError:
        """The error for a process that was to make one call.

        `asked`: what has ended it on purpose.
        """
        if self.refusal is not None:
            return self.refusal
        message = (
            f"the process {name} died before its call was over: {self._end()}. "
            f"{asked or self._cause(started=True, once=True)}"
        )
        if self.last_words:
            message += f"\n{self.last_words.rstrip()}"
        return WorkerDied(
            message, index=-1, worker=self.worker, exitcode=self.exitcode, signal=self.signal
        )

    def _end(self) -> str:
        if self.hung_up:
            return "it had closed its connection to the program, and was ended"
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name} (signal {self.signal})"
        if self.exitcode is not None:
            return f"it left with exit code {self.exitcode}"
        return (
            "how it ended was not seen"
            if self.forked
            else "the fork server, of which it was forked, died and took it along"
        )

    def _cause(self, *, started: bool, once: bool = False) -> str:
        if self.hung_up:
            return (
                "Something in it closes all descriptors (os.closerange, a daemon): let it keep "
                "those that it has not opened"
            )
        peak = (
            f"its memory peaked at {show_bytes(self.peak_bytes)}"
            if self.peak_bytes
            else "its memory is not known"
        )
        if self.by_memory():
            fewer = "start fewer at once" if once else "use fewer workers, or retries=1"
            return (
                f"The kernel's out-of-memory killer struck since the pool started, and {peak}: "
                f"{fewer}"
            )
        if self.signal == signal.SIGKILL:
            again = "" if once else ". retries=1 would run the item again"
            return f"SIGKILL comes from the out-of-memory killer or from a person; {peak}{again}"
        if self.signal in _ASKED:
            return "The program, or a person, has ended it"
        if self.signal is not None:
            where = (
                "call the function in the program"
                if once
                else "run this item with backend='serial'"
            )
            return f"A crash in native code, most often: {where} under a debugger"
        if self.status is None:
            return self._unseen()
        if self.initialising:
            return (
                "The initializer called os._exit or ended the interpreter: try it with "
                "backend='serial'"
            )
        if not started:
            return (
                "Something that is loaded in every new process ended it: sitecustomize, a .pth "
                "file, an imported module"
            )
        return (
            "Something in the task called os._exit or ended the interpreter: let it return or "
            "raise instead"
        )

    def _unseen(self) -> str:
        if self.forked:
            return (
                "Something in this program collects all children (os.waitpid(-1), a handler of "
                "SIGCHLD), and had the status before: leave start_method out, and a process of its "
                "own sees to the workers"
            )
        return (
            "SIGKILL to it comes from the out-of-memory killer or from a person. retries=1 would "
            "run the item again"
        )


def warn_of_late_ends(workers: list[int], seconds: float) -> None:
    """Say that workers were ended in the middle of what they did at their end."""
    warnings.warn(
        f"teamster: worker {', '.join(map(str, workers))} was ended {seconds:g} s after its last "
        "task: exit handlers, or threads that are no daemons, had not come to an end. Give them "
        "less to do, or do it in a task",
        RuntimeWarning,
        stacklevel=2,
    )
