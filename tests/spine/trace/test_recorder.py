# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import teamster as ts
from teamster.spine.trace.recorder import close_recorder, open_recorder
from teamster.spine.trace.ring import (
    CAPACITY,
    COMPUTE,
    INITIALISE,
    KINDS,
    SERIALISE,
    TRANSFER,
    USER,
    WAIT,
)
from teamster.spine.trace.timeline import Timeline
from teamster.spine.workers.process.child import Traced
from tests.spine.trace.items import busy, items_of


def kinds_of(timeline: Timeline, lane: str) -> set[int]:
    return {
        kind for each in timeline.lanes if each.label.startswith(lane) for kind in each.spans.kind
    }


@pytest.mark.parametrize("backend", ["serial", "thread", "process", "auto"])
@pytest.mark.parametrize("function", [abs, busy])
def test_every_item_is_there_once(backend: Any, function: Callable[[int], Any]) -> None:
    with ts.record() as recording, ts.Pool(backend) as pool:
        pool.map(function, range(3_000))
    assert items_of(recording.timeline) == Counter(range(3_000))
    assert recording.timeline.lost == 0


def test_seeded_failing_and_starred_items_are_there_too() -> None:
    def divide(number: int, by: int) -> float:
        return number / by

    with ts.record() as recording, ts.Pool("process", workers=2) as pool:
        pool.starmap(divide, [(1, n % 3) for n in range(30)], on_error="return", seed=1)
    timeline = recording.timeline
    assert items_of(timeline) == Counter(range(30))
    assert (
        sum(
            "raised ZeroDivisionError" in timeline.names[row[4]]
            for lane in timeline.lanes
            for row in lane.spans.rows()
        )
        == 10
    )


def test_submitted_calls_are_there() -> None:
    with ts.record() as recording, ts.Pool("process", workers=2) as pool:
        futures = [pool.submit(busy, n) for n in range(20)]
        assert [future.result()[1] for future in futures] == list(range(20))
    spans = [
        row for lane in recording.timeline.lanes for row in lane.spans.rows() if row[5] == COMPUTE
    ]
    assert len(spans) == 20


def large(_: int) -> bytes:
    return bytes(4_000_000)


def test_what_else_workers_do() -> None:
    with (
        ts.record() as recording,
        ts.Pool("process", workers=2, initializer=busy, initargs=(1,)) as pool,
    ):
        pool.map(large, range(20))
    timeline = recording.timeline
    assert kinds_of(timeline, "process") >= {COMPUTE, WAIT, INITIALISE, TRANSFER}
    assert WAIT in kinds_of(timeline, "caller")
    moved = [
        row[2]
        for lane in timeline.lanes
        for row in lane.spans.rows()
        if row[5] in (TRANSFER, SERIALISE) and row[2] > 0
    ]
    assert max(moved) >= 4_000_000
    assert {KINDS[kind] for kind in kinds_of(timeline, "")} <= set(KINDS)


def test_workers_that_run_already_are_recorded_from_now_on() -> None:
    with ts.Pool("process", workers=2) as pool, ts.Pool("thread", workers=2) as threads:
        pool.map(busy, range(100))
        threads.map(busy, range(100))
        for _ in range(2):  # and again
            with ts.record() as recording:
                pool.map(busy, range(1_000, 1_100))
                threads.map(busy, range(1_000, 1_100))
            pool.map(busy, range(100))
            assert sum(items_of(recording.timeline).values()) == 200


def test_recordings_side_by_side_have_their_own_time() -> None:
    with ts.record() as whole:
        ts.map(busy, range(10), backend="serial")
        with ts.record() as part:
            ts.map(busy, range(10), backend="serial")
        ts.map(busy, range(10), backend="serial")
    assert sum(items_of(part.timeline).values()) == 10
    assert sum(items_of(whole.timeline).values()) == 30


