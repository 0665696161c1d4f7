# SPDX-License-Identifier: BSD-3-Clause
"""Timelines to draw: a small one that is known by heart, and one of many spans."""

from __future__ import annotations

import random

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.ring import COMPUTE, INITIALISE, SERIALISE, TRANSFER, USER, WAIT
from teamster.spine.trace.timeline import Curve, JobNote, Lane, Mark, Timeline

MS = 1_000_000
ORIGIN = 7_000_000_000_000
EVIL = "</script><b>bold</b><img src=x onerror=alert(1)>"
NAMES = ("", "work", "decode", EVIL)


def spans(*rows: tuple[float, float, int, int, int]) -> Spans:
    """From begin and end (ms), argument, name and kind."""
    return Spans(
        [
            (ORIGIN + int(begin * MS), ORIGIN + int(end * MS), *rest[:1], 1, *rest[1:])
            for begin, end, *rest in rows
        ]
    )


def small() -> Timeline:
    """A second: two workers and the caller; its tests know by heart what stands where."""
    caller = spans((0, 40, 0, 1, COMPUTE), (800, 850, 2048, 0, TRANSFER))
    first = spans(
        (50, 90, -1, 0, INITIALISE),
        (110, 190, -1, 2, USER),
        (100, 300, 1, 1, COMPUTE),
        (300, 400, -1, 0, WAIT),
        (400, 450, 5_000_000, 0, SERIALISE),
        (500, 900, 2, 1, COMPUTE),
    )
    second = spans((100, 200, 3, 3, COMPUTE), (600, 601, 4, 1, COMPUTE))
    lanes = (
        Lane("caller", "caller", -1, 10, caller),
        Lane("process 0", "process", 0, 11, first),
        Lane("process 1", "process", 1, 12, second, ((ORIGIN + 50 * MS, ORIGIN + 950 * MS),)),
    )
    curve = Curve(
        "memory",
        "bytes",
        ((ORIGIN, 1024.0), (ORIGIN + 500 * MS, 3 * 1024.0**2), (ORIGIN + 600 * MS, float("nan"))),
    )
    marks = (
        Mark(ORIGIN + 700 * MS, "worker died: SIGKILL", "process 1"),
        Mark(ORIGIN + 45 * MS, "auto: process(2)"),
    )
    job = JobNote(
        "process(2)",
        "process(2): measured <fastest>",
        "items        5 in 1 s\nutilization  40%",
        {},
    )
    return Timeline(ORIGIN, ORIGIN + 1_000 * MS, 1.7e9, NAMES, lanes, (curve,), marks, (job,))


def many(count: int, lanes: int) -> Timeline:
    chance = random.Random(7)
    made, end = [], 0
    for lane in range(lanes):
        now, rows = 0, []
        for item in range(count // lanes // 2):
            begin = now + chance.randrange(100, 60_000)
            rows.append((now, begin, -1, 1, 0, WAIT))
            now = begin + chance.randrange(1_000, 600_000)
            rows.append((begin, now, item, 1, 1, COMPUTE))
        made.append(Lane(f"process {lane}", "process", lane, 1, Spans(rows)))
        end = max(end, now)
    return Timeline(0, end, 0.0, ("", "work"), tuple(made))
