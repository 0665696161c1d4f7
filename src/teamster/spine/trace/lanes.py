# SPDX-License-Identifier: BSD-3-Clause
"""From tracks, one a life of a worker or thread, to lanes, one a place on the picture.

A worker that was replaced goes on in its lane, and so does the worker of the same number in the
next pool; where two of one label were there at the same time, the second has a lane of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter_ns

from teamster.kinds import order_of
from teamster.spine.trace.columns import Spans
from teamster.spine.trace.timeline import Lane


@dataclass(slots=True)
class Track:
    """One life."""

    label: str
    kind: str
    index: int
    pid: int = 0
    spans: Spans = field(default_factory=Spans)
    began_ns: int = field(default_factory=perf_counter_ns)
    ended_ns: int = 0
    earlier: list[tuple[int, int]] = field(default_factory=list)

    def continue_with(self, other: Track) -> bool:
        """Take in the life of the worker or thread that has taken its place.

        Args:
            other: a track of the same label, which is over.

        Returns:
            False where the two were there at the same time.
        """
        if self.ended_ns > other.first_ns:
            return False
        self.earlier.append((self.first_ns, self.ended_ns))
        self.spans.extend(other.spans)
        self.began_ns, self.ended_ns, self.pid = other.began_ns, other.ended_ns, other.pid
        return True

    @property
    def lives(self) -> list[tuple[int, int]]:
        """From and to, of each."""
        return [*self.earlier, (self.began_ns if self.earlier else self.first_ns, self.ended_ns)]

    @property
    def first_ns(self) -> int:
        """When it shows first."""
        return min(self.began_ns, min(self.spans.begin, default=self.began_ns))


def lanes_of(tracks: list[Track], begin_ns: int, end_ns: int) -> tuple[Lane, ...]:
    """Lanes with what happened in a window; tracks without a span in it are left out.

    Args:
        tracks: lives, in any order.
        begin_ns: of the window.
        end_ns: of the window.

    Returns:
        The caller's threads first, then workers by kind and number.

    Example:
        >>> tracks = [
        ...     Track("process 0", "process", 0, 1, Spans([(1, 2, 0, 1, 0, 0)]), 0, 3)
        ...     for _ in range(2)
        ... ]
        >>> [lane.label for lane in lanes_of(tracks, 0, 9)]
        ['process 0', 'process 0 (2)']
    """
    lanes: dict[tuple[str, int], list[tuple[Track, Spans]]] = {}
    for track in sorted(tracks, key=lambda track: track.first_ns):
        spans = track.spans.clipped(begin_ns, end_ns)
        if not len(spans):
            continue
        number = 1
        while (placed := lanes.get((track.label, number))) and placed[-1][
            0
        ].ended_ns > track.first_ns:
            number += 1
        lanes.setdefault((track.label, number), []).append((track, spans))
    made = [
        _lane(label, number, placed, begin_ns, end_ns) for (label, number), placed in lanes.items()
    ]
    return tuple(sorted(made, key=_place))


def _place(lane: Lane) -> tuple[int, str, int, str]:
    """From the top: by kind, then what is called alike, by number.

    For example "process 0", "process 1", "spawn 0: train".
    """
    return (
        order_of(lane.kind),
        "" if lane.kind == "caller" else lane.label.partition(" ")[0],
        lane.index,
        lane.label,
    )


def _lane(
    label: str, number: int, placed: list[tuple[Track, Spans]], begin_ns: int, end_ns: int
) -> Lane:
    spans = Spans()
    for _, each in placed:
        spans.extend(each)
    last = placed[-1][0]
    lives = tuple(
        (max(begin, begin_ns), min(end, end_ns))
        for track, _ in placed
        for begin, end in track.lives
        if end > begin_ns and begin < end_ns
    )
    shown = label if number == 1 else f"{label} ({number})"
    return Lane(shown, last.kind, last.index, last.pid, spans, lives)
