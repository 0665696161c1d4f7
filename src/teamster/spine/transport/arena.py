# SPDX-License-Identifier: BSD-3-Clause
"""Large buffers travel through shared memory that is used again and again.

::

    sender: Lender                                receiver: Borrower
    lend(buffer) -> copy into a free segment      view(offset) -> memoryview of the segment, no copy
       (a place in one file of shared memory)        ...arrays are built on it, sliced, handed on...
    take_back(offsets) <--------- offsets -----  the last of them dies: its place goes home

Why reuse is the point: the first touch of 40 MB of new memory costs some 29 ms in page faults, a
copy into pages that are mapped already 1.6 ms, a pipe 76 ms. The file's descriptor travels once,
over the Unix socket; small segments share a window of it that each side maps once. So neither
descriptors nor mappings grow with what is kept: most systems allow 1,024 and 65,530.

Guarantees: a segment is never written while the receiver holds a view of it, whatever became of the
arrays in between; memory belongs to no name, so the kernel frees it with the last process; where
memory for a segment cannot be had, `lend` says so (`ArenaFull`) before a page is touched, and the
caller sends the bytes instead.
"""

from __future__ import annotations

import contextlib
import os
import weakref

from teamster.machine.descriptors import Descriptor
from teamster.spine.transport.mapping import PAGE_BYTES, MappedFile, give_back_pages

MAX_IDLE_BYTES = 512 * 1024 * 1024
"""Free segments beyond this many bytes a channel are given back to the system."""

_SMALLEST = 64 * 1024  # bytes: 16 pages; smaller buffers travel in the message
_WINDOW_BYTES = 16 * 1024 * 1024  # of the file, mapped as a whole: only what is touched is memory
# Segments from this size on are mapped alone, so that their memory can be given back whole
_LARGE_BYTES = _WINDOW_BYTES // 4


class ArenaFull(OSError):
    """No shared memory to be had for this buffer."""


def make_file() -> int:
    """The descriptor of an empty file of anonymous shared memory.

    Raises:
        ArenaFull: there is no memfd on this system, or no descriptor left.
    """
    try:
        return os.memfd_create("teamster", os.MFD_CLOEXEC)
    except (AttributeError, OSError) as error:
        raise ArenaFull(f"no anonymous shared memory: {error}") from error


def _reserve(descriptor: int, offset: int, nbytes: int, end: int) -> None:
    """Have `nbytes` of the file allocated, and the file reach to `end`.

    Raises:
        ArenaFull: no room. Without the allocation a full memory would show later, as a SIGBUS in
            the middle of a copy.
    """
    try:
        os.posix_fallocate(descriptor, offset, nbytes)
        if os.fstat(descriptor).st_size < end:
            os.ftruncate(descriptor, end)  # room to grow: untouched pages cost nothing
    except OSError as error:
        raise ArenaFull(f"no {nbytes} bytes of shared memory: {error}") from error


def _capacity(nbytes: int) -> int:
    """Of the segment for so many bytes: powers of two, so that a few sizes serve many."""
    return max(_SMALLEST, 1 << (nbytes - 1).bit_length())


class _Windows:
    """The parts of one file that this process has mapped."""

    def __init__(self) -> None:
        self._file: Descriptor | None = None
        self._maps: dict[int, MappedFile] = {}  # by offset

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def descriptor(self) -> int:
        """That of the file, -1 without one."""
        return self._file.number if self._file is not None else -1

    def hold(self, descriptor: int) -> None:
        """Have this file from now on."""
        self.close()
        self._file = Descriptor(descriptor)

    def find(self, offset: int, capacity: int) -> tuple[MappedFile, int]:
        """The mapping that holds a segment, and where it begins in there.

        Raises:
            OSError: it cannot be mapped.
        """
        start = offset if capacity >= _LARGE_BYTES else offset - offset % _WINDOW_BYTES
        mapping = self._maps.get(start)
        if mapping is None:
            nbytes = capacity if capacity >= _LARGE_BYTES else _WINDOW_BYTES
            mapping = self._maps[start] = MappedFile(self.descriptor, start, nbytes)
        return mapping, offset - start

    def forget(self, offset: int) -> None:
        """Unmap a large segment; views that live keep it mapped."""
        self._maps.pop(offset, None)

    def close(self) -> None:
        """Forget all, and close the file."""
        self._maps.clear()
        if self._file is not None:
            self._file.close()


