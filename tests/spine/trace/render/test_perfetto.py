# SPDX-License-Identifier: BSD-3-Clause
"""What the official classes read from our file.

Never `perfetto.trace_processor`, which downloads a program.
"""

from __future__ import annotations

import math
import random
import struct
from collections import defaultdict
from typing import Any

import pytest

from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.render.chrome import to_chrome_json
from teamster.spine.trace.render.perfetto import to_pftrace, varint
from teamster.spine.trace.render.slices import facts
from teamster.spine.trace.ring import COMPUTE, KINDS, TRANSFER, USER, WAIT
from teamster.spine.trace.timeline import Curve, JobNote, Lane, Mark, Timeline

pytest.importorskip("perfetto")

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as official

BEGIN = 863_000_000_000_123
NAMES = ("", "work", "d\u00e9code \U0001f40d", "")
ROWS: list[Row] = [
    (BEGIN + 1_001, BEGIN + 5_003, -1, 1, 2, USER),
    (BEGIN + 1_000, BEGIN + 9_999, 4, 2, 1, COMPUTE),
    (BEGIN + 9_999, BEGIN + 9_999, 2**40, 1, 0, TRANSFER),
    (BEGIN + 9_999, BEGIN + 2_000_000_001, -1, 1, 3, WAIT),
]
LANES = (
    Lane("process 0", "process", 0, 4711, Spans(ROWS)),
    Lane("process 0", "process", 0, 4712, Spans(ROWS[:2])),
)
FULL = Timeline(
    BEGIN,
    BEGIN + 3_000_000_000,
    1.7e9,
    NAMES,
    LANES,
    (
        Curve("memory", "bytes", ((BEGIN, 1.5), (BEGIN + 1, math.nan), (BEGIN + 9, -3.0))),
        Curve("GIL", "share", ((BEGIN, 0.25),)),
    ),
    (Mark(BEGIN + 42, "died", "process 0"), Mark(BEGIN + 43, "all", "")),
    (JobNote("process(1)", "the plan", "the report", {}),),
    lost=3,
)


class Parsed:
    """A trace as a viewer sees it."""

    def __init__(self, timeline: Timeline) -> None:
        self.packets = official.Trace.FromString(to_pftrace(timeline)).packet
        self.tracks = {
            each.track_descriptor.uuid: each.track_descriptor
            for each in self.packets
            if each.HasField("track_descriptor")
        }
        state = next(each.interned_data for each in self.packets if each.HasField("interned_data"))
        self.names = {each.iid: each.name for each in state.event_names}
        self.categories = {each.iid: each.name for each in state.event_categories}
        self.keys = {each.iid: each.name for each in state.debug_annotation_names}
        self.events = [each for each in self.packets if each.HasField("track_event")]

    def of_type(self, kind: str) -> list[Any]:
        wanted = official.TrackEvent.Type.Value(f"TYPE_{kind}")
        return [each for each in self.events if each.track_event.type == wanted]

    def slices(self) -> dict[int, list[tuple[int, int, str, str, dict[str, int]]]]:
        """Begin, end, name, category and annotations by track.

        Fails where begins and ends do not match.
        """
        found: dict[int, list[Any]] = defaultdict(list)
        stacks: dict[int, list[Any]] = defaultdict(list)
        last: dict[int, int] = defaultdict(int)
        for packet in self.events:
            event = packet.track_event
            stack = stacks[event.track_uuid]
            if event.type == official.TrackEvent.TYPE_SLICE_BEGIN:
                stack.append(packet)
            elif event.type == official.TrackEvent.TYPE_SLICE_END:
                begun = stack.pop()
                said = {
                    self.keys[each.name_iid]: each.uint_value
                    for each in begun.track_event.debug_annotations
                }
                name, category = (
                    self.names[begun.track_event.name_iid],
                    self.categories[begun.track_event.category_iids[0]],
                )
                found[event.track_uuid].append(
                    (begun.timestamp, packet.timestamp, name, category, said)
                )
            else:
                continue
            # Viewers sort by time and keep the order of equals
            assert packet.timestamp >= last[event.track_uuid]
            last[event.track_uuid] = packet.timestamp
        assert not any(stacks.values())
        return found


def expected(rows: list[Row]) -> list[Any]:
    return sorted(
        (row[0], row[1], NAMES[row[4]] or KINDS[row[5]], KINDS[row[5]], dict(facts(row)))
        for row in rows
    )


def key(found: Any) -> Any:
    return found[:4]


def test_every_span_is_there() -> None:
    parsed = Parsed(FULL)
    found = parsed.slices()
    lanes = sorted(found)
    assert [parsed.tracks[lane].name for lane in lanes] == ["process 0", "process 0"]
    assert sorted(found[lanes[0]], key=key) == expected(ROWS)
    assert sorted(found[lanes[1]], key=key) == expected(ROWS[:2])


