# SPDX-License-Identifier: BSD-3-Clause
"""What a worker is doing right now, readable by the parent at any moment and after its death.

::

    word  STARTED     first item of the block that runs (a sequence number of this worker's, counted
                      from 1)
          WIDTH       items in that block (1 unless they take under a microsecond each)
          STARTED_NS  when it started, time.perf_counter_ns; 0 while the worker still loads the
                      function
          LIMIT       items from here on must not be started: the parent takes them back
                      <- the only word the parent writes
          COMMITTED   every item below is finished and its result safe
          LOG_END     bytes of results in the log
          TRACING     1 while the worker is to write its spans (trace/ring.py), behind everything
                      else in the file
          PHASE       where the worker is in its life: STARTING, INITIALISING, SERVING or LEAVING
          PHASE_NS    since when, time.perf_counter_ns
          EPOCH       counts how often the log was emptied, odd while it is: a reader that saw it
                      change has read nonsense
    log   results that are finished and not sent yet, as records (item, count, failed, data)
    tail  what faulthandler writes when the worker crashes (behind the log, in the file only)

A worker notes each result in the log before it starts the next item, so a SIGKILL costs exactly the
item that runs.

How items are taken back without a lock, which would die with its holder (Dekker's protocol, with
time as the fence): the worker writes STARTED, *then* reads LIMIT; the parent writes LIMIT, *then*
waits `SETTLE_NS` and reads STARTED. A store leaves the processor's store buffer within microseconds
and a load is not held back for longer, so after a millisecond either the parent sees the item
started, or the worker saw the limit. Only the parent, on a path that is slow anyway, pays for that
certainty.
"""

from __future__ import annotations

import mmap
import os
import struct
from time import perf_counter_ns
from typing import Any

from teamster.machine.descriptors import Descriptor
from teamster.spine.trace.ring import NBYTES as RING_NBYTES
from teamster.spine.transport.mapping import MappedFile

STARTED, WIDTH, STARTED_NS, LIMIT, COMMITTED, LOG_END, EPOCH, TRACING, PHASE, PHASE_NS = range(10)
STARTING, INITIALISING, SERVING, LEAVING = range(4)

NO_LIMIT = 2**63  # more items than any program will run
SETTLE_NS = 1_000_000  # a thousand times what a store buffer takes
NBYTES = 64 * 1024  # of results that wait: as much as a message brings at once
LOG_START = 128  # behind 16 words, two cache lines
TRACE_AT = 1024 * 1024
"""Where the ring of spans is in the file, which has that size only while spans are recorded.

Before it there is room for a crash's text.
"""

RECORD = struct.Struct("<QII")
"""Header of a record in the log.

First item, items with the top bit for a failure, bytes of data that follow.
"""

FAILED_BIT = 1 << 31  # no block has so many items


