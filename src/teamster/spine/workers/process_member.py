# SPDX-License-Identifier: BSD-3-Clause
"""One worker process, as its parent sees it."""

from __future__ import annotations

from mmap import mmap

from teamster.spine.transport.channel import Channel
from teamster.spine.workers.contract import Member
from teamster.spine.workers.slate import TRACING, Slate
from teamster.spine.workers.surroundings import State


class Traced:
    """A worker, as who records it sees it."""

    kind = "process"

    def __init__(self, index: int, slate: Slate) -> None:
        self.label = f"process {index}"
        self.index = index
        self._slate = slate

    def switch(self, on: bool) -> None:
        """Have the worker write its spans from its next batch on, or stop it."""
        self._slate.words[TRACING] = on

    def memory(self) -> mmap:
        """Its ring."""
        return self._slate.ring_memory()


class ProcessMember(Member):
    """Its channel, its slate, and what is known of its end."""

    __slots__ = ("channel", "closed_ns", "death", "known", "pid", "rescued_end", "slate", "token", "told", "traced")

    def __init__(self, index: int, token: int, channel: Channel, slate: Slate) -> None:
        super().__init__(index)
        self.token = token
        self.channel = channel
        self.slate = slate
        self.traced = Traced(index, slate)
        self.known: set[int] = set()  # specs that it has
        self.told: State = {}  # what the program had set when it started
        self.pid = 0  # as soon as the fork server has told
        self.rescued_end = 0  # how far its log was read before its results were sent
        self.closed_ns = 0  # when its channel ended
        self.death: tuple[int | None, int] | None = None  # status, peak memory in bytes
