# SPDX-License-Identifier: BSD-3-Clause
"""The resource tracker of `multiprocessing`: one for the program and all of its workers.

Whatever names shared memory or a semaphore tells the tracker of its process, which unlinks what is left when the last process that
can write to it is gone. A worker with a tracker of its own takes the program's memory down when it ends: the worker only attached
to it, and its tracker does not know of anybody else. So a worker writes to the program's::

    the program has one, or has loaded its module      its pipe is handed to each worker, also to those that run already
    else                                               a pipe that the fork server reads: what is written into it first starts a
                                                       tracker, which lives as long as the server does. No process before that.
"""

from __future__ import annotations

import os
import sys

from teamster.spine.workers.executable import command


def descriptor_of_the_tracker() -> int | None:
    """The writing end of the program's tracker, which is started if its module is loaded; None when it is not, or cannot be."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None:
        return None
    try:
        descriptor: int = module.getfd()
    except Exception:  # no interpreter to run it; or this is a finalizer in the middle of a call to it
        return None
    return descriptor


def use_tracker(descriptor: int) -> None:
    """In a worker: write to the tracker behind `descriptor`, which is kept."""
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._fd = descriptor  # type: ignore[attr-defined]


class TrackerOnDemand:
    """A pipe to a tracker that is started when something is written into it."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()

    def fileno(self) -> int:
        """The end to watch; -1 when the tracker has it."""
        return self._reader

    def start(self) -> None:
        """Have a tracker read it from now on."""
        code = "from multiprocessing.resource_tracker import main; main(3)"
        arguments = command(sys.executable, code, "teamster-tracker")
        moves = [(os.POSIX_SPAWN_DUP2, self._reader, 3)]
        os.posix_spawn(sys.executable, arguments, os.environ, file_actions=moves, setpgroup=0)
        os.close(self._reader)
        self._reader = -1
