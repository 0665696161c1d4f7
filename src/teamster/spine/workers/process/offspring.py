# SPDX-License-Identifier: BSD-3-Clause
"""What the program and its fork server do alike with processes that they start.

That concerns the numbers of their descriptors, and their end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

KEPT_FROM = 3
"""The first number that a process of ours is given beside the standard ones."""


def wait_for(pid: int, seconds: float) -> int | None:
    """The exit status of a child of ours; 0 when other code has seen it.

    None when it still lives after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        if ended or time.monotonic() > deadline:
            return status if ended else None
        time.sleep(0.0005)


def end_now(pid: int) -> None:
    """SIGKILL to a child of ours that still lives, and to what it has started."""
    kill_group(pid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group of `pid`, or to `pid` where it had no time to found one."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