def test_tracks_stand_in_their_order_and_are_not_merged() -> None:
    parsed = Parsed(FULL)
    (root,) = [each for each in parsed.tracks.values() if not each.parent_uuid]
    children = sorted(
        (each for each in parsed.tracks.values() if each.parent_uuid),
        key=lambda each: each.sibling_order_rank,
    )
    assert root.child_ordering == official.TrackDescriptor.EXPLICIT
    assert {each.parent_uuid for each in children} == {root.uuid}
    assert [each.name for each in children] == ["notes", "memory", "GIL", "process 0", "process 0"]
    assert {each.sibling_merge_behavior for each in children} == {
        official.TrackDescriptor.SIBLING_MERGE_BEHAVIOR_NONE
    }
    assert children[-1].description == "process worker 0, pid 4712"


def test_curves_have_units_and_values() -> None:
    parsed = Parsed(FULL)
    points = [
        (parsed.tracks[each.track_event.track_uuid], each) for each in parsed.of_type("COUNTER")
    ]
    values = [
        (track.name, each.timestamp - BEGIN, each.track_event.double_counter_value)
        for track, each in points
    ]
    assert values == [("memory", 0, 1.5), ("memory", 9, -3.0), ("GIL", 0, 0.25)]
    assert points[0][0].counter.unit == official.CounterDescriptor.UNIT_SIZE_BYTES
    assert points[-1][0].counter.unit_name == "share"


def test_marks_and_notes() -> None:
    parsed = Parsed(FULL)
    found = [
        (parsed.tracks[each.track_event.track_uuid].name, each.timestamp - BEGIN, each)
        for each in parsed.of_type("INSTANT")
    ]
    said = [(track, at_ns, each.track_event.name) for track, at_ns, each in found]
    assert said[0] == ("notes", 0, "process(1)")
    assert said[1][2].startswith("left out: 3 spans")
    assert said[2:] == [("process 0", 42, "died"), ("notes", 43, "all")]
    notes = {each.name: each.string_value for each in found[0][2].track_event.debug_annotations}
    assert notes == {"plan": "the plan", "report": "the report"}


def test_the_clock_is_declared_before_it_is_used() -> None:
    packets = Parsed(FULL).packets
    clocks = {each.clock_id: each.timestamp for each in packets[0].clock_snapshot.clocks}
    assert packets[0].clock_snapshot.primary_trace_clock == official.BUILTIN_CLOCK_MONOTONIC
    assert clocks == {
        official.BUILTIN_CLOCK_MONOTONIC: BEGIN,
        official.BUILTIN_CLOCK_REALTIME: 1_700_000_000_000_000_000,
    }
    assert packets[1].trace_packet_defaults.timestamp_clock_id == official.BUILTIN_CLOCK_MONOTONIC
    assert packets[1].sequence_flags == official.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    assert {each.trusted_packet_sequence_id for each in packets} == {1}
    needs = [each for each in packets if each.HasField("track_event")]
    assert {each.sequence_flags for each in needs} == {
        official.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
    }


def test_nothing_is_written_that_the_format_does_not_know() -> None:
    trace = official.Trace.FromString(to_pftrace(FULL))
    again = trace.SerializeToString()
    trace.DiscardUnknownFields()
    assert trace.SerializeToString() == again


def test_spans_that_cross_are_cut() -> None:
    rows: list[Row] = [(0, 10, -1, 1, 0, COMPUTE), (2, 12, -1, 1, 0, WAIT)]
    found = Parsed(Timeline(0, 20, 0.0, ("",), (Lane("", "caller", -1, 1, Spans(rows)),))).slices()
    assert sorted(each[:2] for each in found[3]) == [(0, 10), (2, 10)]


def test_it_is_small() -> None:
    chance, at_ns, rows = random.Random(1), BEGIN, []
    for index in range(10_000):
        took = chance.randrange(1_000_000)
        rows.append((at_ns, at_ns + took, index, 1, 1, COMPUTE))
        at_ns += took + chance.randrange(10_000)
    timeline = Timeline(
        BEGIN, at_ns, 1.7e9, NAMES, (Lane("thread 0", "thread", 0, 1, Spans(rows)),)
    )
    content = to_pftrace(timeline)
    assert len(content) <= 0.6 * len("".join(to_chrome_json(timeline)))
    assert sorted(Parsed(timeline).slices()[3], key=key) == expected(rows)


def test_an_empty_timeline_and_many_lanes() -> None:
    assert len(Parsed(Timeline(0, 0, 0.0, ("",), ())).packets) == 3
    lanes = tuple(
        Lane(f"thread {n}", "thread", n, 1, Spans([(n, n + 1, n, 1, 0, COMPUTE)]))
        for n in range(300)
    )
    parsed = Parsed(Timeline(0, 400, 0.0, ("",), lanes))
    found = {parsed.tracks[track].name: rows[0][:2] for track, rows in parsed.slices().items()}
    assert found == {f"thread {n}": (n, n + 1) for n in range(300)}


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**28 - 1, 2**28, 2**63, 2**64 - 1])
def test_varints(number: int) -> None:
    clock = official.ClockSnapshot.Clock.FromString(struct.pack("B", 0x10) + varint(number))
    assert clock.timestamp == number
