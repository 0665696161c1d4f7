# SPDX-License-Identifier: BSD-3-Clause
"""Threads inside native libraries: how many OpenMP, BLAS and torch start under each of our workers.

Workers times inner threads must stay within the CPU budget: two processes with two OpenMP threads
each on two cores do less than half the work of two with one each. What a limit reaches depends on
the library::

    tool                    reaches                                           use
    environment()           a new process, before any library loads           process workers
    limit_in_this_thread()  the calling thread: OpenMP, torch and its MKL     thread workers,
                                                                              forked processes
    ProcessWideLimit        every thread of the process: OpenBLAS, MKL, BLIS  around a pool of
                                                                              thread workers

Read before relying on it:

- OpenBLAS, MKL and BLIS keep one number for the whole process. While a :class:`ProcessWideLimit`
  holds, the caller's own NumPy calls run with that number too; there is no narrower way. It is put
  back at the end.
- ``torch.set_num_threads`` changes the calling thread, and the number that threads take which use
  torch for the first time afterwards, whichever thread started them. The last
  :class:`ProcessWideLimit` to end puts that number back as well, and the thread that applies one
  keeps its own number throughout, so apply it in the caller's thread first.
- A library that a task imports is limited from the next call of ``limit_in_this_thread`` or
  ``apply`` on; both are cheap to repeat (under a microsecond while no module was imported), so
  workers call them before each batch.
- Pools with a number of their own (OpenCV, numba, Polars, Rayon) are reached by :func:`environment`
  only, if at all.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from teamster import lifetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Protocol, Self

    class _Library(Protocol):
        """What we use of a threadpoolctl LibController."""

        user_api: str
        filepath: str
        num_threads: int | None

        def set_num_threads(self, num_threads: int) -> Any: ...


THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)

# With none of these imported, no library that threadpoolctl knows is there, and its import (18 ms)
# is saved.
_NATIVE_MODULES = ("numpy", "torch", "scipy", "mkl", "faiss", "cv2")

_lock = threading.RLock()
_this_thread = threading.local()
_scanned: tuple[int, list[_Library]] = (-1, [])
_active: list[ProcessWideLimit] = []
# By file: the library, its number before, what we set
_changed: dict[str, tuple[_Library, int, int | None]] = {}
# Guards the number that torch has for new threads, while others are started
_default_lock = threading.Lock()
# What new threads took before we changed it, what they take since
_torch_default: tuple[int, int] | None = None


def environment(threads: int) -> dict[str, str]:
    """Return the variables that hold native libraries to a number of threads in a new process.

    A lower number that the user has set stays. The variables are read once, when a library loads:
    set them before the process starts or before it imports anything. In a forked process they come
    too late; there, use :func:`limit_in_this_thread` and :class:`ProcessWideLimit`.

    Args:
        threads: How many threads each library may use, 1 or more.

    Returns:
        A new dict, variable to number as text.

    Raises:
        ValueError: If `threads` is below 1.

    Example:
        >>> environment(2)["OMP_NUM_THREADS"]
        '2'
    """
    _check(threads)
    return {variable: str(_least_of_user_and(threads, variable)) for variable in THREAD_VARIABLES}


def limit_in_this_thread(threads: int) -> None:
    """Hold OpenMP and torch to a number of threads for what the calling thread starts.

    A new thread does not inherit such a number, so every thread worker calls this itself, and again
    before each batch: while nothing was imported since, that costs under a microsecond. An
    ``OMP_NUM_THREADS`` below `threads` is the user's word and stays. Libraries with one number for
    the whole process are left alone: see :class:`ProcessWideLimit`.

    Args:
        threads: How many threads each parallel region may use, 1 or more.

    Raises:
        ValueError: If `threads` is below 1.

    Example:
        >>> worker = threading.Thread(target=limit_in_this_thread, args=(1,))
        >>> worker.start(); worker.join()
    """
    _check(threads)
    stamp = (threads, len(sys.modules))
    if getattr(_this_thread, "done", None) == stamp:
        return
    allowed = _least_of_user_and(threads)
    _limit_torch(allowed)
    for library in _libraries():
        if library.user_api == "openmp":
            library.set_num_threads(allowed)
    _this_thread.done = stamp


class ProcessWideLimit:
    """Holds the libraries that keep one number of threads for the whole process, until `restore`.

    Limits may overlap, in any order of ending: the least one holds, none raises a number that the
    user had set lower, and the last to end puts back what was there before the first. A number that
    the user changed meanwhile stays.

    Args:
        threads: How many threads each library may use, 1 or more.

    Raises:
        ValueError: If `threads` is below 1.

    Example:
        >>> with ProcessWideLimit(1) as limit:
        ...     limit.refresh()  # before each batch: catches libraries that were loaded since
    """

    __slots__ = ("_stamp", "threads")

    def __init__(self, threads: int) -> None:
        _check(threads)
        self.threads = threads
        self._stamp = -1

    def apply(self) -> None:
        """Make the limit hold, or, when it does already, reach libraries that were loaded since."""
        with _lock:
            if self not in _active:
                _active.append(self)
                self._stamp = -1
            self.refresh()

    def refresh(self) -> None:
        """Reach the libraries that were loaded since, unless the limit has ended."""
        stamp = len(sys.modules)
        if stamp == self._stamp:
            return
        with _lock:
            if self in _active:
                _hold_blas()
                _settle_torch()
                self._stamp = stamp

    def restore(self) -> None:
        """End the limit; the second time does nothing."""
        with _lock:
            if self not in _active:
                return
            _active.remove(self)
            self._stamp = -1
            if _active:
                _hold_blas()
            else:
                _restore_blas()
                _restore_torch_default()

    def __enter__(self) -> Self:
        """Apply the limit."""
        self.apply()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore what was there before."""
        self.restore()


