# SPDX-License-Identifier: BSD-3-Clause
"""A timeline as a picture: lanes from top to bottom, what they did as bars against seconds.

::

    title                                        legend of the kinds that occur
    process(2), 1.2 s
      at work           __/=========____         share of the workers' lanes
      process 0         [====][=====]            one bar a span; what ran inside another is narrower, in front
      process 1         [=======][==]
      caller            [..............]         waiting is faint
    thread(2), 2.2 s                             the next one, on the same seconds
      ...

Drawn by matplotlib, which is imported only here and inside the functions. Never pyplot: its current figure is one for all threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any

from teamster.errors import UsageError
from teamster.spine.trace.render.slices import nested
from teamster.spine.trace.render.slices import title as title_of
from teamster.spine.trace.ring import KINDS, USER, WAIT
from teamster.spine.trace.timeline import Lane, Mark, Row, Timeline, show_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "compute": "#0072B2",
    "wait": "#D9DCE1",
    "serialise": "#E69F00",
    "transfer": "#CC79A7",
    "initialise": "#009E73",
    "span": "#7FCDF5",
}
"""Colour by the name of a kind, on white. Okabe and Ito's colours: people who see no red, green or blue can tell them apart."""

MOST_BARS = 20_000
"""With more, a lane shows for each pixel what took most of it."""

MOST_VECTOR_BARS = 5_000
"""More of them are pixels in an SVG file, too: it would be large and slow otherwise."""

_INK, _GREY, _LINE = "#22262B", "#6B7280", "#E5E7EB"
_DPI = 120  # sharp on a page, and small as a file
_WIDTH, _LEFT, _RIGHT = 11.0, 1.25, 0.25  # inches
_HEAD, _STRIP, _BETWEEN, _FOOT, _PER_LANE, _MOST_LANES = 0.32, 0.4, 0.48, 0.55, 0.3, 6.4  # inches, by eye
_BINS = 400  # of the strip: two pixels each
_MOST_CELLS = 40_000  # drawn in a second
_MOST_LABELS = 32  # more would stand on each other
_MOST_TEXTS = 120  # as many as an eye finds
_MOST_NOTES = 12  # a column of them fills the picture


def to_figure(timelines: Sequence[tuple[str, Timeline]], *, title: str = "") -> Figure:
    """Draw timelines, one below the other, each from its own begin and all on the same seconds.

    A picture of more than 20,000 spans shows for each pixel of a lane what took most of it.

    Args:
        timelines: heading and timeline of each.
        title: of the whole.

    Returns:
        A matplotlib Figure that no window knows; a notebook shows it.

    Raises:
        UsageError: matplotlib is not there, or there is no timeline.

    Example:
        >>> figure = to_figure([("serial", Timeline(0, 1_000_000_000, 0.0, ("",), ()))])
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['', 'seconds']
    """
    if not timelines:
        raise UsageError("a picture needs at least one timeline")
    seconds = max([timeline.seconds for _, timeline in timelines]) or 1e-9
    figure, groups = _sheet([len(timeline.lanes) for _, timeline in timelines])
    spans = sum(timeline.spans for _, timeline in timelines)
    for (label, timeline), (strip, lanes) in zip(timelines, groups, strict=True):
        for axes in (strip, lanes):
            axes.set_xlim(0, seconds)
        _draw_strip(strip, timeline, label)
        _draw_lanes(lanes, timeline, spans)
        _draw_marks(lanes, timeline)
    groups[-1][1].set_xlabel("seconds", fontsize=9, color=_INK)
    _draw_frame(figure, timelines, title, by_pixel=spans > MOST_BARS)
    return figure


