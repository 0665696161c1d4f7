# SPDX-License-Identifier: BSD-3-Clause
"""The recommendation, as a table; and what a run measures."""

import time

import numpy
import pytest

from teamster.cli.ways import Run, candidates, recommend, run_one


def run(backend: str, workers: int, seconds: float, *, asked: str = "") -> Run:
    return Run(asked or backend, backend, workers, 100, 0, seconds, 0.01, 1.0, 0)


LOOP = run("serial", 1, 1.0)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([run("process", 2, 0.5), run("thread", 2, 0.9)], ("process", 2)),
        ([run("process", 2, 0.5), run("thread", 2, 0.51)], ("thread", 2)),
        ([run("process", 4, 0.5), run("process", 2, 0.52)], ("process", 2)),
        ([run("process", 2, 0.97), run("thread", 2, 1.4)], ("serial", 1)),
        ([run("thread", 2, 1.2), run("process", 2, 0.1, asked="auto")], ("serial", 1)),
    ],
)
def test_the_simplest_of_the_fastest(others: list[Run], expected: tuple[str, int]) -> None:
    chosen, sentence = recommend([LOOP, *others])
    assert (chosen.backend, chosen.workers) == expected
    assert sentence.startswith(f"{chosen.name}: ")


def test_what_is_as_good_is_named() -> None:
    _, sentence = recommend([LOOP, run("thread", 8, 0.25), run("process", 8, 0.255)])
    assert (
        sentence
        == "thread(8): 4.00 times as fast as the plain loop; process(8) is within 5%, with more to "
        "start."
    )


def test_auto_is_named_where_it_was_the_fastest() -> None:
    _, sentence = recommend([LOOP, run("thread", 4, 0.5), run("thread", 64, 0.25, asked="auto")])
    assert (
        sentence
        == "thread(4): 2.00 times as fast as the plain loop. auto: thread(64) was faster still: "
        "4.00 times."
    )


def test_candidates_start_with_the_loop_and_end_with_auto() -> None:
    for cores in (1, 2, 8, 64):
        ways = candidates(cores)
        assert (ways[0], ways[-1]) == (("serial", 1), ("auto", None))
        assert len(set(ways)) == len(ways)


def test_processors_and_memory_of_the_workers_count() -> None:
    def work(number: int) -> int:
        block = numpy.ones(8_000_000)  # 64 MB
        # Of processor time: others may have the processor for most of the time
        until = time.process_time() + 0.2
        while time.process_time() < until:
            number += int(block[0])
        return number

    measured = run_one(work, range(4), ("process", 2))
    assert (measured.items, measured.failed, measured.name) == (4, 0, "process(2)")
    assert measured.cpu * measured.seconds > 0.7
    assert measured.memory_bytes > 60_000_000


def test_time_up() -> None:
    measured = run_one(lambda _: time.sleep(0.05), range(1_000), ("thread", 2), seconds=0.2)
    assert 1 <= measured.items < 100
