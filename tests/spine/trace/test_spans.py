# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

import teamster as ts
from teamster.spine.trace.ring import USER
from teamster.spine.trace.spans import current_ring


def named(timeline: ts.Timeline, name: str) -> list[tuple[str, int, int]]:
    """Lane, begin and end (ns) of every span of a name."""
    return [
        (lane.label, row[0], row[1])
        for lane in timeline.lanes
        for row in lane.spans.rows()
        if timeline.names[row[4]] == name and row[5] == USER
    ]


def test_without_a_recording_it_does_nothing() -> None:
    with ts.span("work"):
        assert current_ring() is None


def test_nested_spans_contain_each_other() -> None:
    with ts.record() as recording:
        with ts.span("outer"):
            with ts.span("inner"):
                pass
            with ts.span("inner"):
                pass
    (outer,) = named(recording.timeline, "outer")
    first, second = named(recording.timeline, "inner")
    assert outer[1] <= first[1] <= first[2] <= second[1] <= second[2] <= outer[2]


def test_an_object_may_be_entered_inside_itself() -> None:
    part = ts.span("part")
    with ts.record() as recording:
        with part, part:
            pass
    assert len(named(recording.timeline, "part")) == 2


def test_a_decorator_shows_every_call_and_keeps_the_function() -> None:
    @ts.span("twice")
    def double(number: int, *, plus: int = 0) -> int:
        """What it does."""
        return double(0) + 2 * number + plus if number else 0

    assert (double.__name__, double.__doc__) == ("double", "What it does.")
    with ts.record() as recording:
        assert double(3, plus=1) == 7
    assert len(named(recording.timeline, "twice")) == 2


def test_a_coroutine_function_is_shown_until_it_ends() -> None:
    @ts.span("fetch")
    async def fetch() -> int:
        await asyncio.sleep(0.01)
        return 1

    with ts.record() as recording:
        assert asyncio.run(fetch()) == 1
    ((_, begin, end),) = named(recording.timeline, "fetch")
    assert end - begin > 9_000_000


def test_an_exception_ends_the_span_and_goes_on() -> None:
    with ts.record() as recording:
        with pytest.raises(ZeroDivisionError):
            with ts.span("divide"):
                _ = 1 // 0
    assert len(named(recording.timeline, "divide")) == 1


def test_threads_of_the_program_have_lanes_of_their_own() -> None:
    def work() -> None:
        with ts.span("beside"):
            pass

    with ts.record() as recording:
        thread = threading.Thread(target=work, name="reader")
        thread.start()
        thread.join()
        with ts.span("here"):
            pass
    assert [lane for lane, _, _ in named(recording.timeline, "beside")] == ["reader"]
    assert [lane for lane, _, _ in named(recording.timeline, "here")] == ["caller"]


def spanned(number: int) -> int:
    with ts.span("part"):
        return number


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_spans_inside_of_tasks(backend: str) -> None:
    with (
        ts.record() as recording,
        ts.Pool(backend, workers=1 if backend == "serial" else 2) as pool,  # type: ignore[arg-type]
    ):
        assert pool.map(spanned, range(50)) == list(range(50))
    lanes = Counter(lane for lane, _, _ in named(recording.timeline, "part"))
    assert sum(lanes.values()) == 50
    assert all(lane.startswith("caller" if backend == "serial" else backend) for lane in lanes)


def test_threads_that_a_task_starts_are_in_its_lane() -> None:
    def task(_: int) -> None:
        thread = threading.Thread(target=spanned, args=(1,))
        thread.start()
        thread.join()

    with ts.record() as recording:
        ts.map(task, range(3), backend="process", workers=1)
    assert [lane for lane, _, _ in named(recording.timeline, "part")] == ["process 0"] * 3


@pytest.mark.parametrize("name", [None, 5, b"bytes"])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(ts.UsageError, match="the name of a span must be a string, not "):
        ts.span(name)
