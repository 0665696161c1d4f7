# SPDX-License-Identifier: BSD-3-Clause
"""Items run in the caller's thread: the probe of "auto", and its plain loop.

::

    source --> chunks of half a millisecond of work, at first one --> list(map(function, chunk))

Beside a loop of some length runs a lookout, the thread that samples the interpreter's lock: when an
item takes unexpectedly long, it takes the items behind it back, so that others can run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import starmap
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from teamster.machine.gil import GilSampler, GilShare, has_gil
from teamster.spine.plan.safety.check import SafetyCheck
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring
from teamster.spine.workers import worker_info
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.runner import title_of
from teamster.spine.workers.seeds import kept_random_state, seed_task
from teamster.spine.workers.worker_info import WorkerInfo
from teamster.tasks.auto.caller_clock import CallerClock

if TYPE_CHECKING:
    from teamster.tasks.auto.supply import Delivery, Supply

_CHUNK_NS = 500_000  # work between two looks at the clock: they cost a thousandth of it
_MOST_CHUNK = 4096  # items, however short
_MOST_UNWATCHED = 64  # as long as there is no lookout for items of another kind
_GROWTH = 8  # times the last chunk: few steps, and no leap on one odd item
_STUCK_NS = 10_000_000  # a chunk that runs this long has met an item of another kind
_FEW_SAMPLES = 4  # tell a lock that is held (10 ms each) from one that is free


class CallerRunner:
    """Runs items in the calling thread, and keeps the evidence."""

    def __init__(
        self,
        function: Callable[..., Any],
        style: CallStyle,
        seed: int | None,
        supply: Supply,
        delivery: Delivery,
    ) -> None:
        self._function = function
        self._star = style == "star"
        self._seed = seed
        self._supply = supply
        self._delivery = delivery
        self._chunk = 1
        self._running: Iterator[Any] | None = None  # what the lookout may empty
        self._since_ns = 0
        self.inside = False  # an item runs
        self._may_take = has_gil()  # which makes the emptying of an iterator a single step
        self._most_chunk = _MOST_CHUNK
        self._most_unwatched = _MOST_UNWATCHED
        # The lookout says that it takes before it does; a loop that finds nothing left waits for it
        self._taking = False
        self._taken: list[Any] = []
        # The result of an item that ran by itself, while it is checked
        self._last: list[Any] | None = None
        self._sampler: GilSampler | None = None
        self._gil: GilShare | None = None
        self.clock = CallerClock()

    # --- evidence ---------------------------------------------------------------------------------

    def gil(self) -> GilShare | None:
        """Share of the time for which the interpreter's lock was held, as far as it was sampled."""
        if self._sampler is not None:
            self._gil = self._sampler.share(_FEW_SAMPLES) or self._gil
        return self._gil

    def watch(self) -> None:
        """Start the lookout, if there is none."""
        if self._sampler is None:
            self._sampler = GilSampler(self._look_out).__enter__()

    def run_singly(self) -> None:
        """From now on pull no item that is not run at once."""
        self._most_chunk = 1

    def run_alone(self) -> None:
        """From now on no worker could have the items behind one that takes long: no lookout."""
        self._most_unwatched = _MOST_CHUNK

    def close(self) -> None:
        """The call is over."""
        self.unwatch()
        self.clock.close()

    @property
    def wants_watch(self) -> bool:
        """Whether the next chunk would be larger with a lookout."""
        return self._chunk == self._most_unwatched and not self.watched

    @property
    def watched(self) -> bool:
        """Whether there is a lookout."""
        return self._sampler is not None

    def unwatch(self) -> None:
        """End the lookout, whose samples stay."""
        if self._sampler is not None:
            self.gil()
            self._sampler.__exit__()
            self._sampler = None

    def forget(self) -> None:
        """What was seen so far was of other items."""
        self.clock.forget()
        self._gil = None

    def _look_out(self) -> bool:
        """In the lookout's thread: take back what waits behind an item that takes long.

        True while items run. ``list(running)`` empties the iterator in a single step of C, so every
        item goes either to the loop or to this list.
        """
        running = self._running
        stuck = perf_counter_ns() - self._since_ns > _STUCK_NS
        if running is not None and self._may_take and stuck:
            self._taking = True  # before, so that a loop that finds nothing left knows why
            self._taken = list(running) or self._taken
            self._taking = False
        return self.inside

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, budget_ns: int, enough: Callable[[], bool]) -> None:
        """Run items for about `budget_ns`, until `enough` says so or there are none."""
        stop_ns = perf_counter_ns() + budget_ns
        while True:
            first = self._supply.pulled
            # Outside of the clock: it runs code of the user's that is no item
            pending, count, tickets = self._supply.next_chunk(self._chunk)
            if not count:
                return
            with self._clocked():
                now = self._clock_chunk(first, pending, count, tickets)
            if now >= stop_ns or enough() or self.wants_watch:
                return

    def run_one(self, index: int, item: Any) -> None:
        """Run an item that was pulled before."""
        with self._clocked():
            self._record(index, self._run_chunk(index, iter([item]), 1))
            self.clock.items += 1

    def run_checked(self, safety: SafetyCheck, seconds: float) -> None:
        """Run one item, with a look at what it means before and after it, of `seconds` each."""
        first, items = self._supply.pulled, self._supply.next_item()
        if not items:
            return
        checking = safety.begin(items[0], seconds)
        self._last = [] if checking else None
        with self._clocked():
            self._clock_chunk(first, iter(items), 1)
        if self._last:
            safety.end(items[0], self._last[0])
        self._last = None

    @contextmanager
    def _clocked(self) -> Iterator[None]:
        """Code in here runs as a worker, and what it takes is evidence."""
        before, self.inside = worker_info.set_thread_worker(WorkerInfo(0, "serial", 1)), True
        if self._sampler is not None:
            self._sampler.resume()
        began = self.clock.begin()
        try:
            if self._seed is None:
                yield
            else:
                with kept_random_state():
                    yield
        finally:
            self.inside = False
            worker_info.set_thread_worker(before)
            self.clock.end(began)

    def _clock_chunk(
        self, first: int, pending: Iterator[Any], count: int, tickets: Iterator[Any] | None = None
    ) -> int:
        """Run a chunk and choose the size of the next; returns the time when it was over."""
        began = perf_counter_ns()
        done = self._run_chunk(first, pending, count, tickets)
        self.clock.items += done
        now = perf_counter_ns()
        if tickets is not None:
            self.clock.pull_ns += done * self._supply.pull_ns
        if done:
            self._resize((now - began) / done)
            self._record(first, done)
        return now

    def _resize(self, item_ns: float) -> None:
        """The next chunk takes half a millisecond, or has one item where each is seeded."""
        most = min(self._most_chunk, _MOST_CHUNK if self.watched else self._most_unwatched)
        most = 1 if self._seed is not None else most
        self._chunk = max(1, min(self._chunk * _GROWTH, most, int(_CHUNK_NS / max(item_ns, 1.0))))

    def _run_chunk(
        self, first: int, pending: Iterator[Any], count: int, tickets: Iterator[Any] | None = None
    ) -> int:
        """Run `count` items.

        Returns how many were run, since the lookout may have taken some, or the input ended. What
        is not pulled yet is pulled as it is run; the lookout takes the tickets for it.
        """
        if self._seed is not None:
            seed_task(self._seed, first)
        run = starmap(self._function, pending) if self._star else map(self._function, pending)
        self._since_ns, self._taken = perf_counter_ns(), []
        self._running = (pending if tickets is None else tickets) if count > 1 else None
        position = 0
        while position < count:
            done, failure = self._run_on(run, first + position, count)
            position += done
            if self._is_through(first, position, count, tickets, failure):
                break
            # An item that raised StopIteration ended the loop without an exception.
            wanted = self._delivery.fail_here(
                first + position, wrap_control_flow(failure or StopIteration())
            )
            position += 1
            if not wanted:
                self._taken += list(pending if tickets is None else tickets)
                break
        self._running = None
        if position < count and tickets is None:
            self._supply.push_back(self._taken)
        return position

    def _run_on(
        self, run: Iterator[Any], index: int, count: int
    ) -> tuple[int, BaseException | None]:
        """Run items up to an exception and deliver their results; how many, and the exception."""
        failure = None
        shared = self._delivery.list_here(index)
        values: list[Any] = [] if shared is None else shared
        before = len(values)
        try:
            values.extend(run)  # what came before an exception stays in the list
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = error
        if done := len(values) - before:
            if self._last is not None:
                self._last = values[before:]
            if shared is None:
                self._delivery.take_here(index, values)
            else:
                self._delivery.took_here(done)
        return done, failure

    def _is_through(
        self,
        first: int,
        position: int,
        count: int,
        tickets: Iterator[Any] | None,
        failure: BaseException | None,
    ) -> bool:
        """Whether nothing is left of a chunk; a failure that is no item's is the input's own."""
        if tickets is None:
            return failure is None and position + self._count_taken() >= count
        if position < self._supply.settle() - first:
            return False
        if position + self._count_taken() < count:
            self._end_input(failure)
        return True

    def _end_input(self, failure: BaseException | None) -> None:
        """It has no more items, or has raised; what steers the program goes through."""
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        self._supply.finish(failure)

    def _record(self, first: int, items: int) -> None:
        if (ring := current_ring()) is not None:
            ring.write(
                self._since_ns,
                perf_counter_ns(),
                first,
                items,
                ring.name(title_of(self._function)),
                COMPUTE,
            )

    def _count_taken(self) -> int:
        """Items that the lookout has taken back."""
        while self._taking:
            sleep(0)
        return len(self._taken)
