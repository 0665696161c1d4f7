# SPDX-License-Identifier: BSD-3-Clause
"""The life of a process worker: set up, take batches, keep results safe, end with its channel.

::

    channel --> ("setup", ...)  environment, paths, streams, initializer      --> ("ready", error)
                ("spec", ...)   a function, kept unopened until it is needed
                ("batch", ...)  run; each result goes to the scoreboard's log      --> ("results", number, ran, ns, records)
                ("drop", ...)   forget a function
                ("adapt", ...)  what has changed in the program since
                end of file     the parent is gone or has closed: end

Results are sent when a batch ends, when they do not fit the log, and by the first one that finds the last message long ago.
"""

from __future__ import annotations

import contextvars
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter_ns, thread_time_ns
from typing import Any

from teamster.errors import annotate
from teamster.machine.run_delay import RunDelay
from teamster.spine.trace import spans
from teamster.spine.trace.ring import INITIALISE, SERIALISE, WAIT
from teamster.spine.transport.by_value import originals
from teamster.spine.transport.channel import Channel, Wire
from teamster.spine.transport.pickled import unpack
from teamster.spine.workers import worker_info as whoami
from teamster.spine.workers.backend import FunctionSpec, WorkerInfo
from teamster.spine.workers.exceptions import describe
from teamster.spine.workers.library_state import Scene, State, load, set_all, take
from teamster.spine.workers.process.environment import adapt
from teamster.spine.workers.process.kinship import become_child, follow
from teamster.spine.workers.process.leaving import leave, report_crash, write_crashes_to
from teamster.spine.workers.process.main_module import make_main
from teamster.spine.workers.process.resource_tracker import use_tracker
from teamster.spine.workers.process.result_log import FLUSH_NS, PATIENT_NS, ResultSink
from teamster.spine.workers.process.tracing import WorkerRecorder
from teamster.spine.workers.runner import Runner, title_of
from teamster.spine.workers.scoreboard import (
    COMMITTED,
    INITIALISING,
    LEAVING,
    SERVING,
    STARTED,
    STARTED_NS,
    WIDTH,
    Scoreboard,
)

_SHORT_NS = 100_000
"""After a batch that took less, its results wait for those of the next one if that is here already: a message costs 15 us."""

Inherited = tuple[Callable[..., object] | None, tuple[Any, ...]]
"""An initializer and its arguments, as they are in the program that forked this worker."""

Parts = tuple[bytes | memoryview, list[memoryview]] | OSError
"""Data and buffers of a function that nobody has asked for yet, or why they could not be had."""


