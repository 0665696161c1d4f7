# SPDX-License-Identifier: BSD-3-Clause
"""Persistent threads, one a device: a thread that is new for each step loses half of the speed to warming up.

::

    run([job 0, job 1]) --> inbox of thread 0, inbox of thread 1 --> all results, or the first error with its device

A failure in one thread lets the others end what they do, so that nothing runs on when the caller hears of it.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any

import torch

from teamster.errors import UsageError
from teamster.machine.openmp import parked_helpers, release_helpers
from teamster.spine.trace.spans import name_lane

_PATIENCE_S = 5.0

Job = Callable[[], Any]

_ITSELF = "a replica has called the DataParallel that it is part of: call the module that forward or loss_fn is given"

_open: weakref.WeakSet[DeviceThreads] = weakref.WeakSet()
_step_locks: weakref.WeakSet[StepLock] = weakref.WeakSet()
_default_lock = threading.Lock()  # of the number that torch has for new threads
_here = threading.local()
"""`above`: whose jobs the current thread's job is part of, from the outermost to its own."""


class DeviceThreads:
    """One thread a device, from the first job until `close`.

    Args:
        devices: a CPU may be there several times.
        inner: threads of OpenMP and BLAS in each; None leaves them as they are.
        name: of the threads, before their number.

    Example:
        >>> threads = DeviceThreads([torch.device("cpu")] * 2, 1)
        >>> threads.run([lambda: 1, lambda: 2])
        [1, 2]
        >>> threads.close()
    """

    def __init__(self, devices: Sequence[torch.device], inner: int | None, name: str = "teamster-replica") -> None:
        self._name = name
        self._devices = list(devices)
        self._inner = inner
        self._inboxes: list[SimpleQueue[Any]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Job], *, in_turn: bool = False, guard: AbstractContextManager[object] | None = None) -> list[Any]:
        """Run job i in thread i, all at once.

        Args:
            jobs: at most as many as there are devices.
            in_turn: run them here instead, one after the other.
            guard: held meanwhile.

        Returns:
            Their results, in order, when all are done.

        Raises:
            BaseException: what the first failed job raised, with a note that names its device.
        """
        above = getattr(_here, "above", ())
        slots = [_Slot(job, (*above, self)) for job in jobs]
        # Inside of a replica too: it would wait for itself if it used what it is part of, through others even; two of them that use
        # each other's would wait for each other; and all processors are in use already.
        if in_turn or self in above or (above and self._inner is not None):
            with guard or nullcontext():
                for slot in slots:
                    _work(slot)
            return self._collect(slots)
        with self._lock:
            self._open(len(slots))
        with guard or nullcontext(), self._callers_helpers_away():
            self._hand_out(slots)
            return self._collect(slots)

    def runs_caller(self) -> bool:
        """Whether the calling thread is in the middle of one of these jobs."""
        return self in getattr(_here, "above", ())

    def _callers_helpers_away(self) -> AbstractContextManager[object]:
        """Or they spin on the replicas' processors. See `machine.openmp` for the two ways."""
        if self._inner == 1:
            return parked_helpers()
        if self._inner is not None:
            release_helpers()
        return nullcontext()

    def _hand_out(self, slots: Sequence[_Slot]) -> None:
        with self._lock:
            self._open(len(slots))  # again: somebody may have closed it
            for inbox, slot in zip(self._inboxes, slots, strict=False):
                inbox.put(slot)

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
            error.add_note(f"in replica {failed} on device {self._devices[failed]}")
            try:
                raise error
            finally:
                del error  # it holds this frame, too
        return [slot.result for slot in slots]

    def _open(self, count: int) -> None:
        if not self._threads:
            _open.add(self)
        if len(self._threads) < count:
            with _kept_default():
                while len(self._threads) < count:
                    self._start_one(len(self._threads))

    def _start_one(self, index: int) -> None:
        inbox: SimpleQueue[Any] = SimpleQueue()
        ready = threading.Event()
        arguments = inbox, index, self._inner, ready
        thread = threading.Thread(target=_serve, args=arguments, name=f"{self._name}-{index}", daemon=True)
        thread.start()
        ready.wait()
        self._inboxes.append(inbox)  # not before: there may be no thread to be had
        self._threads.append(thread)

    def close(self) -> None:
        """End the threads; a later job brings others."""
        with self._lock:
            threads, self._threads = self._threads, []
            inboxes, self._inboxes = self._inboxes, []
        for inbox in inboxes:
            inbox.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_PATIENCE_S)

    def __del__(self) -> None:
        for inbox in getattr(self, "_inboxes", ()):
            inbox.put(None)


