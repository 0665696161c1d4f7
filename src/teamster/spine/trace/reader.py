# SPDX-License-Identifier: BSD-3-Clause
"""The reader's side of a ring.

It reads what was written since the last time, as columns, with names of the whole program.
"""

from __future__ import annotations

import struct
from array import array
from typing import Any

from teamster.spine.trace.columns import Spans
from teamster.spine.trace.ring import (
    CAPACITY,
    GRAIN_NS,
    HEAD,
    NAMES_AT,
    NAMES_END,
    PID,
    RECORD_NBYTES,
    RECORDS_AT,
    SKIPPED,
)

_WRITERS = 8  # threads that may be in the middle of a record


class Names:
    """Numbers for names, one table for all rings."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """The number of a name; 0 when there are more than a record can tell apart."""
        number = self._numbers.get(text)
        if number is None:
            number = len(self._numbers)
            if number >= 1 << 16:
                return 0
            self._numbers[text] = number
        return number

    def table(self) -> tuple[str, ...]:
        """All names, by number."""
        return tuple(self._numbers)


class RingReader:
    """Reads one ring.

    Args:
        memory: the ring's.
        names: the table of the program.
    """

    def __init__(self, memory: Any, names: Names) -> None:
        self._memory = memory
        self._view = memoryview(memory)
        self._words = self._view[:NAMES_AT].cast("Q")
        self._names = names
        self._table = [0]  # the ring's number of a name -> the program's
        self._names_read = 0
        self._position = self._words[HEAD]
        self._skipped = self._words[SKIPPED]
        self._overrun = 0

    @property
    def lost(self) -> int:
        """Spans that will never be read."""
        return self._overrun + self._words[SKIPPED] - self._skipped

    @property
    def overrun(self) -> int:
        """Those of them that were written, and written over before they were read."""
        return self._overrun

    @property
    def pid(self) -> int:
        """Of the writer; 0 as long as it has not written."""
        return self._words[PID]

    def coarsen(self, grain_ns: int) -> None:
        """Let shorter spans be written together with their neighbours."""
        self._words[GRAIN_NS] = grain_ns

    def read(self) -> Spans:
        """What was written since the last time."""
        head = self._words[HEAD]
        if head <= self._position:
            return Spans()
        first = max(self._position, head - CAPACITY)
        data = self._copy(first, head)
        # What the writer has begun to write over meanwhile is not what it was. A slot that is taken
        # and not yet written looks like the oldest record: a few of those are not trusted either
        safe = max(first, min(head, self._words[HEAD] - CAPACITY + _WRITERS))
        self._overrun += safe - self._position
        self._position = head
        return self._columns(data[(safe - first) * RECORD_NBYTES :])

    def _copy(self, first: int, head: int) -> bytes:
        begin, end = first % CAPACITY, head % CAPACITY
        at, stop = RECORDS_AT + begin * RECORD_NBYTES, RECORDS_AT + end * RECORD_NBYTES
        if begin < end:
            return bytes(self._view[at:stop])
        return bytes(self._view[at : RECORDS_AT + CAPACITY * RECORD_NBYTES]) + bytes(
            self._view[RECORDS_AT:stop]
        )

    def _columns(self, data: bytes) -> Spans:
        """Slices with a stride do in C what unpacking would do in Python."""
        longs, ints, shorts = array("q", data), array("I", data), array("H", data)
        spans = Spans()
        spans.begin, spans.end, spans.argument = longs[0::4], longs[1::4], longs[2::4]
        spans.count, spans.kind = ints[6::8], array("B", data[30::RECORD_NBYTES])
        names = shorts[14::16]
        self._learn_names()
        table = self._table
        spans.name = array("H", [table[number] if number < len(table) else 0 for number in names])
        return spans

    def _learn_names(self) -> None:
        end = self._words[NAMES_END]
        while self._names_read < end:
            at = NAMES_AT + self._names_read
            (length,) = struct.unpack_from("=H", self._memory, at)
            text = bytes(self._view[at + 2 : at + 2 + length]).decode("utf-8", "replace")
            self._table.append(self._names.number(text))
            self._names_read += 2 + length

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._view.release()
