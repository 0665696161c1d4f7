# SPDX-License-Identifier: BSD-3-Clause
"""Replicas of the model: threads that compute batches, or have a process compute them.

::

    event loop --batch--> inbox of the thread --> model --> answers --call_soon_threadsafe--> loop
                                              --> process --> model --> answers -->

In a thread the weights are shared: a replica is a reference. What an output is encoded as is made
there, so that the loop has nothing of it to do.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable

from teamster.machine.native_threads import limit_in_this_thread
from teamster.machine.run_delay import RunDelay
from teamster.serve.computing import RequestBatch, compute
from teamster.serve.model import Model
from teamster.spine.workers.inbox_thread import InboxThread, Take

_END_S = 5.0  # how long a thread may take to end
_MOST_IN_LOOP_S = 0.01  # of a batch: for so long no other request is even read
_FAR_TOO_LONG_S = 0.1  # more than a busy machine takes the processor away for
_SUSPECT = 50  # batches after one that was too long: in these its like comes again

Post = Callable[[RequestBatch], None]
"""Told of a batch that is done."""

Work = Callable[[Take, Post], None]
"""What a replica's thread does: takes batches, and posts them."""


class ReplicaThread:
    """The thread of one replica.

    Args:
        number: of the replica.
        work: in the thread.
        loop: that is told what is done.
        done: called there with the replica and the batch.

    Attributes:
        number: as above.
    """

    def __init__(
        self,
        number: int,
        work: Work,
        loop: AbstractEventLoop,
        done: Callable[[ReplicaThread, RequestBatch], None],
    ) -> None:
        def post(batch: RequestBatch) -> None:
            if batch.told is not None:
                loop.call_soon_threadsafe(batch.told, batch)
            else:
                loop.call_soon_threadsafe(done, self, batch)

        self.number = number
        self._thread = InboxThread(f"teamster-replica-{number}", work, post)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def run(self, batch: RequestBatch) -> None:
        """Compute a batch; `done` is told."""
        self._thread.put(batch)

    def close(self) -> None:
        """Let it end after what it has."""
        self._thread.end()
        self._thread.join(_END_S)


class InLoop:
    """A replica without a thread: the event loop computes, for to hand on would take longer.

    Args:
        model: what it serves.
        idempotent: as of `compute`.
        loop: that computes.
        done: called with the replica and the batch.
        slow: called once, when batches have taken so long that others should not wait for such, and
            not for want of a processor.

    Attributes:
        number: 0, for there is one.
    """

    number = 0

    def __init__(
        self,
        model: Model,
        idempotent: bool,
        loop: AbstractEventLoop,
        done: Callable[[InLoop, RequestBatch], None],
        slow: Callable[[], None],
    ) -> None:
        self._model, self._idempotent, self._loop, self._done = model, idempotent, loop, done
        self._replica = model.replica()
        self._slow: Callable[[], None] | None = slow
        self._suspect = 0  # batches that are still looked at closely
        self._delay = RunDelay()

    def start(self) -> None:
        """Nothing has to be started."""

    def run(self, batch: RequestBatch) -> None:
        """Compute a batch now; `done` is told when those that read requests have had their turn."""
        before_ns = self._delay.read_ns() if self._suspect else 0
        compute(self._model, self._replica, batch, idempotent=self._idempotent)
        if self._suspect:
            batch.delay_ns = self._delay.read_ns() - before_ns
        if batch.told is not None:
            self._loop.call_soon(batch.told, batch)
            return
        self._loop.call_soon(self._done, self, batch)
        if self._suspect or batch.seconds > _MOST_IN_LOOP_S:
            self._look(batch)

    def _look(self, batch: RequestBatch) -> None:
        """One that was too long has lost the processor, or its like comes again."""
        own_s = batch.seconds - batch.delay_ns / 1e9
        if own_s > (_MOST_IN_LOOP_S if self._suspect else _FAR_TOO_LONG_S):
            slow, self._slow = self._slow, None
            if slow is not None:
                slow()
        self._suspect = _SUSPECT if own_s > _MOST_IN_LOOP_S else max(0, self._suspect - 1)

    def close(self) -> None:
        """Let go of what it measures with."""
        self._delay.close()


def compute_here(
    model: Model, inner_threads: int, idempotent: bool, take: Take, post: Post
) -> None:
    """The work of a replica in its own thread.

    Args:
        model: what it serves.
        inner_threads: for the native libraries in it.
        idempotent: as of `compute`.
        take: gives batches.
        post: is told of them.
    """
    limit_in_this_thread(inner_threads)
    delay = RunDelay()
    failure: BaseException | None = None
    try:
        replica = model.replica()
    except BaseException as error:  # of the user's setup()
        failure = error
    while (batch := take()) is not None:
        if failure is not None:
            batch.fail(failure)
        else:
            before_ns = delay.read_ns()
            compute(model, replica, batch, idempotent=idempotent)
            batch.delay_ns = delay.read_ns() - before_ns
        post(batch)
        del batch
    delay.close()
