# SPDX-License-Identifier: BSD-3-Clause
"""Which workers pay, by the consumer's wall time for a batch: what it waits, and its own step.

::

    first batches, by the consumer --> evidence --predict--> candidates, the most promising first
    each candidate has a window of batches --> seconds a batch --> the fastest goes on:
      more of them while the consumer waits, fewer where it does not; anew when batches change.
    Who promises no more than the fastest has reached has no window.

A loader's own throughput would be the wrong measure: threads that hold the interpreter's lock
deliver, and slow the step of the consumer down.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from time import perf_counter
from typing import Any

from teamster.data.fetch import Fetch, Made
from teamster.data.outline import outline_of
from teamster.data.sampling import Seed
from teamster.machine.gil import GilSampler, GilShare
from teamster.spine.plan.choice import Limits, predict
from teamster.spine.plan.plan import Candidate, Evidence, Plan
from teamster.spine.plan.safety.check import SafetyCheck
from teamster.spine.workers.seeds import changed_generators, generator_states
from teamster.tasks.auto.caller_clock import CallerClock
from teamster.units import show_seconds

_PROBE_S = 0.05  # of samples that the consumer reads itself, at least
_PROBE_BATCHES = 3  # at least: the first pays for what the others find done
_WINDOW_S = 0.3  # of a candidate, at least
_WINDOW_BATCHES = 8  # of a candidate, at least
_LONG_WINDOW_S = 0.9  # of a candidate whose batches take long: then fewer do
_LONG_BATCHES = 3  # of such
_SMALL_S = 0.005  # of samples, before the first look: small loaders end before
_LOOKS = 2  # at samples of two batches: one alone may find what it would leave
_CHECK_S = 0.02  # for a look at what the dataset carries, before and after a sample
_TINY_BATCHES = 32  # of samples that are known to be tiny by then: to measure costs some us
_TINY_S = 50e-6  # a sample that is read faster costs more to hand over than to read
_WAITED = 0.05  # share of a window: more workers may help
_NOT_WAITED = 0.01  # fewer do as well
_MANY_CORES = 8  # from which on a few processes may have a few threads each
_OF_WAITING = 0.15  # of a sample's time: then there may be more workers than cores
_DRIFT = 1.4  # times what a batch took: something has changed
_DRIFTS = 2  # windows, one after the other
_PAUSE_S = 5.0  # between two decisions, at least; twice as long each time
_LONGEST_S = 600.0  # of these pauses
_WORTH = 1.1  # times the consumer's own rate: less is not worth workers
_UNLOOKED = 0.7  # of what a batch of the probe took: it looked closely, and not all is steady yet
_LONG_BATCH_S = 0.03  # that holds for such; of shorter ones the probe tells too little


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
        self._draws = self._alone = self._stays = ""
        self._by_slots = False
        self._made_s = 0.0  # for the latest batch, in `measure`
        self._refused = ""
        self._waiting: list[Candidate] = []  # to be tried, the most promising first
        self._candidates: list[Candidate] = []
        self._looked_up: tuple[Candidate, ...] = ()  # all, those too that are out, and why
        self._measured: dict[tuple[str, int], float] = {}  # seconds a batch
        self._waits: dict[tuple[str, int], float] = {}  # share of them
        self._least: dict[str, float] = {}  # seconds a batch that each kind can reach, at best
        self._decided_s: float | None = None  # a batch, of what was chosen
        self._drifts = 0  # windows since, one after the other, that were otherwise
        self._pause_s = _PAUSE_S
        self._again_s = 0.0  # not before that
        self._latest_s = 0.0  # when the consumer got its latest batch
        self.plan = Plan("serial", 1, "the first batches are measured")
        self._begin_probe()

    @property
    def probing(self) -> bool:
        """Whether the next batch is to be made with `measure`."""
        return self._evidence is None

    # --- the probe --------------------------------------------------------------------------------

    def _begin_probe(self) -> None:
        """Measure batches in the consumer, from the next one on."""
        self._probe = CallerClock()
        self._gil: GilShare | None = None
        self._safety: SafetyCheck | None = None
        self._looks = 0
        self._step_s = 0.0  # of the consumer's own, in the batches that count
        self._evidence: Evidence | None = None
        self.begin_window(0)

    def measure(self, fetch: Fetch, indices: Any, seed: Seed) -> Made:
        """Make a batch in the consumer, and see what that takes.

        Args:
            fetch: of the dataset.
            indices: of the batch.
            seed: of its first sample.

        Returns:
            The batch.
        """
        began = perf_counter()
        count = len(indices) if fetch.by_rows else 1
        self._by_slots = fetch.mergeable
        outline = outline_of(fetch.dataset)
        if not self._is_worth_a_look():
            made = self._timed(count, lambda: fetch.whole(indices, seed))
        else:
            with GilSampler() as sampler:
                made = self._looked_at(fetch, indices, count, seed)
            self._gil = sampler.share(1) or self._gil
        self._draws = self._draws or fetch.draws
        if outline_of(fetch.dataset) != outline:
            self._alone = "reading a sample changes the dataset"
        self._made_s = perf_counter() - began
        return made

    def _is_worth_a_look(self) -> bool:
        """Whether workers may pay: that takes longer than the batches of a small loader."""
        return self._probe.run_ns >= _SMALL_S * 1e9 and self._probe.item_s >= _TINY_S

    def _looked_at(self, fetch: Fetch, indices: Any, count: int, seed: Seed) -> Made:
        if self._looks == _LOOKS or not fetch.by_rows or not count:
            self._looks = _LOOKS
            return self._timed(count, lambda: fetch.whole(indices, seed))
        self._looks += 1
        looked = self._look(fetch, indices[0], seed)
        return self._timed(count - 1, lambda: fetch.finish(looked, indices, seed))

    def _timed(self, samples: int, make: Callable[[], Made]) -> Made:
        probe = self._probe
        began = probe.begin()
        batch = make()
        probe.items += samples
        probe.end(began)
        return batch

    def _look(self, fetch: Fetch, index: Any, seed: Seed) -> Made:
        """Read one sample, and see whether that means the same elsewhere."""
        read = getattr(fetch.dataset, "__getitem__", operator.itemgetter(index))
        safety = SafetyCheck(read, seeded=True)
        before = generator_states()
        looking = safety.begin(index, _CHECK_S)
        looked = fetch.samples([index], seed)
        if looking and looked.value:
            safety.end(index, looked.value[0])
        self._draws = fetch.draws or ", ".join(sorted(changed_generators(before)))
        self._alone = self._alone or safety.one_thread or safety.alone
        self._stays = self._stays or safety.stays
        self._safety = safety
        return looked

    def _conclude_probe(self) -> None:
        safety, probe = self._safety, self._probe
        probe.bring_up_to_date()
        one_thread = self._alone
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
            stays=self._stays or self._alone,
            one_thread=one_thread,
        )
        if evidence.wall_s >= _TINY_S:
            self._candidates = self._promising(evidence)
            self._waiting = list(self._candidates)

    def _promising(self, evidence: Evidence) -> list[Candidate]:
        """The candidates that may be faster than the consumer's own loop, and that loop.

        Workers read while the consumer is in its own step.
        """
        own, *others = self._looked_up = tuple(predict(evidence, self._limits))
        batch_s, step_s = self._seconds / self._batches, self._step_s / self._batches
        load_s = batch_s - step_s
        expected = {
            each.backend: max(step_s, load_s * _rate(own) / max(_rate(each), 1e-9))
            for each in others
            if not each.note
        }
        if {"thread", "process"} <= set(expected) and self._limits.cores >= _MANY_CORES:
            others.append(_hybrid_of(others, self._limits.cores))
            expected["hybrid"] = expected["process"]
        promising = sorted(
            (each for each in others if expected.get(each.backend, batch_s) * _WORTH < batch_s),
            # Threads first where they promise as much: processes take their own copy of the dataset
            key=lambda each: (
                expected[each.backend] * (1.0 if each.backend == "thread" else _WORTH),
                -_rate(each),
            ),
        )
        self._least = {
            "thread": _WORTH * expected.get("thread", 0.0),
            "process": _WORTH * expected.get("process", 0.0),
            own.backend: _UNLOOKED * batch_s,
        }
        if promising and batch_s < _LONG_BATCH_S:
            return [own, *promising]
        return [*promising, own] if promising else []

    def refuse(self, backend: str, reason: str) -> None:
        """Such workers cannot have the dataset: stay in this process.

        Args:
            backend: of the workers.
            reason: why.
        """
        self._waiting = [each for each in self._waiting if each.backend != backend]
        self._candidates = [each for each in self._candidates if each.backend != backend]
        self._decided_s = None
        for key in [each for each in self._measured if each[0] == backend]:
            del self._measured[key], self._waits[key]
        if not self._measured and self.plan.backend == backend:
            self.plan = Plan("serial", 1, "", (), self._evidence)
        self._refused = f"; no {backend} workers: {reason}"
        self._go_on(0)

    # --- windows ----------------------------------------------------------------------------------

    def begin_window(self, pipelined: int) -> None:
        """Measure anew from now on.

        Args:
            pipelined: batches that are on their way by then, and count for nothing.
        """
        self._batches, self._seconds, self._waited_s = 0, 0.0, 0.0
        self._skipped = 1 + pipelined

    def begin_epoch(self) -> None:
        """The consumer begins anew: what it has done in between counts for nothing."""
        self._skipped = max(self._skipped, 1)

    def delivered(self, pipelined: int, waited_s: float = 0.0) -> bool:
        """The consumer has a batch more.

        Args:
            pipelined: batches that show nothing, of workers that are new.
            waited_s: how long it has waited for it.

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
        self._waited_s += waited_s
        self._step_s += max(0.0, now - before - self._made_s)
        if not self._is_over():
            return False
        if self.probing:
            self._conclude_probe()
        elif self._decided_s is not None:
            if not self._has_changed():
                return False
            if not self._candidates:  # what was tiny is no more, perhaps
                self._begin_probe()
                return False
        else:
            key = self.plan.backend, self.plan.workers
            self._measured[key] = self._seconds / self._batches
            self._waits[key] = self._waited_s / self._seconds
        return self._go_on(pipelined)

    def _is_over(self) -> bool:
        if self.probing:
            looked = self._looks == _LOOKS or not self._is_worth_a_look()
            if self._batches >= _TINY_BATCHES and self._probe.item_s < _TINY_S:
                return True
            enough = self._probe.run_ns >= _PROBE_S * 1e9 and self._batches >= _PROBE_BATCHES
            return looked and enough
        seconds, batches = self._seconds, self._batches
        if seconds >= _LONG_WINDOW_S and batches >= _LONG_BATCHES:
            return True
        return seconds >= _WINDOW_S and batches >= _WINDOW_BATCHES

    def _go_on(self, pipelined: int) -> bool:
        """Try the next candidate, or stay with the fastest; whether that is another one."""
        before = self.plan.backend, self.plan.workers
        best = min(self._measured, key=lambda each: self._measured[each], default=before)
        tried = self._next(best)
        if tried is not None:
            key, reason = tried, "it is compared with those before"
        elif not self._measured:
            key, reason = best, "no workers promise more than the consumer's own loop"
            self._decided_s = self._seconds / max(1, self._batches)
        else:
            key, reason = best, self._why(*best)
            self._decided_s = self._measured[best]
        self.plan = Plan(*key, f"{reason}{self._refused}", self._looked_up, self._evidence)
        self.begin_window(pipelined)
        return key != before

    def _next(self, best: tuple[str, int]) -> tuple[str, int] | None:
        """Whom to try next: a candidate, then more of the best, or fewer."""
        fastest = self._measured.get(best, math.inf)
        while self._waiting:
            candidate = self._waiting.pop(0)
            if self._least.get(candidate.backend, 0.0) < fastest:
                return candidate.backend, candidate.workers
        (backend, workers), limits = best, self._limits
        if backend == "serial" or best not in self._waits or limits.workers is not None:
            return None
        most = limits.most_threads if backend == "thread" else limits.most_processes
        if self._evidence is None or self._evidence.waiting < _OF_WAITING:
            most = limits.cores
        other = workers
        if self._waits[best] > _WAITED:
            other = min(2 * workers, max(most, workers))
        elif self._waits[best] < _NOT_WAITED:
            other = max(1, workers // 2)
        return (backend, other) if (backend, other) not in self._measured else None

    def _has_changed(self) -> bool:
        """Whether batches take much longer or shorter than when it was decided; then anew."""
        assert self._decided_s is not None
        ratio = self._seconds / self._batches / max(self._decided_s, 1e-9)
        self._drifts = self._drifts + 1 if max(ratio, 1 / ratio) > _DRIFT else 0
        now = perf_counter()
        self.begin_window(-1)
        if self._drifts < _DRIFTS or now < self._again_s:
            return False
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)
        self._again_s, self._drifts, self._decided_s = now + self._pause_s, 0, None
        self._measured, self._waits, self._least = {}, {}, {}  # that was of other batches
        self._waiting = list(self._candidates)
        return True

    def _why(self, backend: str, workers: int) -> str:
        best = self._measured[backend, workers]
        others = [
            f"{kind}({count}) {show_seconds(seconds)}"
            for (kind, count), seconds in self._measured.items()
            if (kind, count) != (backend, workers)
        ]
        beside = f"; {', '.join(others)}" if others else ""
        return f"a batch takes the consumer {show_seconds(best)}, its own step included{beside}"


def _hybrid_of(others: list[Candidate], cores: int) -> Candidate:
    """Processes with some threads each; they promise what processes do."""
    process = next(each for each in others if each.backend == "process")
    return Candidate("hybrid", cores, predicted=process.predicted)


def _rate(candidate: Candidate) -> float:
    return candidate.predicted or 0.0
