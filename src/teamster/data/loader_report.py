# SPDX-License-Identifier: BSD-3-Clause
"""What a loader has done so far, and whom it has kept waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from teamster.data.failures import Failure
from teamster.spine.plan.plan import Plan
from teamster.units import show_bytes, show_seconds

_SHOWN = 3  # failures in the text of a report
_NOT_WAITING = 0.05  # of the consumer's time: its own step is what takes the rest
_MOSTLY = 0.5  # of a sample's time, or of the consumer's wait
_SAYS = {
    "consumer": "by the consumer's own step",
    "loader": "by the loader",
    "transfer": "by the transfer of batches to pinned memory or the device",
    "input": "by the input: samples wait for it most of their time",
    "GIL": "by the interpreter's lock, which samples hold",
    "processor": "by the processors",
}


@dataclass(frozen=True, slots=True)
class LoaderReport:
    """Counts and times of a loader.

    Attributes:
        plan: which workers it uses now, and why.
        batches: that the consumer got.
        wall_s: seconds from the first batch asked for to the last one got.
        waited_s: seconds of them in which the consumer waited for a batch, or made it itself.
        first_batch_s: seconds to the first batch of the latest epoch.
        samples: in those batches, with those that could not be read.
        failures: samples that were passed over.
        memory_bytes: of the worker processes, what they share counted by their share of it.
        moved_s: seconds of those waited in which batches were copied to pinned memory or a device.

    Example:
        >>> print(LoaderReport(Plan("thread", 2, "asked for"), 10, 2.0, 0.5, 0.03, 320))
        thread(2): asked for
        batches   10 in 2 s, 5 a second; 6 if loading cost nothing
        samples   320, 160 a second
        waited    500 ms, 25% of the time
        bound     by the loader
        first     after 30 ms
    """

    plan: Plan
    batches: int
    wall_s: float
    waited_s: float
    first_batch_s: float
    samples: int = 0
    failures: tuple[Failure, ...] = ()
    memory_bytes: int = 0
    moved_s: float = 0.0

    @property
    def ceiling(self) -> float:
        """Batches a second if loading cost nothing: what the consumer's own step allows."""
        own_s = self.wall_s - self.waited_s
        return (self.batches - 1) / own_s if own_s > 0 else float("inf")  # steps between them

    @property
    def bound(self) -> str:
        """What keeps the consumer from being faster.

        "consumer", its own step; "transfer", the copies to pinned memory or the device; "loader";
        or, where the first samples were measured, what bounds the loader: "input", samples wait for
        it most of their time; "GIL", they hold the interpreter's lock, and threads read them;
        "processor", all of them are busy.
        """
        if self.waiting < _NOT_WAITING:
            return "consumer"
        if self.moved_s > _MOSTLY * self.waited_s:
            return "transfer"
        evidence = self.plan.evidence
        if evidence is None:
            return "loader"
        if evidence.waiting > _MOSTLY:
            return "input"
        held = evidence.gil.held if evidence.gil is not None else 0.0
        if held > _MOSTLY and self.plan.backend == "thread":
            return "GIL"
        return "processor" if self.plan.backend in ("process", "hybrid") else "loader"

    @property
    def waiting(self) -> float:
        """Share of the time in which the consumer waited, 0 to 1."""
        return min(1.0, self.waited_s / self.wall_s) if self.wall_s else 0.0

    def __str__(self) -> str:
        rate = self.batches / self.wall_s if self.wall_s else 0.0
        skipped = [f"failed    {each}" for each in self.failures[:_SHOWN]]
        if (more := len(self.failures) - _SHOWN) > 0:
            skipped.append(f"          and {more:,} more")
        ceiling = f"; {self.ceiling:.3g} if loading cost nothing" if self.batches else ""
        memory = (
            [f"memory    {show_bytes(self.memory_bytes)} of workers"] if self.memory_bytes else []
        )
        return "\n".join(
            (
                f"{self.plan.backend}({self.plan.workers}): {self.plan.reason}",
                f"batches   {self.batches:,} in {show_seconds(self.wall_s)}, {rate:.3g} a second"
                f"{ceiling}",
                f"samples   {self.samples:,}, {self.samples / (self.wall_s or 1):.3g} a second",
                f"waited    {show_seconds(self.waited_s)}, {self.waiting:.0%} of the time",
                f"bound     {_SAYS[self.bound]}",
                f"first     after {show_seconds(self.first_batch_s)}",
                *memory,
                *skipped,
            )
        )


class LoaderClock:
    """Keeps the figures of a report.

    Example:
        >>> clock = LoaderClock()
        >>> clock.begin_epoch(); clock.begin(); clock.end()
        >>> clock.read(Plan("serial", 1, "asked for")).batches
        1
    """

    def __init__(self) -> None:
        self._batches = self._samples = 0
        self._wall_s = self._waited_s = self._first_s = self._moved_s = 0.0
        self._epoch_s = self._asked_s = self._got_s = 0.0
        self._is_first = True

    def begin_epoch(self) -> None:
        """An iterator was made."""
        self._epoch_s = self._got_s = perf_counter()
        self._is_first = True

    def begin(self) -> None:
        """The consumer asks for a batch."""
        self._asked_s = perf_counter()

    def moved(self, seconds: float) -> None:
        """A batch was copied to pinned memory or a device."""
        self._moved_s += seconds

    def end(self, samples: int = 0) -> None:
        """It has one, of so many samples."""
        self._samples += samples
        now = perf_counter()
        self._batches += 1
        self._waited_s += now - self._asked_s
        self._wall_s += now - self._got_s
        self._got_s = now
        if self._is_first:
            self._is_first = False
            self._first_s = now - self._epoch_s

    def read(
        self, plan: Plan, failures: Sequence[Failure] = (), memory_bytes: int = 0
    ) -> LoaderReport:
        """The figures so far.

        Args:
            plan: which workers are used.
            failures: samples that were passed over.
            memory_bytes: of worker processes.

        Returns:
            A report.
        """
        return LoaderReport(
            plan,
            self._batches,
            self._wall_s,
            self._waited_s,
            self._first_s,
            self._samples,
            tuple(failures),
            memory_bytes,
            self._moved_s,
        )
