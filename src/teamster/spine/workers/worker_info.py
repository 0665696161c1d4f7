# SPDX-License-Identifier: BSD-3-Clause
"""Which worker runs this code: asked by tasks, and by pools that are opened inside a task."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker that runs this code.

    Attributes:
        index: which worker, counted from 0.
        kind: "serial", "thread", "interpreter" or "process".
        count: how many workers the pool has.

    Example:
        >>> import teamster as ts
        >>> ts.map(lambda _: ts.current_worker().kind, [1], backend="thread")
        ['thread']
    """

    index: int
    kind: str
    count: int


_of_process: WorkerInfo | None = None
_of_thread = threading.local()

importing = False
"""Whether this worker unpickles what the program sent, for which it may have to import modules."""


of_a_worker = False
"""Whether this worker is one of a worker's."""


def current_worker() -> WorkerInfo | None:
    """The worker that runs the calling code.

    Returns:
        Its index, kind and how many there are; None outside any task.

    Example:
        >>> import teamster as ts
        >>> ts.current_worker() is None
        True
        >>> with ts.Pool("thread", workers=1) as pool:
        ...     pool.map(lambda _: ts.current_worker(), [0])
        [WorkerInfo(index=0, kind='thread', count=1)]
    """
    info: WorkerInfo | None = getattr(_of_thread, "info", None)
    return info if info is not None else _of_process


def is_inside_worker() -> bool:
    """Whether other workers run beside the calling code.

    Items that the caller runs itself are alone.

    Returns:
        True in a thread, an interpreter or a process that is a worker.

    Example:
        >>> is_inside_worker()
        False
    """
    info = current_worker()
    return info is not None and info.kind != "serial"


def set_process_worker(info: WorkerInfo | None) -> None:
    """Say that this whole process is a worker."""
    global _of_process
    _of_process = info


def set_thread_worker(info: WorkerInfo | None) -> WorkerInfo | None:
    """Say that the calling thread is a worker; returns what it was before."""
    before: WorkerInfo | None = getattr(_of_thread, "info", None)
    _of_thread.info = info
    return before


def module_being_imported() -> str | None:
    """The module with the calling code in its top level, while this worker imports it.

    The worker imports it to find what the program sent; or a task does, of a worker that a worker
    has started.

    Returns:
        Its name and line for a message; None when there is none.
    """
    if not importing and not of_a_worker:
        return None
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        spec = frame.f_globals.get("__spec__")
        if frame.f_code.co_name == "<module>" and (
            importing or getattr(spec, "_initializing", False)
        ):
            return (
                f"{frame.f_globals.get('__name__')}, line {frame.f_lineno} of "
                f"{frame.f_code.co_filename}"
            )
    return None


def limit_native_threads(threads: int) -> None:
    """Tell libraries that are loaded already (after a fork, or preloaded) how many threads to use.

    They have read their variables, and so are told directly.
    """
    from teamster.machine.native_threads import limit_in_this_thread

    limit_in_this_thread(threads)
