# SPDX-License-Identifier: BSD-3-Clause
"""The format's rules:
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.render.chrome import MOST_SPANS, to_chrome_json
from teamster.spine.trace.ring import COMPUTE, KINDS, SERIALISE, TRANSFER, USER, WAIT
from teamster.spine.trace.timeline import Curve, JobNote, Lane, Mark, Timeline

BEGIN = 863_000_000_000_123
NAMES = ("", "work", 'o"dd \\ \n\x00 </script> \U0001f40d \u2028')
ROWS: list[Row] = [
    (BEGIN + 1_001, BEGIN + 5_003, -1, 1, 2, USER),
    (BEGIN + 1_000, BEGIN + 9_999, 4, 2, 1, COMPUTE),
    (BEGIN + 10_000, BEGIN + 10_000, 4096, 1, 0, TRANSFER),
    (BEGIN + 10_000, BEGIN + 2_000_000_001, -1, 1, 0, WAIT),
]


def timeline(**more: Any) -> Timeline:
    lanes = (
        Lane("process 0", "process", 0, 4711, Spans(ROWS)),
        Lane("c\u00e4ller", "caller", -1, 1, Spans(ROWS[:2])),
    )
    return Timeline(BEGIN, BEGIN + 3_000_000_000, 1.7e9, NAMES, lanes, **more)


FULL = timeline(
    curves=(Curve("memory", "bytes", ((BEGIN, 1.5), (BEGIN + 7, math.nan), (BEGIN + 2_001, 3))),),
    marks=(Mark(BEGIN + 42, "died", "process 0"), Mark(BEGIN + 43, "plan", "")),
    jobs=(
        JobNote(
            "process(1)",
            "the plan",
            "the report",
            {"plan": {"share": math.inf, 3: {1}}, "report": object()},
        ),
    ),
    lost=3,
)


def load(value: Timeline) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = "".join(to_chrome_json(value))
    assert text.isascii()
    found: dict[str, Any] = json.loads(text, parse_constant=refuse, parse_float=Decimal)
    return found


def events(value: Timeline, phase: str) -> list[dict[str, Any]]:
    return [event for event in load(value)["traceEvents"] if event["ph"] == phase]


def ns(microseconds: Decimal) -> int:
    exact = microseconds * 1000
    assert exact == int(exact)
    return int(exact)


def test_every_event_has_what_its_phase_needs() -> None:
    keys = {
        "M": {"name", "pid", "args"},
        "X": {"name", "cat", "pid", "tid", "ts", "dur"},
        "C": {"name", "pid", "ts", "args"},
        "i": {"name", "cat", "pid", "tid", "ts", "s"},
    }
    found = load(FULL)
    assert found["displayTimeUnit"] == "ms"
    assert {event["ph"] for event in found["traceEvents"]} == set(keys)
    for event in found["traceEvents"]:
        assert keys[event["ph"]] <= set(event) - {"ph"} <= keys[event["ph"]] | {"args", "tid"}
        assert isinstance(event["name"], str)
        assert all(isinstance(event[key], int) for key in ("pid", "tid") if key in event)
        assert all(
            isinstance(event[key], Decimal) and event[key] >= 0
            for key in ("ts", "dur")
            if key in event
        )


def test_every_thread_has_a_name_and_a_place() -> None:
    heads = events(FULL, "M")
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in heads
        if event["name"] == "thread_name"
    }
    order = [event["args"]["sort_index"] for event in heads if event["name"] == "thread_sort_index"]
    assert list(names.values()) == ["process 0", "c\u00e4ller"]
    assert order == sorted(set(order))
    assert {(event["pid"], event["tid"]) for event in events(FULL, "X")} == set(names)
    assert [event["pid"] for event in heads if event["name"] == "process_name"] == [1]


def test_spans_are_the_data_to_the_nanosecond() -> None:
    found = [event for event in events(FULL, "X") if event["tid"] == 1]
    times = sorted(
        (ns(each["ts"]) + BEGIN, ns(each["ts"] + each["dur"]) + BEGIN, KINDS.index(each["cat"]))
        for each in found
    )
    assert times == sorted((row[0], row[1], row[5]) for row in ROWS)
    assert [event["name"] for event in found] == ["work", NAMES[2], "wait", "transfer"]
    assert [event.get("args") for event in found] == [
        {"index": 4, "items": 2},
        None,
        None,
        {"bytes": 4096},
    ]


def test_spans_of_a_thread_nest_also_where_they_cross() -> None:
    rows = [
        (begin, begin + long, -1, 1, 0, kind)
        for begin in range(0, 100, 7)
        for kind, long in ((0, 30), (3, 11), (1, 2))
    ]
    value = Timeline(0, 200, 0.0, ("",), (Lane("", "caller", -1, 1, Spans(rows)),))
    stack: list[int] = []
    last = (0, -1_000)
    for event in events(value, "X"):
        begin, end = ns(event["ts"]), ns(event["ts"] + event["dur"])
        assert (begin, -end) >= last
        last = begin, -end
        while stack and stack[-1] <= begin:
            stack.pop()
        assert not stack or end <= stack[-1]
        stack.append(end)


def test_curves_are_numbers() -> None:
    found = events(FULL, "C")
    assert [(event["name"], ns(event["ts"]), event["args"]) for event in found] == [
        ("memory", 0, {"bytes": Decimal("1.5")}),
        ("memory", 2_001, {"bytes": Decimal(3)}),
    ]


def test_marks_stand_in_their_lane_or_in_all() -> None:
    found = events(FULL, "i")
    assert [(each["name"], each["s"], each["tid"], ns(each["ts"])) for each in found] == [
        ("died", "t", 1, 42),
        ("plan", "g", 0, 43),
    ]


def test_the_rest_is_told() -> None:
    other = load(FULL)["otherData"]
    assert other["begin_ns"] == BEGIN
    assert "3 spans" in other["left_out"]
    assert other["lanes"][0] == {
        "tid": 1,
        "label": "process 0",
        "kind": "process",
        "index": 0,
        "pid": 4711,
    }
    assert other["jobs"][0]["report"] == "the report"
    assert other["jobs"][0]["facts"]["plan"] == {"share": "inf", "3": [1]}


def test_no_time_is_negative() -> None:
    early = timeline(marks=(Mark(BEGIN - 5, "before", ""),))
    assert [ns(event["ts"]) for event in events(early, "i")] == [0]
    assert load(early)["otherData"]["begin_ns"] == BEGIN - 5
    assert min(ns(event["ts"]) for event in events(early, "X")) == 1_005


def test_an_empty_timeline_is_one_too() -> None:
    found = load(Timeline(0, 0, 0.0, ("",), ()))
    assert {event["ph"] for event in found["traceEvents"]} == {"M"}


def test_it_comes_in_pieces_and_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_SPANS == 1_000_000
    rows: list[Row] = [(n * 10, n * 10 + 9, n, 1, 1, COMPUTE) for n in range(10_000)]
    value = Timeline(0, 100_000, 0.0, NAMES, (Lane("", "serial", 0, 1, Spans(rows)),))
    assert max(map(len, to_chrome_json(value))) < 300_000
    assert len(events(value, "X")) == 10_000
    monkeypatch.setattr("teamster.spine.trace.render.chrome.MOST_SPANS", 100)
    few = events(value, "X")
    assert len(few) <= 100
    assert sum(event["args"]["items"] for event in few) == 10_000


def test_pickles_have_bytes() -> None:
    value = Timeline(
        0, 9, 0.0, ("",), (Lane("", "caller", -1, 1, Spans([(0, 5, 77, 1, 0, SERIALISE)])),)
    )
    assert [event["args"] for event in events(value, "X")] == [{"bytes": 77}]
