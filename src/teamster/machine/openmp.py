# SPDX-License-Identifier: BSD-3-Clause
"""The helpers that OpenMP keeps for a thread: after a parallel region they spin for milliseconds, on a processor of others.

Whoever hands work to other threads lets them go first. (A training step of 25.7 ms on two replicas on 2 cores took 15.3 ms then:
the caller's helper, spinning after the loss, had had a third of the processors.) They are started again, in some 40 us, by the next
parallel region.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

_SOFT = 1
_GNU = "libgomp"  # others share their helpers among all threads of a program

_pause: Callable[[int], int] | None = None
_looked = -1


def release_helpers() -> bool:
    """Let the OpenMP helpers of the calling thread go; costs 0.2 us where it has none.

    Returns:
        Whether they are gone; False where OpenMP is not loaded, or is not GNU's, or is older than version 5.0 of the standard.

    Example:
        >>> release_helpers() in (True, False)
        True
    """
    global _pause, _looked
    if _pause is None and _looked != len(sys.modules):  # a library may have come since
        _looked = len(sys.modules)
        _pause = _find()
    return _pause is not None and _pause(_SOFT) == 0


def _find() -> Callable[[int], int] | None:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if _GNU in line}
    except OSError:
        return None
    if len(paths) != 1:  # of several one cannot tell whose helpers spin
        return None
    try:
        function = ctypes.CDLL(paths.pop()).omp_pause_resource_all
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_int], ctypes.c_int
    found: Callable[[int], int] = function
    return found
