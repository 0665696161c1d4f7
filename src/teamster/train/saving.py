# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints that no step waits for: a copy into memory, then a thread writes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from teamster import lifetime
from teamster.machine.priority import give_way
from teamster.spine.workers.inbox_thread import InboxThread, Take
from teamster.train.checkpoint_files import write
from teamster.train.training_state import HostCopies, Tensors, take_apart

_END_S = 600.0  # how long the end of a program waits for a checkpoint that is being written


class Saver:
    """Saves states of one training, one after the other.

    Example:
        >>> import tempfile, torch
        >>> saver = Saver()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saving = saver.save(Path(folder), 3, {"a": torch.ones(2)}, keep=3, export=False)
        ...     saving.result().name
        'step-00000003'
        >>> saver.close()
    """

    def __init__(self) -> None:
        self._copies = HostCopies()
        self._thread: InboxThread | None = None
        self._latest: Future[Path] | None = None
        self._lock = threading.Lock()

    def save(
        self, folder: Path, step: int, state: dict[str, Any], *, keep: int, export: bool
    ) -> Future[Path]:
        """Copy a state, and have it written.

        Args:
            folder: of the run.
            step: its number.
            state: nested, with tensors in it.
            keep: how many checkpoints are to stay.
            export: whether the model is written for other programs, too.

        Returns:
            Its place, when it is there.

        Raises:
            OSError: the one before could not be written.
        """
        with self._lock:
            self.wait()  # its copies are in the memory that is used again
            tensors: Tensors = {}
            rest = take_apart(state, tensors)
            copied = self._copies.take(tensors)
            future: Future[Path] = Future()
            future.set_running_or_notify_cancel()
            self._latest = future
            self._hand_on(
                lambda: write(folder, step, copied, rest, keep=keep, export=export), future
            )
            return future

    def _hand_on(self, job: Callable[[], Path], future: Future[Path]) -> None:
        if self._thread is None:
            lifetime.finish_at_exit(_finish_all)
            _savers.add(self)
            self._thread = InboxThread("teamster-checkpoint", _work)
            self._thread.start()
        self._thread.put((job, future))

    def wait(self) -> None:
        """Until what was saved is on the disk.

        Raises:
            OSError: it could not be written.
        """
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.result(_END_S)

    def close(self) -> None:
        """Wait, and end the thread.

        Raises:
            OSError: as of `wait`.
        """
        thread, self._thread = self._thread, None
        try:
            self.wait()
        finally:
            if thread is not None:
                thread.end()
                thread.join(1.0)


_savers: weakref.WeakSet[Saver] = weakref.WeakSet()


def _finish_all() -> None:
    """The program ends: what was saved is to be on the disk."""
    for saver in list(_savers):
        saver.close()


def _work(take: Take) -> None:
    give_way()  # to the steps of the training: what has to be written waits in memory of its own
    while (order := take()) is not None:
        job, future = order
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        del job, future, order