def test_curves_are_sampled_beside() -> None:
    import time

    def wait(_: int) -> None:
        time.sleep(0.02)

    with ts.record() as recording:
        ts.map(wait, range(40), backend="process", workers=2)
    curves = {curve.label: curve for curve in recording.timeline.curves}
    assert {"processors", "run delay", "memory", "GIL held"} <= curves.keys()
    begin, end = recording.timeline.begin_ns, recording.timeline.end_ns
    assert all(begin <= at <= end for curve in curves.values() for at, _ in curve.points)
    assert max(value for _, value in curves["memory"].points) > 1_000_000
    assert all(0 <= value <= 1 for _, value in curves["GIL held"].points)


def test_plan_and_report_are_beside_it_also_of_pools_that_are_gone() -> None:
    with ts.record() as recording:
        ts.map(busy, range(20), backend="process", workers=2)
        pool = ts.Pool("thread", workers=3)
        pool.map(busy, range(20))
    pool.close()
    assert [note.title for note in recording.timeline.jobs] == ["process(2)", "thread(3)"]
    assert recording.timeline.jobs[0].facts["report"]["items"] == 20
    assert "items        20" in recording.timeline.jobs[1].report


def test_choices_are_marked() -> None:
    import time

    with ts.record() as recording:
        ts.map(lambda _: time.sleep(0.01), range(300))
    assert any(mark.text.startswith("auto: ") for mark in recording.timeline.marks)


def suicidal(number: int) -> int:
    if number == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return busy(number)[1]


def test_a_killed_workers_spans_survive_up_to_its_last_finished_item() -> None:
    with ts.record() as recording, ts.Pool("process", workers=1) as pool:
        results = pool.map(suicidal, range(60), on_error="return", chunksize=60)
    assert [type(result).__name__ for result in results if not isinstance(result, int)] == [
        "WorkerDied"
    ]
    assert items_of(recording.timeline) == Counter(set(range(60)) - {30})
    assert [mark.text for mark in recording.timeline.marks] == ["process 0 died"]
    assert [lane.label for lane in recording.timeline.lanes if lane.kind == "process"] == [
        "process 0"
    ]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = open_recorder()
    try:
        monkeypatch.setattr(recorder, "_most", 5_000)
        ring = recorder.ring()
        for number in range(60_000):
            ring.write(1_000 * number, 1_000 * number + 900, number, 1, ring.name("work"), COMPUTE)
            if number % 10_000 == 0:
                recorder.timeline(0)
        timeline = recorder.timeline(0)
        assert timeline.spans <= 5_000
        assert items_of(timeline) == Counter(range(60_000))
        assert timeline.grain_ns > 0
        assert "drawn together" in timeline.left_out
        assert ring.grain_ns == timeline.grain_ns
    finally:
        close_recorder(recorder)


def test_workers_merge_what_is_shorter_than_the_grain() -> None:
    with ts.Pool("process", workers=1) as pool:
        pool.map(busy, range(10))
        with ts.record() as recording:
            recorder = recording._recorder
            assert recorder is not None
            for source in recorder._sources:
                source.reader.coarsen(10**9)
            pool.map(busy, range(5_000), chunksize=100)  # else they are as small as the load wants
    assert items_of(recording.timeline) == Counter(range(5_000))
    assert recording.timeline.spans < 1_000


def test_threads_that_end_let_go_of_their_rings() -> None:
    recorder = open_recorder()
    try:
        for _ in range(20):
            thread = threading.Thread(target=lambda: recorder.ring().write(1, 2, 0, 1, 0, COMPUTE))
            thread.start()
            thread.join()
        timeline = recorder.timeline(0)
        assert len(recorder._sources) == 0
        assert timeline.spans == 20
    finally:
        close_recorder(recorder)


def test_recording_inside_of_a_recorded_process_worker_is_refused() -> None:
    def task(_: int) -> None:
        with ts.record():
            pass

    with ts.record():
        (error,) = ts.map(task, [1], backend="process", workers=1, on_error="return")
    assert isinstance(error, ts.UsageError)
    assert "which its parent records" in str(error)
    # Where nobody else does, it may
    assert ts.map(task, [1], backend="process", workers=1) == [None]


