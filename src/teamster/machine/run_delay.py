# SPDX-License-Identifier: BSD-3-Clause
"""How long a thread was ready to run while others had the processor.

It is the second figure of ``/proc/thread-self/schedstat``.
"""

from __future__ import annotations

import os
import threading
import weakref

from teamster.machine.descriptors import Descriptor


class RunDelay:
    """Reads the run delay of the thread that makes it.

    It is always 0 where the kernel keeps no account, and after the thread's end.

    Example:
        >>> delay = RunDelay()
        >>> delay.read_ns() >= 0
        True
        >>> delay.close()
    """

    def __init__(self) -> None:
        self._owned: Descriptor | None = None
        self._descriptor = -1
        try:
            self._descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            self._owned = Descriptor(self._descriptor)
        except OSError:
            return

    def read_ns(self) -> int:
        """Nanoseconds of waiting for a processor, since the thread began.

        Returns:
            A number that only grows.
        """
        if self._descriptor < 0:
            return 0
        try:
            return int(os.pread(self._descriptor, 64, 0).split()[1])
        except (OSError, IndexError, ValueError):
            return 0

    def close(self) -> None:
        """Close the file."""
        if self._owned is not None:
            self._owned.close()
        self._owned, self._descriptor = None, -1

    def __del__(self) -> None:
        self.close()


def delay_of_this_thread() -> RunDelay:
    """The run delay of the calling thread, one for all that ask for it: let go of, and not closed.

    Returns:
        What is closed when no caller has it any more.

    Example:
        >>> delay = delay_of_this_thread()
        >>> delay is delay_of_this_thread()
        True
    """
    delay: RunDelay | None = _shared.delay() if hasattr(_shared, "delay") else None
    if delay is None:
        delay = RunDelay()
        _shared.delay = weakref.ref(delay)
    return delay


_shared = threading.local()


def forced_switches() -> int:
    """How often the calling thread had to leave its processor to others.

    Asking takes a millionth of a second, and keeps the lock.

    Returns:
        A number that only grows; always 0 where the system does not tell.

    Example:
        >>> forced_switches() >= 0
        True
    """
    import resource

    return (
        resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        if hasattr(resource, "RUSAGE_THREAD")
        else 0
    )