class ProcessWorker:
    """One worker process."""

    def __init__(self, channel: Channel, scoreboard: Scoreboard, tracker: int, inherited: Inherited | None) -> None:
        self._channel = channel
        self._scoreboard = scoreboard
        self._tracker = tracker
        self._inherited = inherited
        self._sink = ResultSink(channel, scoreboard)
        os.register_at_fork(after_in_child=self._sink.part)
        self._delay = RunDelay()
        self._tracing = WorkerRecorder(scoreboard)
        self._idle_ns = perf_counter_ns()
        self._specs: dict[int, tuple[tuple[Any, ...], Parts]] = {}
        self._runners: dict[int, tuple[Runner, contextvars.Context, State]] = {}
        self._scene: Scene
        self._actions: dict[str, Callable[..., None]] = {
            "setup": self._setup,
            "spec": self._learn,
            "batch": self._batch,
            "drop": self._drop,
            "adapt": self._adapt,
            "home": lambda: None,  # only carries segments home
        }

    def serve(self) -> None:
        """Do what the channel says until it ends."""
        take, actions = self._channel.take, self._actions
        while (messages := take()) is not None:
            for message in messages:
                actions[message[0]](*message[1:])
            self._sink.flush()
            self._channel.await_input()

    def _setup(self, settings: dict[str, Any], info: WorkerInfo, initializer: Wire) -> None:
        apply_settings(settings, self._channel.put)
        set_all(load(settings["state"]))
        before = None
        ring = self._tracing.ring_if_asked()
        spans.note(ring, INITIALISE, "start the process", settings["asked_ns"])
        began = perf_counter_ns()
        whoami.set_process_worker(info)
        if self._tracker >= 0:
            use_tracker(self._tracker)
        try:
            become_child(info.index + 1)
            follow(settings["environment"]["kin"])
            whoami.limit_native_threads(settings["native_threads"])
            function, arguments = self._inherited or self._open(unpack, *self._channel.parts(initializer))
            if function is not None:
                before = take()
                self._scoreboard.enter(INITIALISING)  # whose time a timeout bounds; what is imported before is nobody's fault
                function(*arguments)
        except BaseException as error:
            self._channel.put(("ready", describe(error)))
        else:
            self._channel.put(("ready", None))
        self._scene = Scene(before)
        self._scoreboard.enter(SERVING)
        spans.note(ring, INITIALISE, "initializer", began)
        self._idle_ns = perf_counter_ns()

    def _open(self, unpack: Callable[..., Any], *parts: Any) -> Any:
        """Unpickle what the program sent, which may import modules of the user's: none of them may start processes meanwhile."""
        whoami.importing = True
        try:
            return unpack(*parts)
        finally:
            whoami.importing = False

    def _adapt(self, news: dict[str, Any]) -> None:
        adapt(news)
        for descriptor in self._channel.attached:
            if self._tracker >= 0:
                os.dup2(descriptor, self._tracker, inheritable=False)
                os.close(descriptor)
            else:
                self._tracker = descriptor
                use_tracker(descriptor)
        self._channel.attached.clear()

    def _learn(self, identity: int, how: tuple[Any, ...], wire: Wire) -> None:
        try:
            self._specs[identity] = how, self._channel.parts(wire)
        except OSError as error:
            self._specs[identity] = how, error

    def _drop(self, identity: int) -> None:
        self._runners.pop(identity, None)
        self._specs.pop(identity, None)

    def _batch(self, identity: int, number: int, count: int, first: int, careful: bool, wire: Wire) -> None:
        words = self._scoreboard.words
        words[WIDTH] = count
        words[STARTED_NS] = 0  # the clock of a timeout stands while the function is fetched: it may import torch for the first time
        words[STARTED] = number  # unpickling runs code of the user's, too: a death in there must find its item
        self._sink.ring = ring = self._tracing.ring_if_asked()
        spans.note(ring, WAIT, "wait for work", self._idle_ns)
        part, what = "function", "the function"
        try:
            runner, context, state = self._runners.get(identity) or self._open(self._prepare, identity)
            context.run(self._scene.enter, state)
            part, what = "argument", f"the argument of item {first}" if first >= 0 else "the arguments of a submitted call"
            opened = words[STARTED_NS] = perf_counter_ns()
            items = self._open(self._channel.open, wire)
            spans.note(ring, SERIALISE, "unpickle arguments", opened)
        except BaseException as error:
            annotate(error, f"raised while a worker unpickled {what}")
            self._sink.flush()
            self._channel.put(("unreadable", number, describe(error), part))
            words[COMMITTED] = number + count
            return
        if careful:
            runner.be_careful()
        self._sink.patience_ns = FLUSH_NS if runner.hurry else PATIENT_NS
        began, cpu_began, delay_began = perf_counter_ns(), thread_time_ns(), self._delay.read_ns()
        ran = context.run(runner.run, items, number, max(first, 0), self._sink)
        del items
        self._idle_ns = ended = perf_counter_ns()
        self._sink.finish(number, ran, ended - began, thread_time_ns() - cpu_began, self._delay.read_ns() - delay_began, ended)
        if ended - began > _SHORT_NS:
            self._sink.flush()
            self._idle_ns = perf_counter_ns()

    def _prepare(self, identity: int) -> tuple[Runner, contextvars.Context, State]:
        """Open a function for its first batch."""
        from teamster.spine.workers.context_vars import unfold

        began = perf_counter_ns()
        (style, seed, careful, hurry, carried, dumped, generators), parts = self._specs[identity]
        context, state = unfold(carried), load(dumped)
        context.run(self._scene.enter, state)  # modules that it names are imported in there
        for name in generators:
            import_module(name)  # a task that loads it itself would find it without the seed
        if isinstance(parts, OSError):
            raise parts
        function = unpack(*parts)
        spec = FunctionSpec(function, style, seed, careful, hurry)
        prepared = Runner(spec, function, self._scoreboard.words), context, state
        self._specs.pop(identity)
        self._runners[identity] = prepared
        spans.note(spans.current_ring(), INITIALISE, f"load {title_of(function)}", began)
        return prepared


def apply_settings(settings: dict[str, Any], post: Callable[[tuple[Any, ...]], Any]) -> None:
    """Make this process look like the parent's to the code that it will run."""
    sys.argv[:] = settings["argv"]
    adapt(settings["environment"])
    if settings["main"] is not None:
        make_main(settings["main"])
    originals.become_worker(forked=sys.modules["__main__"].__dict__ if settings["main"] is None else None)
    from teamster.spine.workers.process.streams import redirect

    redirect(post, settings)


def main(channel_descriptor: int, scoreboard_descriptor: int, tracker: int = -1, inherited: Inherited | None = None) -> None:
    """Live as a worker on these descriptors; never returns.

    Args:
        channel_descriptor: its channel.
        scoreboard_descriptor: its scoreboard.
        tracker: the resource tracker that it shares with the program; -1 when that has none yet.
        inherited: initializer and arguments that came along with a fork.
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
        ProcessWorker(channel, scoreboard, tracker, inherited).serve()
        scoreboard.enter(LEAVING)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the parent is gone, nobody to tell
    except BaseException:
        report_crash(scoreboard_descriptor)
    finally:
        leave(code)
