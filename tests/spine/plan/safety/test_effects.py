# SPDX-License-Identifier: BSD-3-Clause
"""What code is seen to do, without running it."""

import ast
import contextlib
import heapq
import io
import os
import random
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any

import pytest

from teamster.spine.plan.safety.effects import Effects

FAILED: list[Any] = []
COUNTS: Counter[str] = Counter()
GROUPS: defaultdict[int, list[int]] = defaultdict(list)
OUTPUT = [0] * 9
RANDOM = random.Random(1)
STREAM = io.StringIO()
CALLS = [FAILED.append]
MINE = threading.local()
MINE.name = "the caller's"


class Job:
    hits = 0

    def __init__(self) -> None:
        self.log: list[Any] = []

    def note(self, item: Any) -> None:
        self.log.append(item)

    def run(self, item: Any) -> None:
        if item > 9:
            self.note(item)

    def __call__(self, item: Any) -> None:
        self.log[0] = item

    @classmethod
    def hit(cls) -> None:
        cls.hits += 1


class Visitor(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)


JOB, VISITOR = Job(), Visitor()


def note(log: list[Any], item: Any) -> None:
    log.append(item)


def keeps(item: int) -> int:
    own = Job()
    own.run(item)
    own.log += FAILED
    table: dict[int, Any] = {item: COUNTS.get("a")}
    table[item] = len(GROUPS)
    note(own.log, sorted(OUTPUT))
    return len(table)


def tries(item: int) -> None:
    try:
        log = FAILED
        for each in range(item):
            log.append(1 / each)
    except ZeroDivisionError:
        COUNTS["bad"] += 1


def doubles(item: int, table: list[int] = OUTPUT) -> None:
    table *= item


def sets(item: int, *, log: list[int] = []) -> None:  # noqa: B006
    log[0] = item


def look(function: Callable[..., Any]) -> Effects:
    return Effects(thread_time() + 5).look_at(function)


@pytest.mark.parametrize(
    ("function", "changed"),
    [
        (tries, ["FAILED", "COUNTS"]),
        (lambda item: item > 5 and FAILED.append(item), ["FAILED"]),
        (lambda item: [FAILED.append(each) for each in range(item)], ["FAILED"]),
        (lambda item: GROUPS[item].append(item), ["GROUPS"]),
        (lambda item: OUTPUT.__class__, []),
        (lambda item: note(FAILED, item), ["FAILED"]),
        (lambda item: note(item=item, log=FAILED), ["FAILED"]),
        (lambda item: list(map(tries, [item])), ["FAILED", "COUNTS"]),
        (lambda item: FAILED.append(1 if item else 2), ["FAILED"]),
        (lambda item: [call(item) for call in CALLS], ["append"]),
        (lambda item: heapq.heappush(OUTPUT, item), ["OUTPUT"]),
        (lambda item: setattr(JOB, "log", item), ["JOB"]),
        (lambda item: globals().update(FAILED=item), ["globals()"]),
        (lambda item: print(item, file=STREAM), ["STREAM"]),
        (lambda item: VISITOR.visit(item), ["VISITOR.names"]),
        (lambda item: JOB.run(item), ["JOB.log"]),
        (lambda item: Job.hit(), ["Job"]),
        (lambda item: RANDOM.random(), ["RANDOM"]),
        (partial(note, FAILED), ["argument 0 of the partial"]),
        (JOB.run, ["its Job object.log"]),
        (JOB, ["its Job object.log"]),
        (doubles, ["default of table"]),
        (sets, ["default of log"]),
        (keeps, []),
        (abs, []),
    ],
)
def test_what_it_changes_of_what_it_carries(
    function: Callable[..., Any], changed: list[str]
) -> None:
    found = look(function)
    assert found.changed == changed
    assert (not found.against_processes(seeded=False)) == (not changed)


def draws(item: int) -> float:
    return random.random()


def prints(item: int) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        print(item)
    return stream.getvalue()


def assigns(item: int) -> None:
    sys.stdout = io.StringIO()


def goes(item: int) -> None:
    os.chdir(str(item))


def exports(item: int) -> None:
    os.environ["ITEM"] = str(item)


def rings(item: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, item)


def names(item: int) -> Any:
    return getattr(MINE, "name", None)


def renames(item: int) -> None:
    MINE.name = "another"


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (prints, "`redirect_stdout`, which sets"),
        (assigns, "`sys.stdout`, which sets"),
        (goes, "`chdir`, which sets"),
        (exports, "`os.environ`, which sets"),
        (rings, "`setitimer`, which sets"),
        (names, "`MINE`, of which each thread has its own"),
    ],
)
def test_what_all_threads_would_share_and_what_each_has_for_itself(
    function: Callable[..., Any], what: str
) -> None:
    assert what in look(function).against_threads()


def test_what_each_thread_sets_for_itself_may_be_used() -> None:
    assert not look(renames).against_threads()


def test_the_global_generators_are_drawn_from() -> None:
    found = look(draws)
    assert found.drawn == ["random.random"]
    assert not found.against_processes(seeded=True)


def test_what_is_told_by_its_identity_does_not_come_back() -> None:
    missing = object()

    def find(item: int) -> object:
        return missing if item > 5 else item

    assert "it returns `missing`" in look(find).against_processes(seeded=False)
    assert not look(lambda item: find(item) is missing).against_processes(seeded=False)


@pytest.mark.parametrize("function", [lambda item: id(item) in COUNTS, lambda item: hash(item) % 7])
def test_numbers_of_one_process_are_not_those_of_another(function: Callable[..., Any]) -> None:
    assert "which each process gives anew" in look(function).against_processes(seeded=False)


def test_a_timer_needs_its_handler() -> None:
    assert "setitimer" in look(rings).against_processes(seeded=False)


def test_training_is_one_step_after_the_other() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1)

    def train(item: int) -> None:
        model(torch.ones(1, 2)).sum().backward()

    def train_its_own(item: int) -> None:
        own = torch.nn.Linear(2, 1)
        own(torch.ones(1, 2)).sum().backward()

    found = look(train)
    assert "it trains `model`" in found.against_threads()
    assert "it trains `model`" in found.against_processes(seeded=False)
    assert not look(train_its_own).against_threads()


def test_it_ends_when_its_time_is_over() -> None:
    assert not Effects(thread_time() - 1).look_at(tries).changed
