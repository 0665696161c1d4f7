# SPDX-License-Identifier: BSD-3-Clause
"""What a load has shown: counts, and the quantiles of its latencies."""

from __future__ import annotations

from array import array
from collections import Counter
from http import HTTPStatus
from typing import Any

from teamster.serve.quantiles import quantile

QUANTILES = 0.5, 0.9, 0.99, 0.999  # what promises on latency are made of


class LoadResults:
    """The answers to a load.

    Attributes:
        asked: requests that were due.
        statuses: how many answers have which.
        errors: how many requests had no answer, by the reason.
        seconds: from the first request to the last answer.
        connections: that were open at a time, at the most.

    Example:
        >>> results = LoadResults()
        >>> for latency in (0.001, 0.002, 0.004):
        ...     results.answered(200, latency)
        >>> results.quantile(0.5), results.good
        (0.002, 3)
    """

    def __init__(self) -> None:
        self.asked = 0
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds = 0.0
        self.connections = 0
        self._latencies = array("d")
        self._lags = array("d")
        self._sorted: array[float] | None = None

    def answered(self, status: int, latency: float) -> None:
        """One more; its latency counts where it was a good one.

        Args:
            status: of HTTP.
            latency: seconds from the moment at which the request should have been sent.
        """
        self.statuses[status] += 1
        if status < HTTPStatus.BAD_REQUEST:
            self._latencies.append(latency)
            self._sorted = None

    def was_late(self, seconds: float) -> None:
        """The load generator itself has come to a request so long after it was due."""
        self._lags.append(seconds)

    @property
    def good(self) -> int:
        """Answers below status 400."""
        return len(self._latencies)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float | None:
        """Seconds in which so large a share of the good answers came; None where there are none."""
        if self._sorted is None:
            self._sorted = array("d", sorted(self._latencies))
        return quantile(self._sorted, share) if self._sorted else None

    @property
    def lag(self) -> float:
        """The 99th percentile of how late the load generator itself was, in seconds."""
        return quantile(sorted(self._lags), 0.99) if self._lags else 0.0

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds; latencies in seconds."""
        return {
            "asked": self.asked,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "seconds": self.seconds,
            "rate": self.rate,
            "connections": self.connections,
            "latency": {f"p{share * 100:g}": self.quantile(share) for share in QUANTILES}
            | {"max": self.quantile(1.0)},
            "generator_lag": self.lag,
        }
