# SPDX-License-Identifier: BSD-3-Clause
"""What a team makes of its crew's events: results to their jobs, batches and deaths to their consequences."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import perf_counter_ns

from teamster.errors import StartMethodRefused, TaskError, WorkerStartError, annotate
from teamster.spine.trace.report import Ledger
from teamster.spine.trace.spans import mark
from teamster.spine.workers.calls import Backlog, Outcomes
from teamster.spine.workers.contract import Batch, Crew, Died, Event, Finished, Kept, Member, Ready, Unreadable
from teamster.spine.workers.job import Job
from teamster.spine.workers.recovery import judge

_MOST_START_FAILURES = 3


class Reports:
    """The half of a team that takes reports; every method is called with the team's lock held."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.members: list[Member] = []
        self.queue: deque[Batch | Backlog] = deque()
        self.jobs: set[Job] = set()
        self.outcomes: Outcomes = deque()  # of calls, to be told without the lock
        self.ledger = Ledger(crew.kind)
        self.closed = False
        self._start_failures = 0
        self.start_error: BaseException | None = None  # of the worker that came up last, or did not
        self._handler = 0  # the thread that handles an event, with the lock held

    @property
    def has_unread_ends(self) -> bool:
        """Whether all results of a batch are there, and what its worker says of its end is not."""
        return any(batch.done == batch.size for member in self.members for batch in member.outstanding)

    @contextmanager
    def _calling_back(self) -> Iterator[None]:
        """What is called in here may use the team, but not wait for it: see `Team.handled_here`."""
        before, self._handler = self._handler, get_ident()
        try:
            yield
        finally:
            self._handler = before

    def handle_all(self, events: Iterable[Event]) -> None:
        """Take events of the crew. A map's progress is told in here: what it calls may use the team, but not wait for it."""
        with self._calling_back():
            for event in events:
                self.handle(event)

    def handle(self, event: Event) -> None:
        """Take one event of the crew."""
        member = event.member
        member.last_heard_ns = perf_counter_ns()
        if isinstance(event, Kept):
            self._keep(event)
        elif isinstance(event, Finished):
            self._finish_batch(member, event)
        elif isinstance(event, Ready):
            self._greet(member, event)
        elif isinstance(event, Unreadable):
            batch = member.outstanding.popleft()
            self._end_recall(member)
            self._refuse(batch, event.error)
        else:
            # Not before, and under the lock: a test had one thread look at the slate of a member whose end another one had read.
            self._bury(member, event)
            self.crew.release(member)

    def _keep(self, event: Kept) -> None:
        batch = _batch_of(event.member, event.number)
        if batch is None:
            return
        offset, values = event.number - batch.number, event.values
        if not offset <= batch.done < offset + len(values):
            # Behind: rescued from the log before. Ahead: the log was read before the message that came earlier, which brings it
            # again. (A test hung: the first item was on its way in a message, the log began with the second, and the first was
            # taken for a duplicate.)
            return
        if offset < batch.done:  # the first of them were rescued before
            offset, values = batch.done, values[batch.done - offset :]
        batch.done = offset + len(values)
        if event.error is not None:
            if batch.job.cancelled or not batch.job.on_doubted(batch.first + offset, batch.items[offset], event.error):
                self._tell_error(batch, offset, event.error)
        elif not batch.job.cancelled:
            self.ledger.items += len(values)
            batch.take_values(offset, values)

    def _tell_error(self, batch: Batch, offset: int, error: BaseException) -> None:
        if batch.job.cancelled:
            return
        self.ledger.items += 1
        self.ledger.failures += 1
        if isinstance(error, TaskError) and error.index == -1 and batch.first >= 0:  # no other error's attributes are ours to write
            error.index = batch.first + offset
        batch.take_error(offset, error)

    def _finish_batch(self, member: Member, event: Finished) -> None:
        batch = member.outstanding.popleft()
        member.busy_ns += event.run_ns
        member.items += event.ran
        self.ledger.note(member.index, event.ran, event.run_ns, event.ended_ns)
        if event.ran:
            batch.job.observe(event)
        if event.ran < batch.size and not batch.job.cancelled:
            end = min(batch.size, max(0, member.taken_back - batch.number)) if member.taken_back else batch.size
            if event.ran < end:
                self.queue.appendleft(batch.piece(event.ran, end))
        self._end_recall(member)
        if member.retiring and not member.outstanding and member in self.members:  # a team that has ended has none
            self.members.remove(member)
            self.crew.dismiss(member)

    def _end_recall(self, member: Member) -> None:
        if member.recalled_ns and not member.outstanding:
            self.crew.resume(member)
            member.recalled_ns = member.taken_back = 0

    def _greet(self, member: Member, event: Ready) -> None:
        member.ready = True
        self._start_failures = 0
        self.start_error = event.error
        if event.error is not None:
            annotate(event.error, f"raised by the initializer of worker {member.index}")
            self._fail_all(event.error)
            if member in self.members:
                self.members.remove(member)
            member.doomed = (0, None)
            self.crew.dismiss(member)

    def _fail_all(self, error: BaseException) -> None:
        jobs, self.jobs = self.jobs, set()
        for batch in itertools.chain(self.queue, *(member.outstanding for member in self.members)):
            batch.abandon(error)
        self.queue.clear()
        for job in jobs:
            job.cancelled = True
            self.crew.forget(job.spec)
            job.on_failure(error)

    def _bury(self, member: Member, died: Died) -> None:
        expected = member not in self.members
        if not expected:
            self.members.remove(member)
        if expected or self.closed:
            return
        verdict = judge(member, died)
        member.outstanding.clear()
        who = f"{self.crew.kind} {member.index}"
        mark(f"{who} {'died' if member.doomed is None else 'was ended'}", who)
        self.queue.extendleft(reversed(verdict.again))
        if member.doomed is None:
            self.ledger.deaths += 1
            if not member.ready and died.running is None:
                self.start_error = died.describe(-1, 0)
                self._count_start_failure(died)
        self.ledger.retries += verdict.retried
        for batch, offset, error in verdict.errors:
            self._tell_error(batch, offset, error)

    def _count_start_failure(self, died: Died) -> None:
        if isinstance(self.start_error, StartMethodRefused | WorkerStartError):  # there is nothing to try again
            self._fail_all(self.start_error)
            return
        self._start_failures += 1
        if self._start_failures >= _MOST_START_FAILURES:
            self._start_failures = 0
            reason = died.describe(-1, 0)
            dead = f"{_MOST_START_FAILURES} workers in a row died before they were ready, and no more are started"
            self._fail_all(WorkerStartError(f"{dead}. The last one: {reason}"))

    def _refuse(self, batch: Batch, error: BaseException) -> None:
        """A batch that cannot be handed or read: find the items that are to blame by handing each alone."""
        if batch.size > 1:
            self.queue.extendleft(batch.piece(at, at + 1) for at in reversed(range(batch.size)))
        elif batch.job.cancelled or not batch.job.on_refused(batch.first, batch.items[0], error):
            self._tell_error(batch, 0, error)

    def _drop(self, job: Job) -> None:
        self.jobs.discard(job)
        if any(batch.job is job for batch in self.queue):
            self.queue = deque(batch for batch in self.queue if batch.job is not job)
        self.crew.forget(job.spec)


def _batch_of(member: Member, number: int) -> Batch | None:
    for batch in member.outstanding:
        if batch.number <= number < batch.number + batch.size:
            return batch
    return None
