# SPDX-License-Identifier: BSD-3-Clause
"""Spans in columns, 32 bytes each; fewer of them, drawn together, where that is enough."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from teamster.spine.trace.ring import SERIALISE, TRANSFER

_COLUMNS = ("begin", "end", "argument", "count", "name", "kind")
_TYPES = "qqqIHB"

_IN_BYTES = frozenset((SERIALISE, TRANSFER))

Row = tuple[int, int, int, int, int, int]
"""Begin and end (ns), argument, count, name, kind."""


class Spans:
    """Spans in columns, in the order in which they ended.

    Attributes:
        begin: ns.
        end: ns.
        argument: the first item's index of a computation, the bytes of a transfer or of a pickle;
            -1 for none.
        count: items, or spans that were merged into this one.
        name: number in the timeline's names; 0 for none.
        kind: number in `KINDS`.

    Example:
        >>> spans = Spans([(0, 5, 0, 1, 1, 0), (5, 9, 1, 1, 1, 0)])
        >>> len(spans), list(spans.end)
        (2, [5, 9])
    """

    __slots__ = ("argument", "begin", "count", "end", "kind", "name")

    begin: array[int]
    end: array[int]
    argument: array[int]
    count: array[int]
    name: array[int]
    kind: array[int]

    def __init__(self, rows: list[Row] | None = None) -> None:
        columns = zip(*rows, strict=True) if rows else ((),) * 6
        for slot, code, values in zip(_COLUMNS, _TYPES, columns, strict=True):
            setattr(self, slot, array(code, values))

    def __len__(self) -> int:
        return len(self.begin)

    def rows(self) -> Iterator[Row]:
        """One tuple a span."""
        return zip(
            self.begin, self.end, self.argument, self.count, self.name, self.kind, strict=True
        )

    def extend(self, other: Spans) -> None:
        """Add those of `other`."""
        for slot in _COLUMNS:
            getattr(self, slot).extend(getattr(other, slot))

    def clipped(self, begin_ns: int, end_ns: int) -> Spans:
        """Those that touch a window, cut at its edges."""
        if not len(self) or (min(self.begin) >= begin_ns and max(self.end) <= end_ns):
            return self
        return Spans([
            (max(begin, begin_ns), min(end, end_ns), argument, count, name, kind)
            for begin, end, argument, count, name, kind in self.rows()
            if end >= begin_ns and begin <= end_ns
        ])  # fmt: skip

    def merged(self, grain_ns: int) -> Spans:
        """The same, with short spans of one name drawn together.

        Those shorter than `grain_ns` are, where the gap between them is shorter, too.
        """
        done: list[Row] = []
        open_rows: dict[tuple[int, int], Row] = {}
        for row in self.rows():
            begin, end, argument, count, name, kind = row
            before = open_rows.get((name, kind))
            if before is not None and end - begin < grain_ns and begin - before[1] < grain_ns:
                # Beside, across or inside the one before. Bytes add up; else the first item's index
                # stays
                whole = before[2] + argument if kind in _IN_BYTES and argument >= 0 else before[2]
                row = (
                    min(begin, before[0]),
                    max(end, before[1]),
                    whole,
                    before[3] + count,
                    name,
                    kind,
                )
            elif before is not None:
                done.append(before)
            open_rows[name, kind] = row
        done += open_rows.values()
        done.sort(key=lambda row: row[1])
        return Spans(done)


def coarser(rows: list[Row], most: int) -> list[Row]:
    """Draw the shortest together with their neighbours, until `most` are left where that can be."""
    spans, grain_ns = Spans(rows), 10_000
    while len(spans) > most and grain_ns < 1 << 62:
        spans = spans.merged(grain_ns)
        grain_ns *= 4
    return list(spans.rows())
