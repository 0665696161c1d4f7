# SPDX-License-Identifier: BSD-3-Clause
"""The resource tracker of `multiprocessing`: one for the program and all of its workers.

Whatever names shared memory or a semaphore tells the tracker of its process, which unlinks what is
left when the last process that can write to it is gone. A worker with a tracker of its own takes
the program's memory down when it ends: the worker only attached to it, and its tracker does not
know of any other process. So a worker writes to the program's::

    the program has one  its pipe is handed to each worker, also to those that run already
    it has none          a pipe that the fork server watches: what is written into it first
                         starts a tracker, and the program makes it its own. No process before
                         that.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from teamster.spine.workers.process.executable import command


def descriptor_of_the_tracker() -> int | None:
    """The writing end of the program's tracker; None when it has none."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    # Asking for it with `getfd` would start one.
    return None if module is None else module._resource_tracker._fd


def use_tracker(descriptor: int) -> None:
    """In a worker: write to the tracker behind `descriptor`, which is kept."""
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._fd = descriptor  # type: ignore[attr-defined]


def adopt_tracker(descriptor: int) -> None:
    """In the program, when its workers have begun to use a tracker: have the same one.

    A child of `multiprocessing` has that of its parent, too.
    """
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    with tracker._lock:
        if tracker._fd is None:
            tracker._fd = descriptor
            return
    os.close(descriptor)


class TrackerOnDemand:
    """A pipe to a tracker that is started when something is written into it."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()

    def fileno(self) -> int:
        """The end to watch; -1 when the tracker has it."""
        return self._reader

    @property
    def runs(self) -> bool:
        """Whether something was written, and the tracker started."""
        return self._reader < 0

    def start(self) -> None:
        """Have a tracker read it from now on."""
        code = "from multiprocessing.resource_tracker import main; main(3)"
        arguments = command(sys.executable, code, "teamster-tracker")
        moves = [(os.POSIX_SPAWN_DUP2, self._reader, 3)]
        os.posix_spawn(sys.executable, arguments, os.environ, file_actions=moves, setpgroup=0)
        os.close(self._reader)
        self._reader = -1
