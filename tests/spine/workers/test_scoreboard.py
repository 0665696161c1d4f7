# SPDX-License-Identifier: BSD-3-Clause
"""The scoreboard: what a parent can read of a worker, alive or dead."""

import os

from teamster.spine.workers.batch import FunctionSpec
from teamster.spine.workers.process.result_log import ResultSink
from teamster.spine.workers.runner import Runner
from teamster.spine.workers.scoreboard import COMMITTED, LIMIT, NBYTES, STARTED, WIDTH, Scoreboard


class KeepAll:
    def __init__(self) -> None:
        self.kept: list[tuple[int, list[object]]] = []

    def keep(self, first: int, values: list[object]) -> None:
        self.kept.append((first, values))

    def keep_failure(self, first: int, error: BaseException) -> None:
        self.kept.append((first, [repr(error)]))


def test_between_items_nothing_runs() -> None:
    scoreboard = Scoreboard.private()
    assert scoreboard.running() is None
    scoreboard.words[WIDTH], scoreboard.words[STARTED] = 1, 5
    assert scoreboard.running() == (5, 1, 0)
    scoreboard.words[COMMITTED] = 6
    assert scoreboard.running() is None
    assert scoreboard.frontier() == 6


def test_the_runner_marks_each_item_before_it_starts() -> None:
    scoreboard, sink = Scoreboard.private(), KeepAll()
    seen: list[object] = []
    Runner(
        FunctionSpec(abs),
        lambda item: seen.append(scoreboard.running() and scoreboard.running()[:2]),  # type: ignore[index]
        scoreboard.words,
    ).run("abc", 4, 0, sink)
    assert seen == [(4, 1), (5, 1), (6, 1)]
    assert scoreboard.running() is None


def test_items_beyond_the_limit_are_not_started() -> None:
    scoreboard, sink = Scoreboard.private(), KeepAll()

    def run(item: int) -> int:
        if item == 2:
            scoreboard.words[LIMIT] = 4  # the parent takes back what has not started
        return item

    assert Runner(FunctionSpec(abs), run, scoreboard.words).run([1, 2, 3, 4, 5], 1, 0, sink) == 3
    assert sink.kept == [(1, [1]), (2, [2]), (3, [3])]


def test_tiny_items_run_in_blocks_and_an_exception_costs_one_item() -> None:
    scoreboard, sink = Scoreboard.private(), KeepAll()

    def run(item: int) -> int:
        if item == 5:
            raise StopIteration
        if item == 7:
            raise KeyError(item)
        return item

    runner = Runner(FunctionSpec(abs), run, scoreboard.words)
    runner.item_ns = 50.0
    assert runner.run(list(range(10)), 1, 0, sink) == 10
    assert sink.kept == [
        (1, [0, 1, 2, 3, 4]),
        (6, ["StopIteration()"]),
        (7, [6]),
        (8, ["KeyError(7)"]),
        (9, [8, 9]),
    ]


class Silent:
    """A channel that nobody reads."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, ...]] = []
        self.bytes_sent = 0

    def put(self, message: tuple[object, ...]) -> None:
        self.sent.append(message)


def test_finished_results_are_in_the_log_until_they_are_sent() -> None:
    scoreboard = Scoreboard.shared()
    channel = Silent()
    sink = ResultSink(channel, scoreboard)  # type: ignore[arg-type]
    sink.keep(1, ["one"])
    sink.keep_failure(2, ValueError("two"))
    attached = Scoreboard.attach(os.dup(scoreboard.descriptor))
    records = attached.read_log()
    assert [(first, count, failed) for first, count, failed, _ in records] == [
        (1, 1, False),
        (2, 1, True),
    ]
    sink.flush()
    assert attached.read_log() == []
    assert len(channel.sent) == 1
    attached.close()
    scoreboard.close()


def test_a_log_that_is_full_is_sent() -> None:
    scoreboard = Scoreboard.shared()
    channel = Silent()
    channel.stow = lambda parcel: parcel.data  # type: ignore[attr-defined]
    sink = ResultSink(channel, scoreboard)  # type: ignore[arg-type]
    for number in range(1, 40):
        sink.keep(number, ["x" * 4_000])
    in_log = len(scoreboard.read_log())
    sent = sum(record[1] for message in channel.sent for record in message[1])  # type: ignore[attr-defined]
    assert in_log + sent == 39
    assert 0 < in_log < NBYTES // 4_000
    assert scoreboard.words[STARTED] == 0
    scoreboard.close()


class Halting:
    """The words of a scoreboard.

    After each store the worker might lose its processor, and the parent look.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self.scoreboard = scoreboard
        self.seen: list[int] = []
        self.ran: list[int] = []

    def __setitem__(self, word: int, value: int) -> None:
        self.scoreboard.words[word] = value
        assert self.scoreboard.frontier() > max(self.ran, default=0)
        self.seen.append(self.scoreboard.frontier())

    def __getitem__(self, word: int) -> int:
        return int(self.scoreboard.words[word])


def test_the_frontier_is_never_behind_what_ran() -> None:
    """Random traffic found items run twice: it was too low between a block of 8 and one of 4."""
    scoreboard = Scoreboard.private()
    words = Halting(scoreboard)
    runner = Runner(FunctionSpec(words.ran.append), words.ran.append, words)  # type: ignore[arg-type]
    runner.item_ns = 100_000 / 8
    runner._in_blocks(range(1, 21), 1, 0, KeepAll(), None)
    runner._one_by_one(range(21, 24), 21, 20, KeepAll(), None)
    runner._in_blocks(range(24, 34), 24, 23, KeepAll(), None)
    assert words.ran == list(range(1, 34))
    assert max(words.seen) <= 34 + 8
