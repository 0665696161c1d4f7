# SPDX-License-Identifier: BSD-3-Clause
"""Large buffers travel through shared memory that is used again and again.

::

    sender: Lender                                   receiver: Borrower
    lend(buffer) -> copy into a free segment         view(id) -> memoryview of the segment, no copy
       (memfd, a power of two, mapped once)             ...arrays are built on it, sliced, handed on...
    take_back(ids)  <------------- ids ------------  the last of them dies: its id goes home

Why reuse is the point: the first touch of 40 MB of new memory costs some 29 ms in page faults, a copy into pages that are
mapped already 1.6 ms, a pipe 76 ms. A segment is mapped once on each side; its descriptor travels once, over the Unix socket.

Guarantees: a segment is never written while the receiver holds a view of it, whatever became of the arrays in between; memory
belongs to no name, so the kernel frees it with the last process; where memory for a segment cannot be had, `lend` says so
(`ArenaFull`) before a page is touched, and the caller sends the bytes instead.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

MAX_IDLE_BYTES = 512 * 1024 * 1024
"""Free segments beyond this many bytes a channel are given back to the system."""

_SMALLEST = 64 * 1024


class ArenaFull(OSError):
    """No shared memory to be had for this buffer."""


def reserve(nbytes: int, capacity: int) -> int:
    """A descriptor of `capacity` bytes of anonymous shared memory, the first `nbytes` of them allocated.

    Raises:
        ArenaFull: there is no memfd on this system, or no room. Without the allocation a full memory would show later, as
            a SIGBUS in the middle of a copy.
    """
    try:
        descriptor = os.memfd_create("teamster", os.MFD_CLOEXEC)
    except (AttributeError, OSError) as error:
        raise ArenaFull(f"no anonymous shared memory: {error}") from error
    try:
        os.posix_fallocate(descriptor, 0, nbytes)
        os.ftruncate(descriptor, capacity)  # room to grow: untouched pages cost nothing
    except OSError as error:
        os.close(descriptor)
        raise ArenaFull(f"no {nbytes} bytes of shared memory: {error}") from error
    return descriptor


def _capacity(nbytes: int) -> int:
    """Of the segment for so many bytes: powers of two, so that a few sizes serve many."""
    return max(_SMALLEST, 1 << (nbytes - 1).bit_length())


class Lender:
    """The sender's side of one channel: its segments, lent and free."""

    def __init__(self) -> None:
        self._lent: dict[int, mmap.mmap] = {}
        self._free: dict[int, list[int]] = {}  # capacity -> ids
        self._maps: dict[int, mmap.mmap] = {}
        self._idle_bytes = 0
        self._next = 0
        self.forgotten: list[int] = []
        self.bytes_lent = 0

    def lend(self, buffer: memoryview) -> tuple[int, int, int]:
        """Copy `buffer` into a segment.

        Returns:
            The segment's id, its capacity in bytes, and a descriptor to send along and close, or -1 when the receiver has
            mapped this segment before.

        Raises:
            ArenaFull: no shared memory for it.
        """
        capacity = _capacity(buffer.nbytes)
        descriptor = -1
        if free := self._free.get(capacity):
            identity = free.pop()
            self._idle_bytes -= capacity
        else:
            descriptor = reserve(buffer.nbytes, capacity)
            identity = self._map_new(descriptor, capacity)
        mapped = self._maps[identity]
        mapped[: buffer.nbytes] = buffer
        self._lent[identity] = mapped
        self.bytes_lent += buffer.nbytes
        return identity, capacity, descriptor

    def has_free(self, nbytes: int) -> bool:
        """Whether `nbytes` can be lent without new memory."""
        return bool(self._free.get(_capacity(nbytes)))

    def _map_new(self, descriptor: int, capacity: int) -> int:
        self._next += 1
        self._maps[self._next] = mmap.mmap(descriptor, capacity, mmap.MAP_SHARED)
        return self._next

    def take_back(self, identities: list[int]) -> None:
        """The receiver holds no view of these segments any more: use them again, or free what is too much (see `forgotten`)."""
        for identity in identities:
            mapped = self._lent.pop(identity)
            capacity = len(mapped)
            if self._idle_bytes + capacity > MAX_IDLE_BYTES:
                self._maps.pop(identity).close()
                self.forgotten.append(identity)
            else:
                self._free.setdefault(capacity, []).append(identity)
                self._idle_bytes += capacity

    def close(self) -> None:
        """Unmap everything of this side; what the receiver has mapped stays valid there."""
        for mapped in self._maps.values():
            mapped.close()
        self._maps.clear()
        self._lent.clear()
        self._free.clear()


