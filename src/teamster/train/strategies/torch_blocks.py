# SPDX-License-Identifier: BSD-3-Clause
"""Blocks in which torch has the ranks meet, where no wait can be ended from outside.

::

    a rank's own error   --> the store, under the block's number --> raised; it goes on no more
    an error of gloo's   <-- connections of one that has ended   --> the error behind it is raised
    a wait without end   <-- one that has failed, and stays      --> the heartbeat ends this program
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from teamster.errors import WorkerDied, annotate, first_line
from teamster.spine.workers.exceptions import describe, rebuild

_STAYS_S = 3.0  # a rank that has failed: most often it ends with its error, which ends the wait
_IDLE = 0.2  # of a core's time: less than this is waiting
_TORCH = str(Path(torch.__file__).parent)


class TorchBlocks:
    """Those of one rank.

    Args:
        store: that all ranks read.
        rank: this one.
        others: their numbers.
        gone: who has given no sign of life, after a while, for people.
    """

    def __init__(self, store: Any, rank: int, others: list[int], gone: Callable[[], str]) -> None:
        self._store, self._rank, self._others, self._gone = store, rank, others, gone
        self._number = 0  # of the latest block, which is the same in all ranks
        self._is_inside = False
        self._main = threading.get_ident()
        self._seen = -1  # the block at the last look
        self._looked_s = self._cpu_s = 0.0  # then
        self._idle_since_s = 0.0
        self._failed_since_s: float | None = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that each of the ranks enters.

        Raises:
            Exception: what one of the ranks has raised in there.
            WorkerDied: one has ended.
        """
        self._number += 1
        self._is_inside = True
        try:
            yield
        except Exception as error:
            cause = self._cause_of(error)
            if cause is error:
                raise
            raise cause from error
        finally:
            self._is_inside = False

    def _cause_of(self, error: Exception) -> BaseException:
        """An error of this rank, of which the others are told, or the one that it comes from."""
        backend = _is_of_backend(error)
        if not backend and not isinstance(error, WorkerDied):
            told = describe(error), f"{type(error).__name__}: {first_line(error)}"
            self._store.set(self._failure(self._rank), pickle.dumps(told))
            return error
        for rank, (described, _) in self._failures():
            return raised_in(rank, described)
        return WorkerDied(self._gone()) if backend else error

    def _failure(self, rank: int) -> str:
        return f"failure of {rank} in block {self._number}"

    def _failures(self) -> Iterator[tuple[int, Any]]:
        """Of the others, in this block."""
        for rank in self._others:
            if self._store.check([self._failure(rank)]):
                yield rank, pickle.loads(self._store.get(self._failure(rank)))

    def stuck(self, patience_s: float) -> tuple[float, str] | None:
        """For the heartbeat, in its own thread.

        Args:
            patience_s: how long this rank may wait for others.

        Returns:
            For how many seconds it has waited in vain, and for which failure of another rank, if
            for one; None as long as there is hope.
        """
        now, cpu = time.monotonic(), time.process_time()
        idle = cpu - self._cpu_s < _IDLE * (now - self._looked_s) and self._is_in_torch()
        is_new = self._seen != self._number or not self._is_inside
        self._looked_s, self._cpu_s, self._seen = now, cpu, self._number
        if is_new or not idle:
            self._idle_since_s = now
        if is_new:
            self._failed_since_s = None
            return None
        for rank, (_, line) in self._failures():
            since = self._failed_since_s = self._failed_since_s or now
            if now - since > _STAYS_S:
                return now - since, f"rank {rank} has failed: {line}"
        waited = now - self._idle_since_s
        return (waited, "") if waited > patience_s else None

    def _is_in_torch(self) -> bool:
        """Whether the main thread does not run the user's own code at the moment."""
        frame = sys._current_frames().get(self._main)
        return frame is not None and frame.f_code.co_filename.startswith(_TORCH)

    def is_still_stuck(self) -> bool:
        """Whether that block, of which `stuck` has told, is not over meanwhile."""
        return self._is_inside and self._seen == self._number


def end_program(rank: int, why: str) -> None:
    """The end of a rank that no error can be raised in.

    Args:
        rank: this one.
        why: for people.
    """
    print(f"teamster: rank {rank} can go on no more: {why}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def _is_of_backend(error: Exception) -> bool:
    """Whether a collective has failed, and not what was to be done with its result."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def raised_in(rank: int, described: Any) -> BaseException:
    """An error of another rank, as that has described it.

    Args:
        rank: its number.
        described: by `exceptions.describe`.
    """
    raised = rebuild(described)
    annotate(raised, f"in rank {rank}")
    return raised
