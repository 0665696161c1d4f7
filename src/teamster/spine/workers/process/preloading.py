# SPDX-License-Identifier: BSD-3-Clause
"""What a fork server imports before it forks: workers then share it, and start at once."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import warnings
from importlib import import_module
from importlib.util import find_spec


def import_all(modules: dict[str, str | None], root_descriptor: int) -> None:
    """Import modules, as long as the program is there.

    One that the program has from another file, or that cannot be imported, is left out: workers
    find out for themselves.

    Args:
        modules: by name, the file that the program has each from; None where it has none.
        root_descriptor: of the socket to the program.
    """
    done, tell = os.pipe()
    guard = threading.Thread(target=_end_with, args=(root_descriptor, done))
    guard.start()
    try:
        for name, origin in modules.items():
            with contextlib.suppress(Exception, SystemExit):
                if origin is None or _origin(name) == origin:
                    import_module(name)
    finally:
        os.write(tell, b".")
        guard.join()  # what forks has one thread
        os.close(done)
        os.close(tell)


def _origin(name: str) -> str | None:
    spec = find_spec(name)
    return spec.origin if spec is not None else None


def _end_with(root_descriptor: int, done: int) -> None:
    """End this process when the program ends, which an import would not notice."""
    poll = select.poll()
    poll.register(root_descriptor, 0)  # its end is told unasked
    poll.register(done, select.POLLIN)
    if any(descriptor == root_descriptor for descriptor, _ in poll.poll()):
        os._exit(0)


def fork() -> int:
    """Fork; libraries that were imported may have threads, which see to that themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
