# SPDX-License-Identifier: BSD-3-Clause
"""A timeline in Perfetto's own format, for ui.perfetto.dev.

It is smaller than JSON, and lanes stay in their order.

::

    clock snapshot  which clock the times are on, and what time of day that was
    names           every name once, by number (a packet that clears and sets the state of the
                    sequence)
    tracks          teamster
                      +-- notes   plan and report of each pool, marks of all lanes, what is left out
                      +-- curves
                      +-- lanes   plain tracks, not threads: the viewer keeps the order of these
    events          begin and end of each span, lane by lane; points of curves; marks

Written by hand, as the few fields need: a message is fields, a field is its number and type, then a
varint, eight bytes, or a length and so many bytes. Numbers are those of protos/perfetto/trace in
github.com/google/perfetto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

from teamster.spine.trace.columns import Row, Spans
from teamster.spine.trace.render.slices import FACTS, facts, nested
from teamster.spine.trace.ring import KINDS
from teamster.spine.trace.timeline import Lane, Mark, Timeline

MOST_SPANS = 1_000_000
"""Viewers in a browser hold no more."""

_SEQUENCE = 1  # trusted_packet_sequence_id
_STATE_CLEARED, _NEEDS_STATE = 1, 2  # sequence_flags
_REALTIME, _MONOTONIC = 1, 3  # builtin clocks
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # TrackEvent.Type
_EXPLICIT_ORDER = 3  # ChildTracksOrdering
_NEVER_MERGED = 2  # SiblingMergeBehavior
_BYTES = 3  # CounterDescriptor.Unit: UNIT_SIZE_BYTES
# Numbers of the tracks; curves come after the lanes: what is often written has a short number
_ROOT, _NOTES, _FIRST_LANE = 1, 2, 3
_MARK = len(KINDS) + 1  # category


def varint(number: int) -> bytes:
    r"""A number from 0 to 2**64 - 1, seven bits a byte, the lowest first.

    Args:
        number: to be written.

    Returns:
        One to ten bytes.

    Example:
        >>> varint(300)
        b'\xac\x02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    # A negative one is written as 64 bits
    return varint(field << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def _message(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _packet(*parts: bytes) -> bytes:
    return _message(1, *parts, _number(10, _SEQUENCE))


def to_pftrace(timeline: Timeline) -> bytes:
    r"""The timeline as a file that ui.perfetto.dev opens.

    Args:
        timeline: what happened; of more than a million spans the shortest are drawn together.

    Returns:
        The content of a ``.pftrace`` file, about 50 bytes for each span.

    Example:
        >>> to_pftrace(Timeline(0, 1_000, 0.0, ("",), ()))[:1]
        b'\n'
    """
    timeline = timeline.reduced(MOST_SPANS)
    out = bytearray()
    for part in (
        _clocks(timeline),
        _state(timeline),
        *_tracks(timeline),
        *_notes(timeline),
        *_marks(timeline),
        *_points(timeline),
    ):
        out += part
    for track, lane in enumerate(timeline.lanes, _FIRST_LANE):
        _write_spans(out, lane.spans, track, timeline.names)
    return bytes(out)


def _clocks(timeline: Timeline) -> bytes:
    """The primary clock is the one that is drawn.

    Without a snapshot of it viewers cannot place the packets.
    """
    monotonic = _message(1, _number(1, _MONOTONIC), _number(2, timeline.begin_ns))
    realtime = _message(1, _number(1, _REALTIME), _number(2, int(timeline.started_s * 1e9)))
    return _packet(_message(6, monotonic, realtime, _number(2, _MONOTONIC)))


def _state(timeline: Timeline) -> bytes:
    """Names and categories by number; what holds for every packet that follows."""
    names = [*KINDS, *timeline.names]
    interned = [
        _message(1, _number(1, number), _text(2, text))
        for number, text in enumerate([*KINDS, "mark"], 1)
    ]
    interned += [
        _message(2, _number(1, number), _text(2, text)) for number, text in enumerate(names, 1)
    ]
    interned += [
        _message(3, _number(1, number), _text(2, text)) for number, text in enumerate(FACTS, 1)
    ]
    return _packet(
        _number(13, _STATE_CLEARED), _message(12, *interned), _message(59, _number(58, _MONOTONIC))
    )


# ------------------------------------------------------------------------------------------- tracks


def _tracks(timeline: Timeline) -> Iterator[bytes]:
    yield _packet(
        _message(60, _number(1, _ROOT), _text(2, "teamster"), _number(11, _EXPLICIT_ORDER))
    )
    rank = 0
    if timeline.jobs or timeline.left_out or _of_all(timeline):
        yield _track(_NOTES, "notes", rank)
    first = _FIRST_LANE + len(timeline.lanes)
    for track, curve in enumerate(timeline.curves, first):
        rank += 1
        unit = _number(3, _BYTES) if curve.unit == "bytes" else _text(6, curve.unit)
        yield _track(track, curve.label, rank, _message(8, unit))
    for track, lane in enumerate(timeline.lanes, _FIRST_LANE):
        rank += 1
        yield _track(track, lane.label, rank, _text(14, _description(lane)))


def _track(track: int, name: str, rank: int, *more: bytes) -> bytes:
    # Without the merge behaviour, viewers draw tracks of one name as one: two pools both have a
    # "process 0".
    own = (
        _number(1, track),
        _number(5, _ROOT),
        _text(2, name),
        _number(12, rank),
        _number(15, _NEVER_MERGED),
    )
    return _packet(_message(60, *own, *more))


def _description(lane: Lane) -> str:
    return (
        f"{lane.kind}, pid {lane.pid}"
        if lane.index < 0
        else f"{lane.kind} worker {lane.index}, pid {lane.pid}"
    )


# ------------------------------------------------------------------------------------------- events


def _event(at_ns: int, track: int, kind: int, *more: bytes) -> bytes:
    event = _message(11, _number(9, kind), _number(11, track), *more)
    return _packet(_number(8, at_ns), _number(13, _NEEDS_STATE), event)


def _of_all(timeline: Timeline) -> list[Mark]:
    """Marks of no lane that is there."""
    labels = {lane.label for lane in timeline.lanes}
    return [mark for mark in timeline.marks if mark.lane not in labels]


def _notes(timeline: Timeline) -> Iterator[bytes]:
    for job in timeline.jobs:
        said = [
            _message(4, _text(10, key), _text(6, text))
            for key, text in (("plan", job.plan), ("report", job.report))
            if text
        ]
        yield _event(timeline.begin_ns, _NOTES, _INSTANT, _text(23, job.title), *said)
    if timeline.left_out:
        yield _event(
            timeline.begin_ns, _NOTES, _INSTANT, _text(23, f"left out: {timeline.left_out}")
        )


def _marks(timeline: Timeline) -> Iterator[bytes]:
    tracks = {lane.label: track for track, lane in enumerate(timeline.lanes, _FIRST_LANE)}
    for mark in timeline.marks:
        yield _event(
            mark.at_ns,
            tracks.get(mark.lane, _NOTES),
            _INSTANT,
            _number(3, _MARK),
            _text(23, mark.text),
        )


def _points(timeline: Timeline) -> Iterator[bytes]:
    for track, curve in enumerate(timeline.curves, _FIRST_LANE + len(timeline.lanes)):
        for at_ns, value in curve.points:
            if math.isfinite(value):
                yield _event(at_ns, track, _COUNTER, _double(44, value))


# ---------------------------------------------------------------------- spans, the part that is hot

_ANNOTATIONS = {key: _number(1, number) + varint(3 << 3) for number, key in enumerate(FACTS, 1)}
_TAIL = _number(10, _SEQUENCE) + _number(13, _NEEDS_STATE)


def _write_spans(out: bytearray, spans: Spans, track: int, names: tuple[str, ...]) -> None:
    """Begin and end of each, in order: the last begun ends first, also where times are equal."""
    begin, finish = (
        _writer(_number(9, _BEGIN) + _number(11, track)),
        _writer(_number(9, _END) + _number(11, track)),
    )
    heads: dict[tuple[int, int], bytes] = {}
    ends: list[int] = []
    for depth, row in nested(spans):
        while len(ends) > depth:
            out += finish(ends.pop(), b"")
        name, kind = row[4], row[5]
        head = heads.get((name, kind))
        if head is None:
            named = name < len(names) and names[name]  # as `title` of slices.py has it, by number
            number = len(KINDS) + name + 1 if named else kind + 1
            head = heads[name, kind] = _number(10, number) + _number(3, kind + 1)
        out += begin(row[0], head + _annotations(row))
        ends.append(row[1])
    while ends:
        out += finish(ends.pop(), b"")


def _annotations(row: Row) -> bytes:
    found = b""
    for key, value in facts(row):
        body = _ANNOTATIONS[key] + (varint(value) if value > 127 else bytes((value,)))
        found += bytes((0x22, len(body))) + body
    return found


def _writer(head: bytes) -> Callable[[int, bytes], bytes]:
    """Makes packets of one track and one type.

    The upper bits of a time seldom change, so they are kept.
    """
    upper: dict[int, bytes] = {}

    def write(at_ns: int, more: bytes) -> bytes:
        high = upper.get(at_ns >> 28)
        if high is None:
            high = upper[at_ns >> 28] = varint(at_ns >> 28)
        low = (
            0x40,
            at_ns & 127 | 128,
            at_ns >> 7 & 127 | 128,
            at_ns >> 14 & 127 | 128,
            at_ns >> 21 & 127 | 128,
        )
        event = head + more  # well below 128 bytes, as is the packet: a length is one byte
        body = bytes(low) + high + _TAIL + bytes((0x5A, len(event))) + event
        return bytes((0x0A, len(body))) + body

    return write
