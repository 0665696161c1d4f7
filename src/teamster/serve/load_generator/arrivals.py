# SPDX-License-Identifier: BSD-3-Clause
"""When requests of an open loop come, whatever becomes of those before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from teamster.errors import UsageError

NAMES = "poisson", "uniform", "burst:N"


def arrivals_of(name: str, rate: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """The moments of arrival, in seconds from the start, rising.

    Args:
        name: "poisson" for independent clients; "uniform" for a metronome; "burst:N" for N at a
            time, the bursts independent; or a file with a moment in seconds on each line, as it was
            recorded.
        rate: requests a second, in the mean; a file has its own.
        seconds: for how long.
        seed: of what is drawn.

    Returns:
        An iterator.

    Raises:
        UsageError: the name is none of these.

    Example:
        >>> list(arrivals_of("uniform", 4, 1))
        [0.0, 0.25, 0.5, 0.75]
        >>> len(list(arrivals_of("burst:5", 100, 10))) % 5
        0
    """
    kind, _, size = name.partition(":")
    if kind == "poisson":
        return _poisson(rate, seconds, seed)
    if kind == "uniform":
        return _uniform(rate, seconds)
    if kind == "burst" and size.isdecimal() and int(size) > 0:
        return _bursts(rate, int(size), seconds, seed)
    if kind == "burst":
        raise UsageError(f"{name}: a burst has a size, as in burst:16")
    return _recorded(Path(name), seconds)


def _poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)
    moment = draw.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += draw.expovariate(rate)


def _uniform(rate: float, seconds: float) -> Iterator[float]:
    for number in count():
        if number / rate >= seconds:
            return
        yield number / rate


def _bursts(rate: float, size: int, seconds: float, seed: int) -> Iterator[float]:
    for moment in _poisson(rate / size, seconds, seed):
        for _ in range(size):
            yield moment


def _recorded(path: Path, seconds: float) -> Iterator[float]:
    try:
        moments = sorted(float(line) for line in path.read_text().split())
    except OSError:
        raise UsageError(
            f"arrivals are {', '.join(NAMES)}, or a file with a moment in seconds on each line; "
            f"there is no file {path}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{path}: each line is a moment in seconds ({error})") from None
    first = moments[0] if moments else 0.0
    return iter([each - first for each in moments if each - first < seconds])
