# SPDX-License-Identifier: BSD-3-Clause
"""A timeline as a picture: lanes from top to bottom, what they did as bars against seconds.

::

    title                              legend of the kinds that occur
    process(2), 1.2 s
      at work        __/=========____  share of the workers' lanes
      process 0      [====][=====]     one bar a span; what ran inside another is narrower, in front
      process 1      [=======][==]
      caller         [..............]  waiting is faint
    thread(2), 2.2 s                   the next one, on the same seconds
      ...

Drawn by matplotlib, which is imported only here and inside the functions. Never pyplot: its current
figure is one for all threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from teamster.errors import UsageError
from teamster.spine.trace.render.bars import COLOURS, INK, Bars, seconds_of
from teamster.spine.trace.ring import KINDS
from teamster.spine.trace.timeline import Lane, Mark, Timeline
from teamster.units import show_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 20_000
"""With more, a lane shows for each pixel what took most of it."""

MOST_VECTOR_BARS = 5_000
"""More of them are pixels in an SVG file, too: it would be large and slow otherwise."""

_GREY, _LINE = "#6B7280", "#E5E7EB"
_DPI = 120  # sharp on a page, and small as a file
_WIDTH, _LEFT, _RIGHT = 11.0, 1.25, 0.25  # inches
_HEAD, _STRIP, _BETWEEN, _FOOT = 0.32, 0.4, 0.48, 0.55  # inches, by eye
_PER_LANE, _MOST_LANES = 0.3, 6.4  # inches, by eye
_BINS = 400  # of the strip: two pixels each
_MOST_LABELS = 32  # more would stand on each other
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
    groups[-1][1].set_xlabel("seconds", fontsize=9, color=INK)
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
    figure.savefig(
        content,
        format=ending,
        dpi=_DPI,
        facecolor="white",
        transparent=False,
        bbox_inches=None,
        metadata=metadata,
    )
    return content.getvalue()


# ---------------------------------------------------------------------------------------- the sheet


def _sheet(lanes: Sequence[int]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of the right height, and two axes a group, placed in inches (engines are slow)."""
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
        raise UsageError(
            "a picture of a timeline needs matplotlib: pip install 'teamster[plot]'"
        ) from error

    class TimelineFigure(Figure):
        """A notebook shows figures that pyplot made; another one needs this to be shown."""

        def _repr_png_(self) -> bytes:
            return to_picture(self, "png")

    return TimelineFigure(**how)


def _axes(figure: Figure, bottom: float, tall: float, height: float) -> Axes:
    width = 1 - (_LEFT + _RIGHT) / _WIDTH
    axes = figure.add_axes((_LEFT / _WIDTH, bottom / height, width, tall / height))
    axes.set_facecolor("white")
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_LINE)
    return axes


def _draw_frame(
    figure: Figure, drawn: Sequence[tuple[str, Timeline]], title: str, *, by_pixel: bool
) -> None:
    from matplotlib.patches import Patch

    height = figure.get_figheight()
    kinds = sorted(
        {kind for _, timeline in drawn for lane in timeline.lanes for kind in lane.spans.kind}
    )
    handles = [Patch(color=COLOURS[KINDS[kind]], label=KINDS[kind]) for kind in kinds]
    if handles:
        place = (1 - _RIGHT / _WIDTH, 1 - 0.12 / height)
        how: dict[str, Any] = {
            "ncols": len(handles),
            "fontsize": 8,
            "frameon": False,
            "labelcolor": INK,
            "borderaxespad": 0,
        }
        figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=place,
            handlelength=1.2,
            columnspacing=1.2,
            **how,
        )
    top = 1 - 0.14 / height
    figure.text(
        _LEFT / _WIDTH, top, title, fontsize=12, color=INK, ha="left", va="top", parse_math=False
    )
    several = len(drawn) > 1
    said = [
        f"{label}: {each.left_out}" if several else each.left_out
        for label, each in drawn
        if each.left_out
    ]
    said += ["each pixel or two of a lane shows what took most of it"] if by_pixel else []
    figure.text(
        _LEFT / _WIDTH,
        0.06 / height,
        ".  ".join(said),
        fontsize=7,
        color=_GREY,
        va="bottom",
        wrap=True,
        parse_math=False,
    )


