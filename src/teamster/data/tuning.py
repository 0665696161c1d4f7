# SPDX-License-Identifier: BSD-3-Clause
"""Which workers pay, by the consumer's wall time for a batch: what it waits, and its own step.

::

    first batches, by the consumer --> evidence --predict--> candidates, the most promising first
    each candidate has a window of batches --> seconds a batch --> the fastest stays

A loader's own throughput would be the wrong measure: threads that hold the interpreter's lock
deliver, and slow the step of the consumer down.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from teamster.data.fetch import Fetch, Made
from teamster.data.sampling import changed_generator, generator_states
from teamster.machine.gil import GilSampler, GilShare
from teamster.spine.plan.choice import Limits, predict
from teamster.spine.plan.plan import Candidate, Evidence, Plan
from teamster.spine.plan.safety.check import SafetyCheck
from teamster.tasks.auto.caller_clock import CallerClock
from teamster.units import show_seconds

_PROBE_S = 0.05  # of samples that the consumer reads itself, at least
_PROBE_BATCHES = 3  # at least: the first pays for what the others find done
_WINDOW_S = 0.3  # of a candidate, at least
_WINDOW_BATCHES = 8  # of a candidate, at least
_CHECK_S = 0.02  # for a look at what the dataset carries, before and after a sample
_TINY_S = 50e-6  # a sample that is read faster costs more to hand over than to read
_WORTH = 1.1  # times the consumer's own rate: less is not worth workers


class Tuner:
    """Decides for one loader; what it has found holds for later epochs, too.

    Args:
        cores: that may be used.
        allow: kinds of workers that may be chosen, of "serial", "thread" and "process".
        workers: how many, where that is fixed.

    Attributes:
        plan: what is used now, and why.

    Example:
        >>> Tuner(2).plan.backend
        'serial'
    """

    def __init__(
        self,
        cores: int,
        allow: tuple[str, ...] = ("serial", "thread", "process"),
        workers: int | None = None,
    ) -> None:
        self._limits = Limits(cores, allow, workers)
        self._probe = CallerClock()
        self._gil: GilShare | None = None
        self._safety: SafetyCheck | None = None
        self._draws = ""
        self._by_slots = False
        self._probed = 0  # batches
        self._refused = ""
        self._evidence: Evidence | None = None
        self._waiting: list[Candidate] = []  # to be tried, the most promising first
        self._measured: dict[tuple[str, int], float] = {}  # seconds a batch
        self.plan = Plan("serial", 1, "the first batches are measured")
        self._latest_s = 0.0  # when the consumer got its latest batch
        self.begin_window(0)

    @property
    def probing(self) -> bool:
        """Whether the next batch is to be made with `measure`."""
        return self._evidence is None

    # --- the probe --------------------------------------------------------------------------------

    def measure(self, fetch: Fetch, indices: Any, base: int) -> Made:
        """Make a batch in the consumer, and see what that takes.

        Args:
            fetch: of the dataset.
            indices: of the batch.
            base: seed of the epoch.

        Returns:
            The batch.
        """
        self._by_slots = fetch.mergeable
        self._probed += 1
        if self._safety is None and fetch.by_rows and indices:
            looked = self._look(fetch, indices[0], base)
            return self._timed(len(indices) - 1, lambda: fetch.finish(looked, indices, base))
        made = self._timed(len(indices) if fetch.by_rows else 1, lambda: fetch.whole(indices, base))
        self._draws = self._draws or fetch.draws
        return made

    def _timed(self, samples: int, make: Callable[[], Made]) -> Made:
        probe = self._probe
        began = probe.begin()
        with GilSampler() as sampler:
            batch = make()
        probe.items += samples
        probe.end(began)
        self._gil = sampler.share(1) or self._gil
        return batch

    def _look(self, fetch: Fetch, index: Any, base: int) -> Made:
        """Read one sample, and see whether that means the same elsewhere."""
        safety = self._safety = SafetyCheck(fetch.dataset.__getitem__, seeded=True)
        before = generator_states()
        looking = safety.begin(index, _CHECK_S)
        looked = fetch.samples([index], base)
        if looking and looked.value:
            safety.end(index, looked.value[0])
        self._draws = fetch.draws or changed_generator(before)
        return looked

    def _conclude_probe(self) -> None:
        safety, probe = self._safety, self._probe
        probe.bring_up_to_date()
        one_thread = safety.one_thread if safety is not None else ""
        if self._draws:
            one_thread = f"its samples draw random numbers from `{self._draws}`, for all threads"
        # What is large in a sample is written into a slot: in place of the copy that collates it
        moves = safety is not None and not self._by_slots
        wall_s = max(probe.item_s, 1e-9)
        self._evidence = evidence = Evidence(
            items=probe.items,
            wall_s=wall_s,
            cpu_s=probe.cpu_s,
            # To collate takes several threads in the program, and one in a worker
            all_cpu_s=min(probe.all_cpu_s, wall_s),
            gil=self._gil,
            argument_bytes=safety.argument_bytes if safety is not None else None,
            result_bytes=safety.result_bytes if safety is not None and moves else None,
            move_s=safety.move_s if safety is not None and moves else 0.0,
            stays=safety.stays if safety is not None else "",
            one_thread=one_thread,
        )
        if evidence.wall_s >= _TINY_S:
            self._waiting = self._promising(evidence)

    def _promising(self, evidence: Evidence) -> list[Candidate]:
        """The candidates that may be faster than the consumer's own loop, and that loop.

        Workers read while the consumer is in its own step.
        """
        own, *others = predict(evidence, self._limits)
        batch_s = self._seconds / self._batches
        load_s = min(batch_s, self._probe.run_ns / 1e9 / self._probed)
        step_s = batch_s - load_s
        expected = {
            each.backend: max(step_s, load_s * _rate(own) / max(_rate(each), 1e-9))
            for each in others
            if not each.note
        }
        promising = sorted(
            (each for each in others if expected.get(each.backend, batch_s) * _WORTH < batch_s),
            key=lambda each: expected[each.backend],
        )
        # The consumer has a window, too: the probe has taken longer, since it looked closely
        return [own, *promising] if promising else []

    def refuse(self, backend: str, reason: str) -> None:
        """Such workers cannot have the dataset: stay in this process.

        Args:
            backend: of the workers.
            reason: why.
        """
        self._waiting = [each for each in self._waiting if each.backend != backend]
        self._refused = f"; no {backend} workers: {reason}"
        self._go_on(0)

    # --- windows ----------------------------------------------------------------------------------

    def begin_window(self, pipelined: int) -> None:
        """Measure anew from now on.

        Args:
            pipelined: batches that are on their way by then, and count for nothing.
        """
        self._batches, self._seconds = 0, 0.0
        self._skipped = 1 + pipelined

    def begin_epoch(self) -> None:
        """The consumer begins anew: what it has done in between counts for nothing."""
        self._skipped = max(self._skipped, 1)

    def delivered(self, pipelined: int) -> bool:
        """The consumer has a batch more.

        Args:
            pipelined: batches that the workers may have had ready when their window began.

        Returns:
            Whether other workers are to be used from the next batch on.
        """
        now, before = perf_counter(), self._latest_s
        self._latest_s = now
        if self._skipped:
            self._skipped -= 1
            return False
        self._batches += 1
        self._seconds += now - before
        key = self.plan.backend, self.plan.workers
        if key in self._measured or not self._is_over():
            return False
        if self.probing:
            self._conclude_probe()
        else:
            self._measured[key] = self._seconds / self._batches
        return self._go_on(pipelined)

    def _is_over(self) -> bool:
        if self.probing:
            return self._probe.run_ns >= _PROBE_S * 1e9 and self._batches >= _PROBE_BATCHES
        return self._seconds >= _WINDOW_S and self._batches >= _WINDOW_BATCHES

    def _go_on(self, pipelined: int) -> bool:
        """Try the next candidate, or stay with the fastest; whether that is another one."""
        before = self.plan.backend, self.plan.workers
        if self._waiting:
            candidate = self._waiting.pop(0)
            backend, workers = candidate.backend, candidate.workers
            reason = "it is compared with those before"
        elif not self._measured:
            backend, workers = before
            reason = "no workers promise more than the consumer's own loop"
            self._measured[before] = self._seconds / max(1, self._batches)
        else:
            backend, workers = min(self._measured, key=lambda each: self._measured[each])
            reason = self._why(backend, workers)
        self.plan = Plan(backend, workers, f"{reason}{self._refused}", (), self._evidence)
        self.begin_window(pipelined)
        return (backend, workers) != before

    def _why(self, backend: str, workers: int) -> str:
        best = self._measured[backend, workers]
        others = [
            f"{kind}({count}) {show_seconds(seconds)}"
            for (kind, count), seconds in self._measured.items()
            if (kind, count) != (backend, workers)
        ]
        beside = f"; {', '.join(others)}" if others else ""
        return f"a batch takes the consumer {show_seconds(best)}, its own step included{beside}"


def _rate(candidate: Candidate) -> float:
    return candidate.predicted or 0.0
