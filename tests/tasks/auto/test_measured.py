# SPDX-License-Identifier: BSD-3-Clause
"""`backend="auto"`: what it chooses, what it never changes, and when it starts nobody."""

import hashlib
import itertools
import operator
import random
import threading
import time
from typing import Any

import psutil
import pytest

import teamster as ts
from teamster.spine.plan.plan import Candidate
from teamster.spine.plan.race import Race
from teamster.spine.workers.dispatcher import Dispatcher
from teamster.tasks.auto.measured import MeasuredMapping
from tests.conftest import RunScript
from tests.tasks.auto.work import burn, burst, wait

CALLS = {"count": 0}
LOCK = threading.Lock()


def count_calls(item: int) -> int:
    CALLS["count"] += 1
    return burn(20_000)


def take_turns(item: int) -> int:
    with LOCK:
        return burn(20_000)


def draw(item: int) -> float:
    burn(20_000)
    return random.random()


def mend(item: list[int]) -> int:
    item.append(1)
    return burn(20_000)


def chosen(function: Any, items: Any, **options: Any) -> ts.Plan:
    with ts.Pool(**options) as pool:
        pool.map(function, items)
        return pool.plan


# --- what it chooses ------------------------------------------------------------------------------


def test_waiting_goes_to_many_threads() -> None:
    plan = chosen(wait, range(400))
    assert plan.backend == "thread"
    assert plan.workers > 4
    assert "waits" in plan.reason


def test_every_kind_is_thought_of_and_none_of_them_stays() -> None:
    """SHA-256 of megabytes could run in threads and in processes.

    How many cores are free, no test can know.
    """
    plan = chosen(lambda data: hashlib.sha256(data).digest(), [bytes(2_000_000)] * 600)
    assert {each.backend for each in plan.candidates} == {"serial", "thread", "process"}
    assert [each.note for each in plan.candidates] == [""] * len(plan.candidates)


def test_a_python_loop_does_not_go_to_threads() -> None:
    plan = chosen(burst, range(800))
    threads = [each for each in plan.candidates if each.backend == "thread"]
    assert plan.backend in ("process", "serial") or any(
        each.measured for each in threads
    )  # on a busy machine anything may win a trial
    assert plan.evidence is not None
    # But nobody expects it of them
    assert all((each.predicted or 0) < 1.5 / plan.evidence.wall_s for each in threads)


def test_a_few_tiny_items_start_no_thread_and_no_process() -> None:
    threads, children = threading.active_count(), len(psutil.Process().children())
    seen = []

    def look(item: int) -> int:
        seen.append(threading.active_count())
        return item

    deadline = time.monotonic() + 60
    while True:
        seen.clear()
        began, ran = time.perf_counter(), time.thread_time()
        with ts.Pool() as pool:
            assert pool.map(look, range(20)) == list(range(20))
            choice = pool.plan.choice
            now = threading.active_count(), len(psutil.Process().children())
        # On a busy machine this thread may be kept waiting, and its items look long
        waited_s = time.perf_counter() - began - (time.thread_time() - ran)
        if choice == "serial" or waited_s < 0.005 or time.monotonic() > deadline:
            break
    assert choice == "serial"
    assert now == (threads, children)
    assert set(seen) == {threads}


def test_the_first_result_is_there_before_any_worker() -> None:
    children = len(psutil.Process().children())
    with ts.Pool() as pool:
        results = pool.imap(lambda n: n, itertools.count())
        assert next(results) == 0
        assert len(psutil.Process().children()) == children


def test_one_item_runs_here() -> None:
    assert ts.map(lambda _: ts.current_worker(), [1]) == [ts.WorkerInfo(0, "serial", 1)]


