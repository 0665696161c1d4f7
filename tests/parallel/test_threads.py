# SPDX-License-Identifier: BSD-3-Clause
"""Threads that stay: order, failures, ends."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from teamster.parallel.threads import DeviceThreads
from tests.conftest import RunScript

CPU = torch.device("cpu")


@pytest.fixture
def three() -> Iterator[DeviceThreads]:
    made = DeviceThreads([CPU] * 3, 1)
    yield made
    made.close()


def test_results_are_in_order_and_each_job_has_its_own_thread(three: DeviceThreads) -> None:
    meeting = threading.Barrier(3)

    def job(index: int) -> tuple[int, str]:
        meeting.wait(10)
        return index, threading.current_thread().name

    for _ in range(5):
        assert three.run([partial(job, index) for index in range(3)]) == [
            (index, f"teamster-replica-{index}") for index in range(3)
        ]


def test_threads_are_started_when_they_are_needed_and_no_sooner() -> None:
    before = threading.active_count()
    made = DeviceThreads([CPU] * 3, 1)
    assert threading.active_count() == before
    made.run([lambda: None])
    assert threading.active_count() == before + 1
    made.run([lambda: None] * 3)
    assert threading.active_count() == before + 3
    assert made.run([]) == []
    made.close()
    made.close()
    assert threading.active_count() == before
    assert made.run([lambda: 1]) == [1]  # others come
    made.close()


def test_one_failure_lets_the_others_end_before_the_caller_hears_of_it(
    three: DeviceThreads,
) -> None:
    failed, ended = threading.Event(), []

    def fail() -> None:
        failed.set()
        raise LookupError("first")

    def late() -> None:
        failed.wait(10)
        ended.append(1)

    with pytest.raises(LookupError, match="first") as caught:
        three.run([late, fail, late])
    assert ended == [1, 1]
    assert caught.value.__notes__ == ["in replica 1 on device cpu"]
    assert three.run([lambda: 1, lambda: 2]) == [1, 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_would_end_a_program_ends_no_thread(
    three: DeviceThreads, kind: type[BaseException]
) -> None:
    def leave() -> None:
        raise kind

    with pytest.raises(kind):
        three.run([leave, leave])
    assert three.run([lambda: 1, lambda: 2]) == [1, 2]


class Kept:
    """Something that a weak reference may watch."""


def test_an_exception_is_not_kept_by_the_threads(three: DeviceThreads) -> None:
    watched: list[weakref.ref[Kept]] = []

    def fail() -> None:
        big = Kept()
        watched.append(weakref.ref(big))
        raise LookupError

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(LookupError):
            three.run([fail, fail])
        three.run([lambda: None] * 2)
        assert [each() for each in watched] == [None, None]
    finally:
        gc.enable()


def test_results_are_not_kept_by_the_threads(three: DeviceThreads) -> None:
    watched = [weakref.ref(each) for each in three.run([Kept, Kept])]
    three.run([lambda: None] * 2)
    assert [each() for each in watched] == [None, None]


def test_inner_threads_are_set_in_each_and_left_alone_elsewhere(three: DeviceThreads) -> None:
    before = torch.get_num_threads()
    assert three.run([torch.get_num_threads] * 3) == [1, 1, 1]
    assert torch.get_num_threads() == before


def test_several_callers_may_hand_out_jobs_at_one_time(three: DeviceThreads) -> None:
    found: dict[int, list[int]] = {}

    def call(number: int) -> None:
        for _ in range(50):
            found[number] = three.run([lambda: number, lambda: -number])

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == {number: [number, -number] for number in range(4)}


def test_threads_end_with_the_object() -> None:
    made = DeviceThreads([CPU] * 2, 1)
    mine = made.run([threading.current_thread] * 2)
    del made
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()


def test_a_program_ends_with_threads_that_nobody_has_closed(run_script: RunScript) -> None:
    found = run_script(
        "import torch\n"
        "from teamster.parallel.threads import DeviceThreads\n"
        "threads = DeviceThreads([torch.device('cpu')] * 2, 1)\n"
        "print(threads.run([lambda: 1, lambda: 2]))\n",
        timeout=60,
    )
    assert (found.returncode, found.stdout.strip(), found.stderr.strip()) == (0, "[1, 2]", "")
