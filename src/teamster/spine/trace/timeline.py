# SPDX-License-Identifier: BSD-3-Clause
"""What happened, as a value: lanes of spans, curves, marks.

Every picture is drawn from this, and nothing else.

::

    Timeline
      lanes      one a worker or thread: Spans, in columns
      names      what spans are called, by number
      curves     GIL-held share, memory, ..., as points
      marks      a death, a change of plan: moments with a text
      jobs       plan and report of each pool

Times are nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.ring import COMPUTE, INITIALISE, SERIALISE, TRANSFER, USER
from teamster.units import show_seconds

AT_WORK = frozenset((COMPUTE, SERIALISE, TRANSFER, INITIALISE, USER))
"""Kinds during which a lane does something."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One worker, or one thread of the program.

    Attributes:
        label: as people call it: "process 0", "caller".
        kind: "serial", "thread", "process", "interpreter"; "caller" for a thread of the program
            itself.
        index: the worker's; -1 for a thread of the program.
        pid: of the process that it ran in; of the last one when a worker was replaced.
        spans: what it did.
        lives: when it was there, from and to (ns); of a worker that was replaced, one after the
            other. Empty for always.

    Example:
        >>> Lane("process 0", "process", 0, 4711, Spans()).label
        'process 0'
    """

    label: str
    kind: str
    index: int
    pid: int
    spans: Spans
    lives: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """A number over time.

    Attributes:
        label: what it counts.
        unit: "share" (0 to 1), "bytes", "processors".
        points: (ns, value).

    Example:
        >>> Curve("memory", "bytes", ((0, 1.0),)).unit
        'bytes'
    """

    label: str
    unit: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a note.

    Attributes:
        at_ns: when.
        text: what happened.
        lane: label of the lane that it happened to; empty for all.

    Example:
        >>> Mark(0, "died", "process 0").text
        'died'
    """

    at_ns: int
    text: str
    lane: str = ""


@dataclass(frozen=True, slots=True)
class JobNote:
    """What a pool says of itself.

    Attributes:
        title: as in "process(2)".
        plan: the plan for people.
        report: the report for people.
        facts: both for machines; keys "plan" and "report".

    Example:
        >>> JobNote("serial(1)", "", "", {}).title
        'serial(1)'
    """

    title: str
    plan: str
    report: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened between two moments.

    Attributes:
        begin_ns: the first moment, in nanoseconds on the clock of the spans.
        end_ns: the last, in nanoseconds.
        started_s: the first, in seconds since 1970.
        names: of spans, by number; number 0 is a span without one.
        lanes: workers and threads.
        curves: numbers over time.
        marks: moments.
        jobs: plan and report of each pool.
        grain_ns: spans of fewer nanoseconds may be drawn together with their neighbours; 0 when all
            are there.
        lost: spans that came faster than they could be read, or were too short where there were too
            many.

    Example:
        >>> lane = Lane("caller", "caller", -1, 1, Spans([(0, 500_000_000, 0, 1, 1, 0)]))
        >>> timeline = Timeline(0, 1_000_000_000, 0.0, ("", "work"), (lane,))
        >>> timeline.seconds, timeline.spans
        (1.0, 1)
        >>> timeline.utilization(2)
        [1.0, 0.0]
    """

    begin_ns: int
    end_ns: int
    started_s: float
    names: tuple[str, ...]
    lanes: tuple[Lane, ...]
    curves: tuple[Curve, ...] = ()
    marks: tuple[Mark, ...] = ()
    jobs: tuple[JobNote, ...] = field(default=())
    grain_ns: int = 0
    lost: int = 0

    @property
    def seconds(self) -> float:
        """From the first moment to the last."""
        return (self.end_ns - self.begin_ns) / 1e9

    @property
    def spans(self) -> int:
        """How many there are."""
        return sum(len(lane.spans) for lane in self.lanes)

    @property
    def left_out(self) -> str:
        """A sentence about what is not shown as it was; empty when all of it is."""
        said = []
        if self.grain_ns:
            grain = show_seconds(self.grain_ns / 1e9)
            said.append(f"spans shorter than {grain} are drawn together with their neighbours")
        if self.lost:
            said.append(
                f"{self.lost:,} spans were too short, or came faster than they could be read, and "
                "are missing"
            )
        return "; ".join(said)

    def reduced(self, most: int) -> Timeline:
        """With at most about `most` spans: the shortest are drawn together with their neighbours.

        Args:
            most: how many spans.

        Returns:
            The same timeline where it has no more.

        Example:
            >>> spans = Spans([(n, n + 1, n, 1, 1, 0) for n in range(1_000)])
            >>> lane = Lane("caller", "caller", -1, 1, spans)
            >>> small = Timeline(0, 1_000, 0.0, ("", "work"), (lane,)).reduced(10)
            >>> small.spans, small.lanes[0].spans.count[0]
            (1, 1000)
        """
        timeline, grain_ns = self, max(self.grain_ns, (self.end_ns - self.begin_ns) // 100_000, 1)
        while timeline.spans > most and grain_ns <= self.end_ns - self.begin_ns:
            lanes = tuple(
                replace(lane, spans=lane.spans.merged(grain_ns)) for lane in timeline.lanes
            )
            timeline = replace(timeline, lanes=lanes, grain_ns=grain_ns)
            grain_ns *= 2
        return timeline

    def utilization(self, bins: int) -> list[float]:
        """Share of the lanes of workers that are at work, over time.

        Args:
            bins: how many equal parts of the time.

        Returns:
            A number from 0 to 1 for each part, of the lanes that are there then; of all lanes,
            where none is a worker's.

        Example:
            >>> lane = Lane("caller", "caller", -1, 1, Spans([(0, 5, 0, 1, 1, 0)]))
            >>> Timeline(0, 10, 0.0, ("", "work"), (lane,)).utilization(2)
            [1.0, 0.0]
        """
        lanes = [lane for lane in self.lanes if lane.kind != "caller"] or list(self.lanes)
        width = max(1, self.end_ns - self.begin_ns) / bins
        busy, there = [0.0] * bins, [0.0] * bins
        for lane in lanes:
            work = [
                (begin, end) for begin, end, _, _, _, kind in lane.spans.rows() if kind in AT_WORK
            ]
            lives = lane.lives or ((self.begin_ns, self.end_ns),)
            for index, share in enumerate(_covered(work, self.begin_ns, width, bins)):
                busy[index] += share
            for index, share in enumerate(_covered([*lives, *work], self.begin_ns, width, bins)):
                there[index] += share
        return [min(1.0, share / of) if of else 0.0 for share, of in zip(busy, there, strict=True)]


def _covered(spans: list[tuple[int, int]], origin: int, width: float, bins: int) -> list[float]:
    """Share of each bin that the union of some spans covers."""
    shares = [0.0] * bins
    covered, last = origin, origin + int(bins * width)
    for begin, end in sorted(spans):
        end = min(end, last)
        begin, covered = max(begin, covered), max(end, covered)
        while begin < end:
            index = min(bins - 1, int((begin - origin) / width))
            stop = min(end, int(origin + (index + 1) * width) + 1) if index < bins - 1 else end
            shares[index] += (stop - begin) / width
            begin = stop
    return shares
