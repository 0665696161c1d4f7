# SPDX-License-Identifier: BSD-3-Clause
"""One worker process, as its parent sees it."""

from __future__ import annotations

from teamster.spine.transport.channel import Channel
from teamster.spine.workers.contract import Member
from teamster.spine.workers.slate import Slate


class ProcessMember(Member):
    """Its channel, its slate, and what is known of its end."""

    __slots__ = ("channel", "closed_ns", "death", "known", "rescued_end", "slate", "token")

    def __init__(self, index: int, token: int, channel: Channel, slate: Slate) -> None:
        super().__init__(index)
        self.token = token
        self.channel = channel
        self.slate = slate
        self.known: set[int] = set()  # specs that it has
        self.rescued_end = 0  # how far its log was read before its results were sent
        self.closed_ns = 0  # when its channel ended
        self.death: tuple[int | None, int] | None = None  # status, peak memory in bytes
