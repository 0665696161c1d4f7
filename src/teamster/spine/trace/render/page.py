# SPDX-License-Identifier: BSD-3-Clause
"""A timeline as one page of HTML that loads nothing: template, style, scripts and data stand in it.

::

    Timeline  ->  reduced    a page stays bounded, however long the run was
              ->  described  lanes, names, curves, marks as JSON
              ->  columns    begins, durations, ... of all spans: typed arrays, deflated, base64
    page_assets/  ->  page.html with page.css, vendor/*.js (D3: zoom, drag, pinch),
                      *.js (the picture) put into it

What can be read without a picture, the plan, the report, the table, is plain HTML and needs no
script.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.ring import KINDS
from teamster.spine.trace.timeline import AT_WORK, Curve, JobNote, Lane, Timeline

MOST_SPANS = 300_000
"""More are drawn together with their neighbours."""

_PAGE = Path(__file__).parent / "page_assets"

# Of the curve of utilization, where the page cannot count it from the spans.
_BINS = 1_000

# Each needs those before it.
_VENDOR = (
    "dispatch",
    "selection",
    "timer",
    "color",
    "interpolate",
    "ease",
    "array",
    "drag",
    "transition",
    "zoom",
)
_SCRIPTS = ("format", "data", "layout", "draw", "curves", "view", "panel", "find", "page")

_HOLE = re.compile(r"\{\{(\w+)\}\}")

_MOST_JOBS = 50  # more are not worth their place in a page; a long run may have thousands


def to_html(
    timelines: Sequence[tuple[str, Timeline]],
    *,
    title: str,
    table: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
) -> str:
    """One page that shows one timeline, or several above each other on one axis.

    Args:
        timelines: each with its name; several start each at its own zero.
        title: of the page.
        table: rows of words and numbers above the picture; the first row is the header.
        notes: sentences above the picture.

    Returns:
        HTML that needs no network.

    Raises:
        ValueError: There is no timeline.

    Example:
        >>> page = to_html([("run", Timeline(0, 1_000_000_000, 0.0, ("",), ()))], title="A run")
        >>> page.startswith("<!doctype html>"), "<h1>A run</h1>" in page
        (True, True)
    """
    if not timelines:
        raise ValueError(
            "a page needs at least one timeline to show; give a list of (name, timeline)"
        )
    small = [(name, timeline.reduced(MOST_SPANS)) for name, timeline in timelines]
    described = {
        "kinds": KINDS,
        "atWork": sorted(AT_WORK),
        "groups": [
            {**_describe(*shown), **_measured(whole, shown[1])}
            for (_, whole), shown in zip(timelines, small, strict=True)
        ],
    }
    parts = {
        "title": escape(title),
        "style": _asset("page.css"),
        "intro": _intro(small, table, notes),
        "jobs": _jobs(small),
        # A name may hold "</script>"; JSON may say "<" in another way, and HTML then sees nothing
        # in it.
        "data": json.dumps(described, separators=(",", ":")).replace("<", "\\u003c"),
        "script": _script(),
    }
    return _HOLE.sub(lambda hole: parts[hole[1]], _asset("page.html"))


@cache
def _asset(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """Libraries first, each in the global scope as it wants; ours share one closure."""
    vendor = "\n".join(_asset(f"vendor/d3-{name}.min.js") for name in _VENDOR)
    ours = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f"/*\n{_asset('vendor/LICENSE')}*/\n{vendor}\n(() => {{\n'use strict';\n{ours}\n}})();"


# ----------------------------------------------------------------------------------------- the data


def _describe(name: str, timeline: Timeline) -> dict[str, Any]:
    lanes = [_sorted(lane.spans) for lane in timeline.lanes]
    return {
        "name": name,
        "ns": timeline.end_ns - timeline.begin_ns,
        "started": timeline.started_s,
        "names": timeline.names,
        "lanes": [_lane(lane, timeline.begin_ns) for lane in timeline.lanes],
        "curves": [_curve(curve, timeline.begin_ns) for curve in timeline.curves],
        "marks": [
            {"at": mark.at_ns - timeline.begin_ns, "text": mark.text, "lane": mark.lane}
            for mark in sorted(timeline.marks, key=lambda mark: mark.at_ns)
        ],
        "columns": _columns(lanes, timeline.begin_ns),
    }


def _measured(whole: Timeline, shown: Timeline) -> dict[str, Any]:
    """What has to be counted before spans are drawn together: the gaps between them go then."""
    if shown is whole:
        return {}
    alone = (replace(whole, lanes=(lane,)) for lane in whole.lanes)
    return {
        "work": [round(share, 4) for share in whole.utilization(_BINS)],
        "busy": [round(lane.utilization(1)[0], 4) for lane in alone],
    }


def _lane(lane: Lane, origin_ns: int) -> dict[str, Any]:
    return {
        "label": lane.label,
        "kind": lane.kind,
        "pid": lane.pid,
        "spans": len(lane.spans),
        "lives": [[begin - origin_ns, end - origin_ns] for begin, end in lane.lives],
    }


def _curve(curve: Curve, origin_ns: int) -> dict[str, Any]:
    # JSON has no word for nan and inf, and a line has no place for them.
    points = [(at, value) for at, value in curve.points if math.isfinite(value)]
    return {
        "label": curve.label,
        "unit": curve.unit,
        "at": [at - origin_ns for at, _ in points],
        "value": [value for _, value in points],
    }


def _sorted(spans: Spans) -> tuple[Spans, list[int]]:
    """The spans, with their order by begin.

    Of those that begin together the longest is first: what contains comes before its content.
    """
    order = sorted(range(len(spans) - 1, -1, -1), key=spans.end.__getitem__, reverse=True)
    order.sort(key=spans.begin.__getitem__)
    return spans, order


def _columns(lanes: list[tuple[Spans, list[int]]], origin_ns: int) -> str:
    """Six columns behind each other, all lanes in each, wide numbers first so that each is aligned.

    Begins are distances to the begin before, in the lane: small numbers deflate well.
    """
    steps, durations, arguments = array("q"), array("q"), array("q")
    counts, names, kinds = array("I"), array("H"), array("B")
    for spans, order in lanes:
        begins = [spans.begin[index] for index in order]
        ends = [spans.end[index] for index in order]
        steps.extend(
            [begin - before for begin, before in zip(begins, [origin_ns, *begins], strict=False)]
        )
        durations.extend([max(0, end - begin) for begin, end in zip(begins, ends, strict=True)])
        arguments.extend([spans.argument[index] for index in order])
        counts.extend([spans.count[index] for index in order])
        names.extend([spans.name[index] for index in order])
        kinds.extend([spans.kind[index] for index in order])
    columns = (steps, durations, arguments, counts, names, kinds)
    return base64.b64encode(zlib.compress(b"".join(map(_little_endian, columns)), 6)).decode(
        "ascii"
    )


def _little_endian(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


# ---------------------------------------------------------------------------------------- the words


def _intro(
    timelines: list[tuple[str, Timeline]], table: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    parts = [_table(table)] if table else []
    if notes:
        parts.append(
            f'<div class="notes">{"".join(f"<p>{escape(note)}</p>" for note in notes)}</div>'
        )
    for name, timeline in timelines:
        if timeline.left_out:
            whose = f"{escape(name)}: " if len(timelines) > 1 else ""
            parts.append(
                f'<p class="left-out">Not shown as it was: {whose}{escape(timeline.left_out)}.</p>'
            )
    return (
        f'<section class="intro" aria-label="Summary">{"".join(parts)}</section>' if parts else ""
    )


def _table(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table
    # A column is one of words when any of its cells is; numbers stand to the right
    words = [
        not all(_is_number(row[index]) for row in rows if index < len(row))
        for index in range(len(head))
    ]

    def line(cells: Sequence[str], tag: str) -> str:
        marked = [
            ' class="words"' if index < len(words) and words[index] else ""
            for index in range(len(cells))
        ]
        shown = "".join(
            f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marked, cells, strict=True)
        )
        return f"<tr>{shown}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f'<div class="compare wide"><table><thead>{line(head, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_number(cell: str) -> bool:
    """With a sign or a unit; so is an empty cell, and a dash for one that has no value."""
    return (
        re.fullmatch(r"\W?", cell.strip()) is not None
        or re.match(r"\W?\d", cell.strip()) is not None
    )


def _jobs(timelines: list[tuple[str, Timeline]]) -> str:
    said = [
        _job(job, name if len(timelines) > 1 else "")
        for name, timeline in timelines
        for job in timeline.jobs[:_MOST_JOBS]
    ]
    hidden = sum(max(0, len(timeline.jobs) - _MOST_JOBS) for _, timeline in timelines)
    if hidden:
        said.append(
            f'<section class="card"><p class="hint">{hidden:,} more jobs are not '
            "listed.</p></section>"
        )
    return "\n".join(said)


def _job(job: JobNote, name: str) -> str:
    whose = (
        f'<span class="from">{escape(name)}</span> '
        if name and not job.title.startswith(name)
        else ""
    )
    parts = [f"<h2>{whose}{escape(job.title)}</h2>"]
    for heading, text in (("Plan", job.plan), ("Report", job.report)):
        if text:
            parts.append(
                f"<h3>{heading}</h3><div "
                f'class="lines">{"".join(map(_line, text.splitlines()))}</div>'
            )
    return f'<section class="card job">{"".join(parts)}</section>'


def _line(line: str) -> str:
    """A line of a plan or a report.

    What is broken off of "items    3,000 in ..." is to stand under the value.
    """
    term = re.match(r"\S(?:\S| (?! )){0,20} {2,}(?=\S)", line)
    hang = f' style="--hang:{term.end()}ch"' if term else ""
    return f"<span{hang}>{escape(line)}</span>"
