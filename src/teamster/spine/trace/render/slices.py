# SPDX-License-Identifier: BSD-3-Clause
"""Spans as slices: what every drawing of them needs, whatever its format.

::

    spans as they ended            slices as they are drawn
    [decode]                       depth 0   [work            ][work      ]
          [resize]         ->      depth 1    [decode][resize]
    [work            ]

Viewers keep a stack for each lane: a slice that begins inside another must end inside it, too. What
really ran on one thread does so by itself; spans that were drawn together may cross.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.ring import COMPUTE, KINDS, SERIALISE, TRANSFER
from teamster.spine.trace.timeline import Timeline

Late = list[tuple[int, int, int, Row]]
"""A heap of spans that begin later than they did."""


def nested(spans: Spans) -> Iterator[tuple[int, Row]]:
    """Spans by their begin, the longer first, each with its depth.

    Those that cross another are cut. Of a span that begins inside another and ends after it, the
    longer part is kept: the one inside or the one after it.

    Args:
        spans: of one lane.

    Yields:
        The depth, 0 for what is inside nothing, and the span.

    Example:
        >>> spans = Spans([(1, 4, -1, 1, 1, 5), (0, 5, 0, 1, 2, 0), (4, 7, -1, 1, 1, 5)])
        >>> [(depth, row[:2]) for depth, row in nested(spans)]
        [(0, (0, 5)), (1, (1, 4)), (0, (5, 7))]
    """
    ends: list[int] = []
    late: Late = []
    for key in _by_begin(spans, late):
        begin, end, row = key[0], -key[1], key[3]
        while ends and ends[-1] <= begin:
            ends.pop()
        if ends and end > ends[-1]:
            parent_end = ends[-1]
            if end - parent_end > parent_end - begin:
                heapq.heappush(late, (parent_end, -end, key[2], (parent_end, *row[1:])))
                continue
            end = parent_end
            row = begin, end, *row[2:]
        yield len(ends), row
        ends.append(end)


def _by_begin(spans: Spans, late: Late) -> Iterator[tuple[int, int, int, Row]]:
    """Begin, minus end, kind and row, in order; `late` may grow while this runs."""
    for key in sorted((row[0], -row[1], row[5], row) for row in spans.rows()):
        while late and late[0] < key:
            yield heapq.heappop(late)
        yield key
    while late:
        yield heapq.heappop(late)


def title(timeline: Timeline, name: int, kind: int) -> str:
    """What a span is called.

    Args:
        timeline: has the names.
        name: number of the name.
        kind: number of the kind.

    Returns:
        The name; that of the kind where there is none.

    Example:
        >>> timeline = Timeline(0, 1, 0.0, ("", "work"), ())
        >>> title(timeline, 1, 0), title(timeline, 0, 1)
        ('work', 'wait')
    """
    return (timeline.names[name] if name < len(timeline.names) else "") or KINDS[kind]


def facts(row: Row) -> list[tuple[str, int]]:
    """What the two numbers of a span mean.

    Args:
        row: the span.

    Returns:
        Name and number: "index" and "items" of a computation, "bytes" of a transfer or a pickle;
        "spans" where several are one.

    Example:
        >>> facts((0, 9, 4, 2, 1, 0)), facts((0, 9, 4096, 1, 1, 3)), facts((0, 9, -1, 1, 0, 1))
        ([('index', 4), ('items', 2)], [('bytes', 4096)], [])
    """
    _, _, argument, count, _, kind = row
    found = (
        [("bytes" if kind in (SERIALISE, TRANSFER) else "index", argument)] if argument >= 0 else []
    )
    if kind == COMPUTE:
        found.append(("items", count))
    elif count > 1:
        found.append(("spans", count))
    return found


FACTS = ("index", "items", "bytes", "spans")
"""Every name that `facts` knows."""
