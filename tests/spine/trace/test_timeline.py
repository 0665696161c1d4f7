# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamster.spine.trace.columns import Spans, coarser
from teamster.spine.trace.ring import COMPUTE, TRANSFER, WAIT
from teamster.spine.trace.timeline import Lane, Timeline


def timeline(*lanes: Lane, end_ns: int = 100) -> Timeline:
    return Timeline(0, end_ns, 0.0, ("", "work"), lanes)


def lane(
    rows: list[tuple[int, int]],
    label: str = "process 0",
    kind: str = "process",
    lives: tuple[tuple[int, int], ...] = (),
) -> Lane:
    return Lane(
        label, kind, 0, 1, Spans([(begin, end, 0, 1, 1, COMPUTE) for begin, end in rows]), lives
    )


def test_short_spans_beside_each_other_are_merged_and_counted() -> None:
    spans = Spans(
        [
            (0, 4, 0, 1, 1, COMPUTE),
            (5, 9, 1, 1, 1, COMPUTE),
            (50, 54, 2, 1, 1, COMPUTE),
            (55, 95, 3, 1, 1, COMPUTE),
        ]
    )
    assert list(spans.merged(10).rows()) == [
        (0, 9, 0, 2, 1, COMPUTE),
        (50, 54, 2, 1, 1, COMPUTE),
        (55, 95, 3, 1, 1, COMPUTE),
    ]


def test_other_names_and_kinds_are_not_merged() -> None:
    spans = Spans([(0, 1, 0, 1, 1, COMPUTE), (1, 2, 0, 1, 2, COMPUTE), (2, 3, 0, 1, 1, WAIT)])
    assert len(spans.merged(100)) == 3


def test_bytes_of_merged_transfers_add_up() -> None:
    spans = Spans([(0, 1, 100, 1, 1, TRANSFER), (1, 2, 50, 1, 1, TRANSFER)])
    assert list(spans.merged(10).argument) == [150]


moments = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 3)), max_size=200
)


@given(moments, st.integers(1, 1_000))
def test_merging_loses_no_item_and_no_end(rows: list[tuple[int, int, int]], grain: int) -> None:
    spans = Spans(
        [
            (begin, begin + length, 0, 1, name, COMPUTE)
            for begin, length, name in sorted(rows, key=lambda row: sum(row[:2]))
        ]
    )
    merged = spans.merged(grain)
    assert sum(merged.count) == len(spans)
    assert (min(merged.begin, default=0), max(merged.end, default=0)) == (
        min(spans.begin, default=0),
        max(spans.end, default=0),
    )
    assert list(merged.end) == sorted(merged.end)


def test_reduced_keeps_to_the_bound_and_says_so() -> None:
    busy = timeline(lane([(10 * n, 10 * n + 9) for n in range(10_000)]), end_ns=100_000)
    assert busy.left_out == ""
    small = busy.reduced(500)
    assert small.spans <= 500
    assert sum(small.lanes[0].spans.count) == 10_000
    assert "drawn together with their neighbours" in small.left_out
    assert busy.reduced(10_000) == busy


def test_what_was_lost_is_said() -> None:
    assert Timeline(0, 1, 0.0, ("",), (), lost=1_234).left_out.startswith(
        "1,234 spans were too short, or came faster"
    )


def test_a_window_cuts_at_its_edges() -> None:
    spans = Spans([(0, 10, 0, 1, 1, 0), (20, 30, 1, 1, 1, 0), (40, 50, 2, 1, 1, 0)])
    assert [(row[0], row[1]) for row in spans.clipped(5, 25).rows()] == [(5, 10), (20, 25)]
    assert spans.clipped(0, 50) is spans


def test_utilization_counts_what_overlaps_once() -> None:
    nested = lane([(0, 50), (10, 20), (15, 40)])
    assert timeline(nested).utilization(2) == pytest.approx([1.0, 0.0])


def test_utilization_is_of_workers_that_are_there() -> None:
    early = lane([(0, 50)], lives=((0, 50),))
    late = lane([(50, 75)], "process 1", lives=((50, 100),))
    assert timeline(early, late).utilization(4) == pytest.approx([1.0, 1.0, 1.0, 0.0], abs=0.05)


def test_the_caller_counts_only_when_it_is_alone() -> None:
    caller = lane([(0, 100)], "caller", "caller")
    assert timeline(caller).utilization(2) == pytest.approx([1.0, 1.0])
    assert timeline(caller, lane([(50, 100)])).utilization(2) == pytest.approx([0.0, 1.0])


def test_waiting_is_not_work() -> None:
    waiting = Lane("thread 0", "thread", 0, 1, Spans([(0, 100, -1, 1, 1, WAIT)]))
    assert timeline(waiting).utilization(1) == [0.0]


def test_a_timeline_without_lanes() -> None:
    empty = timeline()
    assert (empty.spans, empty.utilization(3), empty.reduced(10).spans) == (0, [0.0, 0.0, 0.0], 0)


def test_rows_get_coarser_until_they_fit() -> None:
    rows = [(10_000 * n, 10_000 * n + 9_000, -1, 1, 1, COMPUTE) for n in range(1_000)]
    few = coarser(rows, 100)
    assert len(few) <= 100
    assert sum(row[3] for row in few) == 1_000