def test_the_recorder_ends_with_its_last_recording() -> None:
    first, second = ts.record(), ts.record()
    with first:
        with second:
            pass
        assert any(thread.name == "teamster-recorder" for thread in threading.enumerate())
    assert not any(thread.name == "teamster-recorder" for thread in threading.enumerate())


def test_spans_that_come_too_fast_are_counted_and_the_short_ones_stop() -> None:
    recorder = open_recorder()
    try:
        ring = recorder.ring()
        with recorder._lock:  # nobody reads meanwhile
            for number in range(3 * CAPACITY):
                ring.write(number, number + 1, number, 1, 0, USER)
        timeline = recorder.timeline(0)
        assert timeline.lost + sum(sum(lane.spans.count) for lane in timeline.lanes) == 3 * CAPACITY
        assert ring.grain_ns > 0
        lost = timeline.lost
        for _ in range(100):
            with ts.span("short"):
                pass
        timeline = recorder.timeline(0)
        # Most of them, by far; one that the system interrupts is not short, and is there
        assert timeline.lost > lost
        assert (
            timeline.lost + sum(sum(lane.spans.count) for lane in timeline.lanes)
            == 3 * CAPACITY + 100
        )
    finally:
        close_recorder(recorder)


def test_recursive_spans_past_the_bound_are_merged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of one name inside of each other could not be merged, and the grain grew until it did
    not fit its word.
    """
    recorder = open_recorder()
    try:
        monkeypatch.setattr(recorder, "_most", 2_000)
        ring = recorder.ring()
        for number in range(10_000):
            at = 100_000 * number
            for depth in (3, 2, 1, 0):
                ring.write(at + depth, at + 90_000 - depth, -1, 1, ring.name("walk"), USER)
        timeline = recorder.timeline(0)
        assert timeline.spans <= 2_000
        assert sum(sum(lane.spans.count) for lane in timeline.lanes) + timeline.lost == 40_000
        assert any(thread.name == "teamster-recorder" for thread in threading.enumerate())
    finally:
        close_recorder(recorder)


def test_thread_pools_after_each_other_share_their_lanes_and_let_go_of_their_rings() -> None:
    with ts.record() as recording:
        for _ in range(30):
            ts.map(busy, range(4), backend="thread", workers=2)
        recorder = recording._recorder
        assert recorder is not None
        assert len(recorder._sources) < 10
    assert len(recording.timeline.lanes) <= 5
    assert sum(items_of(recording.timeline).values()) == 120


def test_a_recording_shows_only_its_own_pools_and_losses() -> None:
    with ts.record() as outer:
        ts.map(busy, range(4), backend="serial")
        assert outer._recorder is not None
        outer._recorder._lost += 99
        with ts.record() as inner:
            ts.map(busy, range(4), backend="thread", workers=2)
    assert [note.title for note in inner.timeline.jobs] == ["thread(2)"]
    assert [note.title for note in outer.timeline.jobs] == ["serial(1)", "thread(2)"]
    assert (inner.timeline.lost, outer.timeline.lost) == (0, 99)


def test_a_worker_that_cannot_be_followed_works_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Traced) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Traced, "memory", refuse)
    with ts.record() as recording:
        assert ts.map(abs, [-1, 2], backend="process", workers=1) == [1, 2]
    assert [mark.text for mark in recording.timeline.marks] == [
        "process 0 is not on the timeline: there is no memory for its spans"
    ]


def test_without_a_thread_for_the_recorder_nothing_is_left_half_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "teamster-recorder":
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            ts.record().__enter__()
    with ts.record() as recording:
        ts.map(abs, [1], backend="serial")
    assert items_of(recording.timeline) == Counter([0])


def test_submitted_calls_have_no_index() -> None:
    with ts.record() as recording, ts.Pool("process", workers=1) as pool:
        pool.submit(busy, 1).result()
    assert [
        row[2]
        for lane in recording.timeline.lanes
        for row in lane.spans.rows()
        if row[5] == COMPUTE
    ] == [-1]
