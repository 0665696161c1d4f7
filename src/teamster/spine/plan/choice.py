# SPDX-License-Identifier: BSD-3-Clause
"""From what is known to what is worth trying. Pure: starts nothing, measures nothing.

::

    arguments --choose--> Plan: "auto", or what was asked for
    Evidence  --predict--> Candidates: serial, thread(n), process(n), with the rate to expect
                           and the most that could be
    Candidates with measured rates --conclude--> Plan

The model has three limits on the rate of n workers: each is busy with an item for its wall time;
all processors together are busy with its processor time; and threads hold the interpreter's lock
one at a time (the utilization law, Denning and Buzen 1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from teamster.errors import UsageError
from teamster.kinds import KINDS, order_of
from teamster.spine.plan.plan import Candidate, Evidence, Plan
from teamster.units import show_seconds

CANDIDATES = tuple(kind.name for kind in KINDS.values() if kind.chosen)
"""What "auto" chooses from."""

MOST_THREADS = 64  # more wait for the interpreter's lock rather than for the network

_PROCESSES_PER_CORE = 4  # where items wait; each costs some 10 MiB
_WAITS = 0.15  # share of an item's time; less is what any function waits for memory and the system
_ONLY_WAITS = 0.9  # of an item's time: nothing else is left to share
_MESSAGE_S = 100e-6  # of processor time, to hand a batch over and read its results
_BYTE_S = 0.25e-9  # a copy into shared memory
_BATCH_S = 0.020  # work in a batch
_ITEM_S = 2e-6  # of processor time, to hand an item over within a batch and to read its result
_KEPT = 0.8  # of what was promised
# What more workers are worth a try for, when none of these waits for another, whatever is expected
# of the processors
_MORE = 1.3
_BROKEN = 0.6  # of what was promised: the workers are in each other's way
_FEWER = 1.1  # what fewer workers are worth a try for
_CLOSE = 0.97  # of the best measured rate: then the simplest is taken


@dataclass(frozen=True, slots=True)
class Limits:
    """What a choice may use.

    Attributes:
        cores: usable cores.
        allow: backends that may be chosen.
        workers: their number, when the user fixed it.
        parallel_threads: whether threads run Python code in parallel (free-threaded interpreters).
    """

    cores: int
    allow: tuple[str, ...] = CANDIDATES
    workers: int | None = None
    parallel_threads: bool = False

    def without(self, backend: str) -> Limits:
        """The same, but for one backend."""
        return replace(self, allow=tuple(each for each in self.allow if each != backend))

    @property
    def most_threads(self) -> int:
        """The most thread workers to try."""
        return self.workers or max(MOST_THREADS, self.cores)

    @property
    def most_processes(self) -> int:
        """The most process workers to try."""
        return self.workers or _PROCESSES_PER_CORE * self.cores


def choose(
    backend: str,
    workers: int | None,
    *,
    cores: int,
    inside_worker: bool = False,
    allow: tuple[str, ...] = CANDIDATES,
) -> Plan:
    """What is decided before anything is measured.

    Args:
        backend: "auto", or one of `KINDS`.
        workers: how many were asked for; None for one a usable core.
        cores: usable cores of this machine.
        inside_worker: whether the pool is opened by a task of another.
        allow: backends that "auto" may choose.

    Returns:
        The plan; its backend is "auto" when the first items are to decide.

    Raises:
        UsageError: the backend is not known, or there would be no worker.
    """
    if not is_backend(backend):
        known = ["auto", *sorted(KINDS, key=lambda name: not KINDS[name].chosen)]
        raise UsageError(f"unknown backend {backend!r}; known are {', '.join(map(repr, known))}")
    if workers is not None and not is_count(workers, 1):
        raise UsageError(
            f"workers must be at least 1, not {workers!r}; leave it out to use every core"
        )
    _check_allowed(allow)
    if backend == "serial":
        return Plan("serial", 1, "asked for")
    if backend != "auto":
        return Plan(backend, workers or cores, "asked for")
    if inside_worker and "serial" in allow:
        return Plan("serial", 1, "inside a worker of another pool, which uses the cores already")
    if len(allow) == 1:
        return Plan(
            allow[0], 1 if allow == ("serial",) else workers or cores, "nothing else is allowed"
        )
    return Plan("auto", workers or cores, "not measured yet")


def _check_allowed(allow: object) -> None:
    known = ", ".join(map(repr, CANDIDATES))
    if not isinstance(allow, tuple) or not allow:
        raise UsageError(
            f"allow must be a tuple of backends such as ('serial', 'process'), not {allow!r}; "
            f"known are {known}"
        )
    for each in allow:
        if each not in CANDIDATES:
            raise UsageError(f"allow names an unknown backend {each!r}; known are {known}")


def predict(evidence: Evidence, limits: Limits) -> tuple[Candidate, ...]:
    """What each kind of workers can be expected to do, the plain loop first.

    Args:
        evidence: of the first items.
        limits: what may be used.

    Returns:
        A candidate for each backend; `note` says why one is out of the question.
    """
    rate = 1 / evidence.wall_s
    candidates = [
        Candidate("serial", 1, rate, rate, note="" if "serial" in limits.allow else "not allowed")
    ]
    if "thread" in limits.allow:
        candidates.append(_threads(evidence, limits))
    if "process" in limits.allow:
        candidates.append(_processes(evidence, limits))
    return tuple(candidates)


def neighbours(tried: Candidate, evidence: Evidence, limits: Limits) -> tuple[Candidate, ...]:
    """What a trial suggests: twice as many workers, or half as many.

    Twice as many when these kept their promise and there could be more, half when they did not.

    Args:
        tried: a candidate with its measured rate.
        evidence: of the items.
        limits: what may be used.

    Returns:
        None or one candidate.
    """
    fixed = tried.backend == "serial" or limits.workers is not None
    if fixed or evidence.waiting < _WAITS or not tried.measured or not tried.predicted:
        return ()
    most = limits.most_threads if tried.backend == "thread" else limits.most_processes
    if tried.measured >= _KEPT * tried.workers / evidence.wall_s and tried.workers < most:
        workers = min(2 * tried.workers, most)
        hope = min(
            workers / tried.workers * tried.measured,
            max(_saturated(tried.backend, evidence, limits), _MORE * tried.measured),
        )
        return (Candidate(tried.backend, workers, hope, hope),)
    if tried.measured < _BROKEN * tried.predicted and tried.workers > limits.cores:
        hope = _FEWER * tried.measured
        return (Candidate(tried.backend, max(limits.cores, tried.workers // 2), hope, hope),)
    return ()


def _saturated(backend: str, evidence: Evidence, limits: Limits) -> float:
    """The rate that no number of workers can exceed.

    At that rate all processors are busy, or the interpreter's lock is.
    """
    if backend == "thread":
        return min(
            limits.cores / (_cpu_s(evidence) + _ITEM_S), 1 / (_held(evidence, limits)[0] + _ITEM_S)
        )
    return limits.cores / (_cpu_s(evidence) + _moved_s(evidence))


def _moved_s(evidence: Evidence) -> float:
    """Processor time of handing an item over and taking its result back."""
    moved_bytes = (evidence.argument_bytes or 0) + (evidence.result_bytes or 0)
    return (
        evidence.move_s
        + moved_bytes * _BYTE_S
        + _ITEM_S
        + _MESSAGE_S * min(1.0, evidence.wall_s / _BATCH_S)
    )


def _threads(evidence: Evidence, limits: Limits) -> Candidate:
    least_held_s = _held(evidence, limits)[1]
    saturated = _saturated("thread", evidence, limits)
    workers = _count(evidence, saturated, limits.cores, limits.most_threads, limits.workers)
    rate = min(workers / evidence.wall_s, saturated)
    bound = min(
        workers / evidence.wall_s,
        limits.cores / max(evidence.cpu_s, 1e-9),
        1 / max(least_held_s, 1e-9),
    )
    return Candidate(
        "thread",
        workers,
        rate,
        max(rate, bound),
        note=evidence.one_thread and f"stays here: {evidence.one_thread}",
    )


def _processes(evidence: Evidence, limits: Limits) -> Candidate:
    saturated = _saturated("process", evidence, limits)
    workers = _count(evidence, saturated, limits.cores, limits.most_processes, limits.workers)
    rate = min(workers / (evidence.wall_s + _moved_s(evidence)), saturated)
    bound = min(workers / evidence.wall_s, limits.cores / max(evidence.cpu_s, 1e-9))
    return Candidate(
        "process",
        workers,
        rate,
        max(rate, bound),
        note=evidence.stays and f"stays here: {evidence.stays}",
    )


def _cpu_s(evidence: Evidence) -> float:
    """Processor time of an item, of all threads that it uses."""
    return max(evidence.cpu_s, evidence.all_cpu_s, 1e-9)


def _held(evidence: Evidence, limits: Limits) -> tuple[float, float]:
    """Seconds for which an item holds the interpreter's lock: as expected, and at least."""
    if limits.parallel_threads:
        return 0.0, 0.0
    if evidence.gil is None:
        return evidence.cpu_s, 0.0
    least = max(0.0, evidence.gil.held - 2 * evidence.gil.error)
    return evidence.gil.held * evidence.wall_s, least * evidence.wall_s


