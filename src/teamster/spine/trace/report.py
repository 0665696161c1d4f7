# SPDX-License-Identifier: BSD-3-Clause
"""What a pool did, in numbers: counted (`Ledger`) and timed (`WallClock`), read as a `Report`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from time import perf_counter, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Protocol

from teamster.spine.trace.columns import Row, Spans, coarser
from teamster.spine.trace.ring import COMPUTE
from teamster.units import show_bytes

if TYPE_CHECKING:  # a timeline is loaded where one is drawn: no map needs it
    from matplotlib.figure import Figure

    from teamster.spine.trace.timeline import JobNote, Timeline

_MOST_ROWS = 4096  # as many as a picture has pixels; neighbours are put together then


class Decision(Protocol):
    """What a report tells of a plan."""

    @property
    def backend(self) -> str:
        """The kind of workers."""

    @property
    def workers(self) -> int:
        """How many."""

    @property
    def reason(self) -> str:
        """Why."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, for machines."""


class Account:
    """What one worker has done: sums, and each batch as long as there are not too many."""

    __slots__ = ("busy_ns", "index", "items", "kind", "label", "rows")

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.label = "caller" if kind == "caller" else f"{kind} {index}"
        self.items = self.busy_ns = 0
        self.rows: list[Row] = []

    def add(self, items: int, busy_ns: int, ended_ns: int) -> None:
        """One batch more."""
        self.items += items
        self.busy_ns += busy_ns
        self.rows.append((ended_ns - busy_ns, ended_ns, -1, items, 1, COMPUTE))
        if len(self.rows) > _MOST_ROWS:
            self.rows = coarser(self.rows, _MOST_ROWS // 2)


@dataclass(slots=True)
class Ledger:
    """Running counts of one team; its lock guards them."""

    kind: str = "caller"
    items: int = 0
    failures: int = 0
    batches: int = 0
    deaths: int = 0
    retries: int = 0
    timeouts: int = 0
    pickled_bytes: int = 0
    arena_bytes: int = 0
    workers: dict[int, Account] = field(default_factory=dict)  # by index

    def note(self, worker: int, items: int, busy_ns: int, ended_ns: int) -> None:
        """Add a finished batch to its worker."""
        account = self.workers.get(worker)
        if account is None:
            account = self.workers[worker] = Account(self.kind, worker)
        account.add(items, busy_ns, ended_ns)

    def accounts(self, count: int) -> list[Account]:
        """By the index of the worker, of `count` workers or of as many as there were."""
        indices = range(max([count, *(index + 1 for index in self.workers)]))
        return [self.workers.get(index) or Account(self.kind, index) for index in indices]

    def add(self, other: Ledger) -> None:
        """Add the counts of another team, but for its workers'."""
        for name in (
            "items",
            "failures",
            "batches",
            "deaths",
            "retries",
            "timeouts",
            "pickled_bytes",
            "arena_bytes",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def read(self, plan: Decision, wall_s: float) -> Report:
        """The counts so far, as a report."""
        accounts = self.accounts(plan.workers)
        return Report(
            plan=plan,
            backend=plan.backend,
            workers=plan.workers,
            reason=plan.reason,
            items=self.items,
            failures=self.failures,
            wall_s=wall_s,
            busy_s=tuple(account.busy_ns / 1e9 for account in accounts),
            items_by_worker=tuple(account.items for account in accounts),
            batches=self.batches,
            pickled_bytes=self.pickled_bytes,
            arena_bytes=self.arena_bytes,
            deaths=self.deaths,
            retries=self.retries,
            timeouts=self.timeouts,
            batches_by_worker=tuple(
                (each.label, each.kind, each.index, tuple(each.rows)) for each in accounts
            ),
        )


class WallClock:
    """How long a pool was at work: runs while calls are under way, a context around each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._began = self._ended = 0.0
        self._total_s = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._calls:
                self._began = perf_counter()
            self._calls += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._ended = perf_counter()
                self._total_s += self._ended - self._began

    def ran_since(self, moment: float) -> bool:
        """Whether a call was under way after a moment of `perf_counter`."""
        with self._lock:
            return bool(self._calls) or self._ended > moment

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        with self._lock:
            return self._total_s + (perf_counter() - self._began if self._calls else 0.0)


@dataclass(frozen=True, slots=True)
class Report:
    """What a pool has done so far.

    Attributes:
        plan: how the latest call was run, and why.
        backend: the plan's: "serial", "thread" or "process"; "auto" before the first call.
        workers: how many it may use.
        reason: why this backend.
        items: items that are done, failed ones included.
        failures: items that ended with an exception.
        wall_s: seconds during which at least one call was under way.
        busy_s: seconds that each worker ran tasks, by its index; "auto" counts the caller first,
            then threads, then processes.
        items_by_worker: items that each worker ran, in the same order.
        batches: batches handed out.
        pickled_bytes: bytes moved in pickles, both directions.
        arena_bytes: bytes moved through shared memory, both directions.
        deaths: workers that died without being asked to.
        retries: items run again after a death.
        timeouts: items that ran too long.
        batches_by_worker: what `timeline` is drawn from.

    Example:
        >>> import teamster as ts
        >>> with ts.Pool("serial") as pool:
        ...     _ = pool.map(abs, [-1, 2])
        ...     pool.report().items
        2
    """

    plan: Decision
    backend: str
    workers: int
    reason: str
    items: int
    failures: int
    wall_s: float
    busy_s: tuple[float, ...]
    items_by_worker: tuple[int, ...]
    batches: int
    pickled_bytes: int
    arena_bytes: int
    deaths: int
    retries: int
    timeouts: int
    batches_by_worker: tuple[tuple[str, str, int, tuple[Row, ...]], ...] = field(
        default=(), repr=False, compare=False
    )

    @property
    def timeline(self) -> Timeline:
        """The pool's batches, a lane for each worker.

        Short ones beside each other are drawn as one. Every pool has this, recorded or not. With
        `ts.record` there is more: every item, what else the workers did, and curves.
        """
        from teamster.spine.trace.timeline import Lane, Timeline

        lanes = tuple(
            Lane(label, kind, index, 0, Spans(list(rows)))
            for label, kind, index, rows in self.batches_by_worker
            if rows
        )
        now = perf_counter_ns()
        begin_ns = min((min(lane.spans.begin) for lane in lanes), default=now)
        end_ns = max((max(lane.spans.end) for lane in lanes), default=now)
        started_s = (time_ns() - (now - begin_ns)) / 1e9
        return Timeline(begin_ns, end_ns, started_s, ("", "batch"), lanes, jobs=(self.as_note(),))

    def as_note(self) -> JobNote:
        """What a timeline shows beside its lanes.

        Returns:
            Plan and report, for people and for machines.

        Example:
            >>> import teamster as ts
            >>> ts.Pool("serial").report().as_note().title
            'serial(1)'
        """
        from teamster.spine.trace.timeline import JobNote

        facts = {"plan": self.plan.to_dict(), "report": self.to_dict()}
        return JobNote(f"{self.backend}({self.workers})", str(self.plan), str(self), facts)

    def plot(self) -> Figure:
        """Draw the workers' batches against seconds.

        Returns:
            A matplotlib figure.

        Raises:
            UsageError: matplotlib is not installed.

        Example:
            >>> import teamster as ts
            >>> with ts.Pool("serial") as pool:
            ...     _ = pool.map(abs, [-1, 2])
            >>> len(pool.report().plot().axes) > 0
            True
        """
        from teamster.spine.trace.export import plot

        return plot(self)

    def _repr_png_(self) -> bytes | None:
        from teamster.spine.trace.export import png_of

        return png_of(self.timeline)

    def _repr_html_(self) -> str:
        from teamster.spine.trace.export import html_of

        return html_of(self.timeline, str(self))

    @property
    def utilization(self) -> float:
        """Share of the workers' time spent in tasks, 0 to 1."""
        available = self.wall_s * self.workers
        return min(1.0, sum(self.busy_s) / available) if available else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Every number, ready for JSON.

        Returns:
            The attributes and ``utilization``.

        Example:
            >>> import teamster as ts
            >>> ts.Pool("serial").report().to_dict()["items"]
            0
        """
        values = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name != "batches_by_worker"
        }
        return {**values, "plan": self.plan.to_dict(), "utilization": self.utilization}

    def __str__(self) -> str:
        rate = self.items / self.wall_s if self.wall_s else 0.0
        lines = [
            f"{self.backend}({self.workers}): {self.reason}",
            f"items        {self.items:,} ({self.failures:,} failed) in {self.wall_s:.3g} s, "
            f"{rate:,.0f} items/s",
            f"utilization  {self.utilization:.0%}",
            f"batches      {self.batches:,}",
            f"moved        {show_bytes(self.pickled_bytes)} pickled, "
            f"{show_bytes(self.arena_bytes)} in shared memory",
            f"trouble      {self.deaths} deaths, {self.retries} retries, {self.timeouts} timeouts",
        ]
        return "\n".join(lines + self._worker_lines())

    def _worker_lines(self) -> list[str]:
        """A line each for the first few workers; many are summed up."""
        shown = [
            f"worker {index:<5} {items:,} items, busy {busy:.3g} s"
            for index, items, busy in self._accounts()[:4]
        ]
        if len(self.busy_s) > 4:
            busiest, laziest = max(self.busy_s), min(self.busy_s)
            shown = [
                f"workers      {len(self.busy_s)} at work, each busy {laziest:.3g} to "
                f"{busiest:.3g} s"
            ]
        return shown

    def _accounts(self) -> list[tuple[int, int, float]]:
        return [
            (index, items, busy)
            for index, (items, busy) in enumerate(
                zip(self.items_by_worker, self.busy_s, strict=True)
            )
        ]
