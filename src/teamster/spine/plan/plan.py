# SPDX-License-Identifier: BSD-3-Clause
"""A decision on how to run a job, as a value: the candidates, the evidence, the choice and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from teamster.kinds import label
from teamster.machine.gil import GilShare
from teamster.units import show_bytes, show_seconds


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a job.

    Attributes:
        backend: "serial", "thread", "interpreter" or "process".
        workers: how many.
        predicted: items a second that the evidence promises; None where nothing was predicted.
        bound: the most that it could reach, whatever the evidence does not tell.
        measured: items a second that it reached; None when it was not tried.
        note: why it was not tried, or not any more.

    Example:
        >>> print(Candidate("thread", 4, predicted=80.0))
        thread(4)
    """

    backend: str
    workers: int
    predicted: float | None = None
    bound: float | None = None
    measured: float | None = None
    note: str = ""

    def __str__(self) -> str:
        return label(self.backend, self.workers)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a function from its items.

    These are the first ones, which ran in the caller, or later ones of another kind.

    Attributes:
        items: how many were measured.
        wall_s: seconds an item, without what it waits for the interpreter's lock.
        cpu_s: seconds of processor time an item, in the thread that called the function.
        all_cpu_s: the same of all threads of the process: larger when the function has threads of
            its own.
        gil: share of the time for which the interpreter's lock was held; None when that was not
            measured.
        argument_bytes: pickled size of an argument; None when not known.
        result_bytes: pickled size of a result; None when not known.
        move_s: seconds that pickling and unpickling of both took.
        stays: why the work must stay in this process; empty when it need not.
        one_thread: why it must stay in the thread of the caller; empty when it need not.
        by: the workers that were measured; empty for the caller.
        took_s: seconds that an item took them, waiting for each other included; 0 for the caller.

    Example:
        >>> Evidence(items=3, wall_s=0.1, cpu_s=0.002).waiting
        0.98
    """

    items: int
    wall_s: float
    cpu_s: float
    all_cpu_s: float = 0.0
    gil: GilShare | None = None
    argument_bytes: int | None = None
    result_bytes: int | None = None
    move_s: float = 0.0
    stays: str = ""
    one_thread: str = ""
    by: str = ""
    took_s: float = 0.0

    @property
    def waiting(self) -> float:
        """Share of an item's time in which it uses no processor, 0 to 1."""
        return max(0.0, 1.0 - max(self.cpu_s, self.all_cpu_s) / self.wall_s) if self.wall_s else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is run, and why.

    Attributes:
        backend: the choice; "auto" while nothing has been measured.
        workers: how many.
        reason: one sentence.
        candidates: what was considered, with what was predicted and measured.
        evidence: what the first items showed; None when nothing was measured.

    Example:
        >>> import teamster as ts
        >>> print(ts.Pool("thread", workers=3).plan)
        thread(3): asked for
    """

    backend: str
    workers: int
    reason: str
    candidates: tuple[Candidate, ...] = ()
    evidence: Evidence | None = None

    @property
    def choice(self) -> str:
        """The choice in a word, as "process(8)".

        Example:
            >>> Plan("serial", 1, "asked for").choice
            'serial'
        """
        return str(Candidate(self.backend, self.workers)) if self.backend != "auto" else "auto"

    def __str__(self) -> str:
        lines = [f"{self.choice}: {self.reason}"]
        if self.evidence is not None:
            lines += _describe(self.evidence)
        if self.candidates:
            lines += _table(self)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; `from_dict` reads it.

        Returns:
            A dict of plain values.

        Example:
            >>> Plan("serial", 1, "asked for").to_dict()["backend"]
            'serial'
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that `to_dict` wrote.

        Args:
            values: what `to_dict` returned, perhaps by way of JSON; keys that this version does not
                know are ignored.

        Returns:
            The plan.

        Raises:
            KeyError, TypeError, ValueError: it is none.

        Example:
            >>> Plan.from_dict({"backend": "thread", "workers": 4, "reason": "measured"}).choice
            'thread(4)'
        """
        backend, workers = values["backend"], values["workers"]
        if not isinstance(backend, str) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"backend {backend!r} with {workers!r} workers is no plan")
        candidates = tuple(
            Candidate(**_known(Candidate, each)) for each in values.get("candidates", ())
        )
        evidence = values.get("evidence")
        if evidence is not None:
            gil = evidence.get("gil")
            evidence = Evidence(
                **{**_known(Evidence, evidence), "gil": gil and GilShare(**_known(GilShare, gil))}
            )
        return cls(backend, workers, str(values.get("reason", "")), candidates, evidence)


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _describe(evidence: Evidence) -> list[str]:
    """The evidence, in two lines."""
    where = f"in {evidence.by}" if evidence.by else "here"
    took_s = evidence.took_s or evidence.wall_s
    first = (
        f"  {evidence.items:,} item{'s' * (evidence.items != 1)} measured {where}: "
        f"{show_seconds(took_s)} each"
    )
    first += f", {show_seconds(max(evidence.cpu_s, evidence.all_cpu_s))} of it on a processor"
    if evidence.gil is not None:
        first += f"; GIL held {evidence.gil}, by voluntary switches"
    sizes = (("argument", evidence.argument_bytes), ("result", evidence.result_bytes))
    shown = [f"{name} {show_bytes(size)}" for name, size in sizes if size is not None]
    return (
        [first]
        if not shown
        else [
            first,
            f"  pickled: {', '.join(shown)}; {show_seconds(evidence.move_s)} to move an item",
        ]
    )


def _table(plan: Plan) -> list[str]:
    """A line for each candidate; the choice is marked."""
    rows = [("", "candidate", "predicted", "measured", "")]
    for each in plan.candidates:
        mark = "*" if (each.backend, each.workers) == (plan.backend, plan.workers) else ""
        rows.append((mark, str(each), _rate(each.predicted), _rate(each.measured), each.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for mark, name, predicted, measured, note in rows:
        line = (
            f"{mark:>3} {name:<{widths[1]}}  {predicted:>{widths[2]}}  {measured:>{widths[3]}}  "
            f"{note}"
        )
        lines.append(line.rstrip())
    return lines


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"
