# SPDX-License-Identifier: BSD-3-Clause
"""The half of a team that hands out: how much each member may hold, who gets the next batch, who is there at all."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from teamster.errors import WorkerStartError
from teamster.spine.workers.calls import Backlog
from teamster.spine.workers.contract import Batch, Crew, Member, Spec, Style
from teamster.spine.workers.job import Job
from teamster.spine.workers.reports import Reports

_LONG_NS = 20_000_000  # longer batches are handed one at a time: the hand-over is nothing beside them
_HUGE_BYTES = 256 << 20  # so are items of this size: two of them in flight would be memory for nothing
_LARGE_BYTES = 1 << 20  # items of this size wait in shared memory, whose first touch costs more than any hand-over
_WORTH_SLEEP_NS = 500_000  # answers that come this seldom are not worth looking for without sleeping
_SHORT_NS = 50_000  # shorter ones several at a time: the hand-over costs as much as they do

_identities = itertools.count(1)


class Handing(Reports):
    """Members and what they hold."""

    def __init__(self, crew: Crew, count: int, *, max_tasks: int | None, lock: threading.RLock | None) -> None:
        super().__init__(crew)
        self.count = count
        self.lock = lock or threading.RLock()  # teams that work for the same calls share one
        self.alone = False  # a batch runs that wants nobody beside it
        self._max_tasks = max_tasks

    def room(self, job: Job) -> int:
        """How many batches more would find a worker now; for thread workers a few beyond, so that none waits for the caller."""
        with self.lock:
            return self._room(self._depth(job))

    def _room(self, depth: int) -> int:
        """The same, where a member holds so many."""
        room = self.count * depth - len(self.queue)
        if not self.crew.pulls:
            room += self.count
        for member in self.members:
            room -= min(depth, len(member.outstanding))
        return room

    def capacity(self, job: Job) -> int:
        """Batches that all members together may hold."""
        return self.count * self._depth(job)

    def _depth(self, job: Job) -> int:
        """Batches that one member may hold."""
        batch_ns = job.batch_ns
        if batch_ns > _LONG_NS or job.item_bytes > _HUGE_BYTES:
            return 1
        many = 0 < batch_ns < _SHORT_NS and job.item_bytes < _LARGE_BYTES
        return self.crew.deepest if many else self.crew.depth

    def learn(
        self, function: Callable[..., Any], style: Style, *, seed: int | None = None, careful: bool = False, hurry: bool = False
    ) -> Spec:
        """Make a function ready to be handed to workers, with the caller's context.

        Raises:
            Exception: the function does not pickle.
        """
        spec = Spec(function, style, seed, careful or seed is not None, hurry, identity=next(_identities))
        self.crew.prepare(spec, contextvars.copy_context())
        return spec

    def expire(self, member: Member, number: int, error: BaseException) -> None:
        """Kill a member because of the item that it runs."""
        member.doomed = (number, error)
        self.ledger.timeouts += 1
        self.crew.kill(member)

    def distrust(self) -> None:
        """Ctrl-C may have struck between the reading of a result and its delivery: what is under way starts over elsewhere."""
        for member in self.members:
            if member.outstanding and self.crew.can_kill and member.doomed is None:
                member.doomed = (0, None)
                self.crew.kill(member)

    def answers_soon(self) -> bool:
        """Whether the next answer is worth looking for without sleeping."""
        return not any(member.outstanding and member.outstanding[0].job.batch_ns > _WORTH_SLEEP_NS for member in self.members)

    def note_bytes(self) -> None:
        """Bring the ledger's byte counts up to date."""
        self.ledger.pickled_bytes, self.ledger.arena_bytes = self.crew.bytes_moved()

    # --- who is there ------------------------------------------------------------------------------------------------------

    def is_busy_with(self, job: Job) -> bool:
        """Whether something of `job` is queued or under way."""
        with self.lock:
            batches = itertools.chain(self.queue, *(member.outstanding for member in self.members))
            return any(batch.job is job for batch in batches)

    def muster(self) -> int:
        """Start whoever is missing, before there is work; returns how many are ready."""
        with self.lock:
            while len(self.members) < self.count and not self.closed and self._enlist() is not None:
                pass
            return sum(member.ready for member in self.members)

    def rest(self) -> None:
        """Let go of everybody, of the busy ones after what they have; the next batch brings others."""
        with self.lock:
            self._let_go(list(self.members))

    def resize(self, count: int) -> None:
        """Have `count` workers from now on."""
        with self.lock:
            self.count = count
            self.crew.resize(count)
            staying = [member for member in self.members if not member.retiring]
            self._let_go(staying[count:])

    def _let_go(self, members: list[Member]) -> None:
        for member in members:
            if member.outstanding:
                member.retiring = True
            else:
                self.members.remove(member)
                self.crew.dismiss(member)

    # --- handing out -------------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand out what can be handed out."""
        handed = False
        while self.queue and not self.closed:
            batch = self.queue[0]
            if batch.job.cancelled:
                self.queue.popleft()
                continue
            member = self._pick(batch)
            if member is None:
                break
            taken = self._take()
            if taken is not None:
                self._hand(member, taken)
                handed = True
        if handed:
            self.crew.flush()

    def _take(self) -> Batch | None:
        """The next batch of the queue; of single calls as many as are worth a message. None when all of these were cancelled."""
        head = self.queue[0]
        if not isinstance(head, Backlog):
            self.queue.popleft()
            return head
        waiting = len(head.calls) + len(self.queue) - 1
        batch = head.take(head.job.batch_items(waiting, self.count))
        if not head.calls:
            self.queue.popleft()
        return batch

    def _pick(self, batch: Batch | Backlog) -> Member | None:
        """An idle member first, then a new one, then one that can hold a second batch."""
        if (batch.alone or self.alone) and any(member.outstanding for member in self.members):
            return None
        self.alone = batch.alone
        best: Member | None = None
        for member in self.members:
            if member.retiring or member.recalled_ns or member.absent or member.doomed is not None:
                continue
            if not member.outstanding:
                return member
            if best is None or len(member.outstanding) < len(best.outstanding):
                best = member
        if len(self.members) < self.count and (new := self._enlist()) is not None:
            return new
        return best if best is not None and len(best.outstanding) < self._depth(batch.job) else None

    def _enlist(self) -> Member | None:
        """One more member; None where the system gives no more, and then those who are there have to do."""
        try:
            member = self.crew.enlist(self._free_index())
        except (OSError, RuntimeError) as error:
            if self.members:
                self.count = len(self.members)
            else:
                advice = "close files, or ask for a higher limit (ulimit -n, ulimit -u)"
                self._fail_all(WorkerStartError(f"no worker can be started: {error}; {advice}"))
            return None
        self.members.append(member)
        return member

    def _free_index(self) -> int:
        taken = {member.index for member in self.members}
        return next(index for index in range(self.count) if index not in taken)

    def _hand(self, member: Member, batch: Batch) -> None:
        if self._max_tasks is not None and batch.size > (left := self._max_tasks - member.handed):
            self.queue.appendleft(batch.piece(left, batch.size))
            batch = batch.piece(0, left)
        batch.number = member.next_number
        try:
            self.crew.hand(member, batch)
        except Exception as error:
            with self._calling_back():
                self._refuse(batch, error)
            return
        member.next_number += batch.size
        member.handed += batch.size
        member.outstanding.append(batch)
        member.last_heard_ns = perf_counter_ns()
        member.retiring = member.handed == self._max_tasks
        self.ledger.batches += 1
