# SPDX-License-Identifier: BSD-3-Clause
"""Threads of ours: the question whether the program has threads of its own does not mean them."""

from __future__ import annotations

import threading
import weakref
from typing import TypeVar

_Thread = TypeVar("_Thread", bound=threading.Thread)
_own: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def own_thread(thread: _Thread) -> _Thread:
    """Register a thread that runs code of ours.

    It runs the program's code only where that has asked to be called back.

    Args:
        thread: started or not.

    Returns:
        The same thread.

    Example:
        >>> own_thread(threading.Thread(target=print)) in threads_of_ours()
        True
    """
    _own.add(thread)
    return thread


def threads_of_ours() -> set[threading.Thread]:
    """Those that were registered and are still there.

    Example:
        >>> threading.main_thread() in threads_of_ours()
        False
    """
    return set(_own)
