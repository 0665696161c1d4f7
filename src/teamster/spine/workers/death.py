# SPDX-License-Identifier: BSD-3-Clause
"""What is said when a worker dies: what ran, how it ended, the likely cause with its evidence, what to do."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from teamster.errors import WorkerDied
from teamster.machine.memory import format_bytes, oom_kills

_HALF = 0.5


@dataclass(slots=True)
class Death:
    """What is known of the end of a worker process.

    Attributes:
        status: as ``os.waitpid`` gave it; None when nobody saw it.
        peak_bytes: the most memory that it had, in bytes.
        last_words: what faulthandler wrote.
        killed_before: OOM kills of this cgroup counted when the team started; None where that cannot be read.
    """

    worker: int
    status: int | None
    peak_bytes: int
    last_words: str
    killed_before: int | None

    @property
    def signal(self) -> int | None:
        """Number of the signal that ended it, if one did."""
        return os.WTERMSIG(self.status) if self.status is not None and os.WIFSIGNALED(self.status) else None

    @property
    def exitcode(self) -> int | None:
        """Its exit code, if it ended by itself."""
        return os.WEXITSTATUS(self.status) if self.status is not None and os.WIFEXITED(self.status) else None

    def by_memory(self) -> bool:
        """Whether the kernel's out-of-memory killer is the likely cause."""
        if self.signal != signal.SIGKILL:
            return False
        now = oom_kills()
        return now is not None and self.killed_before is not None and now > self.killed_before

    def error(self, index: int, attempts: int) -> WorkerDied:
        """The error for the item that ran (-1: a call of `submit`), or, after 0 attempts, for a worker that never got ready."""
        doing = f"ran item {index}" if index >= 0 else "ran a submitted call" if attempts else "started"
        tries = f" (attempt {attempts})" if attempts > 1 else ""
        message = f"worker {self.worker} died while it {doing}{tries}: {self._end()}. {self._cause(started=attempts > 0)}"
        if self.last_words:
            message += f"\n{self.last_words.rstrip()}"
        return WorkerDied(message, index=index, worker=self.worker, exitcode=self.exitcode, signal=self.signal)

    def _end(self) -> str:
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name} (signal {self.signal})"
        if self.exitcode is not None:
            return f"it left with exit code {self.exitcode}"
        return "nobody saw how it ended"

    def _cause(self, *, started: bool) -> str:
        peak = f"its memory peaked at {format_bytes(self.peak_bytes)}" if self.peak_bytes else "its memory is not known"
        if self.by_memory():
            return f"The kernel's out-of-memory killer struck since the pool started, and {peak}: use fewer workers, or retries=1"
        if self.signal == signal.SIGKILL:
            return f"SIGKILL comes from the out-of-memory killer or from a person; {peak}. retries=1 would run the item again"
        if self.signal is not None:
            return "A crash in native code, most often: run this item with backend='serial' under a debugger"
        if not started:
            return "The initializer called os._exit or ended the interpreter, most likely: try it with backend='serial'"
        return "Something in the task called os._exit or ended the interpreter: let it return or raise instead"
