# SPDX-License-Identifier: BSD-3-Clause
"""What a batch of so many takes, learned from those that there were.

::

    seconds of (size, replicas busy) --observe--> a mean of late ones, outliers cut
                                     <--predict-- between sizes that were seen: a line
"""

from __future__ import annotations

_WEIGHT = 0.1  # of the latest among those of one size
_MOST = 3.0  # times the mean: what is above counts as that, for it was another program's doing
_WORTH = 0.95  # of the best throughput: fewer replicas that reach it are enough


class CostModel:
    """Seconds of a batch by its size and by how many replicas compute at the same time.

    Example:
        >>> cost = CostModel()
        >>> cost.predict(4)
        0.0
        >>> cost.observe(1, 1, 0.010)
        >>> cost.observe(9, 1, 0.018)
        >>> round(cost.predict(5), 3), round(cost.predict(18), 3)
        (0.014, 0.027)
    """

    def __init__(self) -> None:
        self._means: dict[int, dict[int, float]] = {}  # by busy replicas, then by size

    @property
    def is_known(self) -> bool:
        """Whether anything was seen."""
        return bool(self._means)

    def observe(self, size: int, busy: int, seconds: float) -> None:
        """A batch has taken so long.

        Args:
            size: of it, in rows.
            busy: replicas that computed when it began, its own included.
            seconds: of the computation.
        """
        means = self._means.setdefault(busy, {})
        before = means.get(size)
        if before is None:
            means[size] = seconds
        else:
            means[size] = before + _WEIGHT * (min(seconds, _MOST * before) - before)

    def predict(self, size: int, busy: int = 1) -> float:
        """Seconds of a batch; 0 as long as nothing is known.

        Args:
            size: of it.
            busy: replicas, its own included.
        """
        if not self._means:
            return 0.0
        means = self._means.get(busy)
        if means is None:
            nearest = min(self._means, key=lambda each: abs(each - busy))
            means = self._means[nearest]
        return _on_line(means, size)

    def best_rate(self, size: int) -> float:
        """Rows a second, with as many replicas as compute the most.

        Args:
            size: of a batch.
        """
        return max(self._rates(size).values())

    def _rates(self, size: int) -> dict[int, float]:
        """Rows a second, by how many replicas compute."""
        return {count: count * size / _on_line(means, size) for count, means in self._means.items()}

    def scaling(self, size: int, count: int) -> float:
        """What so many replicas compute, of as many times one; 1 where that is not known.

        Args:
            size: of a batch.
            count: of replicas.
        """
        if count not in self._means or 1 not in self._means:
            return 1.0
        return self.predict(size, 1) / self.predict(size, count)

    def replicas_worth(self, most: int, size: int) -> int:
        """The fewest replicas that compute as many rows a second as any number of them.

        Args:
            most: there are.
            size: of a batch.
        """
        rates = {count: rate for count, rate in self._rates(size).items() if count <= most}
        if len(rates) < 2:
            return most
        best = max(rates.values())
        return min(count for count, rate in rates.items() if rate >= _WORTH * best)


def _on_line(means: dict[int, float], size: int) -> float:
    found = means.get(size)
    if found is not None:
        return found
    below = max((each for each in means if each < size), default=None)
    above = min((each for each in means if each > size), default=None)
    if below is not None and above is not None:
        share = (size - below) / (above - below)
        return means[below] + share * (means[above] - means[below])
    if above is not None:
        return means[above]  # no less is promised
    assert below is not None
    smallest = min(means)
    if smallest == below:
        return means[below] * size / below
    slope = max(0.0, (means[below] - means[smallest]) / (below - smallest))
    return means[below] + slope * (size - below)
