# SPDX-License-Identifier: BSD-3-Clause
"""The sockets under channels, and the descriptors that go through them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

SILENTLY = getattr(socket, "MSG_NOSIGNAL", 0)
"""How every socket of ours is written.

A peer that died is an error here, whatever the program has SIGPIPE do.
"""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets, neither inherited by programs that are executed."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that are ours."""
    for descriptor in descriptors:
        os.close(descriptor)
