# SPDX-License-Identifier: BSD-3-Clause
"""One job in each of n threads that stay, all at once.

It is for steps that are alike, one after the other.

::

    run([job 0, job 1]) --> inbox of thread 0, inbox of thread 1 --> all results, or the first error

A failure in one thread lets the others end what they do, so that nothing runs on when the caller
hears of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from teamster import lifetime
from teamster.errors import annotate
from teamster.machine.native_threads import kept_torch_default, limit_torch
from teamster.spine.trace.spans import name_lane
from teamster.spine.workers.inbox_thread import InboxThread, Take

_PATIENCE_S = 5.0  # for what runs when Ctrl-C strikes, and for a thread that is to end

Job = Callable[[], Any]

_here = threading.local()
"""`above`: each `Lockstep` that runs the current thread's job, from the outermost to its own."""


class Lockstep:
    """Threads that take a step together, from the first one until `close`.

    Args:
        name: of the threads and their lanes, before their number: "replica".
        inner: torch's threads in each; None leaves them as they are.
        prefix: of the threads' names for the system.

    Example:
        >>> threads = Lockstep("replica", None)
        >>> threads.run([lambda: 1, lambda: 2])
        [1, 2]
        >>> threads.close()
    """

    def __init__(self, name: str, inner: int | None, prefix: str = "teamster-") -> None:
        self._name, self._prefix = name, prefix
        self._inner = inner
        self._threads: list[InboxThread] = []
        self._lock = threading.Lock()

    def run(
        self,
        jobs: Sequence[Job],
        *,
        in_turn: bool = False,
        beside: Callable[[], AbstractContextManager[object]] = nullcontext,
        guard: AbstractContextManager[object] | None = None,
    ) -> list[Any]:
        """Run job i in thread i, all at once.

        Args:
            jobs: at most as many as there are to be threads.
            in_turn: run them here instead, one after the other.
            beside: makes what is entered by the caller while they run in threads.
            guard: held meanwhile.

        Returns:
            Their results, in order, when all are done.

        Raises:
            BaseException: what the first failed job raised, with a note that names it.
        """
        above = getattr(_here, "above", ())
        slots = [_Slot(job, (*above, self)) for job in jobs]
        # Inside of a job too: it would wait for itself if it used what it is part of, through
        # others even; two of them that use each other's would wait for each other; and all
        # processors are in use already.
        if in_turn or self in above or (above and self._inner is not None):
            with guard or nullcontext():
                for slot in slots:
                    slot.work()
            return self._collect(slots)
        with self._lock:
            self._open(len(slots))
        with guard or nullcontext(), beside():
            self._hand_out(slots)
            return self._collect(slots)

    def runs_caller(self) -> bool:
        """Whether the calling thread is in the middle of one of these jobs."""
        return self in getattr(_here, "above", ())

    def _hand_out(self, slots: Sequence[_Slot]) -> None:
        with self._lock:
            self._open(len(slots))  # again: another thread may have closed it
            for thread, slot in zip(self._threads, slots, strict=False):
                thread.put(slot)

    def _collect(self, slots: Sequence[_Slot]) -> list[Any]:
        try:
            for slot in slots:
                slot.done.acquire()
        except BaseException:  # Ctrl-C: what runs must not meet the next step
            for slot in slots:
                slot.done.acquire(timeout=_PATIENCE_S)
            raise
        failed = next((index for index, slot in enumerate(slots) if slot.error is not None), None)
        if failed is not None:
            error = slots[failed].error
            assert error is not None
            for slot in slots:  # an error holds the frames that hold its slot
                slot.error = None
            annotate(error, self.describe(failed))
            try:
                raise error
            finally:
                del error  # it holds this frame, too
        return [slot.result for slot in slots]

    def describe(self, index: int) -> str:
        """What an error of this job is told to have happened in."""
        return f"in {self._name} {index}"

    def _open(self, count: int) -> None:
        if not self._threads:
            lifetime.renewed_in_copies(self)
        if len(self._threads) < count:
            with kept_torch_default():
                while len(self._threads) < count:
                    self._start_one(len(self._threads))

    def _start_one(self, index: int) -> None:
        ready = threading.Event()
        name = f"{self._prefix}{self._name}-{index}"
        thread = InboxThread(name, _serve, f"{self._name} {index}", index, self._inner, ready)
        thread.start()
        ready.wait()
        self._threads.append(thread)  # not before: there may be no thread to be had

    def close(self) -> None:
        """End the threads; a later job brings others."""
        with self._lock:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()
        for thread in threads:
            thread.join(_PATIENCE_S)

    def after_fork(self) -> None:
        """In a forked copy of the program: the threads are the original's."""
        self._threads, self._lock = [], threading.Lock()

    def __del__(self) -> None:
        for thread in getattr(self, "_threads", ()):
            thread.end()


class _Slot:
    """A job on its way, and what became of it.

    `done` is a lock that is held from the start and let go by the thread that has done the job: the
    cheapest way to wait for one event once.
    """

    __slots__ = ("above", "done", "error", "job", "result")

    def __init__(self, job: Job, above: tuple[Lockstep, ...]) -> None:
        self.job: Job | None = job
        self.above = above
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def work(self) -> None:
        """Do it."""
        assert self.job is not None
        before, _here.above = getattr(_here, "above", ()), self.above
        try:
            self.result = self.job()
        except BaseException as error:
            self.error = error
        _here.above = before
        self.job, self.above = None, ()
        self.done.release()


def _serve(take: Take, lane: str, index: int, inner: int | None, ready: threading.Event) -> None:
    name_lane(lane, "thread", index)
    if inner is not None:
        limit_torch(inner)
    ready.set()
    while (slot := take()) is not None:
        slot.work()
        del slot
