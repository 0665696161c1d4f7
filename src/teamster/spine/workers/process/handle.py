# SPDX-License-Identifier: BSD-3-Clause
"""One process worker, as the team sees it: a child that was handed batches."""

from __future__ import annotations

from typing import Any

from teamster.spine.workers.encoding import unpack_results
from teamster.spine.workers.exceptions import rebuild
from teamster.spine.workers.handle import BatchDone, BatchUnreadable, Event, Ready, WatchedHandle
from teamster.spine.workers.process.child import Child
from teamster.spine.workers.process.children import Children
from teamster.spine.workers.scoreboard import LOG_END


class ProcessHandle(WatchedHandle):
    """Its child process, and what of the results in its log was read."""

    __slots__ = ("_children", "_fellows", "channel", "child", "known", "salvaged")

    def __init__(
        self, index: int, child: Child, children: Children, fellows: dict[Child, ProcessHandle]
    ) -> None:
        super().__init__(index, scoreboard=child.scoreboard)
        self._children = children
        self._fellows = fellows
        self.child = child
        self.channel = child.channel
        self.known: set[int] = set()  # specs that it has
        # The state of its log when that was read last, before its results were sent
        self.salvaged = (0, 0)

    @property
    def pid(self) -> int:
        """Its process id; 0 before the fork server has told."""
        return self.child.pid

    def translate(self, message: tuple[Any, ...]) -> list[Event]:
        """What a message of the worker's tells the team."""
        kind = message[0]
        if kind == "results":
            _, records, finished = message
            events: list[Event] = []
            for first, count, failed, encoded in records:
                events += unpack_results(self, first, count, failed, *self.channel.parts(encoded))
            events.extend(BatchDone(self, *batch) for batch in finished)
            return events
        if kind == "ready":
            return [Ready(self, None if message[1] is None else rebuild(message[1]))]
        if kind == "unreadable":
            return [BatchUnreadable(self, message[1], rebuild(message[2]), message[3])]
        return []  # "sent": what waited in the outbox is on its way

    def initialising_ns(self) -> int:
        """What its scoreboard says."""
        return 0 if self.ready or self.child.closed_ns else self.scoreboard.initialising_ns()

    def unsent(self) -> bool:
        """Whether the worker's log holds what was not read from it before."""
        return self.scoreboard.words[LOG_END] > 0 and self.scoreboard.log_state() != self.salvaged

    def salvage(self) -> list[Event]:
        """What the worker's log holds."""
        self.salvaged = self.scoreboard.log_state()
        records = self.scoreboard.read_log(alive=not self.child.closed_ns)
        return [event for record in records for event in unpack_results(self, *record, [])]

    def return_memory(self) -> None:
        """Tell it of segments that came free, when no batch is on its way that would."""
        if self.channel.owes_segments:
            self._children.put(self.child, ("home",))

    def kill(self) -> None:
        """SIGKILL to the worker and what it started."""
        self._children.kill(self.child)

    def stop(self) -> None:
        """Close the worker's channel: it ends by itself."""
        self._children.shut(self.child)

    def release(self) -> None:
        """Close its channel and its scoreboard."""
        self._fellows.pop(self.child, None)
        self._children.release(self.child)
