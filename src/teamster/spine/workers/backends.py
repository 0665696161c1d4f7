# SPDX-License-Identifier: BSD-3-Clause
"""From a kind of worker to a team of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from teamster.errors import UsageError
from teamster.kinds import KINDS
from teamster.spine.workers.backend import Backend, Staff, Staffing
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.spine.workers.team import Team

_get_ident = threading.get_ident
START_METHODS = ("forkserver", "spawn", "fork")


def can_fork_at_once() -> bool:
    """Whether the fork server of this program runs already.

    Then process workers are there in milliseconds.
    """
    fork_server = sys.modules.get("teamster.spine.workers.process.forkserver")
    # Missing while another thread is loading it
    find = getattr(fork_server, "the_fork_server", None)
    return find is not None and find().pid > 0


def check_start(backend: str, start_method: str | None, preload: Sequence[str]) -> None:
    """Refuse an unknown way to start processes.

    Raises:
        UsageError: it is not known, or nothing can be loaded before such workers start.
    """
    if isinstance(preload, str) or not all(isinstance(name, str) for name in preload):
        raise UsageError(f"preload must be a list of names of modules, not {preload!r}")
    forked = start_method in (None, "forkserver") and backend in ("auto", "process")
    if preload and not forked:
        raise UsageError(
            "preload is for processes of the fork server, and these workers are "
            f"{backend if start_method is None else start_method!r}"
        )
    if start_method is not None and start_method not in START_METHODS:
        raise UsageError(
            f"start_method must be one of {', '.join(map(repr, START_METHODS))}, not "
            f"{start_method!r}"
        )


def _refuse_late_patches() -> None:
    """Gevent and eventlet replace locks and threads by their own.

    What was imported before has the others.

    Raises:
        UsageError: they have done so since.
    """
    if threading.get_ident is not _get_ident:
        raise UsageError(
            "threads were patched (gevent's monkey.patch_all(), eventlet's monkey_patch()) after "
            "Teamster was imported, and would wait for each other for ever: patch first, in the "
            "first line of the program"
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
    preload: Sequence[str] = (),
) -> Team:
    """Make the team that a plan asks for; nothing starts yet.

    Raises:
        UsageError: there is no such kind of worker.
        Exception: the initializer does not pickle.
    """
    native_threads = max(1, cores // plan.workers)
    start = start_method or "forkserver", tuple(preload)
    staff = Staff(plan.workers, initializer, initargs, native_threads, *start)
    backend = _make(plan.backend, staff)
    return Team(Dispatcher(backend, plan.workers, max_tasks=max_tasks, lock=lock))


def _make(name: str, staff: Staff) -> Backend:
    kind = KINDS.get(name)
    if kind is None:
        raise UsageError(f"there are no workers of kind {name!r}")
    if name != "serial":
        _refuse_late_patches()
    module, _, function = kind.home.partition(":")
    backend: Backend = getattr(import_module(module), function)(staff)
    return backend
