# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of the batches of a worker that died: a pure decision, item by item.

::

    item of the batch   reported already | ran at the death                    | not started
    what becomes of it  nothing          | its error, or once more (`retries`) | another worker
                                         | (a block of many: each of them once |
                                         | more, alone, to find the one)       |

Where it cannot be known what ran (`Died.unsure`: a machine that cannot be reached), every item that
was not reported may have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from teamster.spine.workers.batch import Batch
from teamster.spine.workers.handle import Died, WorkerHandle


@dataclass(slots=True)
class Verdict:
    """Items to run (again), in order, and errors to report."""

    again: list[Batch] = field(default_factory=list)
    # Batch, offset, error
    errors: list[tuple[Batch, int, BaseException]] = field(default_factory=list)
    retried: int = 0


def judge(worker: WorkerHandle, died: Died) -> Verdict:
    """Decide for every batch that `worker` held."""
    verdict = Verdict()
    for batch in worker.outstanding:
        if batch.job.cancelled:
            continue
        start, end = batch.done, worker.end_of(batch)
        if died.unsure:
            for offset in range(start, end):
                _try_again(died, batch, offset, verdict)
        elif (
            died.running is not None
            and batch.number + start <= died.running[0] < batch.number + end
        ):
            start = _judge_running(worker, died, batch, verdict)
        if start < end and not died.unsure:
            verdict.again.append(batch.piece(start, end))
    return verdict


def _judge_running(worker: WorkerHandle, died: Died, batch: Batch, verdict: Verdict) -> int:
    """Decide for the block that ran; returns the offset behind it."""
    assert died.running is not None
    number, width = died.running
    offset = number - batch.number
    width = min(width, batch.size - offset)
    if offset > batch.done:
        verdict.again.append(batch.piece(batch.done, offset))
    if worker.killed_for is not None:
        wanted, error = worker.killed_for
        if wanted == number and error is not None:
            verdict.errors.append((batch, offset, error))
            return offset + 1
        # Killed for an item that was over by then
        verdict.again.append(batch.piece(offset, offset + 1))
        return offset + 1
    if width > 1:
        # One of them killed the worker, and the others' results went with it. Which one, only
        # another run can tell; it is an attempt of none of them, since most did nothing wrong
        verdict.again.extend(
            batch.piece(at, at + 1, one_by_one=True) for at in range(offset, offset + width)
        )
        verdict.retried += batch.job.retries > 0
        return offset + width
    _try_again(died, batch, offset, verdict)
    return offset + 1


def _try_again(died: Died, batch: Batch, offset: int, verdict: Verdict) -> None:
    """One item that ran, or of which that cannot be known: once more, alone, if it may."""
    attempts = (batch.attempts if offset == 0 else 0) + 1
    if attempts > batch.job.retries:
        verdict.errors.append((batch, offset, died.describe(_index(batch, offset), attempts)))
    else:
        again = batch.piece(offset, offset + 1, one_by_one=True)
        again.attempts = attempts
        again.exclusive = died.by_memory  # with fewer workers at once there may be room for it
        verdict.again.append(again)
        verdict.retried += 1


def _index(batch: Batch, offset: int) -> int:
    return batch.first + offset if batch.first >= 0 else -1
