# SPDX-License-Identifier: BSD-3-Clause
"""What of the program's process its tasks may see, but for what it sets in its own interpreter.

That is paths, file mode, limits and kin. A worker is told when it starts, and again with the first
items of each later call if something has changed since: a task then finds what it would find in the
program. What a task itself has changed in its worker stays until the program changes the same
thing. User and groups cannot be told to a process that has others, so a change of those brings new
workers (forkserver.py). Environment and folder are told here at the start, and for each function in
library_state.py.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from typing import Any

from teamster.machine.own_threads import threads_of_ours
from teamster.spine.workers.process.kinship import follow, kin_of_the_program
from teamster.spine.workers.process.resource_tracker import descriptor_of_the_tracker

_LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
_KINDS = tuple(
    getattr(resource, f"RLIMIT_{name}") for name in _LIMITS if hasattr(resource, f"RLIMIT_{name}")
)

Environment = dict[str, Any]


def current_environment() -> Environment:
    """Those of this process and this thread now, in some 15 us."""
    return {
        "path": [_absolute(entry) for entry in sys.path],
        "umask": _umask(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": [resource.getrlimit(kind) for kind in _KINDS],
        "cpus": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "kin": kin_of_the_program(),
        "tracker": descriptor_of_the_tracker(),
    }


def place_of_the_program() -> Environment:
    """Where a worker starts: environment and folder, as they are now."""
    return {
        "environ": dict(os.environ),
        "folder": _folder(),
    }


def changes(before: Environment, now: Environment) -> Environment:
    """What is to be told to a worker that knows `before`."""
    return {name: value for name, value in now.items() if before[name] != value}


def adapt(told: Environment) -> None:
    """In a worker: make them its own, as far as it may."""
    for name, value in told.items():
        with contextlib.suppress(OSError, ValueError):
            # Not allowed, or gone: the program may have rights that its workers lost
            _ADAPT[name](value)


def _set_environment(environ: dict[str, str]) -> None:
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(
        {name: value for name, value in environ.items() if os.environ.get(name) != value}
    )


def _set_path(entries: list[str]) -> None:
    sys.path[:] = entries


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for kind, wanted in zip(_KINDS, limits, strict=True):
        if resource.getrlimit(kind) != wanted:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, wanted)


def _set_cpus(cpus: set[int] | None) -> None:
    if cpus is not None and cpus != os.sched_getaffinity(0):
        os.sched_setaffinity(0, cpus)


def _set_nice(level: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != level:
        os.setpriority(os.PRIO_PROCESS, 0, level)


_ADAPT: dict[str, Any] = {
    "environ": _set_environment,
    "folder": os.chdir,
    "path": _set_path,
    "umask": os.umask,
    "nice": _set_nice,
    "limits": _set_limits,
    "cpus": _set_cpus,
    "kin": follow,
    "tracker": lambda _: None,  # its descriptor comes beside the message
}


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _absolute(entry: str) -> str:
    """An entry of ``sys.path`` as the import system understands it.

    A relative one was meant from where it was first used.
    """
    finder = sys.path_importer_cache.get(entry) if entry and not os.path.isabs(entry) else None
    return getattr(finder, "path", entry)


def _umask() -> int:
    """Mode bits that new files do not get.

    The call that tells them sets others for a moment, which would show in files of other threads.
    Where there are some the kernel's page about this process is read, for 15 us and on a busy
    machine 100.
    """
    if len(set(threading.enumerate()) - threads_of_ours()) <= 1:
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
    try:
        with open("/proc/self/status", "rb", buffering=0) as status:
            return int(status.read(256).split(b"Umask:", 1)[1].split(None, 1)[0], 8)
    except (OSError, IndexError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
