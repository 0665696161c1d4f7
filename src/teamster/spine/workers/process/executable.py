# SPDX-License-Identifier: BSD-3-Clause
"""The Python that processes of ours run.

It is the program's own, or the one that `multiprocessing.set_executable` names.
"""

from __future__ import annotations

import os
import sys

from teamster.errors import WorkerStartError

_PATIENCE_S = 60.0  # a Python on a busy network drive
# What does not even bear the name may be a program that waits for its user
_STRANGER_PATIENCE_S = 8.0


def find_executable() -> str:
    """Path of the interpreter to start.

    Raises:
        WorkerStartError: there is none that could be a Python.
    """
    # It has its own copy of sys.executable, which a program may have changed
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = os.fsdecode(spawn.get_executable() or "") if spawn is not None else sys.executable
    if not chosen:
        raise WorkerStartError(
            f"no worker process can be started: sys.executable is {sys.executable!r}{_instead()}"
        )
    if getattr(sys, "frozen", False) and chosen == sys.executable:
        raise WorkerStartError(
            f"no worker process can be started: this program is frozen, so {chosen!r} is the "
            f"program itself, which would start itself without end{_instead()}"
        )
    return chosen


def command(executable: str, code: str, name: str) -> list[str]:
    """How to run `code` with the flags of this interpreter.

    `name` is for the user who looks at the list of processes.
    """
    import subprocess

    return [executable, *subprocess._args_from_interpreter_flags(), "-c", code, name]  # type: ignore[attr-defined]


def cannot_start(executable: str, reason: str) -> WorkerStartError:
    """The error for an executable that was started and is no Python, or a broken one."""
    return WorkerStartError(
        f"no worker process can be started: {executable!r} {reason}{_instead()}"
    )


def patience_s(executable: str) -> float:
    """How long it may take until it answers, in seconds."""
    return _PATIENCE_S if "python" in os.path.basename(executable).lower() else _STRANGER_PATIENCE_S


def _instead() -> str:
    return (
        ". Name a Python that has this program's packages with "
        "multiprocessing.set_executable(path), or use backend='thread' or start_method='fork'"
    )
