# SPDX-License-Identifier: BSD-3-Clause
"""Memory of a file, mapped without keeping a descriptor.

Python's own ``mmap`` duplicates one for each mapping (up to 3.12).
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import cache, lru_cache
from typing import Any

PAGE_BYTES = mmap.PAGESIZE

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # of fallocate(2)


class MappedFile:
    """Bytes of a file from `offset` on, mapped while this object or anything exported lives.

    They are laid over an anonymous ``mmap`` of Python's: that one has no descriptor, and is
    unmapped when its last reference goes. (What a weak reference calls is too early: in a cycle
    that the collector has found it is called before the finalizers, and a pool's finalizer reads
    its workers' results out of such memory.)

    Attributes:
        memory: the bytes, writable.
    """

    def __init__(self, descriptor: int, offset: int, nbytes: int, *, private: bool = False) -> None:
        """Map them; with `private`, what is written stays in this process.

        Raises:
            OSError: no descriptor, no address space, or more mappings than the system allows.
        """
        import ctypes

        self.memory = mmap.mmap(
            -1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _WITHOUT_A_RESERVE
        )
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        flags = _FIXED | (mmap.MAP_PRIVATE | _WITHOUT_A_RESERVE if private else mmap.MAP_SHARED)
        if (
            _calls()[0](
                address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, offset
            )
            == _FAILED
        ):
            _raise_errno()

    def export(self, start: int, nbytes: int) -> Any:
        """Some of the bytes as an object that exports them and can be watched by a weak reference.

        A plain memoryview will not do: views derived from it hold on to the mapping, not to it, so
        its death says nothing about theirs. Whatever is derived from a ctypes array keeps that
        array alive.
        """
        return _exporter_type(nbytes).from_buffer(self.memory, start)


def give_back_pages(descriptor: int, offset: int, nbytes: int) -> None:
    """Free the memory of a part of a file of shared memory.

    What is read there afterwards is zero.
    """
    _calls()[1](descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, nbytes)


_WITHOUT_A_RESERVE = 0x4000  # MAP_NORESERVE: few or no pages of it are ever written to
_FIXED = 0x10  # MAP_FIXED: at this address, which is ours
_FAILED = 2 * sys.maxsize + 1  # MAP_FAILED, -1 as an address


@cache
def _calls() -> tuple[Any, Any]:
    """Mmap and fallocate of the C library, with offsets of 64 bits."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    map_file = getattr(library, "mmap64", None) or library.mmap
    map_file.restype = ctypes.c_void_p
    map_file.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    fallocate = getattr(library, "fallocate64", None) or library.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return map_file, fallocate


def _raise_errno() -> None:
    import ctypes

    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


@lru_cache(64)  # a few powers of two, and what single broadcasts need
def _exporter_type(nbytes: int) -> Any:
    import ctypes

    return type("Exporter", (ctypes.c_char * nbytes,), {})
