# SPDX-License-Identifier: BSD-3-Clause
"""What runs inside an interpreter worker: everything comes and goes as bytes."""

from __future__ import annotations

import contextvars
import pickle

from teamster.spine.transport.by_value import originals
from teamster.spine.transport.pickled import pack_whole
from teamster.spine.workers import worker_info
from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.context_vars import unfold
from teamster.spine.workers.encoding import keep_one_by_one
from teamster.spine.workers.exceptions import describe
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import Scoreboard

Record = tuple[int, int, bool, bytes]
"""First item, items, whether it is a failure, and the pickle."""


class _Kept:
    """Results and failures of one batch."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def keep(self, first: int, values: list[object]) -> None:
        """Take results; those that do not pickle become their items' failures."""
        try:
            self.records.append((first, len(values), False, pack_whole(values, home=True)))
        except BaseException as reason:
            keep_one_by_one(self, first, values, reason)

    def keep_failure(self, first: int, error: BaseException) -> None:
        """Take an exception."""
        self.records.append((first, 1, True, pickle.dumps(describe(error))))


_scoreboard = Scoreboard.private()
_prepared: tuple[Runner, contextvars.Context] | None = None


def begin(info: bytes, initializer: bytes) -> bytes:
    """Run the initializer; returns what it raised, or nothing."""
    originals.become_worker(forked=None)
    worker_info.set_process_worker(pickle.loads(info))
    try:
        function, arguments = pickle.loads(initializer)
        if function is not None:
            function(*arguments)
    except BaseException as error:
        return pickle.dumps(describe(error))
    return b""


def define(function: bytes, how: bytes) -> None:
    """Make a function ready."""
    global _prepared
    style, seed, one_by_one, carried = pickle.loads(how)
    spec = FunctionSpec(pickle.loads(function), style, seed, one_by_one)
    _prepared = Runner(spec, spec.function, _scoreboard.words), unfold(carried)


def run_batch(items: bytes, number: int, index: int) -> bytes:
    """Run items; returns the pickled records of what came of them."""
    assert _prepared is not None
    runner, context = _prepared
    kept = _Kept()
    context.run(runner.run, pickle.loads(items), number, index, kept)
    return pickle.dumps(kept.records)
