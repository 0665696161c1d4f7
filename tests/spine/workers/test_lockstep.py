# SPDX-License-Identifier: BSD-3-Clause
"""One job in each of n threads: without torch; with it, tests/parallel/test_threads.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from teamster.spine.workers.inbox_thread import InboxThread, Take
from teamster.spine.workers.lockstep import Lockstep


@pytest.fixture
def threads() -> Iterator[Lockstep]:
    made = Lockstep("stage", None)
    yield made
    made.close()


def test_all_run_at_once_and_results_are_in_order(threads: Lockstep) -> None:
    meeting = threading.Barrier(3)
    for _ in range(3):
        found = threads.run(
            [lambda index=index: (meeting.wait(10) >= 0, index) for index in range(3)]  # type: ignore[misc]
        )
        assert found == [(True, 0), (True, 1), (True, 2)]


def test_each_job_has_the_same_thread_every_time(threads: Lockstep) -> None:
    names = [threads.run([lambda: threading.current_thread().name] * 2) for _ in range(3)]
    assert names == [["teamster-stage-0", "teamster-stage-1"]] * 3


def test_an_error_names_its_job_when_the_others_have_ended(threads: Lockstep) -> None:
    ended = []
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        threads.run([lambda: failed.wait(10) and ended.append(1), fail])
    assert ended == [1]
    assert caught.value.__notes__ == ["in stage 1"]


def test_a_job_that_steps_itself_runs_the_step_in_its_own_thread(threads: Lockstep) -> None:
    inner = threads.run(
        [
            lambda: (
                threads.runs_caller(),
                threads.run([lambda: threading.current_thread().name] * 2),
            )
        ]
    )
    assert inner == [(True, ["teamster-stage-0"] * 2)]
    assert not threads.runs_caller()


def test_threads_come_when_they_are_needed_and_again_after_a_close(threads: Lockstep) -> None:
    before = threading.active_count()
    assert threads.run([]) == []
    assert threading.active_count() == before
    assert threads.run([lambda: 1]) == [1]
    assert threading.active_count() == before + 1
    threads.close()
    assert threading.active_count() == before
    assert threads.run([lambda: 2] * 2) == [2, 2]


def test_an_inbox_is_emptied_before_its_thread_ends() -> None:
    taken: list[int] = []

    def work(take: Take, extra: int) -> None:
        while (item := take()) is not None:
            taken.append(item + extra)

    thread = InboxThread("teamster-test", work, 100)
    for number in range(1_000):
        thread.put(number)
    thread.end()
    thread.start()
    thread.join(10)
    assert taken == list(range(100, 1_100))
    assert not thread.is_current()