def _check(threads: int) -> None:
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")


def _least_of_user_and(threads: int, variable: str = "OMP_NUM_THREADS") -> int:
    """Return `threads`, or what the user has set `variable` to where that is less.

    Of several levels in it, the outermost counts.
    """
    wanted = os.environ.get(variable, "").partition(",")[0].strip()
    return min(threads, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else threads


def _libraries() -> list[_Library]:
    """Return the native thread pools loaded now.

    They are looked up again, which takes 2 ms, only when something was imported.
    """
    global _scanned
    if not any(name in sys.modules for name in _NATIVE_MODULES):
        return []
    import importlib

    threadpoolctl = importlib.import_module("threadpoolctl")
    with _lock:
        stamp = len(sys.modules)
        if _scanned[0] != stamp:
            _scanned = (stamp, threadpoolctl.ThreadpoolController().lib_controllers)
        return _scanned[1]


# One number for the process: BLAS


def openblas_threads() -> int:
    """How many threads OpenBLAS keeps in this process, which it ends and begins anew at a fork.

    Example:
        >>> openblas_threads() >= 0
        True
    """
    return sum(
        (library.num_threads or 1) - 1
        for library in _libraries()
        if getattr(library, "internal_api", "") == "openblas"
        and getattr(library, "threading_layer", "") == "pthreads"
    )


def _hold_blas() -> None:
    """Set every BLAS to the least active limit, or less where it had less before."""
    threads = min(limit.threads for limit in _active)
    for library in _libraries():
        if library.user_api == "blas":
            known = _changed.get(library.filepath)
            before = known[1] if known else library.num_threads
            if before is None or before < 1:
                continue  # it does not tell, so it could not be put back
            library.set_num_threads(min(threads, before))
            _changed[library.filepath] = (library, before, library.num_threads)


def _restore_blas() -> None:
    for library, before, held in _changed.values():
        if library.num_threads == held:  # else the user has changed it since
            library.set_num_threads(before)
    _changed.clear()


# One number for each thread, and a default for new ones: torch


def _limit_torch(threads: int) -> None:
    """Set torch's number for this thread, remembering what new threads took before."""
    global _torch_default
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "set_num_threads"):
        return  # not imported, or another thread is in the middle of it
    with _lock:
        before = torch.get_num_threads() if _torch_default is None else _torch_default[0]
        torch.set_num_threads(threads)
        _torch_default = (before, threads)


def limit_torch(threads: int) -> None:
    """Set torch's number for the calling thread alone, which stays so.

    It is for threads that are started in `kept_torch_default`.

    Args:
        threads: How many threads each parallel region may use, 1 or more.

    Example:
        >>> limit_torch(1)  # nothing, where torch is not imported
    """
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "set_num_threads"):
        torch.set_num_threads(threads)
        torch.get_num_threads()


@contextlib.contextmanager
def kept_torch_default() -> Iterator[None]:
    """Keep what threads started in here set for themselves from the program's other threads.

    torch keeps one number for threads that have not used it yet, and the last one to be set is
    that. The caller may have a number of its own, so a thread that has none is asked. One caller at
    a time: of two that started threads at once, the second took the first one's number for the
    program's.

    Example:
        >>> with kept_torch_default():
        ...     worker = threading.Thread(target=limit_torch, args=(1,))
        ...     worker.start(); worker.join()
    """
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "set_num_threads"):
        yield
        return
    torch.get_num_threads()  # asking settles the caller's own number
    lifetime.in_forked_copy(_renew_lock)
    found: list[int] = []
    with _default_lock:
        _in_new_thread(lambda: found.append(torch.get_num_threads()))
        try:
            yield
        finally:
            _in_new_thread(lambda: torch.set_num_threads(found[0]))


def _in_new_thread(function: Callable[[], object]) -> None:
    helper = threading.Thread(target=function)
    helper.start()
    helper.join()


def _renew_lock() -> None:
    global _default_lock
    _default_lock = threading.Lock()


def _settle_torch() -> None:
    """Make the calling thread keep its number of torch threads whatever others set from now on.

    A thread's number is fixed when torch is first used in it, and setting it does not count as use:
    without this, the caller's ``torch.set_num_threads(8)`` would give way to what a worker sets
    before the caller's first operation.
    """
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):
        torch.get_num_threads()


def _restore_torch_default() -> None:
    """Put back what new threads take.

    A thread of its own does it, so that no other thread's number changes.
    """
    global _torch_default
    torch: Any = sys.modules.get("torch")
    if _torch_default is None or torch is None:
        return
    before, held = _torch_default
    _torch_default = None

    def put_back() -> None:
        if torch.get_num_threads() == held:  # else the user has changed it since
            torch.set_num_threads(before)

    try:
        thread = threading.Thread(target=put_back, name="teamster-torch-threads")
        thread.start()
    except RuntimeError:
        return  # the interpreter is ending, and the number with it
    thread.join()
