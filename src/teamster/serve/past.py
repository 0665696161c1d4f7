# SPDX-License-Identifier: BSD-3-Clause
"""What has happened to the last requests and batches: a ring of moments each.

::

    came -> read -> decoded ---> started ----> computed -> answered
       read   decode     queue       compute         back
                         (a batch was held back for `held_ns` of it)
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_REQUESTS = 4096  # of the last: a 99th percentile of them has 40 behind it
_BATCHES = 4096  # no request waits behind more of them than there are requests


class Answered(NamedTuple):
    """A request that has its answer; moments are of `perf_counter_ns`.

    Attributes:
        came_ns: its head was there.
        read_ns: its body was, too.
        decoded_ns: its input was.
        started_ns: its batch was begun; 0 where it was not.
        computed_ns: its batch was computed; 0 where it was not.
        answered_ns: its answer was encoded, and handed to the socket.
        status: of HTTP.
        batch: the number of its batch; 0 for none.
    """

    came_ns: int
    read_ns: int
    decoded_ns: int
    started_ns: int
    computed_ns: int
    answered_ns: int
    status: int
    batch: int


class Computed(NamedTuple):
    """A batch that was computed.

    Attributes:
        number: in the order in which they were begun, from 1.
        replica: the number of the one that computed it.
        rows: of it.
        started_ns: it was begun.
        computed_ns: it was computed.
        held_ns: how long it was held back for those that were likely to come.
        delay_ns: how long its thread was ready while others had the processor.
        whole: whether no part of it was computed again.
    """

    number: int
    replica: int
    rows: int
    started_ns: int
    computed_ns: int
    held_ns: int
    delay_ns: int
    whole: bool


class Past:
    """The last requests and batches of one model.

    Attributes:
        requests: that have their answers, the last one last.
        batches: that were computed.

    Example:
        >>> past = Past()
        >>> len(past.requests), len(past.batches)
        (0, 0)
    """

    def __init__(self) -> None:
        self.requests: deque[Answered] = deque(maxlen=_REQUESTS)
        self.batches: deque[Computed] = deque(maxlen=_BATCHES)