class Lender:
    """The sender's side of one channel: its segments, lent and free."""

    def __init__(self) -> None:
        self._windows = _Windows()
        self._lent: dict[int, int] = {}  # offset -> capacity
        self._free: dict[int, list[int]] = {}  # capacity -> offsets
        self._bare: dict[int, list[int]] = {}  # the same, of places that gave back their memory
        self._allocated: dict[int, int] = {}  # offset -> bytes that have memory
        self._idle_bytes = 0
        self._window = self._end = 0  # where the next small segment goes, and the next window
        self.forgotten: list[int] = []
        self.bytes_lent = 0

    @property
    def has_file(self) -> bool:
        """Whether there is a file to lend from."""
        return self._windows.descriptor >= 0

    def use(self, descriptor: int) -> None:
        """Lend from this file, which is closed here in the end."""
        self._windows.hold(descriptor)

    def lend(self, buffer: memoryview) -> tuple[int, int]:
        """Copy `buffer` into a segment.

        Returns:
            The segment's offset in the file, and the bytes of the buffer.

        Raises:
            ArenaFull: no shared memory for it.
        """
        nbytes = buffer.nbytes
        capacity = _capacity(nbytes)
        if free := self._free.get(capacity):
            offset = free.pop()
            self._idle_bytes -= capacity
        else:
            offset = self._find_place(capacity)
        self._lent[offset] = capacity
        try:
            self._allocate(offset, nbytes, capacity)
        except ArenaFull:
            self._bare.setdefault(self._lent.pop(offset), []).append(offset)
            raise
        self._write(offset, capacity, buffer)
        self.bytes_lent += nbytes
        return offset, nbytes

    def _find_place(self, capacity: int) -> int:
        if bare := self._bare.get(capacity):
            return bare.pop()
        if capacity >= _LARGE_BYTES:
            offset = self._end
            self._end += -(-capacity // _WINDOW_BYTES) * _WINDOW_BYTES
            return offset
        if (
            self._window % _WINDOW_BYTES == 0
            or self._window % _WINDOW_BYTES + capacity > _WINDOW_BYTES
        ):
            self._window = self._end
            self._end += _WINDOW_BYTES
        offset = self._window
        self._window += capacity
        return offset

    def _allocate(self, offset: int, nbytes: int, capacity: int) -> None:
        had = self._allocated.get(offset, 0)
        if nbytes > had:
            _reserve(self._windows.descriptor, offset + had, nbytes - had, offset + capacity)
            self._allocated[offset] = nbytes

    def _write(self, offset: int, capacity: int, buffer: memoryview) -> None:
        try:
            mapping, start = self._windows.find(offset, capacity)
        except OSError:  # too many mappings: slower through the file
            written = 0
            while written < buffer.nbytes:
                written += os.pwrite(self._windows.descriptor, buffer[written:], offset + written)
        else:
            mapping.memory[start : start + buffer.nbytes] = buffer

    def has_free(self, nbytes: int) -> bool:
        """Whether `nbytes` can be lent without new memory."""
        return bool(self._free.get(_capacity(nbytes)))

    def take_back(self, offsets: list[int]) -> None:
        """The receiver holds no view of these segments any more.

        Use them again, or free what is too much (see `forgotten`).
        """
        for offset in offsets:
            capacity = self._lent.pop(offset)
            if self._idle_bytes + capacity > MAX_IDLE_BYTES:
                self._give_up(offset, capacity)
            else:
                self._free.setdefault(capacity, []).append(offset)
                self._idle_bytes += capacity

    def _give_up(self, offset: int, capacity: int) -> None:
        give_back_pages(self._windows.descriptor, offset, capacity)
        self._allocated.pop(offset, None)
        self._bare.setdefault(capacity, []).append(offset)
        if capacity >= _LARGE_BYTES:
            self._windows.forget(offset)
            self.forgotten.append(offset)

    def close(self) -> None:
        """Unmap everything of this side; what the receiver has mapped stays valid there."""
        self._windows.close()
        self._lent.clear()
        self._free.clear()


class Borrower:
    """The receiver's side of one channel.

    It maps the sender's file, hands out views, and notes which segments came free.
    """

    def __init__(self) -> None:
        self._windows = _Windows()
        self._broadcasts: dict[int, memoryview] = {}
        self._returned: list[int] = []
        self.bytes_borrowed = 0

    def adopt(self, descriptor: int) -> None:
        """Borrow from this file, which is closed here in the end."""
        self._windows.hold(descriptor)

    def view(self, offset: int, nbytes: int) -> memoryview:
        """A writable view of a segment's `nbytes` bytes.

        When it and all that was built on it are gone, the segment goes home.

        Raises:
            OSError: the sender's file never arrived, for want of a descriptor.
        """
        self.bytes_borrowed += nbytes
        capacity = _capacity(nbytes)
        try:
            mapping, start = self._windows.find(offset, capacity)
        except OSError:  # too many mappings
            return self._read(offset, nbytes)
        exporter = mapping.export(start, capacity)
        weakref.finalize(exporter, self._returned.append, offset).atexit = False
        return memoryview(exporter).cast("B")[:nbytes]

    def _read(self, offset: int, nbytes: int) -> memoryview:
        copy = bytearray(nbytes)
        with memoryview(copy) as rest:
            done = 0
            while done < nbytes:
                done += os.preadv(self._windows.descriptor, [rest[done:]], offset + done)
        self._returned.append(offset)
        return memoryview(copy)

    def collect_returned(self) -> list[int]:
        """The segments that came free since the last call."""
        returned: list[int] = []
        while self._returned:  # pop one by one: a finalizer may append from any thread meanwhile
            returned.append(self._returned.pop())
        return returned

    @property
    def has_returned(self) -> bool:
        """Whether any segment waits to be sent home."""
        return bool(self._returned)

    def adopt_broadcast(self, identity: int, nbytes: int, descriptor: int) -> None:
        """Map what a `Broadcast` holds, privately: a write stays in this process.

        Closes `descriptor`.
        """
        try:
            with contextlib.suppress(OSError):  # said when it is claimed
                exporter = MappedFile(descriptor, 0, nbytes, private=True).export(0, nbytes)
                self._broadcasts[identity] = memoryview(exporter).cast("B")
        finally:
            os.close(descriptor)

    def claim_broadcast(self, identity: int, spans: list[tuple[int, int]]) -> list[memoryview]:
        """The buffers of a broadcast that arrived; from now on they alone keep it mapped.

        Raises:
            OSError: it could not be mapped, or its descriptor did not arrive.
        """
        mapped = self._broadcasts.pop(identity, None)
        if mapped is None:
            raise OSError(
                "the shared memory that the function carries could not be mapped: too few "
                "descriptors or mappings"
            )
        return [mapped[start : start + nbytes] for start, nbytes in spans]

    def forget(self, offsets: list[int]) -> None:
        """Unmap segments that the sender has given up."""
        for offset in offsets:
            self._windows.forget(offset)

    def close(self) -> None:
        """Close the file; views that were handed out stay valid."""
        self._windows.close()


class Broadcast:
    """Buffers written into shared memory once and mapped by any number of processes.

    Each process has its own copy on write.
    """

    def __init__(self, buffers: list[memoryview]) -> None:
        """Copy `buffers` into one file of shared memory.

        Raises:
            ArenaFull: no shared memory for them.
        """
        self.spans: list[tuple[int, int]] = []
        end = 0
        for buffer in buffers:
            self.spans.append((end, buffer.nbytes))
            end += -(-buffer.nbytes // PAGE_BYTES) * PAGE_BYTES
        self.nbytes = end
        self._file = Descriptor(make_file())
        try:
            _reserve(self.descriptor, 0, end, end)
            mapping = MappedFile(self.descriptor, 0, end)
        except OSError as error:
            self.close()
            raise ArenaFull(*error.args) from error
        for (start, _), buffer in zip(self.spans, buffers, strict=True):
            mapping.memory[start : start + buffer.nbytes] = buffer

    @property
    def descriptor(self) -> int:
        """That of the file, -1 after `close`."""
        return self._file.number

    def is_whole(self) -> bool:
        """Whether the program has not closed the descriptor."""
        return self._file.is_whole()

    def close(self) -> None:
        """Close the descriptor; processes that have mapped it keep their mapping."""
        self._file.close()
