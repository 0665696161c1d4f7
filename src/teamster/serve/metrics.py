# SPDX-License-Identifier: BSD-3-Clause
"""Counts and times of one model, as text for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

# Seconds: as Prometheus' own clients have them, and a finer one below
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # of batches


class Histogram:
    r"""Counts below bounds.

    Example:
        >>> seen = Histogram((1.0, 2.0))
        >>> seen.add(1.5)
        >>> print("\n".join(seen.lines("wait_seconds", 'model="m"')))
        wait_seconds_bucket{model="m",le="1.0"} 0
        wait_seconds_bucket{model="m",le="2.0"} 1
        wait_seconds_bucket{model="m",le="+Inf"} 1
        wait_seconds_sum{model="m"} 1.5
        wait_seconds_count{model="m"} 1
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """In the text format."""
        found, below = [], 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            found.append(f'{name}_bucket{{{labels},le="{bound}"}} {below}')
        found.append(f"{name}_sum{{{labels}}} {self._sum}")
        found.append(f"{name}_count{{{labels}}} {below}")
        return found


class Metrics:
    """Those of one model.

    Args:
        model: its name.

    Example:
        >>> metrics = Metrics("m")
        >>> metrics.answered(200, 0.01)
        >>> 'teamster_requests_total{model="m",status="200"} 1' in metrics.text(0)
        True
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._statuses: Counter[int] = Counter()
        self._latency = Histogram(_BOUNDS_S)
        self._queued = Histogram(_BOUNDS_S)
        self._computed = Histogram(_BOUNDS_S)
        self._sizes = Histogram(_SIZES)

    def answered(self, status: int, seconds: float) -> None:
        """A request has its answer, so long after it came."""
        self._statuses[status] += 1
        self._latency.add(seconds)

    def queued(self, seconds: float) -> None:
        """A request was begun, so long after it came."""
        self._queued.add(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """A batch was computed."""
        self._sizes.add(size)
        self._computed.add(seconds)

    def text(self, in_flight: int) -> str:
        """All of it.

        Args:
            in_flight: requests that wait or are computed.
        """
        labels = f'model="{self._model}"'
        lines = ["# TYPE teamster_requests_total counter"]
        lines += [
            f'teamster_requests_total{{{labels},status="{status}"}} {count}'
            for status, count in sorted(self._statuses.items())
        ]
        lines += ["# TYPE teamster_in_flight gauge", f"teamster_in_flight{{{labels}}} {in_flight}"]
        for name, seen in (
            ("teamster_latency_seconds", self._latency),
            ("teamster_queue_seconds", self._queued),
            ("teamster_batch_seconds", self._computed),
            ("teamster_batch_size", self._sizes),
        ):
            lines += [f"# TYPE {name} histogram", *seen.lines(name, labels)]
        return "\n".join(lines) + "\n"
