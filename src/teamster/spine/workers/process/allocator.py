# SPDX-License-Identifier: BSD-3-Clause
"""The C library's allocator in a new process: as it is in a program that has run for a while."""

from __future__ import annotations

# The most to which glibc raises its threshold by itself (malloc/malloc.c: 4 MiB * sizeof(long)),
# but for the header of the block
_LARGEST_BYTES = (32 << 20) - 8192


def keep_freed_memory() -> None:
    """Have blocks of some megabytes reused when they are freed, and not given back each time.

    glibc gives freed memory back to the system from a threshold on, which grows with the largest
    block that the process has freed (mallopt(3), M_MMAP_THRESHOLD). In a new process it is so low
    that an image of some megabytes is given back after each item, and every page of the next one is
    a page fault: 11 ms instead of 7 for a photo of 1024 x 768 pixels. One large block, which is
    never touched, raises it; forked copies inherit that. What the user has set is not changed.
    """
    import ctypes

    library = ctypes.CDLL(None)
    try:
        allocate, free = library.malloc, library.free
    except AttributeError:  # a C library without them to be found
        return
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    free(allocate(_LARGEST_BYTES))
