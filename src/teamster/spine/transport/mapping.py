# SPDX-License-Identifier: BSD-3-Clause
"""Memory of a file, mapped without keeping a descriptor: Python's own ``mmap`` duplicates one for each mapping (up to 3.12)."""

from __future__ import annotations

import mmap
import os
from functools import cache, lru_cache
from typing import Any

PAGE_BYTES = mmap.PAGESIZE

_MAP_FIXED = 0x10
_WITHOUT_A_RESERVE = 0x4000  # MAP_NORESERVE: not a page of it is ever used
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # of fallocate(2)


class Mapping:
    """Bytes of a file from `offset` on, mapped while this object or a view of it lives.

    The object that owns them is one of Python's for memory of no file, over which the file is mapped. So they are unmapped when
    that is deallocated, as it should be: a callback of a weak reference comes too early, when garbage is collected that has a
    ``__del__`` which still reads them. (Pools in the garbage of a test read the slates of their workers.)

    Attributes:
        memory: the bytes, writable.
    """

    def __init__(self, descriptor: int, offset: int, nbytes: int, *, private: bool = False) -> None:
        """Map them; with `private`, what is written stays in this process.

        Raises:
            OSError: no descriptor, no address space, or more mappings than the system allows.
        """
        import ctypes

        owner = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _WITHOUT_A_RESERVE)
        flags = (mmap.MAP_PRIVATE if private else mmap.MAP_SHARED) | _MAP_FIXED
        address = ctypes.addressof(ctypes.c_char.from_buffer(owner))
        mapped = _calls()[0](address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, offset)
        if mapped != address:
            _raise_errno()
        self._owner = owner
        self.memory = memoryview(owner)

    def export(self, start: int, nbytes: int) -> Any:
        """Some of the bytes as an object that exports them and can be watched by a weak reference.

        A plain memoryview will not do: views derived from it hold on to the mapping, not to it, so its death says nothing about
        theirs. Whatever is derived from a ctypes array keeps that array alive.
        """
        return _exporter_type(nbytes).from_buffer(self._owner, start)


def give_back_pages(descriptor: int, offset: int, nbytes: int) -> None:
    """Free the memory of a part of a file of shared memory; what is read there afterwards is zero."""
    _calls()[1](descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, nbytes)


@cache
def _calls() -> tuple[Any, Any]:
    """The C library's mmap and fallocate, with offsets of 64 bits."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    map_file = getattr(library, "mmap64", None) or library.mmap
    map_file.restype = ctypes.c_void_p
    map_file.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
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
