# SPDX-License-Identifier: BSD-3-Clause
"""The log of a process worker: finished results, safe on the scoreboard until they are sent.

A result that waits for others to go with it would be lost with the worker; from the scoreboard,
which the parent has mapped as well, it is taken back.
"""

from __future__ import annotations

import pickle
from time import perf_counter_ns
from typing import Any

from teamster.spine.trace import spans
from teamster.spine.trace.ring import SERIALISE, TRANSFER, Ring
from teamster.spine.transport.channel import Channel, Encoded
from teamster.spine.transport.parcel import Parcel
from teamster.spine.workers.encoding import PLAIN, join_results, keep_one_by_one, pack_results
from teamster.spine.workers.exceptions import describe
from teamster.spine.workers.process.leaving import end_copy
from teamster.spine.workers.scoreboard import (
    FAILED_BIT,
    LOG_END,
    LOG_START,
    NBYTES,
    RECORD,
    Scoreboard,
)

FLUSH_NS = 5_000_000
"""How long a finished result waits for others to be sent with it.

What no thread waits for may wait longer (`PATIENT_NS`). The parent that reads a message takes a
processor from a worker for some 0.2 ms. (0.2 ms tasks in C on 2 cores: 1.05 times the time of
Pool.map when every message went after 5 ms, 1.02 with 50 ms.)
"""
PATIENT_NS = 50_000_000  # see above

Record = tuple[int, int, bool, Encoded]
"""First item, items, whether it is a failure, and the data."""


class ResultSink:
    """Keeps finished results safe on the scoreboard until they are sent."""

    def __init__(self, channel: Channel, scoreboard: Scoreboard) -> None:
        self._channel = channel
        self._scoreboard = scoreboard
        self._memory, self._words = scoreboard.memory, scoreboard.words
        self._records: list[Record] = []
        self._run: list[bytes] = []  # pickles of consecutive items that will make one record
        self._run_first = self._run_next = 0
        self._finished: list[tuple[int, ...]] = []
        self._end = LOG_START
        self._sent_ns = perf_counter_ns()
        self.patience_ns = FLUSH_NS
        self.ring: Ring | None = None  # while the parent records

    def keep(self, first: int, values: list[Any]) -> None:
        """Save the results of consecutive items.

        One that does not pickle becomes that item's failure.
        """
        if len(values) == 1 and type(values[0]) in PLAIN:
            # The most frequent case, and between two items: no more calls
            data = pickle.dumps(values, 5)
            if self._end + RECORD.size + len(data) <= NBYTES:
                self._log(first, 1, data)
                self._join(first, data)
                return
        began = perf_counter_ns() if self.ring is not None else 0
        try:
            parcel = pack_results(values)
        except BaseException as reason:
            keep_one_by_one(self, first, values, reason)
        else:
            if self.ring is not None:
                spans.note(self.ring, SERIALISE, "pickle results", began, parcel.nbytes)
            self._save(first, len(values), False, parcel)

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Save what one item raised, which may end the whole call: it does not wait long."""
        self._save(first, 1, True, Parcel(pickle.dumps(describe(error), 5), []))
        if perf_counter_ns() - self._sent_ns > FLUSH_NS:
            self.flush()

    def part(self) -> None:
        """In a forked copy of the worker: keep no results.

        What the task comes to there is no item's result, and ends the copy.
        """
        self._log = self._save = lambda *_: end_copy(None)  # type: ignore[assignment, method-assign]
        self.keep_failure = lambda _, error: end_copy(error)  # type: ignore[assignment, method-assign]

    def _save(self, first: int, count: int, failed: bool, parcel: Parcel) -> None:
        size = len(parcel.data)
        if parcel.buffers or parcel.passed or self._end + RECORD.size + size > NBYTES:
            self._end_run()
            began = perf_counter_ns()
            self._records.append((first, count, failed, self._channel.stow(parcel)))
            spans.note(self.ring, TRANSFER, "copy results to shared memory", began, parcel.nbytes)
            self.flush()
            return
        self._log(first, count | FAILED_BIT if failed else count, parcel.data)
        if count == 1 and not failed:
            self._join(first, parcel.data)
            return
        self._end_run()
        self._records.append((first, count, failed, parcel.data))
        self._flush_if_due()

    def _log(self, first: int, count: int, data: bytes) -> None:
        """Write a record, `count` with the bit for a failure, where it survives this process."""
        end = self._end
        self._end = stop = end + RECORD.size + len(data)
        self._memory[end:stop] = RECORD.pack(first, count, len(data)) + data
        self._words[LOG_END] = stop - LOG_START

    def _join(self, first: int, data: bytes) -> None:
        """Add one result to the record of those before it.

        What the parent pays for a record, it pays for a hundred items then.
        """
        if first != self._run_next:
            self._end_run()
            self._run_first = first
        self._run.append(data)
        self._run_next = first + 1
        self._flush_if_due()

    def _end_run(self) -> None:
        run, self._run, self._run_next = self._run, [], 0
        if run:
            self._records.append((self._run_first, len(run), False, join_results(run)))

    def _flush_if_due(self) -> None:
        if perf_counter_ns() - self._sent_ns > self.patience_ns:
            self.flush()

    def finish(self, *batch: int) -> None:
        """A batch is over, as `BatchDone` tells it, to be told with the next results.

        No record reaches into the next batch.
        """
        self._end_run()
        self._finished.append(batch)

    def flush(self) -> None:
        """Send what is kept."""
        self._end_run()
        if not self._records and not self._finished:
            return
        records, self._records = self._records, []
        finished, self._finished = self._finished, []
        began, before = perf_counter_ns(), self._channel.bytes_sent
        self._channel.put(("results", records, finished))
        spans.note(self.ring, TRANSFER, "send results", began, self._channel.bytes_sent - before)
        self._scoreboard.empty_log()
        self._end = LOG_START
        self._sent_ns = perf_counter_ns()