class Scoreboard:
    """The words and the log, over any writable memory."""

    def __init__(self, memory: Any, descriptor: int = -1) -> None:
        self.memory = memory
        self._owned = Descriptor(descriptor) if descriptor >= 0 else None
        # Native words: a store of one is never seen half-done
        self.words = memoryview(memory)[:LOG_START].cast("Q")

    @property
    def descriptor(self) -> int:
        """That of the file, -1 without one."""
        return self._owned.number if self._owned is not None else -1

    @classmethod
    def private(cls) -> Scoreboard:
        """A scoreboard within one process (thread and serial workers), without a log."""
        scoreboard = cls(bytearray(LOG_START))
        scoreboard.reset()
        return scoreboard

    @classmethod
    def shared(cls) -> Scoreboard:
        """A scoreboard that can be handed to another process by its descriptor."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("teamster-scoreboard", os.MFD_CLOEXEC)
        else:
            import tempfile

            with tempfile.TemporaryFile() as unlinked:
                descriptor = os.dup(unlinked.fileno())
        os.ftruncate(descriptor, NBYTES)
        scoreboard = cls(_map(descriptor, 0, NBYTES), descriptor)
        scoreboard.reset()
        return scoreboard

    @classmethod
    def attach(cls, descriptor: int) -> Scoreboard:
        """The scoreboard behind a descriptor, which it keeps."""
        return cls(_map(descriptor, 0, NBYTES), descriptor)

    def ring_memory(self) -> mmap.mmap:
        """The memory of the ring of spans; a file has only the pages of it that were written."""
        if os.fstat(self.descriptor).st_size < TRACE_AT + RING_NBYTES:
            os.ftruncate(self.descriptor, TRACE_AT + RING_NBYTES)
        return _map(self.descriptor, TRACE_AT, RING_NBYTES)

    def reset(self) -> None:
        """As new: nothing started, nothing taken back."""
        words = self.words
        words[STARTED] = words[WIDTH] = words[STARTED_NS] = words[LOG_END] = words[EPOCH] = words[
            TRACING
        ] = 0
        words[PHASE] = words[PHASE_NS] = 0
        words[COMMITTED] = 1
        words[LIMIT] = NO_LIMIT

    def enter(self, phase: int) -> None:
        """In the worker: it is in this phase of its life from now on."""
        self.words[PHASE_NS] = perf_counter_ns()
        self.words[PHASE] = phase

    def initialising_ns(self) -> int:
        """Since when the initializer runs, on the clock of `time.perf_counter_ns`.

        0 when it does not.
        """
        return int(self.words[PHASE_NS]) if self.words[PHASE] == INITIALISING else 0

    def running(self) -> tuple[int, int, int] | None:
        """First item, width and start (ns; 0: not yet) of the block that runs.

        None between items.
        """
        words = self.words
        started, width, since = words[STARTED], words[WIDTH], words[STARTED_NS]
        return None if started < words[COMMITTED] else (started, width, since)

    def frontier(self) -> int:
        """The first item that was not started; too high for a moment perhaps, never too low.

        Between two blocks the width is already the next one's: the sum alone is too low when that
        is smaller, and a worker may lose its processor right there. (Random traffic found items of
        such a block run twice.)
        """
        return int(max(self.words[COMMITTED], self.words[STARTED] + self.words[WIDTH]))

    def log_state(self) -> tuple[int, int]:
        """How often the log was emptied, and its bytes.

        The bytes alone are the same for every single result of one size.
        """
        return self.words[EPOCH], self.words[LOG_END]

    def empty_log(self) -> None:
        """The results in the log were sent."""
        words = self.words
        words[EPOCH] += 1
        words[LOG_END] = 0
        words[EPOCH] += 1

    def read_log(self, *, alive: bool = False) -> list[tuple[int, int, bool, bytes]]:
        """The results in the log, as (first item, items, failed, data).

        Of a worker that is `alive` nothing, when it empties the log meanwhile. (Without that check
        a test found item 14 with the result of item 15: the header was read before the worker
        reused the place, the data after.)
        """
        epoch, end = self.words[EPOCH], self.words[LOG_END]
        log = bytes(self.memory[LOG_START : LOG_START + end])
        if alive and (epoch % 2 or epoch != self.words[EPOCH]):
            return []
        records, position = [], 0
        while position < len(log):
            first, count, nbytes = RECORD.unpack_from(log, position)
            position += RECORD.size
            records.append(
                (
                    first,
                    count & ~FAILED_BIT,
                    bool(count & FAILED_BIT),
                    log[position : position + nbytes],
                )
            )
            position += nbytes
        return records

    def last_words(self) -> str:
        """What faulthandler wrote when the worker crashed; empty when it did not.

        Empty, too, where the program has closed the descriptor: its number may be another file's.
        """
        if self._owned is None or not self._owned.is_whole():
            return ""
        return os.pread(self.descriptor, 16 * 1024, NBYTES).rstrip(b"\0").decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()
        if self._owned is not None:
            del self.memory
            self._owned.close()


def _map(descriptor: int, offset: int, nbytes: int) -> mmap.mmap:
    """Memory of a file that is mapped while it is used, and keeps no descriptor.

    A program may close those behind our back.
    """
    return MappedFile(descriptor, offset, nbytes).memory
