# SPDX-License-Identifier: BSD-3-Clause
"""Memory of a file, mapped without keeping a descriptor: Python's own ``mmap`` duplicates one for each mapping (up to 3.12)."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from functools import cache, lru_cache
from typing import Any

PAGE_BYTES = mmap.PAGESIZE

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # of fallocate(2)


class Mapping:
    """Bytes of a file from `offset` on, mapped while this object or a view of it lives.

    Attributes:
        memory: the bytes, writable; it does not keep them mapped, what is exported does.
    """

    def __init__(self, descriptor: int, offset: int, nbytes: int, *, private: bool = False) -> None:
        """Map them; with `private`, what is written stays in this process.

        Raises:
            OSError: no descriptor, no address space, or more mappings than the system allows.
        """
        map_file, unmap = _calls()[:2]
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        address = map_file(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, offset)
        if address == _FAILED:
            _raise_errno()
        self._address = address
        weakref.finalize(self, unmap, address, nbytes).atexit = False
        self.memory = memoryview(_exporter_type(nbytes).from_address(address)).cast("B")

    def export(self, start: int, nbytes: int) -> Any:
        """Some of the bytes as an object that exports them and can be watched by a weak reference.

        A plain memoryview will not do: views derived from it hold on to the mapping, not to it, so its death says nothing about
        theirs. Whatever is derived from a ctypes array keeps that array alive.
        """
        exporter = _exporter_type(nbytes).from_address(self._address + start)
        exporter.mapping = self
        return exporter


def give_back_pages(descriptor: int, offset: int, nbytes: int) -> None:
    """Free the memory of a part of a file of shared memory; what is read there afterwards is zero."""
    _calls()[2](descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, nbytes)


_FAILED = 2 * sys.maxsize + 1  # MAP_FAILED, -1 as an address


@cache
def _calls() -> tuple[Any, Any, Any]:
    """mmap, munmap and fallocate of the C library, with offsets of 64 bits."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    map_file = getattr(library, "mmap64", None) or library.mmap
    map_file.restype = ctypes.c_void_p
    map_file.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    unmap = library.munmap
    unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fallocate = getattr(library, "fallocate64", None) or library.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return map_file, unmap, fallocate


def _raise_errno() -> None:
    import ctypes

    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


@lru_cache(64)  # a few powers of two, and what single broadcasts need
def _exporter_type(nbytes: int) -> Any:
    import ctypes

    return type("Exporter", (ctypes.c_char * nbytes,), {})
