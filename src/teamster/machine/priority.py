# SPDX-License-Identifier: BSD-3-Clause
"""Threads that run where others leave room."""

from __future__ import annotations

import contextlib
import os
import threading

_NICER = 15  # a thirtieth of a core that is wanted by others; all of one that nobody wants
_NICEST = 19  # there is


def give_way() -> None:
    """Have the calling thread leave the cores to threads that want them, for good.

    A thread that computes beside steps of a training would lengthen each. Nothing is changed where
    the system has no priorities of threads.

    Example:
        >>> thread = threading.Thread(target=give_way)
        >>> thread.start()
        >>> thread.join()
    """
    with contextlib.suppress(OSError, AttributeError):
        thread = threading.get_native_id()  # on Linux each thread has a priority of its own
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(_NICEST, before + _NICER))
