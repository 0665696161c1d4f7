# SPDX-License-Identifier: BSD-3-Clause
"""The helpers that OpenMP keeps for a thread.

After a parallel region they spin for milliseconds, on a processor of others. A thread that hands
work to other threads takes its helpers out of the way first, in one of two ways:

::

    parked_helpers   they sleep inside of a parallel region that is open meanwhile, and are there
                     again at its end
    release_helpers  they end; the next parallel region starts others

Parking costs some 50 us and no more. A helper that is started again may come to lie on its caller's
processor, where the caller spins 5 ms for it: a training step of 7 ms on sixty small layers took
18. (With helpers that spin, one of 16 ms on an MLP took 31.) But parked helpers count: where there
are more of them and others than processors, libgomp makes all threads sleep at once between regions
and wakes them again, 0.1 ms each time. So they end where the others have helpers of their own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SOFT = 1  # omp_pause_soft: the helpers end, settings stay
_GNU = "libgomp"  # others share their helpers among all threads of a program

_Semaphore = ctypes.c_long * 8  # as large as any

_library: _Gomp | None = None
_looked = -1  # number of modules when it was looked for last
_pid = os.getpid()
_mine = threading.local()
"""`region`: semaphore and number of threads of the region that the current thread holds open."""


class _Gomp:
    """The functions of libgomp that are needed here, and a semaphore's."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        # These keep the interpreter's lock: to get it back may take long
        short, libc = ctypes.PyDLL(path), ctypes.PyDLL(None)
        self.pause = _typed(library.omp_pause_resource_all, ctypes.c_int)
        self.level = _typed(short.omp_get_level)
        self.most_threads = _typed(short.omp_get_max_threads)
        self.start = _typed(
            library.GOMP_parallel_start, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint
        )
        self.end = _typed(library.GOMP_parallel_end)
        self.init = _typed(libc.sem_init, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        self.post = _typed(libc.sem_post, ctypes.c_void_p)
        self.wait = ctypes.cast(libc.sem_wait, ctypes.c_void_p)


def _typed(function: Any, *arguments: Any) -> Any:
    function.argtypes = list(arguments)
    return function


@contextmanager
def parked_helpers() -> Iterator[bool]:
    """Let the OpenMP helpers of the calling thread sleep.

    What the thread computes itself meanwhile, it computes alone. A thread that has no helpers yet
    gets them by this.

    Yields:
        Whether they sleep; False where OpenMP is not loaded, or is not GNU's, or where the thread
        computes alone anyway.

    Example:
        >>> with parked_helpers() as parked:
        ...     parked in (True, False)
        True
    """
    library = _look()
    if library is not None and hasattr(_mine, "region"):
        _end(library)  # Ctrl-C came between two lines here
    if library is None or library.level() or (threads := library.most_threads()) < 2:
        yield False
        return
    semaphore = _Semaphore()
    address = ctypes.addressof(semaphore)
    library.init(address, 0, 0)
    try:
        _mine.region = semaphore, threads
        library.start(library.wait, address, threads)
        yield True
    finally:
        _end(library)


def _end(library: _Gomp) -> None:
    """End this thread's region whatever comes in between.

    A thread with an open one computes alone for good.
    """
    interrupted: BaseException | None = None
    while hasattr(_mine, "region"):
        try:
            semaphore, threads = _mine.region
            if library.level():
                for _ in range(threads - 1):
                    library.post(ctypes.addressof(semaphore))
                library.end()
            del _mine.region
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def release_helpers() -> bool:
    """Let the OpenMP helpers of the calling thread end; costs 0.2 us where it has none.

    Returns:
        Whether they are gone; False where OpenMP is not loaded, or is not GNU's, or is older than
        version 5.0 of the standard.

    Example:
        >>> release_helpers() in (True, False)
        True
    """
    library = _look()
    return library is not None and library.pause(_SOFT) == 0


def _look() -> _Gomp | None:
    global _library, _looked
    if os.getpid() != _pid:  # forked: libgomp believes in helpers that are not there
        return None
    if _library is None and _looked != len(sys.modules):  # one may have come since
        _looked = len(sys.modules)
        _library = _find()
    return _library


def _find() -> _Gomp | None:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if _GNU in line}
    except OSError:
        return None
    if len(paths) > 1:  # each has helpers of its own; those of torch are meant
        paths = {path for path in paths if "/torch" in path}
    if len(paths) != 1:
        return None
    try:
        return _Gomp(paths.pop())
    except (OSError, AttributeError):
        return None