# ---------------------------------------------------------------------------------------- one group


def _draw_strip(axes: Axes, timeline: Timeline, label: str) -> None:
    """The share of the workers that are at work, and what else is a share."""
    bins = timeline.utilization(_BINS)
    width = timeline.seconds / _BINS
    axes.stairs(
        bins,
        [number * width for number in range(_BINS + 1)],
        fill=True,
        color=COLOURS["compute"],
        alpha=0.25,
        linewidth=0,
    )
    said = ["at work"]
    for curve, style in zip(
        [each for each in timeline.curves if each.unit == "share"], ("-", "--", ":"), strict=False
    ):
        xs = [seconds_of(timeline, at_ns) for at_ns, _ in curve.points]
        axes.plot(xs, [value for _, value in curve.points], style, color=_GREY, linewidth=1)
        said.append(
            f"{curve.label} ({'line' if style == '-' else 'dashed' if style == '--' else 'dotted'})"
        )
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0.5], ["at work"])
    axes.set_xticks([])
    heading = f"{label}   {show_seconds(timeline.seconds)}".strip()
    axes.set_title(heading, loc="left", fontsize=10, color=INK, pad=4, parse_math=False)
    if len(said) > 1:
        axes.set_title(
            ", ".join(said[1:]), loc="right", fontsize=7, color=_GREY, pad=4, parse_math=False
        )


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
    named = len(timeline.lanes) * _PER_LANE <= _MOST_LANES
    bars = Bars(timeline, _pixel(axes), named=named)
    for place, lane in enumerate(timeline.lanes):
        if spans > MOST_BARS:
            bars.add_pixels(place, lane)
        else:
            bars.add(place, lane)
    bars.draw(axes, rasterized=spans > MOST_VECTOR_BARS)
    if not timeline.spans:
        axes.text(
            0.5,
            0.5,
            "no spans",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color=_GREY,
        )


def _labelled(lanes: Sequence[Lane]) -> list[int]:
    """Lanes that are labelled: all, or every so many, and always threads of the program."""
    every = -(-max(1, len(lanes)) // _MOST_LABELS)
    own = [place for place, lane in enumerate(lanes) if lane.kind == "caller"][::every]
    return own + [
        place
        for place in range(0, len(lanes), every)
        if all(abs(place - each) >= every for each in own)
    ]


def _pixel(axes: Axes) -> float:
    """Seconds of a pixel."""
    left, right = axes.get_xlim()
    return (right - left) / ((_WIDTH - _LEFT - _RIGHT) * _DPI)


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _draw_marks(axes: Axes, timeline: Timeline) -> None:
    """A line each; a text for the first dozen, or nothing could be read."""
    places = {lane.label: place for place, lane in enumerate(timeline.lanes)}
    bottom, top = axes.get_ylim()
    for number, mark in enumerate(sorted(timeline.marks, key=lambda each: each.at_ns)):
        place = places.get(mark.lane)
        low, high = (bottom, top) if place is None else (place + 0.5, place - 0.5)
        x = seconds_of(timeline, mark.at_ns)
        axes.plot([x, x], [low, high], color="#B3261E", linewidth=1.1, zorder=10)
        if number < _MOST_NOTES:
            _note(axes, mark, x, high, of_all=place is None)


def _note(axes: Axes, mark: Mark, x: float, y: float, *, of_all: bool) -> None:
    """On the side of the line where there is room; above the lanes where it is of all."""
    left, right = axes.get_xlim()
    late = (x - left) > 0.7 * (right - left)
    how: dict[str, Any] = {
        "xytext": (-3 if late else 3, 2 if of_all else -1),
        "textcoords": "offset points",
    }
    how |= {"ha": "right" if late else "left", "va": "bottom" if of_all else "top"}
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    text = axes.annotate(
        _short(mark.text, 60), (x, y), fontsize=7, color="#B3261E", zorder=11, bbox=box, **how
    )
    text.set_parse_math(False)
