# SPDX-License-Identifier: BSD-3-Clause
"""`map`, `imap` and `imap_unordered`: from an iterable to batches, and from results back to order.

::

    iterable --> Source.next_items --> team.offer   in the caller's thread only, as far ahead as
                                          |         there is room
    list, generator <-- ready <-- parked <-- on_values, on_error

Read-ahead is bounded: nothing is pulled that no worker has room for, and a consumer that is slower
than the workers stops them, since nothing pulls but its own `next`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Any

from teamster.spine.trace.report import WallClock
from teamster.spine.workers.batch import Batch, FunctionSpec
from teamster.spine.workers.job import Job
from teamster.spine.workers.runner import title_of
from teamster.spine.workers.team import Team
from teamster.tasks.arguments import MapCall
from teamster.tasks.monitor.long_calls import Patience
from teamster.tasks.results import Raise, Results

_GLANCE_NS = 1_000_000  # between two looks at the workers while a consumer works


class TeamJob:
    """A team, and the job that this call is for it."""

    __slots__ = ("job", "team")

    def __init__(self, team: Team, job: Job) -> None:
        self.team = team
        self.job = job


class Mapping:
    """One map call under way, on one team."""

    def __init__(self, call: MapCall) -> None:
        self._call = call
        self._source = call.source
        self._raise_errors = call.raise_errors
        self._lazy = call.lazy
        self._bar = call.bar
        self._results = Results(ordered=call.ordered, lazy=call.lazy)
        self._glanced_ns = 0
        self._placed: list[TeamJob] = []
        self._current: TeamJob  # its workers get the next items
        self.error: BaseException | None = None
        self._dead = False  # no result will come any more
        self._began = perf_counter()
        self._patience = Patience()
        self.over = False

    def _take_refused(self, kind: str, index: int, item: Any, error: BaseException) -> bool:
        """An item cannot be sent to workers of a kind, and did not run.

        It returns whether it is run elsewhere; else that is its error.
        """
        return False

    def _take_doubted(self, kind: str, index: int, item: Any, error: BaseException) -> bool:
        """An item has failed there; returns whether it is tried elsewhere."""
        return False

    def work_on(self, team: Team, spec: FunctionSpec) -> TeamJob:
        """Hand the next items to `team`."""
        job = Job(
            spec,
            self._call.terms,
            on_values=self._take_values,
            on_error=self._take_error,
            on_failure=self._fail,
            on_refused=partial(self._take_refused, team.backend.kind),
            on_doubted=partial(self._take_doubted, team.backend.kind),
        )
        self._current = TeamJob(team, job)
        self._placed.append(self._current)
        return self._current

    # --- results, from whatever thread leads; the team's lock is held -----------------------------

    def _take_values(self, first: int, values: list[Any]) -> None:
        self._results.take(first, values)
        self._bar.add(len(values))

    def _take_error(self, index: int, error: BaseException) -> None:
        if self._raise_errors:
            self.error = self.error or error
            self._take_values(index, [Raise(error)])
        else:
            self._take_values(index, [error])

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._dead = True

    # --- the caller's side ------------------------------------------------------------------------

    def _refill(self) -> None:
        """Pull and offer as many batches as there is room for.

        Batches of a fast input are offered together, in one message for each worker. A slow input
        is handed on as it comes, and between two pulls the results are looked at.
        """
        while batches := self._pull_batches():
            placed = self._current
            placed.team.offer(placed.job, batches)
            if self._source.slow:
                placed.team.poll_once()
                if self._results.ready:
                    return

    def _pull_batches(self) -> list[Batch]:
        source, batches = self._source, list[Batch]()
        team, job = self._current.team, self._current.job
        room = team.dispatcher.room(job)
        while (
            len(batches) < room
            and not source.exhausted
            and self.error is None
            and (not self._lazy or self._may_pull())
        ):
            first = source.pulled
            items = source.next_items(job.batch_items(source.remaining, team.dispatcher.count))
            if items:
                batches.append(Batch(job, first, items))
            if source.slow:
                break
        return batches

    def _may_pull(self) -> bool:
        team, job = self._current.team, self._current.job
        under_way = (
            team.dispatcher.capacity(job) * job.batch_items(None, 1) if self._results.ready else 0
        )
        return self._results.may_pull(self._source.pulled, under_way)

    def _complete(self) -> bool:
        return self._source.exhausted and self._results.reported == self._source.pulled

    def _drained(self) -> bool:
        """After an error nothing is pulled any more, so what is out is all there will be."""
        return self.error is not None and self._results.reported == self._source.pulled

    def _run_until(self, done: Callable[[], bool]) -> None:
        """Make progress until `done`, which is asked with the lock held."""
        team = self._current.team
        team.run_until(done, self._refill, seconds=self._patience.left_s())
        if self._patience.ends():
            team.run_until(done, self._refill)

    def runs_here(self) -> bool:
        """Whether the caller itself runs an item now."""
        return False

    def progress(self) -> dict[str, Any]:
        """What is called, how many items are done, of how many (None: not known), how long (s)."""
        seconds = perf_counter() - self._began
        return {
            "function": title_of(self._call.function),
            "done": self._results.reported,
            "total": self._source.total,
            "seconds": seconds,
        }

    def collect(self) -> list[Any]:
        """Run to the end; the results in input order."""
        try:
            self._run_until(lambda: self.error is not None or self._complete())
            self._raise_if_failed()
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()
        assert isinstance(self._results.ready, list)
        return self._results.ready

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            raise self.error
        if self._source.error is not None:
            self.error = self._source.error
            raise self._source.error

    def stream(self) -> Iterator[Any]:
        """Results as they are wanted."""
        try:
            while self._await_result():
                # Nothing of it is kept: its memory is the consumer's alone
                yield self._results.pop()
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()

    def _await_result(self) -> bool:
        """Make sure that there is a result to take; False at the end."""
        if self._results.ready:
            now = perf_counter_ns()
            if now - self._glanced_ns > _GLANCE_NS:
                # A consumer that takes its time: keep the workers busy meanwhile
                self._glanced_ns = now
                self._look_after()
            return True
        self._run_until(
            lambda: bool(self._results.ready) or self._dead or self._complete() or self._drained()
        )
        if not self._results.ready:
            self._raise_if_failed()
        return bool(self._results.ready)

    def _look_after(self) -> None:
        """Read what came and hand out what there is room for, without waiting."""
        self._current.team.poll_once()
        self._refill()

    def _abandon(self, reason: BaseException) -> None:
        """Cancel the rest; on Ctrl-C the items that run are ended, too."""
        interrupted = isinstance(reason, KeyboardInterrupt)
        self.over = True
        for placed in self._placed:
            placed.team.cancel(placed.job, kill=interrupted)
            placed.job.let_go()
        self._source.close()
        self._bar.close()
        if interrupted and any(placed.team.backend.kind != "serial" for placed in self._placed):
            # Where in the polling it struck is of no interest
            raise reason.with_traceback(None) from None

    def _end(self) -> None:
        self.over = True
        for placed in self._placed:
            placed.team.dispatcher.finish(placed.job)
        self._bar.set_total(self._results.reported)
        self._bar.close()


class ResultStream(Iterator[Any]):
    """What `imap` returns: an iterator of results that any thread may ask for the next.

    Closing it, dropping it or leaving a ``with`` block of it cancels what has not started.
    """

    def __init__(self, mapping: Mapping, pool: object, clock: WallClock) -> None:
        self._pool = pool  # a pool without a name must not end under its results
        self._clock: WallClock | None = clock
        clock.__enter__()
        self._stream = mapping.stream()
        self._lock = threading.Lock()
        self._hold: Any = None  # a pool that is this iterator's alone

    def holding(self, pool: Any) -> ResultStream:
        """Own `pool`: it ends with this iterator."""
        self._hold = pool
        return self

    def __next__(self) -> Any:
        with self._lock:
            try:
                return next(self._stream)
            except BaseException:
                self._release()
                raise

    def close(self) -> None:
        """Cancel the rest."""
        with self._lock:
            self._stream.close()  # type: ignore[attr-defined]
            self._release()

    def _release(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.__exit__()
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.terminate()

    def __enter__(self) -> ResultStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
