# SPDX-License-Identifier: BSD-3-Clause
"""Descriptors that a program may have closed behind the back of the code that opened them.

A daemon closes every descriptor that it does not know (``os.closerange(3, 1024)``), and the next
file that it opens is given the number of one of ours. To use that number, or to close it, would be
to use or close that file. So the owner of a descriptor notes what is behind it, and looks before it
closes it, and before the first use after a pause.
"""

from __future__ import annotations

import ctypes
import os
import socket

Identity = tuple[int, int]


def identity_of(descriptor: int) -> Identity:
    """What is behind a descriptor.

    That is device and inode, which no two sockets, pipes or files share while they are open.

    Example:
        >>> read, write = os.pipe()
        >>> identity_of(read) == identity_of(write), identity_of(read) == identity_of(0)
        (True, False)
        >>> os.close(read), os.close(write)
        (None, None)
    """
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def is_still(descriptor: int, identity: Identity) -> bool:
    """Whether what is behind a descriptor is what was there when `identity` was noted.

    Example:
        >>> read, write = os.pipe()
        >>> noted = identity_of(read)
        >>> is_still(read, noted)
        True
        >>> os.close(read), os.close(write)
        (None, None)
        >>> is_still(read, noted)
        False
    """
    try:
        return identity_of(descriptor) == identity
    except OSError:
        return False


class Descriptor:
    """A descriptor that is closed only while it is still what it was.

    Attributes:
        number: the descriptor; -1 after `close`.

    Example:
        >>> read, write = os.pipe()
        >>> ours = Descriptor(read)
        >>> os.close(read)  # by code that closes everything
        >>> ours.is_whole()
        False
        >>> ours.close()  # closes nothing
        >>> os.close(write)
    """

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = identity_of(number)

    def is_whole(self) -> bool:
        """Whether it was not closed behind our back.

        Example:
            >>> ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
            >>> ours.is_whole()
            True
            >>> ours.close()
        """
        return is_still(self.number, self._identity)

    def close(self) -> None:
        """Close it, unless its number is another's by now; a second time does nothing.

        Example:
            >>> ours = Descriptor(os.open(os.devnull, os.O_RDONLY))
            >>> ours.close()
            >>> ours.number
            -1
        """
        number, self.number = self.number, -1
        if number >= 0 and is_still(number, self._identity):
            os.close(number)


class OwnedSocket(socket.socket):
    """A socket that closes its number only while that is its own.

    It is made of a socket, and takes its place.

    Example:
        >>> ours, theirs = (OwnedSocket.of(end) for end in socket.socketpair())
        >>> ours.is_whole()
        True
        >>> ours.close(), theirs.close()
        (None, None)
    """

    _identity: Identity

    @classmethod
    def of(cls, end: socket.socket) -> OwnedSocket:
        """`end` under this care; `end` itself is detached.

        Example:
            >>> ours, theirs = socket.socketpair()
            >>> OwnedSocket.of(ours).close(), theirs.close()
            (None, None)
        """
        family, kind, protocol = end.family, end.type, end.proto
        owned = cls(family, kind, protocol, fileno=end.detach())
        owned._identity = identity_of(owned.fileno())
        return owned

    def is_whole(self) -> bool:
        """Whether it was not closed behind our back.

        Example:
            >>> ours, theirs = (OwnedSocket.of(end) for end in socket.socketpair())
            >>> os.close(ours.fileno())
            >>> ours.is_whole(), theirs.is_whole()
            (False, True)
            >>> ours.close(), theirs.close()
            (None, None)
        """
        return is_still(self.fileno(), self._identity)

    def close(self) -> None:
        """Close it, or let go of a number that is another's by now.

        Example:
            >>> ours, theirs = (OwnedSocket.of(end) for end in socket.socketpair())
            >>> ours.close(), theirs.close()
            (None, None)
        """
        if self.fileno() >= 0 and not self.is_whole():
            self.detach()
        super().close()


def keep_for_ever(holder: object) -> None:
    """Have `holder` never die.

    When it dies, it would close a number that is another's by now; it cannot be told otherwise.

    Example:
        >>> keep_for_ever(object())
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))


def fill_standard_numbers() -> None:
    """Open /dev/null as 0, 1 and 2 where those are closed.

    A daemon closes them, and whatever is opened next gets their numbers. A channel that is also
    number 1 receives what is printed. (A test found the output of a task in the control channel of
    the fork server.)
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