def _count(evidence: Evidence, saturated: float, cores: int, most: int, fixed: int | None) -> int:
    """As many workers as keep the scarcest resource busy, while some of them wait."""
    if fixed is not None:
        return fixed
    if evidence.waiting < _WAITS:
        return cores
    workers = max(cores, min(most, math.ceil(saturated * evidence.wall_s)))
    # Where hardly anything but waiting is known, the processor time of the first items is no reason
    # to stop short of the most.
    return most if evidence.waiting > _ONLY_WAITS and 3 * workers >= most else workers


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The simplest of those that were measured as about the fastest."""
    measured = [each for each in candidates if each.measured is not None and not each.note]
    top = max(each.measured or 0.0 for each in measured)
    return min(
        (each for each in measured if (each.measured or 0.0) >= _CLOSE * top), key=_simplicity
    )


def _simplicity(candidate: Candidate) -> tuple[int, int]:
    return order_of(candidate.backend), candidate.workers


def conclude(choice: Candidate, candidates: Sequence[Candidate], evidence: Evidence) -> Plan:
    """The plan for a choice, with a sentence for its reason.

    Args:
        choice: one of the candidates.
        candidates: all that were considered.
        evidence: of the first items.

    Returns:
        The plan.
    """
    sentence = _sentence(choice, candidates, evidence)
    return Plan(
        choice.backend,
        choice.workers,
        sentence,
        tuple(sorted(candidates, key=_simplicity)),
        evidence,
    )


def _sentence(choice: Candidate, candidates: Sequence[Candidate], evidence: Evidence) -> str:
    loop = next((each for each in candidates if each.backend == "serial"), None)
    stays = next((each.note for each in candidates if each.note.startswith("stays here")), "")
    out = next(
        (f"{each.backend}: {each.note}" for each in candidates if "failed there" in each.note), ""
    )
    if choice.backend == "serial":
        said = "nothing is faster than the loop" if _tried(candidates) else "no other way would pay"
    elif choice.measured and loop is not None and loop.measured:
        said = f"{choice.measured / loop.measured:.2g} times as fast as the loop"
    else:
        said = "expected to be the fastest"
    return "; ".join(
        part for part in (_kind(evidence), said, _climb(choice, candidates), stays, out) if part
    )


def _climb(choice: Candidate, candidates: Sequence[Candidate]) -> str:
    """How the number of workers was found, when several were tried."""
    tried = {
        each.workers: each.measured
        for each in candidates
        if each.backend == choice.backend and each.measured
    }
    if len(tried) < 2:
        return ""
    return (
        f"throughput rose until {choice.workers} workers"
        if choice.workers > min(tried)
        else f"more than {choice.workers} were slower"
    )


def _tried(candidates: Sequence[Candidate]) -> bool:
    return any(each.measured is not None for each in candidates if each.backend != "serial")


def _kind(evidence: Evidence) -> str:
    """What kind of work an item is."""
    if evidence.waiting >= 0.5:
        return f"an item waits {evidence.waiting:.0%} of its time"
    if evidence.by and evidence.took_s > 2 * evidence.wall_s:
        return (
            f"an item takes {show_seconds(evidence.took_s)} there, {show_seconds(evidence.cpu_s)} "
            "of it on a processor"
        )
    if evidence.gil is not None and evidence.gil.held >= 0.5:
        return f"an item holds the GIL {evidence.gil.held:.0%} of its time"
    if evidence.gil is not None:
        return f"an item leaves the GIL free {1 - evidence.gil.held:.0%} of its time"
    return f"an item takes {show_seconds(evidence.took_s or evidence.wall_s)}"


def is_backend(name: object) -> bool:
    """Whether this names a kind of worker, or "auto"."""
    return isinstance(name, str) and (name == "auto" or name in KINDS)


def is_count(value: object, least: int) -> bool:
    """Whether `value` is an integer (True is none) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
