# SPDX-License-Identifier: BSD-3-Clause
"""Spans on their way from their writer to the recorder: a ring in memory that outlives the writer.

::

    words    HEAD       records written so far; the last of them are in the ring
             GRAIN_NS   shorter spans may be drawn together with their neighbours
                        <- the only word the reader writes
             NAMES_END  bytes of the names
             PID        of the writer
             SKIPPED    spans of the user's own that were shorter than GRAIN_NS, and not written
    names    what spans are called, each as two bytes of length and its text; a record has its
             number, counted from 1
    records  32 bytes: begin, end (ns of CLOCK_MONOTONIC), argument, count, name, kind

A record is there when HEAD says so, and HEAD is written last: a SIGKILL costs the span that is
being written. The clock is one for all processes of a machine, so nothing is aligned. A ring that
is not read in time loses the oldest records, and both sides know how many.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

COMPUTE, WAIT, SERIALISE, TRANSFER, INITIALISE, USER = range(6)

KINDS = ("compute", "wait", "serialise", "transfer", "initialise", "span")
"""By number, for people."""

HEAD, GRAIN_NS, NAMES_END, PID, SKIPPED = range(5)

NAMES_AT = 64  # behind the words, a cache line of them
RECORDS_AT = 16 * 1024  # 16 KiB of names: hundreds
CAPACITY = 1 << 16  # 2 MiB: 60 ms of spans of 1 us
_RECORD = struct.Struct("=QQqIHBx")
RECORD_NBYTES = _RECORD.size

NBYTES = RECORDS_AT + CAPACITY * RECORD_NBYTES

Write = Callable[[int, int, int, int, int, int], None]
"""Takes begin and end (ns), the argument, how many items, name and kind.

The argument is an item's index, or a number of bytes; -1 for none.
"""


class Ring:
    """The writer's side.

    Several threads of a process may write: each takes a slot of its own.
    """

    __slots__ = ("memory", "names", "words", "write")

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.words = memoryview(memory)[:NAMES_AT].cast("Q")
        self.names: dict[str, int] = {}  # number by name, as far as there are some
        self.words[PID] = os.getpid()
        self.write = self._writer()

    @classmethod
    def private(cls) -> Ring:
        """A ring for a thread of this process; memory that is never written is never taken."""
        return cls(mmap.mmap(-1, NBYTES))

    def _writer(self) -> Write:
        """A closure: attributes of an object would take a third longer."""
        words, pack, memory = self.words, _RECORD.pack_into, self.memory
        next_slot = itertools.count(words[HEAD]).__next__

        def write(begin: int, end: int, argument: int, count: int, name: int, kind: int) -> None:
            slot = next_slot()
            pack(
                memory,
                RECORDS_AT + slot % CAPACITY * RECORD_NBYTES,
                begin,
                end,
                argument,
                count,
                name,
                kind,
            )
            words[HEAD] = slot + 1

        return write

    def name(self, text: str) -> int:
        """The number of a name; 0 when there are too many."""
        number = self.names.get(text)
        return number if number is not None else self._add_name(text)

    def _add_name(self, text: str) -> int:
        encoded = text.encode("utf-8", "replace")[:200]
        end = self.words[NAMES_END]
        stop = end + 2 + len(encoded)
        if NAMES_AT + stop > RECORDS_AT:
            return 0
        self.memory[NAMES_AT + end : NAMES_AT + stop] = struct.pack("=H", len(encoded)) + encoded
        self.words[NAMES_END] = stop
        # The reader counts those that are there, and so do we
        number = self.names[text] = len(self.names) + 1
        return number

    @property
    def grain_ns(self) -> int:
        """Spans shorter than this may be written together with their neighbours."""
        return self.words[GRAIN_NS]
