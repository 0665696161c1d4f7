# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.lanes import Track, lanes_of


def track(label: str, began: int, ended: int, pid: int = 1) -> Track:
    kind, _, index = label.partition(" ")
    rows = [(began, ended, 0, 1, 1, 0)]
    return Track(label, kind, int(index or -1), pid, Spans(rows), began, ended)


def labels(*tracks: Track) -> list[str]:
    return [lane.label for lane in lanes_of(list(tracks), 0, 1_000)]


def test_who_replaces_a_worker_goes_on_in_its_lane() -> None:
    (lane,) = lanes_of(
        [track("process 0", 0, 10, pid=5), track("process 0", 20, 30, pid=6)], 0, 1_000
    )
    assert (lane.label, lane.pid, len(lane.spans)) == ("process 0", 6, 2)


def test_two_at_one_time_have_a_lane_each() -> None:
    assert labels(
        track("process 0", 0, 10), track("process 0", 5, 15), track("process 0", 20, 30)
    ) == [
        "process 0",
        "process 0 (2)",
    ]


def test_the_order_is_that_of_a_reader() -> None:
    found = labels(
        track("process 10", 0, 1),
        track("thread 0", 0, 1),
        track("process 2", 0, 1),
        track("caller", 0, 1),
    )
    assert found == ["caller", "thread 0", "process 2", "process 10"]


def test_who_did_nothing_in_the_window_is_left_out() -> None:
    early = track("process 0", 0, 10)
    assert lanes_of([early], 20, 30) == ()
    (lane,) = lanes_of([early], 5, 30)
    assert (lane.spans.begin[0], lane.spans.end[0]) == (5, 10)
