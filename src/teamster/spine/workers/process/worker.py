# SPDX-License-Identifier: BSD-3-Clause
"""A child that runs batches.

It takes them from its channel, keeps results safe, and ends with its channel.

::

    channel --> (the set-up)    initializer               --> ("ready", error)
                ("spec", ...)   a function, kept unopened until it is needed
                ("batch", ...)  run; each result goes to  --> ("results", records, finished)
                                  the scoreboard's log
                                it could not be unpickled --> ("unreadable", number, error, part)
                ("drop", ...)   forget a function
                ("adapt", ...)  what has changed in the program since
                ("home",)       only carries segments home
                end of file     the parent is gone or has closed: end

Results are sent when a batch ends, when they do not fit the log, and by the first one that finds
the last message long ago.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from importlib import import_module
from time import perf_counter_ns, thread_time_ns
from typing import Any

from teamster import lifetime
from teamster.errors import annotate
from teamster.machine.run_delay import RunDelay
from teamster.spine.trace import spans
from teamster.spine.trace.ring import INITIALISE, SERIALISE, WAIT
from teamster.spine.transport.channel import Encoded
from teamster.spine.transport.pickled import unpack
from teamster.spine.workers import worker_info
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.exceptions import describe
from teamster.spine.workers.library_state import Scene, State, load, take
from teamster.spine.workers.process.child_main import ChildProcess
from teamster.spine.workers.process.result_log import FLUSH_NS, PATIENT_NS, ResultSink
from teamster.spine.workers.runner import Runner, title_of
from teamster.spine.workers.scoreboard import (
    COMMITTED,
    INITIALISING,
    SERVING,
    STARTED,
    STARTED_NS,
    WIDTH,
)
from teamster.spine.workers.worker_info import WorkerInfo

_SHORT_NS = 100_000
"""After a batch that took less, its results wait for those of the next one if that is here already.

A message costs 15 us.
"""

Parts = tuple[bytes | memoryview, list[memoryview]] | OSError
"""Data and buffers of a function that no batch has asked for yet, or why they could not be had."""


def serve_batches(child: ChildProcess, argument: Encoded, info: WorkerInfo) -> None:
    """Run the initializer, then batches until the channel ends.

    This is the entry point of process workers.
    """
    before: State | None = None
    ring, began = child.tracing.ring_if_asked(), perf_counter_ns()
    worker_info.set_process_worker(info)
    try:
        child.take_place()
        function, arguments = child.argument(argument)
        if function is not None:
            before = take()
            # A timeout bounds the initializer's time; what is imported before is not its fault
            child.scoreboard.enter(INITIALISING)
            function(*arguments)
    except BaseException as error:
        child.channel.put(("ready", describe(error)))
    else:
        child.channel.put(("ready", None))
    child.scoreboard.enter(SERVING)
    spans.note(ring, INITIALISE, "initializer", began)
    ProcessWorker(child, before).serve()


class ProcessWorker:
    """A child that runs batches."""

    def __init__(self, child: ChildProcess, before: State | None) -> None:
        self._child = child
        self._channel = channel = child.channel
        self._scoreboard = child.scoreboard
        self._sink = ResultSink(channel, child.scoreboard)
        lifetime.in_forked_copy(self._sink.part)
        self._delay = RunDelay()
        self._tracing = child.tracing
        self._specs: dict[int, tuple[tuple[Any, ...], Parts]] = {}
        self._runners: dict[int, tuple[Runner, contextvars.Context, State]] = {}
        self._scene = Scene(before)
        self._idle_ns = perf_counter_ns()
        self._actions: dict[str, Callable[..., None]] = {
            "spec": self._define,
            "batch": self._batch,
            "drop": self._drop,
            "adapt": child.adapt,
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

    def _define(self, identity: int, how: tuple[Any, ...], encoded: Encoded) -> None:
        try:
            self._specs[identity] = how, self._channel.parts(encoded)
        except OSError as error:
            self._specs[identity] = how, error

    def _drop(self, identity: int) -> None:
        self._runners.pop(identity, None)
        self._specs.pop(identity, None)

    def _batch(
        self, identity: int, number: int, count: int, first: int, one_by_one: bool, encoded: Encoded
    ) -> None:
        words = self._scoreboard.words
        words[WIDTH] = count
        # The clock of a timeout stands while the function is fetched: it may import torch for the
        # first time
        words[STARTED_NS] = 0
        # Unpickling runs code of the user's, too: a death in there must find its item
        words[STARTED] = number
        self._sink.ring = ring = self._tracing.ring_if_asked()
        spans.note(ring, WAIT, "wait for work", self._idle_ns)
        part, what = "function", "the function"
        try:
            runner, context, state = self._runners.get(identity) or self._child.open(
                self._prepare, identity
            )
            context.run(self._scene.enter, state)
            part, what = (
                "argument",
                f"the argument of item {first}"
                if first >= 0
                else "the arguments of a submitted call",
            )
            opened = words[STARTED_NS] = perf_counter_ns()
            items = self._child.open(self._channel.open, encoded)
            spans.note(ring, SERIALISE, "unpickle arguments", opened)
        except BaseException as error:
            annotate(error, f"raised while a worker unpickled {what}")
            self._sink.flush()
            self._channel.put(("unreadable", number, describe(error), part))
            words[COMMITTED] = number + count
            return
        if one_by_one:
            runner.run_one_by_one()
        self._sink.patience_ns = FLUSH_NS if runner.low_latency else PATIENT_NS
        began, cpu_began, delay_began = perf_counter_ns(), thread_time_ns(), self._delay.read_ns()
        ran = context.run(runner.run, items, number, max(first, 0), self._sink)
        del items
        self._idle_ns = ended = perf_counter_ns()
        self._sink.finish(
            number,
            ran,
            ended - began,
            thread_time_ns() - cpu_began,
            self._delay.read_ns() - delay_began,
            ended,
        )
        if ended - began > _SHORT_NS:
            self._sink.flush()
            self._idle_ns = perf_counter_ns()

    def _prepare(self, identity: int) -> tuple[Runner, contextvars.Context, State]:
        """Open a function for its first batch."""
        from teamster.spine.workers.context_vars import unfold

        began = perf_counter_ns()
        (style, seed, one_by_one, low_latency, carried, dumped, generators), parts = self._specs[
            identity
        ]
        context, state = unfold(carried), load(dumped)
        context.run(self._scene.enter, state)  # modules that it names are imported in there
        for name in generators:
            import_module(name)  # a task that loads it itself would find it without the seed
        if isinstance(parts, OSError):
            raise parts
        function = unpack(*parts)
        spec = FunctionSpec(function, style, seed, one_by_one, low_latency)
        prepared = Runner(spec, function, self._scoreboard.words), context, state
        self._specs.pop(identity)
        self._runners[identity] = prepared
        spans.note(spans.current_ring(), INITIALISE, f"load {title_of(function)}", began)
        return prepared