class Borrower:
    """The receiver's side of one channel: maps segments, hands out views, notes which came free."""

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._broadcasts: dict[int, memoryview] = {}
        self._returned: list[int] = []
        self.bytes_borrowed = 0

    def adopt(self, identity: int, capacity: int, descriptor: int) -> None:
        """Map a segment that arrives for the first time; closes `descriptor`."""
        try:
            self._maps[identity] = mmap.mmap(descriptor, capacity, mmap.MAP_SHARED)
        finally:
            os.close(descriptor)

    def view(self, identity: int, nbytes: int) -> memoryview:
        """A writable view of the first `nbytes` bytes; when it and all that was built on it are gone, the segment goes home."""
        mapped = self._maps[identity]
        self.bytes_borrowed += nbytes
        exporter = _exporter_type(len(mapped)).from_buffer(mapped)
        weakref.finalize(exporter, self._returned.append, identity).atexit = False
        return memoryview(exporter).cast("B")[:nbytes]

    def collect_returned(self) -> list[int]:
        """The ids that came free since the last call."""
        returned: list[int] = []
        while self._returned:  # pop one by one: a finalizer may append from any thread meanwhile
            returned.append(self._returned.pop())
        return returned

    @property
    def has_returned(self) -> bool:
        """Whether any segment waits to be sent home."""
        return bool(self._returned)

    def adopt_broadcast(self, identity: int, nbytes: int, descriptor: int) -> None:
        """Map what a `Broadcast` holds, privately: a write stays in this process. Closes `descriptor`."""
        try:
            self._broadcasts[identity] = memoryview(mmap.mmap(descriptor, nbytes, mmap.MAP_PRIVATE))
        finally:
            os.close(descriptor)

    def claim_broadcast(self, identity: int, spans: list[tuple[int, int]]) -> list[memoryview]:
        """The buffers of a broadcast that arrived; from now on they alone keep it mapped."""
        mapped = self._broadcasts.pop(identity)
        return [mapped[start : start + nbytes] for start, nbytes in spans]

    def forget(self, identities: list[int]) -> None:
        """Unmap segments that the sender has given up."""
        for identity in identities:
            self._maps.pop(identity, None)


class Broadcast:
    """Buffers written into shared memory once and mapped by any number of processes, each with its own copy on write."""

    def __init__(self, buffers: list[memoryview]) -> None:
        """Copy `buffers` into one file of shared memory.

        Raises:
            ArenaFull: no shared memory for them.
        """
        self.spans: list[tuple[int, int]] = []
        end = 0
        for buffer in buffers:
            self.spans.append((end, buffer.nbytes))
            end += -(-buffer.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.nbytes = end
        self.descriptor = reserve(end, end)
        with mmap.mmap(self.descriptor, end, mmap.MAP_SHARED) as mapped:
            for (start, nbytes), buffer in zip(self.spans, buffers, strict=True):
                mapped[start : start + nbytes] = buffer

    def close(self) -> None:
        """Close the descriptor; processes that have mapped it keep their mapping."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


_exporter_types: dict[int, Any] = {}


def _exporter_type(capacity: int) -> Any:
    """A type whose instances export `capacity` bytes of someone's buffer and can be watched by a weak reference.

    A plain memoryview will not do: views derived from it hold on to the mapping, not to it, so its death says nothing about
    theirs. Whatever is derived from a ctypes array keeps that array alive.
    """
    if capacity not in _exporter_types:
        import ctypes

        _exporter_types[capacity] = type("Exporter", (ctypes.c_char * capacity,), {})
    return _exporter_types[capacity]