def test_processes_that_are_wanted_again_get_the_time_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were started in each window, and sent away in the same, as long as there were items."""
    began, starts, back = time.perf_counter(), [], []
    start_all = Dispatcher.start_all

    def choose(self: Race, horizon_s: float, start_s: dict[str, float] | None = None) -> Candidate:
        self.settled = True
        if self.current.measured is None:
            return self.current
        if time.perf_counter() - began < 0.5 or "thread" in back:
            return Candidate("process", 2)
        if self.current.backend == "thread":
            back.append("thread")
        return Candidate("thread", 2)

    def slowly(self: Dispatcher) -> int:
        starts.append(start_all(self))
        return starts[-1] if len(starts) > 3 and back else 0 if back else starts[-1]

    monkeypatch.setattr(Race, "choose", choose)
    monkeypatch.setattr(Dispatcher, "start_all", slowly)
    monkeypatch.setattr(MeasuredMapping, "_is_unclear", lambda self, wanted: False)

    def nap(_: int) -> str:
        time.sleep(0.005)
        return ts.current_worker().kind  # type: ignore[union-attr]

    kinds = []
    with ts.Pool() as pool:
        for kind in pool.imap(nap, itertools.count()):
            kinds.append(kind)
            if ("thread" in kinds and kind == "process") or time.perf_counter() - began > 60:
                break  # in a large program a worker that is asked has much to import
        plan = pool.plan
    assert "thread" in kinds
    assert kinds[-1] == "process", plan


@pytest.mark.parametrize("lazy", [False, True])
def test_a_stream_that_changes_from_computing_to_waiting(lazy: bool) -> None:
    def change(number: int) -> str:
        if number < 300:
            burn(20_000)
        else:
            time.sleep(0.01)
        return ts.current_worker().kind  # type: ignore[union-attr]

    with ts.Pool() as pool:
        kinds = list(pool.imap(change, range(1_500))) if lazy else pool.map(change, range(1_500))
        # Threads as a rule; beside other programs many processes have won, too. Nobody stays with
        # one worker a core.
        assert pool.plan.workers > ts.Machine.detect().usable_cores, pool.plan
    assert kinds[-1] == pool.plan.backend


def test_dear_items_behind_cheap_ones_do_not_stay_behind() -> None:
    """The caller runs thousands of tiny items at a time.

    Those that turn out to be dear are taken back from it.
    """

    def turn(number: int) -> str:
        if number >= 50_000:
            time.sleep(0.02)
        return ts.current_worker().kind  # type: ignore[union-attr]

    with ts.Pool() as pool:
        kinds = pool.map(turn, range(50_300))
    assert kinds[:50_000].count("serial") > 40_000
    assert kinds[50_000:].count("serial") < 100
    assert kinds[-1] == "thread"


def test_a_long_first_item_does_not_speak_for_thousands() -> None:
    """It may open a connection, or import what all of them need."""
    opened: list[int] = []

    def query(number: int) -> str:
        if not opened:
            opened.append(number)
            time.sleep(0.1)
        return ts.current_worker().kind  # type: ignore[union-attr]

    with ts.Pool() as pool:
        kinds = pool.map(query, range(20_000))
    assert kinds.count("serial") > 15_000, pool.plan


def test_the_caller_sleeps_while_its_workers_work(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    steer = MeasuredMapping._steer_workers
    monkeypatch.setattr(
        MeasuredMapping, "_steer_workers", lambda self: looks.append(1) or steer(self)
    )
    deadline = time.monotonic() + 60
    with ts.Pool(allow=("serial", "process")) as pool:
        while True:  # workers may take longer to come than one call
            looks.clear()
            pool.map(wait, range(300))
            if pool.plan.backend == "process":
                break
            assert time.monotonic() < deadline, pool.plan
    assert 0 < len(looks) < 20 * 300


# --- what it never changes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (count_calls, "the call changes `CALLS`, which it carries"),
        (take_turns, "it uses `LOCK`, a lock"),
        (draw, "it draws random numbers from `random`"),
    ],
)
def test_what_a_process_would_lose_stays_here(function: Any, why: str) -> None:
    CALLS["count"] = 0
    with ts.Pool() as pool:
        pool.map(function, range(400))
        plan = pool.plan
    assert plan.backend in ("serial", "thread")
    assert f"stays here: {why}" in plan.reason
    assert CALLS["count"] == (400 if function is count_calls else 0)


SET_SINCE = """
import sys, teamster as ts
open("settings_of_test.py", "w").write(
    "depth = 1\\ndef use(item):\\n    total = sum(range(20_000))\\n    return depth, total\\n"
)
sys.path.insert(0, ".")
import settings_of_test

