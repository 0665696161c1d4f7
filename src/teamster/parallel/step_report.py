# SPDX-License-Identifier: BSD-3-Clause
"""What the steps of a DataParallel took, phase by phase and replica by replica."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import perf_counter_ns

from teamster import lifetime
from teamster.spine.trace.ring import COMPUTE, TRANSFER
from teamster.spine.trace.spans import current_ring, note

PHASES = ("scatter", "replicate", "forward", "gather", "backward", "reduce")


@dataclass(frozen=True, slots=True)
class StepReport:
    """Sums over all steps so far.

    Attributes:
        steps: forward passes, of `step()` too.
        replicas: how many ran in the latest.
        seconds: of each phase, in the caller; where replicas work at once, the longest of them
            counts.
        by_replica: seconds of forward and backward, by replica.

    Example:
        >>> StepReport(2, 2, {"forward": 0.2}, {0: 0.2, 1: 0.1}).imbalance
        2.0
    """

    steps: int
    replicas: int
    seconds: dict[str, float]
    by_replica: dict[int, float]

    @property
    def imbalance(self) -> float:
        """How many times longer the busiest replica computed than the laziest."""
        busy = [seconds for seconds in self.by_replica.values() if seconds > 0]
        return max(busy) / min(busy) if busy else 1.0

    def __str__(self) -> str:
        steps = max(1, self.steps)
        lines = [f"{self.steps} steps on {self.replicas} replicas, milliseconds a step:"]
        lines += [
            f"  {phase:<10}{self.seconds.get(phase, 0.0) / steps * 1e3:9.3f}" for phase in PHASES
        ]
        shares = ", ".join(
            f"{index}: {seconds / steps * 1e3:.3f}"
            for index, seconds in sorted(self.by_replica.items())
        )
        return "\n".join([*lines, f"  replicas  {shares} (busiest / laziest {self.imbalance:.2f})"])


@dataclass(slots=True, weakref_slot=True, eq=False)
class StepTimer:
    """Running sums; several threads tell."""

    steps: int = 0
    replicas: int = 1
    latest: dict[int, int] = field(default_factory=dict)
    """Nanoseconds of the latest forward pass, by replica."""
    in_turn: bool = False
    """Whether the replicas of the latest step take turns."""
    _cpu_ns: int = 0
    _at_once_ns: int = 0
    _sums: dict[str, int] = field(default_factory=dict)
    _longest: dict[str, int] = field(default_factory=dict)
    _by_replica: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        lifetime.renewed_in_copies(self)

    def after_fork(self) -> None:
        """In a forked copy of the program: the thread that held the lock is not there."""
        self._lock = threading.Lock()

    def note_phase(self, phase: str, replica: int, began_ns: int, cpu_ns: int = 0) -> None:
        """A phase ends now; of a replica's with the time that it was on a processor."""
        took = perf_counter_ns() - began_ns
        note(
            current_ring(),
            COMPUTE if phase in ("forward", "backward") else TRANSFER,
            phase,
            began_ns,
        )
        with self._lock:
            if replica < 0:
                self._sums[phase] = self._sums.get(phase, 0) + took
            else:
                self._by_replica[replica] = self._by_replica.get(replica, 0) + took
                if self.in_turn:
                    self._sums[phase] = self._sums.get(phase, 0) + took
                else:
                    self._longest[phase] = max(self._longest.get(phase, 0), took)
                    self._cpu_ns += cpu_ns
                if phase == "forward":
                    self.latest[replica] = took

    def begin_step(self, replicas: int) -> None:
        """A step begins: the longest of the one before count."""
        with self._lock:
            self.steps += 1
            self.replicas = replicas
            self._settle()

    def _settle(self) -> None:
        for phase, longest in self._longest.items():
            self._sums[phase] = self._sums.get(phase, 0) + longest
            self._at_once_ns += longest
        self._longest.clear()

    @property
    def at_once(self) -> float:
        """How many replicas computed at one time, on average.

        That is what they were on processors, beside the time of the longest, in the passes in which
        they were to do so; in all passes, where there was none.
        """
        with self._lock:
            self._settle()
            return self._cpu_ns / self._at_once_ns if self._at_once_ns else float(self.replicas)

    def read(self) -> StepReport:
        """The sums so far."""
        with self._lock:
            self._settle()
            seconds = {phase: took / 1e9 for phase, took in self._sums.items()}
            return StepReport(
                self.steps,
                self.replicas,
                seconds,
                {index: ns / 1e9 for index, ns in self._by_replica.items()},
            )
