# SPDX-License-Identifier: BSD-3-Clause
"""What the regret suite found.

Figures for each workload, a summary over all, both as text and as plain values.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.regret_contenders import Contender

_LOOP_FACTOR = 1.05
_LOOP_EXTRA_S = 0.002
_BEST_FACTOR = 1.1
_BEST_EXTRA_S = 0.02  # of jobs from here on


@dataclass(frozen=True)
class Result:
    """One workload, measured."""

    name: str
    items: int
    contenders: list[Contender]

    @property
    def loop(self) -> Contender:
        return self.of_name("loop")

    @property
    def auto(self) -> Contender:
        return self.of_name("auto")

    @property
    def best(self) -> Contender:
        return self._fastest("manual")

    @property
    def peer(self) -> Contender | None:
        """The fastest peer, if peers took part."""
        return (
            self._fastest("peer") if any(each.kind == "peer" for each in self.contenders) else None
        )

    @property
    def auto_to_best(self) -> float:
        return self.auto.median / self.best.median

    @property
    def auto_to_loop(self) -> float:
        return self.auto.median / self.loop.median

    @property
    def never_worse(self) -> bool:
        """Whether auto is as fast as the loop, with 5% or 2 ms for what it cannot know before."""
        return self.auto.median <= max(
            self.loop.median * _LOOP_FACTOR, self.loop.median + _LOOP_EXTRA_S
        )

    @property
    def near_best(self) -> bool:
        """Whether auto is within 10% or 20 ms of the best choice by hand, the start included."""
        return self.auto.median <= max(
            self.best.median * _BEST_FACTOR, self.best.median + _BEST_EXTRA_S
        )

    def of_name(self, name: str) -> Contender:
        return next(each for each in self.contenders if each.name == name)

    def _fastest(self, kind: str) -> Contender:
        return min(
            (each for each in self.contenders if each.kind == kind), key=lambda each: each.median
        )


@dataclass(frozen=True)
class Fixed:
    """One choice for every workload: how slow it gets at worst, beside the best choice there."""

    name: str
    worst: float
    workload: str
    fails: list[str]


def worst_of_fixed(results: Sequence[Result]) -> list[Fixed]:
    """In the order in which the contenders are named."""
    found = []
    for name in (each.name for each in results[0].contenders if each.kind != "auto"):
        slowdowns = [
            (result.of_name(name).median / result.best.median, result.name) for result in results
        ]
        worst, workload = max(
            (each for each in slowdowns if math.isfinite(each[0])), default=(math.inf, "")
        )
        fails = [where for slower, where in slowdowns if not math.isfinite(slower)]
        found.append(Fixed(name, worst, workload, fails))
    return found


def seconds(value: float) -> str:
    if not math.isfinite(value):
        return "fails"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def times(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def first_line(text: str) -> str:
    return text.partition("\n")[0][:120]


def table(rows: Iterable[Sequence[str]], left: Iterable[int] = (0,)) -> str:
    """Columns as wide as they must be, right-aligned but for those named."""
    lines, to_the_left = list(rows), set(left)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in to_the_left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def show_result(result: Result) -> None:
    best, auto, peer = result.best, result.auto, result.peer
    rows = [
        ("loop", "", result.loop),
        ("best manual choice", best.name, best),
        ("auto", auto.chose, auto),
    ]
    rows += [("best peer", peer.name, peer)] if peer is not None else []
    ratios = (
        ""
        if auto.fails
        else f"{times(result.auto_to_best)} x best, {times(result.auto_to_loop)} x loop"
    )
    said = {
        "auto": ratios,
        "best peer": f"{times(peer.median / best.median)} x best" if peer is not None else "",
    }
    texts = [(label, name, seconds(each.median), said.get(label, "")) for label, name, each in rows]
    print(table(texts, left=(0, 1, 3)))
    if auto.fails:
        print(f"auto: {first_line(auto.fails)}")
    for label, names in (
        ("fails", [each.name for each in result.contenders if each.fails]),
        ("ran once", [each.name for each in result.contenders if each.dropped]),
    ):
        if names:
            print(f"{label}: {', '.join(names)}")
    print(flush=True)


def show_overview(results: Sequence[Result]) -> None:
    titles = ["workload", "items", "loop", "best manual", "", "auto", "", "/ best", "/ loop"]
    rows = [[*titles, "best peer", ""]]
    for result in results:
        best, auto, peer = result.best, result.auto, result.peer
        row = [
            result.name,
            f"{result.items:,}",
            seconds(result.loop.median),
            best.name,
            seconds(best.median),
        ]
        row += [
            auto.chose or "-",
            seconds(auto.median),
            times(result.auto_to_best),
            times(result.auto_to_loop),
        ]
        rows.append(row + ([peer.name, seconds(peer.median)] if peer is not None else ["", ""]))
    print(table(rows, left=(0, 3, 5, 9)), end="\n\n")


def summary(results: Sequence[Result]) -> dict[str, Any]:
    ran = [result for result in results if math.isfinite(result.auto_to_best)]
    to_best = max(ran, key=lambda each: each.auto_to_best, default=None)
    to_loop = max(ran, key=lambda each: each.auto_to_loop, default=None)
    mean = statistics.geometric_mean(each.auto_to_best for each in ran) if ran else None
    return {
        "auto_to_best_geometric_mean": mean,
        "auto_to_best_worst": to_best and [to_best.auto_to_best, to_best.name],
        "auto_to_loop_worst": to_loop and [to_loop.auto_to_loop, to_loop.name],
        "slower_than_loop": [each.name for each in results if not each.never_worse],
        "far_from_best": [each.name for each in results if not each.near_best],
        "auto_fails": [each.name for each in results if each.auto.fails],
        "fixed": [vars(each) | {"worst": finite(each.worst)} for each in worst_of_fixed(results)],
    }


def show_summary(results: Sequence[Result]) -> None:
    found = summary(results)
    if found["auto_to_best_worst"] is not None:
        print(f"auto / best, geometric mean  {times(found['auto_to_best_geometric_mean'])}")
        for name, key in (
            ("auto / best, worst", "auto_to_best_worst"),
            ("auto / loop, worst", "auto_to_loop_worst"),
        ):
            ratio, workload = found[key]
            print(f"{name:<27}  {times(ratio)}  {workload}")
    missed = ", ".join(found["slower_than_loop"]) or "nowhere"
    print(
        f"auto slower than the loop by more than {_LOOP_FACTOR - 1:.0%} and "
        f"{_LOOP_EXTRA_S * 1e3:g} ms: {missed}"
    )
    missed = ", ".join(found["far_from_best"]) or "nowhere"
    print(
        f"auto slower than the best by more than {_BEST_FACTOR - 1:.0%} and "
        f"{_BEST_EXTRA_S * 1e3:g} ms: {missed}"
    )
    print(f"auto fails: {', '.join(found['auto_fails']) or 'nowhere'}\n")
    rows = [["one choice for all", "worst / best", "on", "fails on"]]
    rows += [
        [each.name, times(each.worst), each.workload, ", ".join(each.fails)]
        for each in worst_of_fixed(results)
    ]
    print(table(rows, left=(0, 2, 3)), flush=True)


def to_values(result: Result) -> dict[str, Any]:
    """All that is known of a workload, for JSON."""
    return {
        "items": result.items,
        "loop_s": finite(result.loop.median),
        "best": result.best.name,
        "best_s": finite(result.best.median),
        "auto_s": finite(result.auto.median),
        "auto_chose": result.auto.chose,
        "auto_plans": [str(plan) for plan in result.auto.plans],
        "auto_to_best": finite(result.auto_to_best),
        "auto_to_loop": finite(result.auto_to_loop),
        "never_worse_than_loop": result.never_worse,
        "peer": result.peer and result.peer.name,
        "peer_s": result.peer and finite(result.peer.median),
        "contenders": {
            each.name: {
                "kind": each.kind,
                "seconds": each.seconds,
                "dropped": each.dropped,
                "fails": each.fails,
            }
            for each in result.contenders
        },
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
