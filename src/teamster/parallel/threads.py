# SPDX-License-Identifier: BSD-3-Clause
"""The threads of replicas: one a device, which stay, and one step of them at a time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from teamster import lifetime
from teamster.errors import UsageError
from teamster.machine.openmp import parked_helpers, release_helpers
from teamster.spine.workers.lockstep import Job, Lockstep

_ITSELF = (
    "a replica has called the DataParallel that it is part of: call the module that forward or "
    "loss_fn is given"
)

_used: weakref.WeakSet[DeviceThreads] = weakref.WeakSet()


class DeviceThreads:
    """One thread a device, from the first job until `close`.

    Args:
        devices: a CPU may be there several times.
        inner: threads of OpenMP and BLAS in each; None leaves them as they are.
        prefix: of the threads' names.

    Example:
        >>> threads = DeviceThreads([torch.device("cpu")] * 2, 1)
        >>> threads.run([lambda: 1, lambda: 2])
        [1, 2]
        >>> threads.close()
    """

    def __init__(
        self, devices: Sequence[torch.device], inner: int | None, prefix: str = "teamster-"
    ) -> None:
        self._inner = inner
        self._is_used = False
        self._lockstep = _OnDevices(list(devices), inner, prefix)

    def run(
        self,
        jobs: Sequence[Job],
        *,
        in_turn: bool = False,
        guard: AbstractContextManager[object] | None = None,
    ) -> list[Any]:
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
        if not self._is_used:
            self._is_used = True
            _used.add(self)
            lifetime.before_fork(_let_helpers_go)
            lifetime.end_at_exit(_close_all)
        return self._lockstep.run(
            jobs, in_turn=in_turn, beside=self._callers_helpers_away, guard=guard
        )

    def runs_caller(self) -> bool:
        """Whether the calling thread is in the middle of one of these jobs."""
        return self._lockstep.runs_caller()

    def _callers_helpers_away(self) -> AbstractContextManager[object]:
        """Or they spin on the replicas' processors. See `machine.openmp` for the two ways."""
        if self._inner == 1:
            return parked_helpers()
        if self._inner is not None:
            release_helpers()
        return nullcontext()

    def close(self) -> None:
        """End the threads; a later job brings others."""
        self._lockstep.close()
        self._is_used = False
        _used.discard(self)


class _OnDevices(Lockstep):
    """Names the device in errors."""

    def __init__(self, devices: list[torch.device], inner: int | None, prefix: str) -> None:
        super().__init__("replica", inner, prefix)
        self._devices = devices

    def describe(self, index: int) -> str:
        return f"{super().describe(index)} on device {self._devices[index]}"


class StepLock:
    """One step at a time: steps of several threads share the replicas."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        lifetime.renewed_in_copies(self)

    @contextmanager
    def pass_through(self, threads: dict[int, DeviceThreads]) -> Iterator[None]:
        """Wait until it is one's turn.

        Args:
            threads: those of the steps.

        Raises:
            UsageError: a replica of the step that runs wants another step: it would wait for
                itself.
        """
        if not self._lock.acquire(blocking=False):
            if any(each.runs_caller() for each in list(threads.values())):
                raise UsageError(_ITSELF)  # what has the lock waits for this thread
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

    def after_fork(self) -> None:
        """In a forked copy of the program: the thread that held it is not there."""
        self._lock, self._inside = threading.RLock(), False


def _let_helpers_go() -> None:
    """Before a fork: libgomp would believe in helpers that are not there (a replica crashed)."""
    if _used:
        release_helpers()


def _close_all() -> None:
    for threads in list(_used):
        threads.close()
