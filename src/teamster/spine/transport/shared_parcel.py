# SPDX-License-Identifier: BSD-3-Clause
"""A parcel for several receivers: what is large in it is in shared memory once."""

from __future__ import annotations

import contextlib

from teamster.spine.transport.arena import ArenaFull, Broadcast
from teamster.spine.transport.channel import Channel, Encoded
from teamster.spine.transport.parcel import Parcel


class SharedParcel:
    """A parcel whose buffers are copied when the first receiver is sent it, and for that one only.

    Each receiver has them as they were then, and what it writes to them is its own.

    Args:
        parcel: its buffers may be views of what the program goes on using.

    Example:
        >>> SharedParcel(Parcel(b"nothing large", [])).nbytes
        0
    """

    __slots__ = ("_broadcast", "_is_new", "_parcel")

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._broadcast: Broadcast | None = None
        self._is_new = bool(parcel.buffers)

    @property
    def nbytes(self) -> int:
        """Bytes in shared memory."""
        return self._broadcast.nbytes if self._broadcast is not None else 0

    def stow(self, channel: Channel) -> Encoded:
        """Make it ready for the next message of a channel."""
        if self._is_new:
            self._is_new = False
            with contextlib.suppress(ArenaFull):  # a copy for each, by what way there is
                self._broadcast = Broadcast(self._parcel.buffers)
        if self._broadcast is not None and self._broadcast.is_whole():
            with contextlib.suppress(OSError):  # no descriptor left to send: a copy for this one
                return channel.stow_broadcast(self._parcel, self._broadcast)
        return channel.stow(self._parcel)

    def close(self) -> None:
        """Let go of the shared memory; receivers keep theirs."""
        if self._broadcast is not None:
            self._broadcast.close()
