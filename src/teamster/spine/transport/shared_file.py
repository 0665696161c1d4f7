# SPDX-License-Identifier: BSD-3-Clause
"""Anonymous memory that several processes write to: it pickles as the way to it."""

from __future__ import annotations

import os
from typing import Any

from teamster.machine.descriptors import Descriptor, Identity, identity_of
from teamster.spine.transport.arena import ArenaFull, make_file
from teamster.spine.transport.mapping import PAGE_BYTES, MappedFile


class SharedFile:
    """Bytes that this process and those to which it is sent have in common.

    They are there as long as one of them has them. Others map them while this process lives and has
    not let go of the object.

    Args:
        nbytes: how many.

    Attributes:
        memory: the bytes, writable.

    Raises:
        ArenaFull: there is no room for them.

    Example:
        >>> import pickle
        >>> mine = SharedFile(10)
        >>> other = pickle.loads(pickle.dumps(mine))
        >>> other.memory[:2] = b"hi"
        >>> mine.memory[:2]
        b'hi'
    """

    __slots__ = ("_file", "_name", "_nbytes", "memory")

    def __init__(self, nbytes: int) -> None:
        self._nbytes = -(-max(1, nbytes) // PAGE_BYTES) * PAGE_BYTES
        self._file = Descriptor(make_file())
        try:
            # Asked for now: without that a full memory would show as a signal in the middle of work
            os.posix_fallocate(self._file.number, 0, self._nbytes)
            self.memory: Any = MappedFile(self._file.number, 0, self._nbytes).memory
        except OSError as error:
            self._file.close()
            raise ArenaFull(f"no {self._nbytes} bytes of shared memory: {error}") from error
        self._name = os.getpid(), self._file.number, identity_of(self._file.number)

    def __reduce__(self) -> Any:
        return _open, (*self._name, self._nbytes)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _open(pid: int, number: int, identity: Identity, nbytes: int) -> SharedFile:
    """The same in another process.

    Raises:
        OSError: the process that has made it is gone, or has let go of it.
    """
    found = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    if identity_of(found) != identity:
        os.close(found)
        raise OSError(f"process {pid} has another file in the place of this shared memory by now")
    opened: SharedFile = SharedFile.__new__(SharedFile)
    opened._file, opened._name, opened._nbytes = Descriptor(found), (pid, number, identity), nbytes
    opened.memory = MappedFile(found, 0, nbytes).memory
    return opened
