# SPDX-License-Identifier: BSD-3-Clause
"""One call of `map`, `imap` or `submit`, as the team sees it.

It knows what to run, where results go, and how large a batch should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.handle import BatchDone

TARGET_NS = 4_000_000
"""Work in one batch when a caller waits for single results: short beside what a person notices."""

PATIENT_NS = 20_000_000
"""And when none does: long beside what its hand-over costs.

To hand it over and to read its results costs all processors together 0.2 ms.
"""

_LEAST_NS = 200_000  # even the last batches are worth their message
_MOST_ITEMS = 1 << 16  # in a batch: a list of more takes its time by itself
# In a batch of several: beyond that a hand-over costs nothing beside the copy
_MOST_BYTES = 1 << 20
_GROWTH = 8  # times the largest so far: few steps, and no leap on one odd item
_TRUST = 0.7  # weight of the newest batch in the estimate of an item's time


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call asks for.

    Attributes:
        retries: how often an item runs again after its worker died.
        timeout: seconds that one item may run, None for ever.
        chunksize: items in a batch, None for as many as fit.
    """

    retries: int
    timeout: float | None
    chunksize: int | None


def _too_late(*_: object) -> None:
    """Takes what comes too late."""


def _not_mine(*_: object) -> bool:
    """No other kind of worker takes it."""
    return False


class Job:
    """What the team needs to know of one call."""

    def __init__(
        self,
        spec: FunctionSpec,
        terms: CallOptions,
        *,
        on_values: Callable[[int, list[Any]], None],
        on_error: Callable[[int, BaseException], None],
        on_failure: Callable[[BaseException], None],
        on_refused: Callable[[int, Any, BaseException], bool] = _not_mine,
        on_doubted: Callable[[int, Any, BaseException], bool] = _not_mine,
        counts: bool = True,
    ) -> None:
        self.spec = spec
        self.counts = counts  # for the report; a question of our own to a worker does not
        self.retries = terms.retries
        self.timeout_ns = None if terms.timeout is None else int(terms.timeout * 1e9)
        self.chunksize = terms.chunksize
        self.on_values = on_values
        self.on_error = on_error
        self.on_failure = on_failure  # the whole job, as when an initializer fails
        # An item that cannot be handed and did not run: does another kind of worker take it?
        self.on_refused = on_refused
        self.on_doubted = on_doubted  # one that raised: does another kind try it?
        self.cancelled = False
        self.item_ns = 0.0
        self.item_bytes = 0.0
        # Finished so far, and what they took
        self.batches = self.ran = self.run_ns = self.cpu_ns = self.delay_ns = 0
        self._grown = self._last = 1

    def let_go(self) -> None:
        """It is over: what took its results may go, with all that was to be called for."""
        self.on_values = self.on_error = self.on_failure = _too_late
        self.on_refused = self.on_doubted = _not_mine

    def observe(self, batch: BatchDone) -> None:
        """Learn from a finished batch, of which some items ran."""
        self._last = ran = batch.ran
        self.batches += 1
        self.ran += ran
        self.run_ns += batch.run_ns
        self.cpu_ns += batch.cpu_ns
        self.delay_ns += batch.delay_ns
        measured = batch.run_ns / ran
        self.item_ns = (
            measured if not self.item_ns else self.item_ns + _TRUST * (measured - self.item_ns)
        )
        self._grown = max(self._grown, ran)

    def batch_items(self, remaining: int | None, workers: int) -> int:
        """How many items the next batch should have.

        Small first, since nothing is known; then as many as fill `TARGET_NS`; toward the end ever
        fewer, so that all workers end together (guided self-scheduling, Polychronopoulos and Kuck,
        1987).
        """
        if self.chunksize is not None:
            return self.chunksize
        if not self.item_ns:
            return 1
        target_ns = TARGET_NS if self.spec.low_latency else PATIENT_NS
        items = min(target_ns / self.item_ns, self._grown * _GROWTH, _MOST_ITEMS)
        if remaining is not None:
            items = min(items, max(remaining / (2 * workers), _LEAST_NS / self.item_ns))
        if self.item_bytes:
            items = min(items, _MOST_BYTES / self.item_bytes)
        return max(1, int(items))

    @property
    def batch_ns(self) -> float:
        """Time that the batches handed lately take; 0 when not known yet."""
        return self.item_ns * (self.chunksize or self._last)
