# SPDX-License-Identifier: BSD-3-Clause
"""Memory that is mapped for as long as anything can look at it."""

from __future__ import annotations

import gc
import os

from teamster.spine.transport.mapping import Mapping


class Reader:
    """In a cycle, with a finalizer that looks once more, as a pool that is dropped looks for results."""

    def __init__(self, mapping: Mapping, seen: list[bytes]) -> None:
        self.mapping, self.seen, self.myself = mapping, seen, self

    def __del__(self) -> None:
        self.seen.append(bytes(self.mapping.memory[:4]))


def test_a_finalizer_in_a_cycle_finds_it_mapped() -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, b"here" * 1024)
    before = len(os.listdir("/proc/self/fd"))
    seen: list[bytes] = []
    Reader(Mapping(descriptor, 0, 4096), seen)
    assert len(os.listdir("/proc/self/fd")) == before
    gc.collect()
    assert seen == [b"here"]
    with open("/proc/self/maps") as maps:
        assert "memfd:test" not in maps.read()
    os.close(descriptor)


def test_what_was_exported_keeps_it() -> None:
    descriptor = os.memfd_create("test")
    os.truncate(descriptor, 4096)
    view = memoryview(Mapping(descriptor, 0, 4096).export(8, 16)).cast("B")
    os.pwrite(descriptor, b"x", 8)
    assert view[0] == ord("x")
    view[1] = ord("y")
    assert os.pread(descriptor, 2, 8) == b"xy"
    os.close(descriptor)
