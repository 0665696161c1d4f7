# SPDX-License-Identifier: BSD-3-Clause
"""From a kind of worker to a team of them: the one place that knows all kinds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from teamster.errors import StartMethodRefused, UsageError
from teamster.spine.workers.backend import Backend
from teamster.spine.workers.team import Team
from teamster.spine.workers.worker_info import module_being_imported

_get_ident = threading.get_ident
START_METHODS = ("forkserver", "spawn", "fork")


class Staffing(Protocol):
    """What of a plan decides about workers."""

    @property
    def backend(self) -> str:
        """The kind of worker."""

    @property
    def workers(self) -> int:
        """How many."""


def can_fork_at_once() -> bool:
    """Whether the fork server of this program runs already, so that process workers are there in milliseconds."""
    fork_server = sys.modules.get("teamster.spine.workers.process.forkserver")
    find = getattr(fork_server, "the_fork_server", None)  # missing while another thread is loading it
    return find is not None and find().pid > 0


def check_start_method(start_method: str | None) -> None:
    """Refuse an unknown way to start processes.

    Raises:
        UsageError: it is not known.
    """
    if start_method is not None and start_method not in START_METHODS:
        raise UsageError(f"start_method must be one of {', '.join(map(repr, START_METHODS))}, not {start_method!r}")


def _refuse_late_patches() -> None:
    """Gevent and eventlet replace locks and threads by their own; what was imported before has the others.

    Raises:
        UsageError: they have done so since.
    """
    if threading.get_ident is not _get_ident:
        raise UsageError(
            "threads were patched (gevent's monkey.patch_all(), eventlet's monkey_patch()) after Teamster was imported, and would"
            " wait for each other for ever: patch first, in the first line of the program"
        )


def _refuse_while_importing() -> None:
    """End a chain that would never end: the workers would import the same module, and start workers.

    Raises:
        StartMethodRefused: this worker is in the middle of that.
    """
    module = module_being_imported()
    if module is not None:
        raise StartMethodRefused(
            f"processes are started while a worker imports {module}, to find its function: every worker would import"
            " it and start workers, without end. Put that call into a function, or under if __name__ == '__main__'"
        )


def assemble(
    plan: Staffing,
    lock: threading.RLock,
    *,
    cores: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    max_tasks: int | None,
    start_method: str | None,
) -> Team:
    """Make the team that a plan asks for; nothing starts yet.

    Raises:
        Exception: the initializer does not pickle.
    """
    return Team(
        _backend(plan, initializer, initargs, max(1, cores // plan.workers), start_method or "forkserver"),
        plan.workers,
        max_tasks=max_tasks,
        lock=lock,
    )


def _backend(
    plan: Staffing,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    native_threads: int,
    start_method: str,
) -> Backend:
    if plan.backend == "serial":
        from teamster.spine.workers.serial import SerialBackend

        return SerialBackend(initializer, initargs)
    _refuse_late_patches()
    if plan.backend == "thread":
        from teamster.spine.workers.threads import ThreadBackend

        return ThreadBackend(plan.workers, initializer, initargs, native_threads)
    if plan.backend == "interpreter":
        from teamster.spine.workers.interpreter.backend import InterpreterBackend

        return InterpreterBackend(plan.workers, initializer, initargs, native_threads)
    if plan.backend != "process":
        raise UsageError(f"there are no workers of kind {plan.backend!r}")
    _refuse_while_importing()
    from teamster.spine.workers.process.forkserver import the_fork_server

    if start_method != "fork":
        the_fork_server().warm_up()  # it starts while this process goes on importing
    from teamster.spine.workers.process.backend import ProcessBackend
    from teamster.spine.workers.process.start import WorkerSetup

    return ProcessBackend(WorkerSetup(start_method, initializer, tuple(initargs), native_threads), plan.workers)
