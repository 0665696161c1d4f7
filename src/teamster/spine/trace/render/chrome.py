# SPDX-License-Identifier: BSD-3-Clause
"""A timeline in Chrome's trace event format.

It is for ui.perfetto.dev, chrome://tracing, and every other viewer that reads it.

::

    {"displayTimeUnit": "ms",
     "traceEvents": [names of the lanes, spans "X", curves "C", marks "i"],
     "otherData": {what is left out, the lanes with their pids, plan and report of each pool}}

All lanes are threads of one process, so that viewers show them below each other and in order: real
pids would be groups of one line, sorted as the viewer likes. Times are microseconds since
"begin_ns" of otherData, with three decimals: to the nanosecond.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from teamster.spine.trace.render.slices import facts, nested, title
from teamster.spine.trace.ring import KINDS
from teamster.spine.trace.timeline import Curve, Lane, Mark, Timeline

MOST_SPANS = 1_000_000
"""Viewers in a browser hold no more."""

_PID = 1  # one process in the viewer, whatever the workers are
_EVENTS_A_PIECE = 2_000  # some 200 kB of text at once


def to_chrome_json(timeline: Timeline) -> Iterator[str]:
    """The timeline as JSON, in pieces: ``file.writelines(to_chrome_json(timeline))``.

    Args:
        timeline: what happened; of more than a million spans the shortest are drawn together.

    Yields:
        Text of some 200 KB, ASCII only.

    Example:
        >>> text = "".join(to_chrome_json(Timeline(0, 1_000, 0.0, ("",), ())))
        >>> json.loads(text)["traceEvents"][0]["args"]
        {'name': 'teamster'}
    """
    timeline = timeline.reduced(MOST_SPANS)
    origin = _origin(timeline)
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    events = chain(
        _headings(timeline),
        _spans(timeline, origin),
        _curves(timeline, origin),
        _marks(timeline, origin),
    )
    between = ""
    while piece := list(islice(events, _EVENTS_A_PIECE)):
        yield between + ",\n".join(piece)
        between = ",\n"
    yield '\n],"otherData":' + json.dumps(_plain(_other(timeline, origin))) + "}\n"


def _origin(timeline: Timeline) -> int:
    """The first moment of all, so that no time is negative."""
    moments = [min(lane.spans.begin) for lane in timeline.lanes if len(lane.spans)]
    moments += [at_ns for curve in timeline.curves for at_ns, _ in curve.points[:1]]
    return min([timeline.begin_ns, *moments, *(mark.at_ns for mark in timeline.marks)])


def _us(ns: int) -> str:
    """Microseconds, exact: what a float would round."""
    return f"{ns // 1000}.{ns % 1000:03d}"


def _headings(timeline: Timeline) -> Iterator[str]:
    yield f'{{"ph":"M","pid":{_PID},"name":"process_name","args":{{"name":"teamster"}}}}'
    yield f'{{"ph":"M","pid":{_PID},"name":"process_sort_index","args":{{"sort_index":0}}}}'
    for tid, lane in enumerate(timeline.lanes, 1):
        thread = f'{{"ph":"M","pid":{_PID},"tid":{tid},"name":'
        yield f'{thread}"thread_name","args":{{"name":{json.dumps(lane.label)}}}}}'
        yield f'{thread}"thread_sort_index","args":{{"sort_index":{tid}}}}}'


def _spans(timeline: Timeline, origin: int) -> Iterator[str]:
    heads: dict[tuple[int, int], str] = {}
    for tid, lane in enumerate(timeline.lanes, 1):
        where = f',"pid":{_PID},"tid":{tid},"ts":'
        for _, row in nested(lane.spans):
            begin, end, _, _, name, kind = row
            head = heads.get((name, kind))
            if head is None:
                text = json.dumps(title(timeline, name, kind))
                head = heads[name, kind] = f'{{"ph":"X","name":{text},"cat":"{KINDS[kind]}"'
            said = ",".join([f'"{key}":{value}' for key, value in facts(row)])
            start, took = begin - origin, end - begin
            times = f'{start // 1000}.{start % 1000:03d},"dur":{took // 1000}.{took % 1000:03d}'
            yield f'{head}{where}{times},"args":{{{said}}}}}' if said else f"{head}{where}{times}}}"


def _curves(timeline: Timeline, origin: int) -> Iterator[str]:
    for curve in timeline.curves:
        name, unit = json.dumps(curve.label), json.dumps(curve.unit)
        for at_ns, value in _finite(curve):
            yield (
                f'{{"ph":"C","name":{name},"pid":{_PID},"ts":{_us(at_ns - origin)},'
                f'"args":{{{unit}:{float(value)!r}}}}}'
            )


def _finite(curve: Curve) -> Iterable[tuple[int, float]]:
    """JSON has no NaN."""
    return (point for point in sorted(curve.points) if math.isfinite(point[1]))


def _marks(timeline: Timeline, origin: int) -> Iterator[str]:
    tids = {lane.label: tid for tid, lane in enumerate(timeline.lanes, 1)}
    for mark in timeline.marks:
        yield _mark(mark, tids.get(mark.lane), _us(mark.at_ns - origin))


def _mark(mark: Mark, tid: int | None, moment: str) -> str:
    where = f'"tid":{tid},"s":"t"' if tid is not None else '"tid":0,"s":"g"'
    return (
        f'{{"ph":"i","name":{json.dumps(mark.text)},"cat":"mark","pid":{_PID},'
        f'{where},"ts":{moment}}}'
    )


def _other(timeline: Timeline, origin: int) -> dict[str, Any]:
    return {
        "program": "teamster",
        "clock": "CLOCK_MONOTONIC",
        "begin_ns": origin,
        "started_s": timeline.started_s - (timeline.begin_ns - origin) / 1e9,
        "seconds": timeline.seconds,
        "left_out": timeline.left_out,
        "lanes": [_lane(tid, lane) for tid, lane in enumerate(timeline.lanes, 1)],
        "jobs": [
            {"title": job.title, "plan": job.plan, "report": job.report, "facts": job.facts}
            for job in timeline.jobs
        ],
    }


def _lane(tid: int, lane: Lane) -> dict[str, Any]:
    return {
        "tid": tid,
        "label": lane.label,
        "kind": lane.kind,
        "index": lane.index,
        "pid": lane.pid,
    }


def _plain(value: Any) -> Any:
    """What strict JSON can say of it: numbers that are none, and objects, as text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if (
        value is None
        or isinstance(value, str | int)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    return str(value)
