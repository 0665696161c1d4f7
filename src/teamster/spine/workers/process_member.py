# SPDX-License-Identifier: BSD-3-Clause
"""One worker process, as its parent sees it."""

from __future__ import annotations

from mmap import mmap
from typing import Any

from teamster.errors import TeamsterError
from teamster.spine.transport.channel import Channel
from teamster.spine.workers.circumstances import Circumstances
from teamster.spine.workers.contract import Event, Finished, Member, Ready, Unreadable
from teamster.spine.workers.death import Death
from teamster.spine.workers.failure import rebuild
from teamster.spine.workers.results import unpack_results
from teamster.spine.workers.slate import LIMIT, LOG_END, NO_LIMIT, TRACING, Slate
from teamster.spine.workers.starters import Setup
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

    __slots__ = (
        "channel",
        "closed_ns",
        "death",
        "known",
        "pid",
        "refusal",
        "rescued",
        "slate",
        "surroundings",
        "token",
        "told",
        "traced",
    )

    def __init__(self, index: int, token: int, channel: Channel, slate: Slate) -> None:
        super().__init__(index)
        self.token = token
        self.channel = channel
        self.slate = slate
        self.traced = Traced(index, slate)
        self.known: set[int] = set()  # specs that it has
        self.surroundings: State = {}  # what the program had set when it started
        self.told: Circumstances = {}  # of the program, when it was told last
        self.pid = 0  # as soon as the fork server has told
        self.rescued = (0, 0)  # the state of its log when that was read last, before its results were sent
        self.closed_ns = 0  # when its channel ended
        self.death: tuple[int | None, int] | None = None  # status, peak memory in bytes
        self.refusal: TeamsterError | None = None  # why it was never started

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes by pickle and by arena, both directions, so far."""
        return self.channel.bytes_sent + self.channel.bytes_received, self.channel.bytes_moved

    def translate(self, message: tuple[Any, ...]) -> list[Event] | None:
        """What a message of the worker's tells the team; None when it is for the program's streams."""
        kind = message[0]
        if kind == "results":
            _, records, finished = message
            events: list[Event] = []
            for first, count, failed, wire in records:
                events += unpack_results(self, first, count, failed, *self.channel.parts(wire))
            events.extend(Finished(self, *batch) for batch in finished)
            return events
        if kind == "ready":
            return [Ready(self, None if message[1] is None else rebuild(message[1]))]
        if kind == "unreadable":
            return [Unreadable(self, message[1], rebuild(message[2]), message[3])]
        return None

    def describe_end(self, killed_before: int | None, setup: Setup) -> Death:
        """What is known of it."""
        status, peak_bytes = self.death or (None, 0)
        initialising = setup.has_initializer and self.slate.initialising_ns() > 0
        forked = setup.start_method == "fork"
        return Death(self.index, status, peak_bytes, self.slate.last_words(), killed_before, initialising, forked, self.refusal)

    def initialising_ns(self) -> int:
        """What its slate says."""
        return 0 if self.ready or self.closed_ns else self.slate.initialising_ns()


class Slates:
    """The half of a crew that reads what its members' slates say, and writes what they are to heed."""

    def running(self, member: Member) -> tuple[int, int, int] | None:
        """What the worker's slate says."""
        assert isinstance(member, ProcessMember)
        return member.slate.running()

    def frontier(self, member: Member) -> int:
        """What the slate says."""
        assert isinstance(member, ProcessMember)
        return member.slate.frontier()

    def recall(self, member: Member, number: int) -> None:
        """Set the limit on the worker's slate."""
        assert isinstance(member, ProcessMember)
        member.slate.words[LIMIT] = number

    def resume(self, member: Member) -> None:
        """Lift the limit."""
        assert isinstance(member, ProcessMember)
        member.slate.words[LIMIT] = NO_LIMIT

    def has_unsent(self, member: Member) -> bool:
        """Whether the worker's log holds what was not read from it before."""
        assert isinstance(member, ProcessMember)
        return member.slate.words[LOG_END] > 0 and member.slate.log_state() != member.rescued

    def rescue(self, member: Member) -> list[Event]:
        """What the worker's log holds."""
        assert isinstance(member, ProcessMember)
        member.rescued = member.slate.log_state()
        records = member.slate.read_log(alive=not member.closed_ns)
        return [event for record in records for event in unpack_results(member, *record, [])]
