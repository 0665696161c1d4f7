# SPDX-License-Identifier: BSD-3-Clause
"""What the items that ran in the caller have taken, of late, without what other programs took."""

from __future__ import annotations

from threading import get_ident
from time import perf_counter_ns, process_time_ns, thread_time_ns

from teamster.machine.run_delay import RunDelay, delay_of_this_thread, forced_switches

_FIRST_DELAY_NS = 1_000_000  # of work, before the first look at what others have taken
_DELAY_NS = 20_000_000  # and between two looks, later; short jobs are decided in a few milliseconds
_WINDOW_NS = 200_000_000  # what is older counts half


class CallerClock:
    """Counts items that run in the calling thread, and what they take.

    Example:
        >>> clock = CallerClock()
        >>> began = clock.begin()
        >>> clock.items += 2
        >>> clock.end(began)
        >>> clock.items, clock.seen_s > 0, clock.item_s == clock.seen_s / 2
        (2, True, True)
    """

    def __init__(self) -> None:
        self.items = 0  # all that ran here
        self.run_ns = 0  # and what they took
        self.pull_ns = 0  # since the last slice: what the input took of it
        self._seen = self._wall_ns = self._cpu_ns = self._all_cpu_ns = 0  # lately
        self._delay: RunDelay | None = None
        self._thread = 0  # it is the delay of this one
        self._delayed_ns = 0  # until now
        self._delay_read_ns = 0  # run time at that moment
        self._switches = 0  # by then: how often others took the processor

    @property
    def item_s(self) -> float:
        """Seconds an item, lately, without the time for which other programs had the processor."""
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

    def begin(self) -> tuple[int, int, int, int]:
        """Items run from now on."""
        began = self.items, perf_counter_ns(), thread_time_ns(), process_time_ns()
        if self._thread != get_ident():  # the first, or results are now consumed in another thread
            self._open_delay()
        return began

    def end(self, began: tuple[int, int, int, int]) -> None:
        """What it took since then is that of the items that were counted."""
        ran, wall, cpu, all_cpu = began
        if self.items == ran:
            return
        wall_ns = perf_counter_ns() - wall
        cpu_ns, all_cpu_ns = thread_time_ns() - cpu, process_time_ns() - all_cpu
        self.run_ns += wall_ns
        pull_ns, self.pull_ns = min(self.pull_ns, wall_ns // 2), 0
        self._account(self.items - ran, wall_ns, cpu_ns, all_cpu_ns, pull_ns)

    def _account(
        self, items: int, wall_ns: int, cpu_ns: int, all_cpu_ns: int, pull_ns: int
    ) -> None:
        if self._seen == 1 and self.items == 1 + items:
            self.forget()  # the first item pays for imports and caches; it was good for a guess
        self._seen += items
        self._wall_ns += max(wall_ns - pull_ns, 1)
        self._cpu_ns += max(cpu_ns - pull_ns, 0)
        self._all_cpu_ns += max(all_cpu_ns - pull_ns, 0)
        unread_ns = self.run_ns - self._delay_read_ns
        if unread_ns > min(_DELAY_NS, max(_FIRST_DELAY_NS, self._delay_read_ns // 2)):
            self._subtract_delay()
        if self._wall_ns > 2 * _WINDOW_NS and self._seen > 1:
            for name in ("_seen", "_wall_ns", "_cpu_ns", "_all_cpu_ns"):
                setattr(self, name, getattr(self, name) // 2)

    def forget(self) -> None:
        """What was seen so far was of other items."""
        self._seen = self._wall_ns = self._cpu_ns = self._all_cpu_ns = 0

    def close(self) -> None:
        """The call is over."""
        self._delay, self._thread = None, 0

    # --- what other programs took -----------------------------------------------------------------

    def _open_delay(self) -> None:
        self._delay, self._thread = delay_of_this_thread(), get_ident()
        self._delayed_ns = self._delay.read_ns()

    def bring_up_to_date(self) -> None:
        """Before a decision: take away what others took, if that is more than at the last look."""
        if self._delay is not None and forced_switches() != self._switches:
            self._subtract_delay()

    def _subtract_delay(self) -> None:
        """Take away what other programs took.

        Not at every end of a slice: reading the file frees the interpreter's lock for a moment,
        which wakes the lookout up, in vain; it asks for the lock only when it was left in peace for
        5 ms. (Beside a loop of short functions it had 4 samples in 0.4 s.)
        """
        assert self._delay is not None
        now = self._delay.read_ns()
        self._delay_read_ns, self._switches = self.run_ns, forced_switches()
        self._wall_ns = max(self._wall_ns - max(0, now - self._delayed_ns), self._cpu_ns, 1)
        self._delayed_ns = now