class StepLock:
    """One step at a time: steps of several threads share the replicas."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        _step_locks.add(self)

    @contextmanager
    def pass_through(self, threads: dict[int, DeviceThreads]) -> Iterator[None]:
        """Wait until it is one's turn.

        Args:
            threads: those of the steps.

        Raises:
            UsageError: a replica of the step that runs wants another step: it would wait for itself.
        """
        if not self._lock.acquire(blocking=False):
            if any(each.runs_caller() for each in list(threads.values())):
                raise UsageError(_ITSELF)  # whoever has the lock waits for this thread
            self._lock.acquire()
        try:
            if self._inside:
                raise UsageError(_ITSELF)
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
        finally:
            self._lock.release()

    def renew(self) -> None:
        """In a forked copy of the program: who held it is not there."""
        self._lock, self._inside = threading.RLock(), False


class _Slot:
    """A job on its way, and what became of it."""

    __slots__ = ("above", "done", "error", "job", "result")

    def __init__(self, job: Job, above: tuple[DeviceThreads, ...]) -> None:
        self.job: Job | None = job
        self.above = above
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


@contextmanager
def _kept_default() -> Iterator[None]:
    """What the replicas' threads set for themselves is not what the program's other threads get.

    torch keeps one number for threads that have not used it yet, and the last one to be set is that. The caller may be a replica
    with a number of its own, so a thread that has none is asked. One caller at a time: of two replicas that had others inside of
    them, the second took the first one's number for the program's.
    """
    torch.get_num_threads()  # asking settles the caller's own number
    found: list[int] = []
    with _default_lock:
        _in_new_thread(lambda: found.append(torch.get_num_threads()))
        try:
            yield
        finally:
            _in_new_thread(lambda: torch.set_num_threads(found[0]))


def _in_new_thread(function: Callable[[], None]) -> None:
    helper = threading.Thread(target=function)
    helper.start()
    helper.join()


def _serve(inbox: SimpleQueue[Any], index: int, inner: int | None, ready: threading.Event) -> None:
    """A function and no method: a thread that held its object would keep it alive."""
    name_lane(f"replica {index}", "thread", index)
    if inner is not None:
        torch.set_num_threads(inner)
        torch.get_num_threads()
    ready.set()
    while (slot := inbox.get()) is not None:
        _work(slot)
        del slot


def _work(slot: _Slot) -> None:
    assert slot.job is not None
    before, _here.above = getattr(_here, "above", ()), slot.above
    try:
        slot.result = slot.job()
    except BaseException as error:
        slot.error = error
    _here.above = before
    slot.job, slot.above = None, ()
    slot.done.release()


def _forget() -> None:
    """In a forked copy of the program: the threads are the original's."""
    global _default_lock
    _default_lock = threading.Lock()
    for step_lock in list(_step_locks):
        step_lock.renew()
    for each in list(_open):
        each._threads, each._inboxes, each._lock = [], [], threading.Lock()


def _let_helpers_go() -> None:
    """Before the program is forked: libgomp would believe in helpers that are not there, and a replica of the copy crashed."""
    if _open:
        release_helpers()


os.register_at_fork(before=_let_helpers_go, after_in_child=_forget)


@atexit.register
def _close_all() -> None:
    for threads in list(_open):
        threads.close()
