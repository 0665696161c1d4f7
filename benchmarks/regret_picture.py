# SPDX-License-Identifier: BSD-3-Clause
"""The picture of the regret suite: a row for each workload, a dot for each contender."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.regret_contenders import Contender
from benchmarks.regret_report import Result, seconds

_AUTO = "tab:orange"
_LANES = {
    "loop": (-0.1, "black"),
    "thread": (-0.33, "tab:blue"),
    "process": (0.13, "tab:green"),
    "peer": (0.35, "tab:gray"),
}
_PEERS = {
    "ThreadPoolExecutor": "s",
    "ProcessPoolExecutor": "D",
    "multiprocessing.Pool": "^",
    "joblib": "v",
    "mpire": "P",
}


def draw(results: Sequence[Result], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(12, 1.6 + 0.8 * len(results)))
    axis.set_xscale("log")
    axis.axvline(1, color="0.6", linewidth=1, zorder=0)
    for row, result in enumerate(results):
        axis.axhspan(row - 0.5, row + 0.5, color="0.965" if row % 2 else "1.0", zorder=-2)
        draw_row(axis, row, result)
    frame(axis, results)
    axis.legend(
        handles=legend(),
        loc="lower center",
        bbox_to_anchor=(0.42, 1.01),
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def frame(axis: Any, results: Sequence[Result]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    labels = [
        f"{result.name}\nbest: {result.best.name}, {seconds(result.best.median)}"
        for result in results
    ]
    axis.set_yticks(range(len(results)), labels, fontsize=8)
    axis.set_ylim(len(results) - 0.5, -0.5)
    ratios = [each.median / result.best.median for result in results for each in result.contenders]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    axis.set_xlim(min(0.8, 0.9 * min(finite)), 2 * max(2.0, *finite))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("time, as a multiple of that of the best manual choice", fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.88", zorder=-1)
    axis.spines[["top", "right", "left"]].set_visible(False)


def draw_row(axis: Any, row: int, result: Result) -> None:
    for each in result.contenders:
        if each.kind != "auto" and math.isfinite(each.median):
            draw_dot(axis, row, each, each.median / result.best.median)
    said = "auto fails"
    if math.isfinite(result.auto_to_best):
        place = row + _LANES["loop"][0]
        axis.plot(
            result.auto_to_best,
            place,
            "o",
            color=_AUTO,
            markersize=12,
            markeredgecolor="black",
            zorder=3,
        )
        said = f"auto: {result.auto_to_best:.2f}\n{result.auto.chose}"
    axis.text(
        1.01,
        row,
        said,
        transform=axis.get_yaxis_transform(),
        va="center",
        fontsize=8,
        color="#b35900",
    )


def draw_dot(axis: Any, row: int, contender: Contender, ratio: float) -> None:
    """A number of workers stands in its dot."""
    family, _, count = contender.name.rstrip(")").partition("(")
    lane, color = _LANES["peer" if contender.kind == "peer" else family]
    size, marker = (9, "o") if count else (7, _PEERS.get(contender.name, "d"))
    faint = 0.45 if contender.dropped else 0.9
    axis.plot(
        ratio,
        row + lane,
        marker,
        color=color,
        markersize=size,
        alpha=faint,
        markeredgewidth=0,
        zorder=4,
    )
    if count:
        axis.text(
            ratio,
            row + lane,
            count,
            ha="center",
            va="center",
            fontsize=6,
            color="white",
            zorder=5,
            clip_on=True,
        )


def legend() -> list[Any]:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, color: str, size: int = 8) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=color, markersize=size, label=label
        )

    found = [entry("auto", "o", _AUTO, 11), entry("loop", "d", "black", 7)]
    found += [
        entry(f"{name}(n); pale: ran once", "o", _LANES[name][1]) for name in ("thread", "process")
    ]
    return found + [entry(name, marker, _LANES["peer"][1], 6) for name, marker in _PEERS.items()]
