# SPDX-License-Identifier: BSD-3-Clause
"""Bars, strips, and the workers that are worth a line."""

import pytest

from teamster.cli.top.answers import WorkerSeen
from teamster.cli.top.parts import draw_strip, make_bar, pick_workers


def worker(number: int, state: str = "running", since_s: float = 0.0) -> WorkerSeen:
    return WorkerSeen(f"thread {number}", "thread", None, state, 0, 0.0, "f", 0, since_s, 0)


def test_workers_keep_their_order_when_there_is_room() -> None:
    workers = [worker(0, "idle"), worker(1, "absent"), worker(2, "running", 9.0)]
    assert [each.label for each in pick_workers(workers, 2)] == ["thread 0", "thread 2"]


def test_the_longest_on_one_item_come_first() -> None:
    workers = [
        worker(0, "idle"),
        worker(1, "running", 0.4),
        worker(2, "running", 9.0),
        worker(3, "running", 0.9),
        worker(4, "loading"),
    ]
    assert [each.label for each in pick_workers(workers, 4)] == [
        "thread 2",
        "thread 4",
        "thread 1",
        "thread 3",
    ]
    assert pick_workers(workers, -1) == []


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, ["███"]), (10, ["██████████"]), (25, ["██████████", "██████████", "█████"])],
)
def test_a_strip_has_a_cell_for_each(count: int, expected: list[str]) -> None:
    assert [
        line.plain for line in draw_strip([worker(number) for number in range(count)], 10, 3)
    ] == expected


@pytest.mark.parametrize("count", [31, 40, 5000])
@pytest.mark.parametrize(("width", "most"), [(10, 3), (20, 1), (3, 2)])
def test_a_strip_that_is_too_long_says_how_many_more(count: int, width: int, most: int) -> None:
    lines = [
        line.plain for line in draw_strip([worker(number) for number in range(count)], width, most)
    ]
    assert len(lines) <= most
    assert (
        sum(line.count("█") for line in lines) + int(lines[-1].partition("+")[2].replace(",", ""))
        == count
    )


def test_a_bar_stays_in_its_place() -> None:
    assert [make_bar(share, 4, "").plain for share in (-1, 0, 0.5, 1, 7)] == [
        "░░░░",
        "░░░░",
        "██░░",
        "████",
        "████",
    ]
