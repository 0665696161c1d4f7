# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import mmap
import os
import signal
import threading

from teamster.spine.trace.reader import Names, RingReader
from teamster.spine.trace.ring import (
    CAPACITY,
    COMPUTE,
    NAMES_AT,
    NBYTES,
    RECORD_NBYTES,
    RECORDS_AT,
    USER,
    Ring,
)


def reader_of(ring: Ring, names: Names | None = None) -> RingReader:
    return RingReader(ring.memory, names or Names())


def test_what_is_written_is_read_once_and_exactly() -> None:
    ring, names = Ring.private(), Names()
    reader = reader_of(ring, names)
    ring.write(10, 20, 7, 3, ring.name("decode"), COMPUTE)
    ring.write(2**62, 2**62 + 1, -1, 2**32 - 1, ring.name("décode ✓"), USER)
    spans = reader.read()
    table = names.table()
    assert [(*row[:4], table[row[4]], row[5]) for row in spans.rows()] == [
        (10, 20, 7, 3, "decode", COMPUTE),
        (2**62, 2**62 + 1, -1, 2**32 - 1, "décode ✓", USER),
    ]
    assert len(reader.read()) == 0
    assert reader.lost == 0
    assert reader.pid == os.getpid()


def test_a_span_takes_less_than_100_bytes() -> None:
    assert RECORD_NBYTES == 32


def test_a_ring_that_is_read_in_time_loses_nothing_round_and_round() -> None:
    ring = Ring.private()
    reader = reader_of(ring)
    seen: list[int] = []
    for number in range(3 * CAPACITY + 17):
        ring.write(number, number + 1, number, 1, 0, COMPUTE)
        if number % 10_007 == 0:
            seen += reader.read().argument
    seen += reader.read().argument
    assert seen == list(range(3 * CAPACITY + 17))
    assert reader.lost == 0


def test_a_ring_that_is_read_too_late_says_how_many_are_lost() -> None:
    ring = Ring.private()
    reader = reader_of(ring)
    written = 2 * CAPACITY + 100
    for number in range(written):
        ring.write(number, number + 1, number, 1, 0, COMPUTE)
    seen = list(reader.read().argument)
    assert seen == list(range(written - len(seen), written))
    assert len(seen) + reader.lost == written
    assert len(seen) > CAPACITY - 100


def test_a_reader_that_comes_later_begins_there() -> None:
    ring = Ring.private()
    ring.write(1, 2, 0, 1, ring.name("before"), COMPUTE)
    names = Names()
    reader = reader_of(ring, names)
    ring.write(3, 4, 1, 1, ring.name("before"), COMPUTE)
    spans = reader.read()
    assert list(spans.argument) == [1]
    assert names.table()[spans.name[0]] == "before"


def test_too_many_names_and_long_names_do_no_harm() -> None:
    ring, names = Ring.private(), Names()
    reader = reader_of(ring, names)
    numbers = [ring.name(f"{'x' * 300}{number}"[-250:]) for number in range(1_000)]
    assert numbers[0] == 1
    assert numbers[-1] == 0  # there was no room
    assert RECORDS_AT > NAMES_AT
    ring.write(1, 2, 0, 1, numbers[0], COMPUTE)
    ring.write(2, 3, 0, 1, numbers[-1], COMPUTE)
    first, last = reader.read().name
    assert len(names.table()[first]) == 200
    assert names.table()[last] == ""


def test_threads_that_share_a_ring_do_not_write_over_each_other() -> None:
    ring = Ring.private()
    reader = reader_of(ring)

    def write(thread: int) -> None:
        for number in range(2_000):
            ring.write(thread, number, thread * 2_000 + number, 1, 0, USER)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ring.write(0, 0, 8_000, 1, 0, USER)  # whoever wrote last may have announced less than there is
    assert sorted(reader.read().argument) == list(range(8_001))


def test_the_ring_outlives_a_writer_that_is_killed() -> None:
    memory = mmap.mmap(-1, NBYTES)  # shared with children
    reader = RingReader(memory, Names())
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        ring = Ring(memory)
        for number in range(1_000):
            ring.write(number, number + 1, number, 1, ring.name("work"), COMPUTE)
        os.write(write, b"1")
        signal.pause()
    os.read(read, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    assert list(reader.read().argument) == list(range(1_000))
    assert reader.pid == pid


def test_a_name_that_still_fits_after_one_was_refused_is_its_own() -> None:
    """The reader counts the names that are there.

    Refused ones were counted, too, and what came after them had others' names.
    """
    ring, names = Ring.private(), Names()
    reader = reader_of(ring, names)
    for number in range(100):
        ring.name(f"{number:04}" * 50)
    for text in ("alpha", "beta"):
        if number := ring.name(text):
            ring.write(1, 2, 0, 1, number, COMPUTE)
            (found,) = reader.read().name
            assert names.table()[found] == text
