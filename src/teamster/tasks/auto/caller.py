# SPDX-License-Identifier: BSD-3-Clause
"""Items run in the caller's thread: the probe of "auto", and its plain loop where nothing is faster.

::

    source --> chunks of half a millisecond of work, at first a single item --> list(map(function, chunk))

Beside a loop of some length runs a lookout, the thread that samples the interpreter's lock: when an item takes unexpectedly
long, it takes the items behind it back, so that others can run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import starmap
from threading import get_ident
from time import perf_counter_ns, process_time_ns, sleep, thread_time_ns
from typing import Any, Protocol

from teamster.machine.gil import GilSampler, GilShare, has_gil
from teamster.machine.run_delay import RunDelay, delay_of_this_thread, forced_switches
from teamster.spine.plan.safety.check import Meaning
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring
from teamster.spine.workers import worker_info as whoami
from teamster.spine.workers.batch import CallStyle
from teamster.spine.workers.exceptions import wrap_control_flow
from teamster.spine.workers.runner import title_of
from teamster.spine.workers.seeds import kept_random_state, seed_task
from teamster.spine.workers.worker_info import WorkerInfo

_CHUNK_NS = 500_000  # work between two looks at the clock: they cost a thousandth of it
_MOST_CHUNK = 4096  # items, however short
_MOST_UNWATCHED = 64  # as long as nobody looks out for items of another kind
_GROWTH = 8  # times the last chunk: few steps, and no leap on one odd item
_STUCK_NS = 10_000_000  # a chunk that runs this long has met an item of another kind
_FEW_SAMPLES = 4  # tell a lock that is held from one that is free; where it is held, each takes 10 ms
_FIRST_DELAY_NS = 1_000_000  # of work, before the first look at what others have taken
_DELAY_NS = 20_000_000  # and between two looks, later; short jobs are decided after a few milliseconds
_WINDOW_NS = 200_000_000  # what is older counts half


class Supply(Protocol):
    """Where items come from."""

    pulled: int
    pull_ns: int

    def next_item(self) -> list[Any]:
        """At most one."""

    def next_chunk(self, count: int) -> tuple[Iterator[Any], int, Iterator[Any] | None]:
        """At most so many as an iterator, and how many; what is not pulled yet needs tickets, and then `settle` and `finish`."""

    def settle(self) -> int:
        """How many items the iterator of a chunk and all before it have pulled."""

    def finish(self, error: BaseException | None) -> None:
        """The iterator of a chunk ended before its time."""

    def push_back(self, items: list[Any]) -> None:
        """These were not run."""


class Delivery(Protocol):
    """Where results go."""

    def take_here(self, first: int, values: list[Any]) -> None:
        """Results of consecutive items."""

    def list_here(self, first: int) -> list[Any] | None:
        """A list to which results from `first` on may be added, if nobody else adds to it; `took_here` tells how many."""

    def took_here(self, count: int) -> None:
        """So many results were added to that list."""

    def fail_here(self, index: int, error: BaseException) -> bool:
        """What one item raised; returns whether the others are still wanted."""


class CallerRunner:
    """Runs items in the calling thread, and keeps the evidence."""

    def __init__(
        self, function: Callable[..., Any], style: CallStyle, seed: int | None, supply: Supply, delivery: Delivery
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
        # The protocol with the lookout: it says that it takes before it does; a loop that finds nothing left waits for that.
        self._taking = False
        self._taken: list[Any] = []
        self._last: list[Any] = []  # the result of an item that ran by itself
        self._delay: RunDelay | None = None
        self._thread = 0  # whose delay it is
        self._delayed_ns = 0  # until now
        self._delay_read_ns = 0  # run time at that moment
        self._switches = 0  # by then: how often others took the processor
        self._sampler: GilSampler | None = None
        self._gil: GilShare | None = None
        self.items = 0  # all that ran here
        self.run_ns = 0  # and what they took
        self._seen = self._wall_ns = self._cpu_ns = self._all_cpu_ns = 0  # lately
        self._pull_ns = 0  # of them: what the input took

    # --- evidence ------------------------------------------------------------------------------------------------------------

    @property
    def item_s(self) -> float:
        """Seconds an item, lately, but for what other programs kept this one waiting for a processor."""
        return self._wall_ns / self._seen / 1e9 if self._seen else 0.0

    @property
    def seen_s(self) -> float:
        """Seconds of work behind that figure."""
        return self._wall_ns / 1e9

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time an item, in this thread."""
        return self._cpu_ns / self._seen / 1e9 if self._seen else 0.0

    @property
    def all_cpu_s(self) -> float:
        """The same in all threads of the process."""
        return self._all_cpu_ns / self._seen / 1e9 if self._seen else 0.0

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
        """From now on nobody else could have the items behind one that takes long: no lookout is wanted."""
        self._most_unwatched = _MOST_CHUNK

    def close(self) -> None:
        """The call is over."""
        self.unwatch()
        self._delay = None
        self._thread = 0

    @property
    def wants_watch(self) -> bool:
        """Whether the next chunk would be larger if somebody looked out."""
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
        self._seen = self._wall_ns = self._cpu_ns = self._all_cpu_ns = 0
        self._gil = None

    def _look_out(self) -> bool:
        """In the lookout's thread: take back what waits behind an item that takes long. True while items run.

        ``list(running)`` empties the iterator in a single step of C, so every item goes either to the loop or to this list.
        """
        running = self._running
        if running is not None and self._may_take and perf_counter_ns() - self._since_ns > _STUCK_NS:
            self._taking = True  # before, so that a loop that finds nothing left knows why
            self._taken = list(running) or self._taken
            self._taking = False
        return self.inside

    def _account(self, items: int, wall_ns: int, cpu_ns: int, all_cpu_ns: int) -> None:
        if self._seen == 1 and self.items == 1 + items:  # the first item pays for imports and caches; it was good for a guess
            self._seen = self._wall_ns = self._cpu_ns = self._all_cpu_ns = 0
        self._seen += items
        self._wall_ns += wall_ns
        self._cpu_ns += cpu_ns
        self._all_cpu_ns += all_cpu_ns
        if self.run_ns - self._delay_read_ns > min(_DELAY_NS, max(_FIRST_DELAY_NS, self._delay_read_ns // 2)):
            self._subtract_delay()
        if self._wall_ns > 2 * _WINDOW_NS and self._seen > 1:
            for name in ("_seen", "_wall_ns", "_cpu_ns", "_all_cpu_ns"):
                setattr(self, name, getattr(self, name) // 2)

    # --- the loop --------------------------------------------------------------------------------------------------------------

    def run(self, budget_ns: int, enough: Callable[[], bool]) -> None:
        """Run items for about `budget_ns`, until `enough` says so or there are none."""
        stop_ns = perf_counter_ns() + budget_ns
        while True:
            first = self._supply.pulled
            pending, count, tickets = self._supply.next_chunk(self._chunk)  # outside: it runs code of the user's that is no item
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
            self.items += 1

    def run_checked(self, meaning: Meaning, seconds: float) -> None:
        """Run one item, with a look at what it means before and after it, of `seconds` each."""
        first, items = self._supply.pulled, self._supply.next_item()
        if not items:
            return
        self._last = []
        checking = meaning.begin(items[0], seconds)
        with self._clocked():
            self._clock_chunk(first, iter(items), 1)
        if checking and self._last:
            meaning.end(items[0], self._last[0])
        self._last = []

    @contextmanager
    def _clocked(self) -> Iterator[None]:
        """Code in here runs as a worker, and what it takes is evidence."""
        before, self.inside = whoami.set_thread_worker(WorkerInfo(0, "serial", 1)), True
        if self._sampler is not None:
            self._sampler.resume()
        ran, began, cpu, all_cpu = self.items, perf_counter_ns(), thread_time_ns(), process_time_ns()
        if self._thread != get_ident():  # the first, or results are now consumed in another thread
            self._open_delay()
        try:
            if self._seed is None:
                yield
            else:
                with kept_random_state():
                    yield
        finally:
            self.inside = False
            whoami.set_thread_worker(before)
            if self.items > ran:
                wall_ns, cpu_ns, all_cpu_ns = perf_counter_ns() - began, thread_time_ns() - cpu, process_time_ns() - all_cpu
                self.run_ns += wall_ns
                pull_ns, self._pull_ns = min(self._pull_ns, wall_ns // 2), 0
                self._account(self.items - ran, max(wall_ns - pull_ns, 1), max(cpu_ns - pull_ns, 0), max(all_cpu_ns - pull_ns, 0))

    def _open_delay(self) -> None:
        self._delay, self._thread = delay_of_this_thread(), get_ident()
        self._delayed_ns = self._delay.read_ns()

    def bring_up_to_date(self) -> None:
        """Before a decision: take away what others took, if they took anything since that was done last."""
        if self._delay is not None and forced_switches() != self._switches:
            self._subtract_delay()

    def _subtract_delay(self) -> None:
        """Take away what other programs took.

        Not at every end of a slice: reading the file frees the interpreter's lock for a moment, which wakes the lookout up, in
        vain; it asks for the lock only when it was left in peace for 5 ms. (Beside a loop of short functions it had 4 samples in
        0.4 s.)
        """
        assert self._delay is not None
        now, self._delay_read_ns, self._switches = self._delay.read_ns(), self.run_ns, forced_switches()
        self._wall_ns = max(self._wall_ns - max(0, now - self._delayed_ns), self._cpu_ns, 1)
        self._delayed_ns = now

    def _clock_chunk(self, first: int, pending: Iterator[Any], count: int, tickets: Iterator[Any] | None = None) -> int:
        """Run a chunk and choose the size of the next; returns the time when it was over."""
        began = perf_counter_ns()
        done = self._run_chunk(first, pending, count, tickets)
        self.items += done
        now = perf_counter_ns()
        if tickets is not None:
            self._pull_ns += done * self._supply.pull_ns
        if done:
            self._resize((now - began) / done)
            self._record(first, done)
        return now

    def _resize(self, item_ns: float) -> None:
        """The next chunk takes half a millisecond, unless random numbers are seeded for each item."""
        most = 1 if self._seed is not None else min(self._most_chunk, _MOST_CHUNK if self.watched else self._most_unwatched)
        self._chunk = max(1, min(self._chunk * _GROWTH, most, int(_CHUNK_NS / max(item_ns, 1.0))))

    def _run_chunk(self, first: int, pending: Iterator[Any], count: int, tickets: Iterator[Any] | None = None) -> int:
        """Run `count` items; returns how many were run, since the lookout may have taken some, or the input ended.

        What is not pulled yet is pulled item by item as they are run; the lookout takes the tickets for it.
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
            wanted = self._delivery.fail_here(first + position, wrap_control_flow(failure or StopIteration()))
            position += 1
            if not wanted:
                self._taken += list(pending if tickets is None else tickets)
                break
        self._running = None
        if position < count and tickets is None:
            self._supply.push_back(self._taken)
        return position

    def _run_on(self, run: Iterator[Any], index: int, count: int) -> tuple[int, BaseException | None]:
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
            self._last = values[before:] if count == 1 else []
            if shared is None:
                self._delivery.take_here(index, values)
            else:
                self._delivery.took_here(done)
        return done, failure

    def _is_through(
        self, first: int, position: int, count: int, tickets: Iterator[Any] | None, failure: BaseException | None
    ) -> bool:
        """Whether nothing is left of a chunk; a failure that no item is to blame for is the input's own."""
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
            ring.write(self._since_ns, perf_counter_ns(), first, items, ring.name(title_of(self._function)), COMPUTE)

    def _count_taken(self) -> int:
        """Items that the lookout has taken back."""
        while self._taking:
            sleep(0)
        return len(self._taken)