def depths(pool):
    return {depth for depth, _ in pool.map(settings_of_test.use, range(3_000))}

with ts.Pool(allow=("serial", "process")) as pool:
    assert depths(pool) == {1}
    assert "stays here" not in pool.plan.reason, pool.plan
    settings_of_test.depth = 2
    assert depths(pool) == {2}
    why = "stays here: in a new process `depth` is not what it is here"
    assert why in pool.plan.reason, pool.plan
with ts.Pool(allow=("serial", "process")) as pool:
    assert depths(pool) == {2}
"""


def test_what_the_program_has_set_in_a_module_since_stays_here(run_script: RunScript) -> None:
    """A new process would import the module as it is in its file.

    (A program of its own: this one has loaded every library.)
    """
    script = run_script(SET_SINCE)
    assert (script.returncode, script.stderr) == (0, "")


class Job:
    done: list[int] = []  # noqa: RUF012 - shared on purpose

    def run(self) -> int:
        self.done.append(1)
        return burn(20_000)


def test_what_the_class_of_the_arguments_collects_stays_here() -> None:
    Job.done.clear()
    plan = chosen(operator.methodcaller("run"), [Job() for _ in range(300)])
    assert "the call changes `Job.done`" in plan.reason
    assert len(Job.done) == 300


def test_a_second_call_that_carries_something_else_is_looked_at_anew() -> None:
    def make(seen: list[int] | None) -> Any:
        def function(item: int) -> int:
            if seen is not None:
                seen.append(item)
            return burn(20_000)

        return function

    seen: list[int] = []
    with ts.Pool() as pool:
        pool.map(make(None), range(400))
        assert "stays here" not in pool.plan.reason
        pool.map(make(seen), range(400))
        assert "the call changes `seen`" in pool.plan.reason
    assert len(seen) == 400


def test_an_argument_that_the_call_changes_stays_here() -> None:
    items: list[list[int]] = [[] for _ in range(300)]
    plan = chosen(mend, items)
    assert "the call changes its argument" in plan.reason
    assert items == [[1]] * 300


def test_an_unpicklable_argument_stays_here() -> None:
    plan = chosen(lambda pair: burn(20_000), [(threading.Lock(), n) for n in range(300)])
    assert plan.backend in ("serial", "thread")
    assert "its argument holds a lock" in plan.reason


def test_an_argument_that_does_not_pickle_among_others_that_do_runs_here() -> None:
    items: list[Any] = [*range(600), threading.Lock(), *range(600), threading.RLock()]
    with ts.Pool(allow=("serial", "process")) as pool:
        results = pool.map(lambda item: (burn(20_000), type(item))[1], items)
        assert "the argument cannot be sent" in pool.plan.reason or pool.plan.evidence.items > 700  # type: ignore[union-attr]
    assert results == [type(item) for item in items]


def test_an_unpicklable_result_stays_here() -> None:
    with ts.Pool() as pool:
        locks = pool.map(lambda _: burn(20_000) and threading.Lock(), range(300))
        assert "its result does not survive pickling" in pool.plan.reason
    assert len(locks) == 300


def test_with_a_seed_random_numbers_may_travel() -> None:
    with ts.Pool() as pool:
        first = pool.map(draw, range(400), seed=7)
        assert "random" not in pool.plan.reason
    assert first == ts.map(draw, range(400), seed=7, backend="serial")


def test_an_unpicklable_initializer_leaves_processes_out() -> None:
    lock = threading.Lock()
    plan = chosen(burst, range(400), initializer=lambda: lock.locked())
    assert plan.backend in ("serial", "thread")


def test_the_initializer_runs_once_in_the_caller() -> None:
    seen: list[int] = []
    with ts.Pool(allow=("serial",), initializer=seen.append, initargs=(1,)) as pool:
        pool.map(abs, range(5))
        pool.map(abs, range(5))
    assert seen == [1]


def test_an_initializer_that_fails_ends_the_call() -> None:
    def fail() -> None:
        raise OSError("no database")

    with ts.Pool(initializer=fail) as pool, pytest.raises(OSError, match="no database") as caught:
        pool.map(abs, range(5))
    assert "raised by the initializer" in caught.value.__notes__[0]
