# SPDX-License-Identifier: BSD-3-Clause
"""Slices nest, whatever the spans do."""

from __future__ import annotations

import random

from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.render.slices import facts, nested
from teamster.spine.trace.ring import COMPUTE, SERIALISE, TRANSFER, USER, WAIT


def span(begin: int, end: int, kind: int = COMPUTE) -> Row:
    return begin, end, -1, 1, 0, kind


def slices(*rows: Row) -> list[tuple[int, int, int]]:
    return [(depth, row[0], row[1]) for depth, row in nested(Spans(list(rows)))]


def test_what_nests_stays_as_it_is() -> None:
    assert slices(span(2, 4), span(5, 5), span(1, 8), span(8, 9)) == [
        (0, 1, 8),
        (1, 2, 4),
        (1, 5, 5),
        (0, 8, 9),
    ]


def test_of_equals_the_users_own_is_inside() -> None:
    rows = [span(0, 5, USER), span(0, 5, COMPUTE)]
    assert [(depth, row[5]) for depth, row in nested(Spans(rows))] == [(0, COMPUTE), (1, USER)]


def test_what_crosses_keeps_its_longer_part() -> None:
    assert slices(span(0, 10), span(2, 12)) == [(0, 0, 10), (1, 2, 10)]
    assert slices(span(0, 10), span(8, 20)) == [(0, 0, 10), (0, 10, 20)]


def test_any_spans_nest() -> None:
    chance = random.Random(7)
    for _ in range(200):
        starts = [chance.randrange(30) for _ in range(20)]
        rows = [
            span(start, start + chance.choice((0, 1, 5, 20)), chance.randrange(6))
            for start in starts
        ]
        stack: list[tuple[int, int]] = []
        last = 0
        found = list(nested(Spans(rows)))
        for depth, (begin, end, *_) in found:
            assert last <= begin <= end
            last = begin
            del stack[depth:]
            assert len(stack) == depth
            assert all(low <= begin and end <= high for low, high in stack)
            stack.append((begin, end))
        assert len(found) == len(rows)


def test_facts() -> None:
    assert facts((0, 1, 7, 1, 0, COMPUTE)) == [("index", 7), ("items", 1)]
    assert facts((0, 1, 7, 3, 0, SERIALISE)) == [("bytes", 7), ("spans", 3)]
    assert facts((0, 1, 0, 1, 0, TRANSFER)) == [("bytes", 0)]
    assert facts((0, 1, -1, 1, 0, WAIT)) == []
