# SPDX-License-Identifier: BSD-3-Clause
"""One worker process, as its parent sees it."""

from __future__ import annotations

from mmap import mmap

from teamster.errors import TeamsterError
from teamster.spine.transport.channel import Channel
from teamster.spine.workers.circumstances import Circumstances
from teamster.spine.workers.contract import Event, Member
from teamster.spine.workers.results import unpack_results
from teamster.spine.workers.slate import LIMIT, LOG_END, NO_LIMIT, TRACING, Slate


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

    __slots__ = ("channel", "closed_ns", "death", "known", "pid", "refusal", "rescued_end", "slate", "token", "told", "traced")

    def __init__(self, index: int, token: int, channel: Channel, slate: Slate) -> None:
        super().__init__(index)
        self.token = token
        self.channel = channel
        self.slate = slate
        self.traced = Traced(index, slate)
        self.known: set[int] = set()  # specs that it has
        self.told: Circumstances = {}  # of the program, when it was told last
        self.pid = 0  # as soon as the fork server has told
        self.rescued_end = 0  # how far its log was read before its results were sent
        self.closed_ns = 0  # when its channel ended
        self.death: tuple[int | None, int] | None = None  # status, peak memory in bytes
        self.refusal: TeamsterError | None = None  # why it was never started

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
        return member.slate.words[LOG_END] not in (0, member.rescued_end)

    def rescue(self, member: Member) -> list[Event]:
        """What the worker's log holds."""
        assert isinstance(member, ProcessMember)
        member.rescued_end = member.slate.words[LOG_END]
        records = member.slate.read_log(alive=not member.closed_ns)
        return [event for record in records for event in unpack_results(member, *record, [])]
