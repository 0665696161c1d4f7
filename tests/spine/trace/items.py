# SPDX-License-Identifier: BSD-3-Clause
"""Items for recordings, and what of them is on a timeline."""

from __future__ import annotations

from collections import Counter

from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.timeline import Timeline


def busy(number: int) -> list[int]:
    return [sum(range(2_000)), number]


def items_of(timeline: Timeline) -> Counter[int]:
    """How often each item is on the timeline, as one of a computation."""
    found: Counter[int] = Counter()
    for lane in timeline.lanes:
        for _, _, first, count, _, kind in lane.spans.rows():
            if kind == COMPUTE:
                found.update(range(first, first + count))
    return found
