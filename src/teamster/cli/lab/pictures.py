# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of a lab as PNG.

They show the timelines of all ways on the same seconds, and the times as bars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from teamster.cli.lab.conducting import Result
from teamster.cli.lab.runs import Outcome
from teamster.spine.trace.render.bars import COLOURS
from teamster.spine.trace.render.picture import to_figure, to_picture
from teamster.units import show_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _GREY, _AUTO = "#22262B", "#6B7280", COLOURS["initialise"]
_PER_BAR, _HEAD, _FOOT = 0.42, 0.75, 0.55  # inches
_WIDTH, _LEFT = 8.0, 1.7  # inches: a page's width, and room for the names of the ways


def draw_timelines(outcome: Outcome, title: str) -> bytes:
    """The timelines of all ways, above each other.

    Args:
        outcome: Of a case.
        title: Of the picture.

    Returns:
        A PNG file.
    """
    named = [(each.run.name, each.timeline) for each in outcome.measured]
    return to_picture(to_figure(named, title=title), "png")


def draw_times(result: Result) -> bytes:
    """The seconds of all ways as bars, with a mark at what was expected; one axes a case.

    Args:
        result: Of an experiment that was not skipped.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    tall = [len(outcome.measured) * _PER_BAR for outcome in result.outcomes]
    height = sum(tall) + (_HEAD + _FOOT) * len(tall)
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    top = height
    for outcome, each in zip(result.outcomes, tall, strict=True):
        bottom = top - _HEAD - each
        axes = figure.add_axes(
            (_LEFT / _WIDTH, bottom / height, 1 - (_LEFT + 0.9) / _WIDTH, each / height)
        )
        label = (
            f"{result.experiment.title}: {outcome.case.label}"
            if outcome.case.label
            else result.experiment.title
        )
        _draw_bars(axes, outcome, label)
        top = bottom - _FOOT
    return to_picture(figure, "png")


def _draw_bars(axes: Axes, outcome: Outcome, title: str) -> None:
    loop_s = outcome.loop.run.seconds
    for place, each in enumerate(outcome.measured):
        axes.barh(
            place,
            each.run.seconds,
            height=0.62,
            color=_AUTO if each.is_auto else COLOURS["compute"],
            zorder=2,
        )
        expected_s = 0.0 if each.is_auto or each is outcome.loop else loop_s / each.expected
        if expected_s:
            axes.plot(
                [expected_s, expected_s],
                [place - 0.4, place + 0.4],
                color=COLOURS["serialise"],
                linewidth=2.5,
                zorder=3,
            )
        text = f"{show_seconds(each.run.seconds)}, {outcome.speedup(each):.2f}x"
        axes.text(
            max(each.run.seconds, expected_s),
            place,
            f"  {text}",
            va="center",
            fontsize=9,
            color=_INK,
        )
    axes.set_yticks(range(len(outcome.measured)), [each.run.name for each in outcome.measured])
    axes.set_ylim(len(outcome.measured) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=12, color=_INK)
    axes.set_xlabel("seconds; the upright line is what one would expect", fontsize=9, color=_GREY)
    how: dict[str, Any] = {"length": 0, "labelsize": 9, "labelcolor": _INK}
    axes.tick_params(**how)
    axes.grid(axis="x", color="#E5E7EB", linewidth=0.6, zorder=0)
    axes.spines[:].set_visible(False)
