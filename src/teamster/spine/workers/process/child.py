# SPDX-License-Identifier: BSD-3-Clause
"""One child process, as its parent sees it.

That is its channel, its scoreboard, and what is known of its end.
"""

from __future__ import annotations

import socket
from mmap import mmap
from typing import Any

from teamster.errors import TeamsterError
from teamster.spine.transport.channel import Channel
from teamster.spine.workers.death import Death
from teamster.spine.workers.library_state import State
from teamster.spine.workers.process.environment import Environment
from teamster.spine.workers.scoreboard import LEAVING, PHASE, TRACING, Scoreboard


class Traced:
    """A child, as a recording sees it."""

    kind = "process"

    def __init__(self, label: str, index: int, scoreboard: Scoreboard) -> None:
        self.label = label
        self.index = index
        self._scoreboard = scoreboard

    def switch(self, on: bool) -> None:
        """Have the child write its spans from its next batch on, or stop it."""
        self._scoreboard.words[TRACING] = on

    def memory(self) -> mmap:
        """Its ring."""
        return self._scoreboard.ring_memory()


class Child:
    """A child process."""

    __slots__ = (
        "channel",
        "closed_ns",
        "hung_up",
        "index",
        "pid",
        "refusal",
        "scoreboard",
        "state",
        "status",
        "token",
        "told",
        "traced",
    )

    def __init__(self, index: int, label: str, token: int, ours: socket.socket) -> None:
        self.index = index
        self.token = token  # by which the fork server knows it
        self.channel = Channel(ours, blocking=False)
        self.channel.furnish()
        self.scoreboard = Scoreboard.shared()
        self.traced = Traced(label, index, self.scoreboard)
        self.state: State = {}  # what the program had set when it started
        self.told: Environment = {}  # of the program, when it was told last
        self.pid = 0  # as soon as the fork server has told
        self.closed_ns = 0  # when its channel ended
        # It has closed its end of the channel and lived on, until it was killed for that
        self.hung_up = False
        self.status: tuple[int | None, int] | None = None  # exit status, peak memory in bytes
        self.refusal: TeamsterError | None = None  # why it was never started

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        return self.channel.bytes_sent + self.channel.bytes_received, self.channel.bytes_moved

    def is_leaving(self) -> bool:
        """Whether it has left its entry point, and runs what the interpreter runs at its end."""
        return not self.closed_ns and self.scoreboard.words[PHASE] == LEAVING

    def describe_end(self, killed_before: int | None, *, forked: bool) -> Death:
        """What is known of its end.

        Args:
            killed_before: OOM kills of this cgroup counted when it was started; None where that
                cannot be read.
            forked: whether the program itself forked it; else the fork server did.
        """
        status, peak_bytes = self.status or (None, 0)
        initialising, words = self.scoreboard.initialising_ns() > 0, self.scoreboard.last_words()
        return Death(
            self.index,
            status,
            peak_bytes,
            words,
            killed_before,
            initialising,
            forked,
            self.refusal,
            self.hung_up,
        )


Told = tuple[Child, "tuple[Any, ...] | Death"]
"""A child, and a message of it, or how it died."""
