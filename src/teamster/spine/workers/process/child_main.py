# SPDX-License-Identifier: BSD-3-Clause
"""The life of a child process.

It becomes like the program, does what its parent has named, and ends as an interpreter ends.

::

    channel --> ("setup", settings, index, entry, told, argument)
                               the first message: environment, paths, streams, state
                whatever else  is for the entry point: entry(child, argument, *told)
                end of file    the parent is gone or wants no more

An entry point (worker.py: `serve_batches`) takes its place with `take_place`, opens its argument
with `argument`, reads the channel until that ends, and hands ("adapt", ...) to `adapt`. What it
returns is the exit code, None for 0.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from teamster.spine.trace import spans
from teamster.spine.trace.ring import INITIALISE
from teamster.spine.transport.by_value import originals
from teamster.spine.transport.channel import Channel, Encoded
from teamster.spine.transport.pickled import unpack
from teamster.spine.workers import worker_info
from teamster.spine.workers.library_state import load, set_all
from teamster.spine.workers.process.environment import adapt
from teamster.spine.workers.process.kinship import become_child, follow
from teamster.spine.workers.process.leaving import leave, report_crash, write_crashes_to
from teamster.spine.workers.process.main_module import make_main
from teamster.spine.workers.process.resource_tracker import use_tracker
from teamster.spine.workers.process.tracing import WorkerRecorder
from teamster.spine.workers.scoreboard import LEAVING, Scoreboard


class ChildProcess:
    """This process, as its entry point sees it."""

    def __init__(
        self, channel: Channel, scoreboard: Scoreboard, tracker: int, inherited: Any
    ) -> None:
        self.channel = channel
        self.scoreboard = scoreboard
        self.tracing = WorkerRecorder(scoreboard)
        self._tracker = tracker
        self._inherited = inherited
        self._settings: dict[str, Any] = {}
        self._index = 0

    def live(self) -> int:
        """Be what the parent asks for until that is over; returns the exit code."""
        messages: list[Any] | None = []
        while not messages:
            messages = self.channel.take()
            if messages is None:
                return 0
        _, self._settings, self._index, entry, told, argument = messages.pop(0)
        self.channel.unread(messages)
        apply_settings(self._settings, self.channel.put)
        set_all(load(self._settings["state"]))
        spans.note(
            self.tracing.ring_if_asked(),
            INITIALISE,
            "start the process",
            self._settings["asked_ns"],
        )
        if self._tracker >= 0:
            use_tracker(self._tracker)
        module, _, function = entry.partition(":")
        return getattr(import_module(module), function)(self, argument, *told) or 0

    @property
    def kin(self) -> dict[str, Any]:
        """What the program has handed over of itself (kinship.py)."""
        kin: dict[str, Any] = self._settings["environment"]["kin"]
        return kin

    def take_place(self) -> None:
        """Be a child of the program for `multiprocessing`.

        It has no more native threads than are its own.
        """
        become_child(self._index + 1)
        follow(self.kin)
        if (threads := self._settings["native_threads"]) is not None:
            worker_info.limit_native_threads(threads)

    def argument(self, encoded: Encoded) -> Any:
        """What the entry point is given."""
        return (
            self._inherited
            if self._inherited is not None
            else self.open(unpack, *self.channel.parts(encoded))
        )

    def open(self, unpack: Callable[..., Any], *parts: Any) -> Any:
        """Unpickle what the program sent, which may import modules of the user's.

        None of them may start processes meanwhile.
        """
        worker_info.importing = True
        try:
            return unpack(*parts)
        finally:
            worker_info.importing = False

    def adapt(self, news: dict[str, Any]) -> None:
        """Take what has changed in the program, and its resource tracker if that came along."""
        adapt(news)
        for descriptor in self.channel.attached:
            if self._tracker >= 0:
                os.dup2(descriptor, self._tracker, inheritable=False)
                os.close(descriptor)
            else:
                self._tracker = descriptor
                use_tracker(descriptor)
        self.channel.attached.clear()


def apply_settings(settings: dict[str, Any], post: Callable[[tuple[Any, ...]], Any]) -> None:
    """Make this process look like the parent's to the code that it will run."""
    sys.argv[:] = settings["argv"]
    adapt(settings["environment"])
    if settings["main"] is not None:
        make_main(settings["main"])
    originals.become_worker(
        forked=sys.modules["__main__"].__dict__ if settings["main"] is None else None
    )
    from teamster.spine.workers.process.streams import redirect

    redirect(post, settings)


def main(
    channel_descriptor: int, scoreboard_descriptor: int, tracker: int = -1, inherited: Any = None
) -> None:
    """Live as a child on these descriptors; never returns.

    Args:
        channel_descriptor: its channel.
        scoreboard_descriptor: its scoreboard.
        tracker: the resource tracker that it shares with the program; -1 when that has none yet.
        inherited: the argument of the entry point, where it came along with a fork.
    """
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (channel_descriptor, scoreboard_descriptor, tracker):
            if descriptor >= 0:
                os.set_inheritable(descriptor, False)
        scoreboard = Scoreboard.attach(scoreboard_descriptor)
        write_crashes_to(scoreboard)
        channel = Channel(socket.socket(fileno=channel_descriptor), blocking=True)
        code = ChildProcess(channel, scoreboard, tracker, inherited).live()
        scoreboard.enter(LEAVING)
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the parent is gone, and cannot be told
    except BaseException:
        report_crash(scoreboard_descriptor)
    finally:
        leave(code)
