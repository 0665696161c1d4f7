# SPDX-License-Identifier: BSD-3-Clause
"""The bars of a picture: one a span, or what took most of each pixel where there are too many."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from teamster.spine.trace.columns import Row
from teamster.spine.trace.render.slices import nested
from teamster.spine.trace.render.slices import title as title_of
from teamster.spine.trace.ring import KINDS, USER, WAIT
from teamster.spine.trace.timeline import Lane, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "compute": "#0072B2",
    "wait": "#D9DCE1",
    "serialise": "#E69F00",
    "transfer": "#CC79A7",
    "initialise": "#009E73",
    "span": "#7FCDF5",
}
"""Colour by the name of a kind, on white.

Okabe and Ito's colours: people who see no red, green or blue can tell them apart.
"""

INK = "#22262B"
"""The colour of text."""

_MOST_CELLS = 40_000  # drawn in a second
_MOST_TEXTS = 120  # as many as an eye finds


def seconds_of(timeline: Timeline, at_ns: int) -> float:
    """Seconds from the begin of a timeline.

    Args:
        timeline: the one.
        at_ns: a moment on its clock (ns).

    Returns:
        Seconds.

    Example:
        >>> seconds_of(Timeline(1, 3, 0.0, ("",), ()), 2)
        1e-09
    """
    return (at_ns - timeline.begin_ns) / 1e9


def bar_height(depth: int, kind: int) -> float:
    """How tall a bar is, where lanes are 1 apart.

    Args:
        depth: in how many spans it is.
        kind: number of its kind.

    Returns:
        Less for what is inside, and for waiting.

    Example:
        >>> bar_height(0, 0) > bar_height(1, 0) > bar_height(0, WAIT)
        True
    """
    return (0.3 if kind == WAIT else 0.78) * 0.62 ** min(depth, 4)


def majorities(
    lane: Lane, begin_ns: int, width_ns: float, cells: int
) -> list[tuple[int, int, int]]:
    """What took most of each cell of time, with equal neighbours as one.

    Waiting counts a quarter: a lane that waits is one where nothing is to be seen. The user's own
    spans are rows of their own, because they run inside of others.

    Args:
        lane: it has the spans.
        begin_ns: of the first cell.
        width_ns: of each cell.
        cells: how many.

    Returns:
        First cell, the one after the last, and the kind.

    Example:
        >>> from teamster.spine.trace.timeline import Spans
        >>> spans = Spans([(0, 2, 0, 1, 0, 0), (2, 6, -1, 1, 0, 3), (6, 30, 1, 1, 0, 0)])
        >>> majorities(Lane("", "thread", 0, 1, spans), 0, 5.0, 4)
        [(0, 1, 3), (1, 4, 0)]
    """
    took: dict[int, dict[int, float]] = {}
    for begin, end, _, _, _, kind in lane.spans.rows():
        left, right = (begin - begin_ns) / width_ns, (end - begin_ns) / width_ns
        weight = 0.25 if kind == WAIT else 1.0
        for cell in range(max(0, int(left)), min(cells, max(int(left) + 1, ceil(right)))):
            # What took no time is there, too
            share = weight * (min(right, cell + 1) - max(left, cell)) + 1e-9
            row = took.setdefault(-1 - cell if kind == USER else cell, {})
            row[kind] = row.get(kind, 0.0) + share
    runs: list[tuple[int, int, int]] = []
    for cell, shares in sorted(
        (cell if cell >= 0 else cells - cell, shares) for cell, shares in took.items()
    ):
        kind = max(shares, key=lambda each: shares[each])
        place = cell - cells - 1 if kind == USER else cell
        if runs and runs[-1][1:] == (place, kind):
            runs[-1] = runs[-1][0], place + 1, kind
        else:
            runs.append((place, place + 1, kind))
    return runs


class Bars:
    """Corners of all bars of one group, by depth and kind: one collection each.

    Args:
        timeline: what is drawn.
        pixel: seconds of one.
        named: whether lanes are tall enough for the names of the user's own spans.
    """

    def __init__(self, timeline: Timeline, pixel: float, *, named: bool) -> None:
        self._timeline = timeline
        self._pixel = pixel
        self._named = named
        self._found: dict[tuple[int, int], list[list[tuple[float, float]]]] = {}
        self._texts: list[tuple[float, float, str, int]] = []

    def add(self, place: int, lane: Lane) -> None:
        """Every span."""
        for depth, row in nested(lane.spans):
            left, right = (seconds_of(self._timeline, moment) for moment in row[:2])
            # Half a pixel can be seen
            self._bar(left, max(right, left + self._pixel / 2), place, (depth, row[5]))
            self._name(row, (left + right) / 2, place, (right - left) / self._pixel)

    def add_pixels(self, place: int, lane: Lane) -> None:
        """What took most of each pixel, or of a few where there are many lanes."""
        width = max(self._pixel, self._timeline.seconds * len(self._timeline.lanes) / _MOST_CELLS)
        cells = int(self._timeline.seconds / width) + 1
        for first, stop, kind in majorities(lane, self._timeline.begin_ns, width * 1e9, cells):
            self._bar(first * width, stop * width, place, (1 if kind == USER else 0, kind))

    def _bar(self, left: float, right: float, place: int, group: tuple[int, int]) -> None:
        half = bar_height(*group) / 2
        corners = [
            (left, place - half),
            (right, place - half),
            (right, place + half),
            (left, place + half),
        ]
        self._found.setdefault(group, []).append(corners)

    def _name(self, row: Row, middle: float, place: int, pixels: float) -> None:
        """The user's own spans say their name where there is room."""
        text = title_of(self._timeline, row[4], row[5])
        if self._named and row[5] == USER and pixels > 7 * len(text) + 4:
            self._texts.append((middle, place, text, row[1] - row[0]))

    def draw(self, axes: Axes, *, rasterized: bool) -> None:
        """One collection for each depth and kind; wide bars have a white edge."""
        from matplotlib.collections import PolyCollection

        for (depth, kind), corners in sorted(self._found.items()):
            name = KINDS[kind]
            edges = [
                0.5 if each[1][0] - each[0][0] > 4 * self._pixel and kind != WAIT else 0.0
                for each in corners
            ]
            how: dict[str, Any] = {
                "facecolors": COLOURS[name],
                "edgecolors": "white",
                "linewidths": edges,
            }
            bars = PolyCollection(corners, zorder=2 + depth, label=f"{name} {depth}", **how)
            bars.set_rasterized(rasterized)
            axes.add_collection(bars, autolim=False)
        self._texts.sort(key=lambda each: -each[3])
        for x, y, text, _ in self._texts[:_MOST_TEXTS]:
            how = {"ha": "center", "va": "center_baseline", "clip_on": True, "parse_math": False}
            axes.text(x, y, text, fontsize=6.5, color=INK, zorder=9, **how)
