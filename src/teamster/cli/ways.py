# SPDX-License-Identifier: BSD-3-Clause
"""The same inputs under one kind of workers after the other.

The answer is times, processor use, memory, and which kind to take.

::

    candidates --> run_one, each with a pool of its own --> Run
        --> recommend: the simplest of the fastest
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from time import perf_counter
from typing import Any

import psutil

from teamster.kinds import label, order_of
from teamster.machine.gil import GilShare
from teamster.machine.own_threads import own_thread
from teamster.spine.trace.recording import record
from teamster.spine.trace.timeline import Timeline
from teamster.tasks.pool import Pool

_CLOSE_ENOUGH = 1.05  # as fast as the fastest, within what a second run would differ by
_MOSTLY = 0.5  # of the time
_SAMPLE_S = 0.05  # 20 looks at the memory a second cost nothing

Candidate = tuple[Any, int | None]
"""Backend and workers, None for its own number."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one way of running took.

    Attributes:
        asked: the backend asked for; "auto" among them.
        backend: the backend that ran.
        workers: how many.
        items: inputs that were done; fewer than there are when the time was up.
        failed: how many of them raised.
        seconds: from the opening of the pool to the last result.
        first_s: seconds to the first result.
        cpu: processors in use on average, this process included.
        memory_bytes: the most memory at one moment, this process and its workers together, above
            what was there before.
        timeline: what every worker did; None where that was not recorded.

    Example:
        >>> Run("thread", "thread", 2, 10, 0, 0.5, 0.1, 1.0, 0).items_per_s
        20.0
    """

    asked: str
    backend: str
    workers: int
    items: int
    failed: int
    seconds: float
    first_s: float
    cpu: float
    memory_bytes: int
    timeline: Timeline | None = field(default=None, repr=False, compare=False)

    @property
    def items_per_s(self) -> float:
        """Inputs a second."""
        return self.items / self.seconds

    @property
    def name(self) -> str:
        """As the table calls it."""
        name = label(self.backend, self.workers)
        return f"auto: {name}" if self.asked == "auto" else name

    def to_dict(self) -> dict[str, Any]:
        """All of it, for machines.

        Returns:
            A dict of plain values, without the timeline; times in seconds, sizes in bytes.

        Example:
            >>> Run("serial", "serial", 1, 10, 0, 0.5, 0.1, 1.0, 0).to_dict()["items_per_s"]
            20.0
        """
        values = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "timeline"
        }
        return {**values, "items_per_s": self.items_per_s}


def candidates(cores: int, counts: Sequence[int] | None = None) -> list[Candidate]:
    """What is worth comparing.

    That is threads far beyond the cores, for work that waits, and processes up to twice the cores.

    Args:
        cores: usable cores.
        counts: numbers of workers to use instead.

    Returns:
        Backends and workers, the plain loop first and "auto" last.

    Example:
        >>> candidates(2)
        [('serial', 1), ('thread', 2), ('thread', 8), ('thread', 32), ('process', 2),
         ('process', 4), ('auto', None)]
    """
    several = max(2, cores)
    threads = counts or sorted({several, 4 * several, 32})
    processes = counts or sorted({several, 2 * several})
    return [
        ("serial", 1),
        *(("thread", n) for n in threads),
        *(("process", n) for n in processes),
        ("auto", None),
    ]


def run_one(
    function: Callable[[Any], Any],
    inputs: Sequence[Any],
    candidate: Candidate,
    seconds: float | None = None,
    *,
    recorded: bool = False,
) -> Run:
    """Call `function` with every input and measure.

    Args:
        function: any callable.
        inputs: what to call it with.
        candidate: backend and workers.
        seconds: stop after so many; None for never.
        recorded: whether to record its timeline, too.

    Returns:
        What it took.

    Raises:
        UsageError: the backend is not known, or there would be no worker.

    Example:
        >>> run_one(abs, [-1, -2, -3], ("serial", 1)).items
        3
    """
    backend, workers = candidate
    items = failed = 0
    first_s = 0.0
    recording = record() if recorded else None
    with _watched() as usage, recording or nullcontext():
        began = perf_counter()
        with (
            Pool(backend, workers, progress=False) as pool,
            pool.imap(function, inputs, on_error="return") as results,
        ):
            for result in results:
                items += 1
                failed += isinstance(result, BaseException)
                first_s = first_s or perf_counter() - began
                if seconds is not None and perf_counter() - began > seconds:
                    break
            took = perf_counter() - began
            usage.stop()
            plan = pool.plan
    timeline = recording.timeline if recording is not None else None
    return Run(
        backend,
        plan.backend,
        plan.workers,
        items,
        failed,
        took,
        first_s,
        usage.cpu_s / took,
        usage.memory_bytes,
        timeline,
    )


def recommend(runs: Sequence[Run]) -> tuple[Run, str]:
    """Choose one, and say why in a sentence.

    Args:
        runs: what was measured, the plain loop first.

    Returns:
        The simplest of those that were about as fast as the fastest, and the sentence.

    Example:
        >>> loop = Run("serial", "serial", 1, 10, 0, 1.0, 0.1, 1.0, 0)
        >>> pair = Run("process", "process", 2, 10, 0, 0.5, 0.1, 2.0, 0)
        >>> recommend([loop, pair])[1]
        'process(2): 2.00 times as fast as the plain loop.'
    """
    loop, fixed = runs[0], [run for run in runs if run.asked != "auto"]
    best = max(run.items_per_s for run in fixed)
    good = [run for run in fixed if run.items_per_s * _CLOSE_ENOUGH >= best]
    chosen = min(good, key=lambda run: (order_of(run.backend), run.workers))
    faster = chosen.items_per_s / loop.items_per_s
    ahead = [run for run in runs if run.asked == "auto" and run.items_per_s > best * _CLOSE_ENOUGH]
    still = (
        f" {ahead[0].name} was faster still: {ahead[0].items_per_s / loop.items_per_s:.2f} times."
        if ahead
        else ""
    )
    if chosen is loop:
        return chosen, f"serial: no fixed way was more than 5% faster than the plain loop.{still}"
    others = [run.name for run in good if run is not chosen]
    also = (
        f"; {' and '.join(others)} {'is' if len(others) == 1 else 'are'} within 5%, with more to "
        "start"
        if others
        else ""
    )
    return chosen, f"{chosen.name}: {faster:.2f} times as fast as the plain loop{also}.{still}"


def characterize(loop: Run, share: GilShare | None) -> str:
    """Say what kind of work it is.

    Args:
        loop: the plain loop.
        share: of its time, how much of it the interpreter's lock was held; None when that is not
            known.

    Returns:
        A sentence; empty when nothing is known.

    Example:
        >>> loop = Run("serial", "serial", 1, 10, 0, 1.0, 0.1, 1.0, 0)
        >>> characterize(loop, GilShare(0.97, 0.011, 240))
        'In the loop the GIL was held 97% +- 1% (240 samples) of the time: threads take turns.'
    """
    if share is None:
        return ""
    if share.held >= _MOSTLY:
        kind = "threads take turns"
    elif loop.cpu < _MOSTLY:
        kind = f"it waits, with {loop.cpu:.2f} processors in use, and many threads can wait at once"
    else:
        kind = "threads can run side by side"
    return f"In the loop the GIL was held {share} of the time: {kind}."


class _Usage:
    """Processor time and memory of this process and all below it."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._cpu_before = self._cpu()
        self._memory_before = self._memory()
        self._over = threading.Event()
        self.cpu_s = 0.0
        self.memory_bytes = 0
        self._sampler = own_thread(
            threading.Thread(target=self._sample, name="teamster-usage", daemon=True)
        )
        self._sampler.start()

    def _family(self) -> list[psutil.Process]:
        return [self._me, *self._me.children(recursive=True)]

    def _cpu(self) -> float:
        total = 0.0
        for process in self._family():
            try:
                times = process.cpu_times()
            except psutil.Error:  # it has ended meanwhile
                continue
            total += times.user + times.system
        return total

    def _memory(self) -> int:
        total = 0
        for process in self._family():
            try:
                memory = process.memory_full_info()
            except psutil.Error:
                continue
            # Pages that several share count once, where the system can tell
            total += getattr(memory, "pss", memory.rss)
        return total

    def _sample(self) -> None:
        while True:
            over = self._over.wait(_SAMPLE_S)
            self.memory_bytes = max(self.memory_bytes, self._memory() - self._memory_before)
            if over:
                return

    def stop(self) -> None:
        """Take the figures, while the workers are still there."""
        if not self._over.is_set():
            self.cpu_s = self._cpu() - self._cpu_before
            self._over.set()
            self._sampler.join()


@contextmanager
def _watched() -> Iterator[_Usage]:
    usage = _Usage()
    try:
        yield usage
    finally:
        usage.stop()
