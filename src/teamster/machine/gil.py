# SPDX-License-Identifier: BSD-3-Clause
"""How large a share of the time the interpreter's lock is held, measured from beside.

No privileges are needed.

::

    a thread sleeps until random moments (exponential distances, 1 ms on average)
        woke up at once            the lock was free
        had to give up the         the lock was held, and so it was at every other moment that
        processor a second time    was due during the wait

Moments at exponential distances see a system as it is on average, whatever its own rhythm (PASTA:
Poisson Arrivals See Time Averages, Wolff 1982). That a wake-up had to wait shows in the thread's
count of voluntary context switches (``getrusage(RUSAGE_THREAD)``, Linux): one for the sleep,
another for the lock. Locks held for less than some 5 us at a time are missed often, so for
functions that do that the share is a lower bound.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

from teamster.machine.own_threads import own_thread

_MEAN_S = 0.001  # a thousand looks a second: a percent of the time
_LEAST_SAMPLES = 30  # less tell nothing
_ENOUGH_SAMPLES = 300  # for an error of 3%
_IDLE_S = 0.01  # until some thread works again
_VAIN_S = 0.05  # without a look at it: the sampler has no processor
_LEAST_SLEEP_S = 1e-6  # a lock asked for without patience is not waited for


@dataclass(frozen=True, slots=True)
class GilShare:
    """What was measured.

    Attributes:
        held: share of the time that some thread held the lock, 0 to 1.
        error: standard error of that.
        samples: moments looked at.

    Example:
        >>> print(GilShare(0.97, 0.011, 240))
        97% +- 1% (240 samples)
    """

    held: float
    error: float
    samples: int

    def __str__(self) -> str:
        return f"{self.held:.0%} +- {self.error:.0%} ({self.samples:,} samples)"


class GilSampler:
    """Samples the lock while a ``with`` block runs; costs that block up to 3%.

    Args:
        beside: called after each wake-up, in the sampling thread; what was seen counts where it
            returns True. When it has not done so for a while, the thread ends: an iterator that is
            not advanced keeps none.
        mean_s: average distance of two samples, in seconds; every tenfold costs a tenth.

    Example:
        >>> with GilSampler() as sampler:
        ...     total = sum(range(10))
        >>> sampler.share() is None  # far too short to tell
        True
    """

    def __init__(self, beside: Callable[[], bool] | None = None, mean_s: float = _MEAN_S) -> None:
        self._beside = beside
        self._mean_s = mean_s
        # Held while it samples; the wait for it is the sleep, which its release ends
        self._over = threading.Lock()
        self._over.acquire()
        self._thread: threading.Thread | None = None
        self._seen_s = perf_counter()  # when there was something to see
        self._left = False  # the thread has ended, because there was nothing to see
        self._leaving = threading.Lock()
        self._moments = self._held = self._wakes = 0

    def __enter__(self) -> GilSampler:
        if is_available() or self._beside is not None:
            self._start()
        return self

    def _start(self) -> None:
        self._thread = own_thread(
            threading.Thread(target=self._sample, name="teamster-gil", daemon=True)
        )
        self._thread.start()

    def resume(self) -> None:
        """There is something to see from now on: `beside` says so already."""
        with self._leaving:  # else its thread could leave in this moment
            if self._left and self._thread is not None:
                self._thread.join()
                self._left, self._seen_s = False, perf_counter()
                self._start()

    def __exit__(self, *_: object) -> None:
        self._over.release()
        if self._thread is not None:
            self._thread.join()

    def share(self, least: int = _LEAST_SAMPLES) -> GilShare | None:
        """What was seen so far.

        It is None when that is less than `least` samples, or nothing can be seen on this system.
        """
        if self._wakes < least or not is_available():
            return None
        held = self._held / self._moments
        # Moments within one wait saw the same holding: what is independent are the wake-ups.
        return GilShare(
            held, math.sqrt(max(held * (1 - held), 1 / self._moments) / self._wakes), self._moments
        )

    def counts(self) -> tuple[int, int]:
        """Moments looked at so far, and those at which the lock was held.

        The difference of two readings is a window.
        """
        return self._moments, self._held

    def _sample(self) -> None:
        # Not imported with the module: Linux has it, other systems may not
        from resource import RUSAGE_THREAD, getrusage

        distances = _exponential(self._mean_s)
        due = perf_counter() + next(distances)
        while True:
            before = getrusage(RUSAGE_THREAD).ru_nvcsw
            if self._over.acquire(timeout=max(_LEAST_SLEEP_S, due - perf_counter())):
                return
            waited = getrusage(RUSAGE_THREAD).ru_nvcsw - before > 1
            now = perf_counter()
            counts = self._beside is None or self._looks()
            self._wakes += counts
            while due <= now:
                self._moments += counts
                self._held += counts and waited
                due += next(distances)
            if self._left:
                return
            if self._beside is not None and self._wakes >= _ENOUGH_SAMPLES:
                # The caller has an answer; the look-out goes on
                break
        while not self._over.acquire(timeout=_IDLE_S):
            self._looks()  # goes on, at less cost, when the lock is known well enough
            if self._left:
                return

    def _looks(self) -> bool:
        assert self._beside is not None
        now, sees = perf_counter(), self._beside()
        if sees:
            self._seen_s = now
        elif now - self._seen_s > _VAIN_S:
            with self._leaving:
                self._left = not (sees := self._beside())
        return sees


def _exponential(mean: float) -> Iterator[float]:
    """Exponentially distributed numbers, from a generator of our own.

    The user's seeded numbers stay as they are. A linear congruential generator (Knuth, MMIX) does;
    ``random`` takes longer to load than a small job takes.
    """
    state = 0x7EA
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        yield -mean * math.log((state >> 11) / (1 << 53) or 0.5)


def is_available() -> bool:
    """Whether there is a lock to look at, and the means to do so.

    Returns:
        True on Linux, with an interpreter that has the lock.

    Example:
        >>> isinstance(is_available(), bool)
        True
    """
    return sys.platform == "linux" and has_gil()


def has_gil() -> bool:
    """Whether threads take turns at running Python code: False on a free-threaded interpreter.

    Returns:
        True where there is a lock.

    Example:
        >>> isinstance(has_gil(), bool)
        True
    """
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())