def to_picture(figure: Figure, ending: str) -> bytes:
    """The picture as a file.

    Args:
        figure: as `to_figure` made it.
        ending: "png" or "svg".

    Returns:
        The content of the file.

    Raises:
        UsageError: another ending.

    Example:
        >>> to_picture(to_figure([("serial", Timeline(0, 1, 0.0, ("",), ()))]), "png")[1:4]
        b'PNG'
    """
    if ending not in ("png", "svg"):
        raise UsageError(f"a picture is a 'png' or an 'svg', not {ending!r}")
    content = BytesIO()
    metadata = {"Date": None} if ending == "svg" else {}  # equal pictures are equal files
    figure.savefig(content, format=ending, dpi=_DPI, facecolor="white", transparent=False, bbox_inches=None, metadata=metadata)
    return content.getvalue()


# ----------------------------------------------------------------------------------------------------------- the sheet


def _sheet(lanes: Sequence[int]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of the right height, and the two axes of each group, placed in inches: layout engines are slow and less steady."""
    tall = [min(_MOST_LANES, max(1.2, count) * _PER_LANE) for count in lanes]
    height = _HEAD + sum(_BETWEEN + _STRIP + each for each in tall) + _FOOT
    figure = _figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    groups, top = [], height - _HEAD
    for each in tall:
        strip_bottom = top - _BETWEEN - _STRIP
        strip = _axes(figure, strip_bottom, _STRIP, height)
        groups.append((strip, _axes(figure, strip_bottom - each, each, height)))
        top = strip_bottom - each
    return figure, groups


def _figure(**how: Any) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("a picture of a timeline needs matplotlib: pip install 'teamster[plot]'") from error

    class TimelineFigure(Figure):
        """A notebook shows figures that pyplot made; one that nobody made needs this to be shown."""

        def _repr_png_(self) -> bytes:
            return to_picture(self, "png")

    return TimelineFigure(**how)


def _axes(figure: Figure, bottom: float, tall: float, height: float) -> Axes:
    width = 1 - (_LEFT + _RIGHT) / _WIDTH
    axes = figure.add_axes((_LEFT / _WIDTH, bottom / height, width, tall / height))
    axes.set_facecolor("white")
    axes.tick_params(length=0, labelsize=8, labelcolor=_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_LINE)
    return axes


def _draw_frame(figure: Figure, drawn: Sequence[tuple[str, Timeline]], title: str, *, by_pixel: bool) -> None:
    from matplotlib.patches import Patch

    height = figure.get_figheight()
    kinds = sorted({kind for _, timeline in drawn for lane in timeline.lanes for kind in lane.spans.kind})
    handles = [Patch(color=COLOURS[KINDS[kind]], label=KINDS[kind]) for kind in kinds]
    if handles:
        place = (1 - _RIGHT / _WIDTH, 1 - 0.12 / height)
        how: dict[str, Any] = {"ncols": len(handles), "fontsize": 8, "frameon": False, "labelcolor": _INK, "borderaxespad": 0}
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=place, handlelength=1.2, columnspacing=1.2, **how)
    top = 1 - 0.14 / height
    figure.text(_LEFT / _WIDTH, top, title, fontsize=12, color=_INK, ha="left", va="top", parse_math=False)
    several = len(drawn) > 1
    said = [f"{label}: {each.left_out}" if several else each.left_out for label, each in drawn if each.left_out]
    said += ["each pixel or two of a lane shows what took most of it"] if by_pixel else []
    figure.text(_LEFT / _WIDTH, 0.06 / height, ".  ".join(said), fontsize=7, color=_GREY, va="bottom", wrap=True, parse_math=False)


# ------------------------------------------------------------------------------------------------------------ one group


def _draw_strip(axes: Axes, timeline: Timeline, label: str) -> None:
    """The share of the workers that are at work, and what else is a share."""
    bins = timeline.utilization(_BINS)
    width = timeline.seconds / _BINS
    axes.stairs(bins, [number * width for number in range(_BINS + 1)], fill=True, color=COLOURS["compute"], alpha=0.25, linewidth=0)
    said = ["at work"]
    for curve, style in zip([each for each in timeline.curves if each.unit == "share"], ("-", "--", ":"), strict=False):
        xs = [_seconds(timeline, at_ns) for at_ns, _ in curve.points]
        axes.plot(xs, [value for _, value in curve.points], style, color=_GREY, linewidth=1)
        said.append(f"{curve.label} ({'line' if style == '-' else 'dashed' if style == '--' else 'dotted'})")
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0.5], ["at work"])
    axes.set_xticks([])
    heading = f"{label}   {show_ns(timeline.end_ns - timeline.begin_ns)}".strip()
    axes.set_title(heading, loc="left", fontsize=10, color=_INK, pad=4, parse_math=False)
    if len(said) > 1:
        axes.set_title(", ".join(said[1:]), loc="right", fontsize=7, color=_GREY, pad=4, parse_math=False)


def _draw_lanes(axes: Axes, timeline: Timeline, spans: int) -> None:
    """`spans`: how many all timelines of the picture have."""
    count = max(1, len(timeline.lanes))
    axes.set_ylim(count - 0.4, -0.6)
    places = _labelled(timeline.lanes)
    axes.set_yticks(places, [_short(timeline.lanes[place].label) for place in places])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    bars = _Bars(timeline, pixel=_pixel(axes))
    for place, lane in enumerate(timeline.lanes):
        if spans > MOST_BARS:
            bars.add_pixels(place, lane)
        else:
            bars.add(place, lane)
    bars.draw(axes, rasterized=spans > MOST_VECTOR_BARS)
    if not timeline.spans:
        axes.text(0.5, 0.5, "no spans", transform=axes.transAxes, ha="center", va="center", fontsize=9, color=_GREY)


def _labelled(lanes: Sequence[Lane]) -> list[int]:
    """Lanes that are labelled: all, or every so many; threads of the program always, as nobody would guess them."""
    every = -(-max(1, len(lanes)) // _MOST_LABELS)
    own = [place for place, lane in enumerate(lanes) if lane.kind == "caller"][::every]
    return own + [place for place in range(0, len(lanes), every) if all(abs(place - each) >= every for each in own)]


def _pixel(axes: Axes) -> float:
    """Seconds of a pixel."""
    left, right = axes.get_xlim()
    return (right - left) / ((_WIDTH - _LEFT - _RIGHT) * _DPI)


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _seconds(timeline: Timeline, at_ns: int) -> float:
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


def majorities(lane: Lane, begin_ns: int, width_ns: float, cells: int) -> list[tuple[int, int, int]]:
    """What took most of each cell of time, with equal neighbours as one.

    Waiting counts a quarter: a lane that waits is one where nothing is to be seen. The user's own spans are rows of their own,
    because they run inside of others.

    Args:
        lane: whose spans.
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
            share = weight * (min(right, cell + 1) - max(left, cell)) + 1e-9  # what took no time is there, too
            row = took.setdefault(-1 - cell if kind == USER else cell, {})
            row[kind] = row.get(kind, 0.0) + share
    runs: list[tuple[int, int, int]] = []
    for cell, shares in sorted((cell if cell >= 0 else cells - cell, shares) for cell, shares in took.items()):
        kind = max(shares, key=lambda each: shares[each])
        place = cell - cells - 1 if kind == USER else cell
        if runs and runs[-1][1:] == (place, kind):
            runs[-1] = runs[-1][0], place + 1, kind
        else:
            runs.append((place, place + 1, kind))
    return runs


class _Bars:
    """Corners of all bars of one group, by depth and kind: one collection each."""

    def __init__(self, timeline: Timeline, pixel: float) -> None:
        self._timeline = timeline
        self._pixel = pixel
        self._found: dict[tuple[int, int], list[list[tuple[float, float]]]] = {}
        self._texts: list[tuple[float, float, str, int]] = []

    def add(self, place: int, lane: Lane) -> None:
        """Every span."""
        for depth, row in nested(lane.spans):
            left, right = (_seconds(self._timeline, moment) for moment in row[:2])
            self._bar(left, max(right, left + self._pixel / 2), place, (depth, row[5]))  # half a pixel can be seen
            self._name(row, (left + right) / 2, place, (right - left) / self._pixel)

    def add_pixels(self, place: int, lane: Lane) -> None:
        """What took most of each pixel, or of a few where there are many lanes."""
        width = max(self._pixel, self._timeline.seconds * len(self._timeline.lanes) / _MOST_CELLS)
        cells = int(self._timeline.seconds / width) + 1
        for first, stop, kind in majorities(lane, self._timeline.begin_ns, width * 1e9, cells):
            self._bar(first * width, stop * width, place, (1 if kind == USER else 0, kind))

    def _bar(self, left: float, right: float, place: int, group: tuple[int, int]) -> None:
        half = bar_height(*group) / 2
        corners = [(left, place - half), (right, place - half), (right, place + half), (left, place + half)]
        self._found.setdefault(group, []).append(corners)

    def _name(self, row: Row, middle: float, place: int, pixels: float) -> None:
        """The user's own spans say their name where there is room."""
        text = title_of(self._timeline, row[4], row[5])
        if row[5] == USER and pixels > 7 * len(text) + 4 and len(self._timeline.lanes) * _PER_LANE <= _MOST_LANES:
            self._texts.append((middle, place, text, row[1] - row[0]))

    def draw(self, axes: Axes, *, rasterized: bool) -> None:
        """One collection for each depth and kind; wide bars have a white edge, to be told from their neighbours."""
        from matplotlib.collections import PolyCollection

        for (depth, kind), corners in sorted(self._found.items()):
            name = KINDS[kind]
            edges = [0.5 if each[1][0] - each[0][0] > 4 * self._pixel and kind != WAIT else 0.0 for each in corners]
            how: dict[str, Any] = {"facecolors": COLOURS[name], "edgecolors": "white", "linewidths": edges}
            bars = PolyCollection(corners, zorder=2 + depth, label=f"{name} {depth}", **how)
            bars.set_rasterized(rasterized)
            axes.add_collection(bars, autolim=False)
        self._texts.sort(key=lambda each: -each[3])
        for x, y, text, _ in self._texts[:_MOST_TEXTS]:
            how = {"ha": "center", "va": "center_baseline", "clip_on": True, "parse_math": False}
            axes.text(x, y, text, fontsize=6.5, color=_INK, zorder=9, **how)


def _draw_marks(axes: Axes, timeline: Timeline) -> None:
    """A line each; a text for the first dozen, or nothing could be read."""
    places = {lane.label: place for place, lane in enumerate(timeline.lanes)}
    bottom, top = axes.get_ylim()
    for number, mark in enumerate(sorted(timeline.marks, key=lambda each: each.at_ns)):
        place = places.get(mark.lane)
        low, high = (bottom, top) if place is None else (place + 0.5, place - 0.5)
        x = _seconds(timeline, mark.at_ns)
        axes.plot([x, x], [low, high], color="#B3261E", linewidth=1.1, zorder=10)
        if number < _MOST_NOTES:
            _note(axes, mark, x, high, of_all=place is None)


def _note(axes: Axes, mark: Mark, x: float, y: float, *, of_all: bool) -> None:
    """On the side of the line where there is room; above the lanes where it is of all."""
    left, right = axes.get_xlim()
    late = (x - left) > 0.7 * (right - left)
    how: dict[str, Any] = {"xytext": (-3 if late else 3, 2 if of_all else -1), "textcoords": "offset points"}
    how |= {"ha": "right" if late else "left", "va": "bottom" if of_all else "top"}
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    text = axes.annotate(_short(mark.text, 60), (x, y), fontsize=7, color="#B3261E", zorder=11, bbox=box, **how)
    text.set_parse_math(False)
