# SPDX-License-Identifier: BSD-3-Clause
"""The consumer's native threads sleep, and do not spin, while workers need the cores.

A step of torch's has a team of threads (OpenMP). At the end of each operation they wait for each
other by spinning, for a moment, since they expect a core each. Beside workers that compute on all
cores a spinning thread takes the core that the one it waits for needs: on 2 cores a step of 0.5 ms
took 10 to 50, and a quarter of the processor time was spent on that. GNU's runtime spins a
hundredth of that time where there are more threads than cores; so one more team is made, which does
nothing, as long as workers compute and the consumer waits. Alone, with the cores free, small
operations take longer in that way: it is left as soon as the consumer does not wait any more, or
does not come for batches.

Source: gomp_throttled_spin_count_var and gomp_managed_threads, libgomp/config/linux/wait.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from functools import cache
from time import perf_counter
from typing import Any

import torch

from teamster.data.arguments import cores
from teamster.machine.own_threads import own_thread

_WINDOW_S = 0.1  # of batches, before each look
_WAITS, _WAITS_NOT = 0.3, 0.1  # shares of it: from which on, and below which
_BUSY, _BUSY_NOT = 0.75, 0.5  # the same of the cores, of what workers compute
_MOST_TEAM = 16  # threads: where a few of many cores are allowed, there may be no room for more
_BEAT_S = 0.5  # the consumer has come for a batch within this time, or twice as long


@cache
def _runtime() -> Any:
    """GNU's OpenMP, if that is what torch has loaded."""
    home = os.path.dirname(torch.__file__)  # torch.libs is beside it
    with contextlib.suppress(OSError, AttributeError):
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[5].strip() for line in maps if "libgomp" in line}
        for path in sorted(paths, key=lambda each: not each.startswith(home)):
            library = ctypes.CDLL(path)
            library.GOMP_parallel.argtypes = [
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_uint,
                ctypes.c_uint,
            ]
            return library
    return None


def _team() -> int:
    """With the team of the consumer's step there are more threads than cores then."""
    threads: int = torch.get_num_threads()
    return max(2, len(os.sched_getaffinity(0)) - threads + 2)


def _can_have(threads: int) -> bool:
    """Whether the system gives so many more: the runtime ends the program where it does not."""
    together = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            own_thread(threading.Thread(target=_meet, args=(together,), daemon=True)).start()
    except RuntimeError:
        together.abort()
        return False
    _meet(together)
    return True


def _meet(together: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        together.wait()


def can_calm() -> bool:
    """Whether there is something to be done about it.

    Example:
        >>> can_calm() in (True, False)
        True
    """
    return torch.get_num_threads() > 1 and _team() <= _MOST_TEAM and _runtime() is not None


class Calm:
    """Decides for the workers of one feed.

    Args:
        workers: how many there are.

    Example:
        >>> calm = Calm(2)
        >>> calm.note(0.0, 1.0)
        >>> calm.is_on
        False
        >>> calm.close()
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._began_s = self._seen_s = perf_counter()
        self._waited_s = 0.0
        self._end: threading.Event | None = None

    @property
    def is_on(self) -> bool:
        """Whether the consumer's threads sleep."""
        return self._end is not None and not self._end.is_set()

    def note(self, waited_s: float, busy: float) -> None:
        """The consumer has got a batch.

        Args:
            waited_s: seconds that it has waited for it.
            busy: share of the time that workers have for samples in which these compute.
        """
        now = perf_counter()
        if now - self._seen_s > 2 * _BEAT_S:  # it was elsewhere
            self._began_s, self._waited_s = now - waited_s, 0.0
        self._seen_s = now
        self._waited_s += waited_s
        if (seconds := now - self._began_s) < _WINDOW_S:
            return
        waits, of_cores = self._waited_s / seconds, self._workers * busy / cores()
        self._began_s, self._waited_s = now, 0.0
        if self.is_on and (waits < _WAITS_NOT or of_cores < _BUSY_NOT):
            self.close()
        elif not self.is_on and waits > _WAITS and of_cores > _BUSY and can_calm():
            self._begin()

    def _begin(self) -> None:
        self._end = end = threading.Event()
        thread = threading.Thread(target=self._hold, args=(end,), name="teamster-calm", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had
            own_thread(thread).start()
            return
        end.set()

    def _hold(self, end: threading.Event) -> None:
        """Have a team as long as this thread lives: that is how long the runtime keeps it."""
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing
        if not _can_have(team := _team()):
            end.set()
            return
        _runtime().GOMP_parallel(nothing, None, team, 0)
        while not end.wait(_BEAT_S):
            if perf_counter() - self._seen_s > _BEAT_S:
                end.set()

    def close(self) -> None:
        """Let them spin."""
        if self._end is not None:
            self._end.set()
