# SPDX-License-Identifier: BSD-3-Clause
"""One worker process, as its parent sees it."""

from __future__ import annotations

from mmap import mmap
from typing import Any

from teamster.errors import TeamsterError
from teamster.spine.transport.channel import Channel
from teamster.spine.workers.backend import BatchDone, BatchUnreadable, Event, Ready, WorkerHandle
from teamster.spine.workers.death import Death
from teamster.spine.workers.encoding import unpack_results
from teamster.spine.workers.exceptions import rebuild
from teamster.spine.workers.library_state import State
from teamster.spine.workers.process.environment import Environment
from teamster.spine.workers.process.start import WorkerSetup
from teamster.spine.workers.scoreboard import LIMIT, LOG_END, NO_LIMIT, TRACING, Scoreboard


class Traced:
    """A worker, as who records it sees it."""

    kind = "process"

    def __init__(self, index: int, scoreboard: Scoreboard) -> None:
        self.label = f"process {index}"
        self.index = index
        self._scoreboard = scoreboard

    def switch(self, on: bool) -> None:
        """Have the worker write its spans from its next batch on, or stop it."""
        self._scoreboard.words[TRACING] = on

    def memory(self) -> mmap:
        """Its ring."""
        return self._scoreboard.ring_memory()


class ProcessHandle(WorkerHandle):
    """Its channel, its scoreboard, and what is known of its end."""

    __slots__ = (
        "channel",
        "closed_ns",
        "death",
        "known",
        "pid",
        "refusal",
        "salvaged",
        "scoreboard",
        "surroundings",
        "token",
        "told",
        "traced",
    )

    def __init__(self, index: int, token: int, channel: Channel, scoreboard: Scoreboard) -> None:
        super().__init__(index)
        self.token = token
        self.channel = channel
        self.scoreboard = scoreboard
        self.traced = Traced(index, scoreboard)
        self.known: set[int] = set()  # specs that it has
        self.surroundings: State = {}  # what the program had set when it started
        self.told: Environment = {}  # of the program, when it was told last
        self.pid = 0  # as soon as the fork server has told
        self.salvaged = (0, 0)  # the state of its log when that was read last, before its results were sent
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
            events.extend(BatchDone(self, *batch) for batch in finished)
            return events
        if kind == "ready":
            return [Ready(self, None if message[1] is None else rebuild(message[1]))]
        if kind == "unreadable":
            return [BatchUnreadable(self, message[1], rebuild(message[2]), message[3])]
        return None

    def describe_end(self, killed_before: int | None, setup: WorkerSetup) -> Death:
        """What is known of it."""
        status, peak_bytes = self.death or (None, 0)
        initialising = setup.has_initializer and self.scoreboard.initialising_ns() > 0
        forked = setup.start_method == "fork"
        return Death(
            self.index, status, peak_bytes, self.scoreboard.last_words(), killed_before, initialising, forked, self.refusal
        )

    def initialising_ns(self) -> int:
        """What its scoreboard says."""
        return 0 if self.ready or self.closed_ns else self.scoreboard.initialising_ns()


class Scoreboards:
    """The half of a backend that reads what its workers' scoreboards say, and writes what they are to heed."""

    def running(self, worker: WorkerHandle) -> tuple[int, int, int] | None:
        """What the worker's scoreboard says."""
        assert isinstance(worker, ProcessHandle)
        return worker.scoreboard.running()

    def frontier(self, worker: WorkerHandle) -> int:
        """What the scoreboard says."""
        assert isinstance(worker, ProcessHandle)
        return worker.scoreboard.frontier()

    def reclaim(self, worker: WorkerHandle, number: int) -> None:
        """Set the limit on the worker's scoreboard."""
        assert isinstance(worker, ProcessHandle)
        worker.scoreboard.words[LIMIT] = number

    def resume(self, worker: WorkerHandle) -> None:
        """Lift the limit."""
        assert isinstance(worker, ProcessHandle)
        worker.scoreboard.words[LIMIT] = NO_LIMIT

    def has_unsent(self, worker: WorkerHandle) -> bool:
        """Whether the worker's log holds what was not read from it before."""
        assert isinstance(worker, ProcessHandle)
        return worker.scoreboard.words[LOG_END] > 0 and worker.scoreboard.log_state() != worker.salvaged

    def salvage(self, worker: WorkerHandle) -> list[Event]:
        """What the worker's log holds."""
        assert isinstance(worker, ProcessHandle)
        worker.salvaged = worker.scoreboard.log_state()
        records = worker.scoreboard.read_log(alive=not worker.closed_ns)
        return [event for record in records for event in unpack_results(worker, *record, [])]
