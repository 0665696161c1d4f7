# SPDX-License-Identifier: BSD-3-Clause
"""Latency against throughput: the same server, asked at more and more of what it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from teamster.errors import UsageError
from teamster.serve.load_generator.arrivals import arrivals_of
from teamster.serve.load_generator.connection import Target
from teamster.serve.load_generator.generator import closed_loop, open_loop
from teamster.serve.load_generator.results import LoadResults

_MOST_OPEN = 500  # connections: as many clients as wait when it is asked for more than it can
# Shares of what a closed loop has reached: where queues begin to grow they are close together
_SHARES = 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2


class Point(NamedTuple):
    """One load of a sweep.

    Attributes:
        rate: requests a second that were asked for.
        results: what came of it.
    """

    rate: float
    results: LoadResults


def sweep(
    target: Target,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    arrivals: str = "poisson",
    told: Callable[[Point], object] = lambda point: None,
) -> list[Point]:
    """Find out what a server can with a closed loop, then ask in open loops at shares of that.

    Args:
        target: where.
        requests: their bytes, taken in turn.
        connections: of the closed loop.
        seconds: of each load.
        arrivals: of the open loops, as of `arrivals_of`.
        told: of each point, when it is there.

    Returns:
        The points, by rate.

    Raises:
        UsageError: the server is not there, or answers nothing.
    """
    most = closed_loop(target, requests, connections=connections, seconds=seconds)
    if not most.good:
        raise UsageError(f"{target.url} gives no good answer: {_why(most)}")
    return list(_points(target, requests, most.rate, seconds, arrivals, told))


def _points(
    target: Target,
    requests: Sequence[bytes],
    most: float,
    seconds: float,
    arrivals: str,
    told: Callable[[Point], object],
) -> Iterator[Point]:
    for share in _SHARES:
        rate = share * most
        moments = arrivals_of(arrivals, rate, seconds)
        point = Point(rate, open_loop(target, requests, moments, connections=_MOST_OPEN))
        told(point)
        yield point


def _why(results: LoadResults) -> str:
    found = [f"status {status}" for status in results.statuses] + list(results.errors)
    return ", ".join(found) or "no answer"


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Latency against throughput, as a picture.

    Args:
        points: of a sweep.
        title: above it.
        path: of the file; its ending says the format.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("the picture needs matplotlib: pip install 'teamster[plot]'") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for share, colour in ((0.5, "#0072b2"), (0.99, "#d55e00")):
        found = [(each.results.rate, each.results.quantile(share)) for each in points]
        known = [(rate, 1e3 * latency) for rate, latency in found if latency is not None]
        axes.plot(*zip(*known, strict=True), marker="o", color=colour, label=f"p{share * 100:g}")
    axes.set(title=title, xlabel="good answers a second", ylabel="latency, ms", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {error}") from None
