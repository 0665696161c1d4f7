# SPDX-License-Identifier: BSD-3-Clause
"""Mapped memory: no descriptors, and nothing is unmapped that somebody may still read."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

from teamster.spine.transport.mapping import PAGE_BYTES, MappedFile


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 4 * PAGE_BYTES)
    yield descriptor
    os.close(descriptor)


def test_a_mapping_is_the_file_and_keeps_no_descriptor(file: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    mappings = [MappedFile(file, PAGE_BYTES, PAGE_BYTES) for _ in range(10)]
    mappings[0].memory[3] = 7
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.pread(file, 1, PAGE_BYTES + 3) == b"\7"
    assert mappings[9].memory[3] == 7


def test_a_private_one_keeps_what_is_written(file: int) -> None:
    mapping = MappedFile(file, 0, PAGE_BYTES, private=True)
    mapping.memory[0] = 7
    assert os.pread(file, 1, 0) == b"\0"


def test_what_cannot_be_mapped_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        MappedFile(1 << 20, 0, PAGE_BYTES)


def test_garbage_that_reads_it_once_more(file: int) -> None:
    """A pool in a cycle of garbage, whose end reads the scoreboards of its workers, died of a
    memory that was gone.
    """
    seen = []

    class Reader:
        def __init__(self) -> None:
            self.itself = self
            self.view: Any = memoryview(MappedFile(file, 0, PAGE_BYTES).export(0, PAGE_BYTES)).cast(
                "B"
            )

        def __del__(self) -> None:
            seen.append(bytes(self.view[:3]))

    os.pwrite(file, b"all", 0)
    for _ in range(100):
        Reader()
    gc.collect()
    assert seen == [b"all"] * 100


def test_what_was_exported_keeps_it(file: int) -> None:
    view = memoryview(MappedFile(file, 0, PAGE_BYTES).export(8, 16)).cast("B")
    os.pwrite(file, b"x", 8)
    assert view[0] == ord("x")
    view[1] = ord("y")
    assert os.pread(file, 2, 8) == b"xy"
