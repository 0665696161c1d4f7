# SPDX-License-Identifier: BSD-3-Clause
"""The page at several sizes: it fits, and it says what there is to say."""

import io
import json
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from teamster.cli.top.answers import read_answer
from teamster.cli.top.jobs import JobView
from teamster.cli.top.rates import History
from teamster.cli.top.screen import NO_JOB, Page, draw_once, draw_page

SIZES = [(80, 24), (40, 20), (200, 60)]
STATES = ("running", "running", "idle", "loading", "running")


def worker(
    number: int, state: str = "running", since_s: float = 0.1, kind: str = "process"
) -> dict[str, Any]:
    return {
        "label": f"{kind} {number}",
        "kind": kind,
        "pid": 5000 + number if kind == "process" else None,
        "state": state,
        "items": 100,
        "busy_s": 10.0,
        "function": "crunch",
        "index": 1000 + number if state == "running" else None,
        "since_s": since_s,
        "memory_bytes": 20 << 20,
    }


def pool(count: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "id": 0,
        "title": f"process({count})",
        "reason": "3.1 times as fast as the loop, and threads were not faster, because the "
        "function holds the GIL all the time",
        "items": 137,
        "wall_s": 12.0,
        "queue": 12,
        "calls": [{"function": "crunch", "done": 137, "total": 400, "seconds": 10.0}],
        "workers": [worker(number, STATES[number % 5], number * 0.01) for number in range(count)],
        "pickled_bytes": 3 << 20,
        **changes,
    }


def job(*pools: dict[str, Any], pid: int = 4711, **changes: Any) -> JobView:
    history = History()
    said = {
        "version": 1,
        "pid": pid,
        "command": "job.py --n 400",
        "memory_bytes": 50 << 20,
        "pools": pools,
        "now_ns": 10**9,
    }
    answer = read_answer(json.dumps(said).encode())
    history.add(answer)
    return JobView(
        **{"pid": pid, "answer": answer, "pools": history.pools, "age_s": 65.0, **changes}
    )


def printed(page: RenderableType, width: int) -> list[str]:
    file = io.StringIO()
    Console(
        file=file, width=width, force_terminal=False, highlight=False, legacy_windows=False
    ).print(page)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def shown(
    jobs: list[JobView],
    width: int = 80,
    height: int = 24,
    page: Page | None = None,
    problem: str = "",
) -> str:
    lines = printed(draw_page(jobs, page or Page(), 2, width, height, problem), width)
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width
    return "\n".join(lines)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_page_says_what_a_job_does(width: int, height: int) -> None:
    text = shown([job(pool())], width, height)
    for part in (
        "4711",
        "job.py",
        "process(4)",
        "3.1 times",
        "crunch",
        "34%",
        "13.7/s",
        "in use",
        "queue 12",
        "process 0",
        "#1,000",
    ):
        assert part in text
    assert "2 running, 1 loading, 1 idle" in text
    if width >= 80:
        for part in ("137/400", "19 s left", "moved 3.0 MiB", "130.0 MiB", "1:05", "83%"):
            assert part in text


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("count", [64, 500, 5000])
def test_many_workers_are_folded(width: int, height: int, count: int) -> None:
    workers = [worker(number, "idle") for number in range(count)]
    workers[17] = worker(17, "running", 33.0)
    workers[19] = worker(19, "dead")
    workers[23] = worker(23, "loading")
    text = shown([job(pool(count, workers=workers))], width, height)
    rows = [line for line in text.splitlines() if line.startswith("process ")]
    assert [row.split()[1] for row in rows[:3]] == ["19", "17", "23"]
    assert f"{count - len(rows):,} more" in text
    assert f"{count - 3:,} idle" in text
    assert "█" in text


@pytest.mark.parametrize("width", [20, 30, 59, 60, 79, 99, 100, 101])
@pytest.mark.parametrize("height", [3, 5, 8, 12, 18])
def test_odd_sizes_fit_too(width: int, height: int) -> None:
    shown([job(pool(64), pool(3, id=1), pid=pid) for pid in range(1, 9)], width, height)
    shown([], width, height)
    shown([job()], width, height, Page(help=True))


def test_trouble_is_counted() -> None:
    text = shown([job(pool(failures=2, deaths=1, retries=3, timeouts=1))])
    for part in ("2 failures", "1 death", "3 retries", "1 timeout"):
        assert part in text
    assert "death" not in shown([job(pool())])


def test_trouble_is_red_unless_colours_are_unwanted() -> None:
    page = draw_page([job(pool(deaths=1))], Page(), 2, 80, 24)
    for environment, expected in (({}, True), ({"NO_COLOR": "1"}, False)):
        file = io.StringIO()
        Console(
            file=file, width=80, force_terminal=True, color_system="standard", _environ=environment
        ).print(page)
        assert ("\x1b[1;31m1 death" in file.getvalue()) is expected
        assert "1 death" in file.getvalue()


def test_nobody_knows_the_total() -> None:
    text = shown(
        [job(pool(calls=[{"function": "step", "done": 12345, "total": None, "seconds": 100.0}]))]
    )
    assert "12,345" in text
    assert "123/s" in text
    assert "left" not in text


def test_a_pool_without_a_call_is_idle() -> None:
    text = shown([job(pool(calls=[]))])
    assert "idle  " in text
    assert "137 items" in text


def test_many_calls() -> None:
    calls = [
        {"function": f"f{number}", "done": 1, "total": 2, "seconds": 1.0 + number}
        for number in range(9)
    ]
    assert "5 more calls" in shown([job(pool(calls=calls))])


def test_no_job() -> None:
    assert NO_JOB in shown([])
    assert printed(draw_once([], 2, 80), 80) == [NO_JOB]


def test_jobs_that_do_not_answer() -> None:
    text = shown(
        [
            job(pool(), quiet_s=7.0),
            JobView(9, None, (), 3.0),
            JobView(10, None, (), 0.0, "it speaks version 2"),
        ]
    )
    first, second, third = text.splitlines()[2:5]
    assert "not answering  job.py" in first
    assert "as it was 7.0 s ago" in text
    assert "9" in second
    assert second.endswith("not answering")
    assert third.endswith("it speaks version 2")
    assert "not answering" not in shown([job(pool(), quiet_s=0.3)])


def test_a_problem_is_told() -> None:
    text = " ".join(
        shown(
            [],
            40,
            20,
            problem="the folder /tmp/teamster-0 is not yours alone, so what it holds is not shown",
        ).split()
    )
    assert "is not yours alone, so what it holds is not shown" in text


def test_what_a_job_says_is_text_and_nothing_else() -> None:
    odd = pool(
        reason="[bold]why[/bold]",
        calls=[{"function": "[red]f", "done": 1, "total": 2, "seconds": 1.0}],
    )
    text = shown([job(odd)])
    assert "[bold]why[/bold]" in text
    assert "[red]f" in text


def test_selecting_jobs() -> None:
    jobs = [job(pool(title=f"thread({pid})"), pid=pid) for pid in range(1, 31)]
    page = Page()
    assert "thread(1) " in shown(jobs, page=page)
    page.move(jobs, 1, 0)
    assert "thread(2) " in shown(jobs, page=page)
    page.move(jobs, 100, 0)
    text = shown(jobs, page=page)
    assert "thread(30) " in text
    assert "▶     30" in text
    assert "25 more" in text
    page.move(jobs, -100, 0)
    assert page.pid == 1
    assert "thread(7) " in shown(jobs[6:], page=page)  # the one that was selected has ended


def test_selecting_pools() -> None:
    jobs = [job(pool(1, calls=[]), pool(2, id=1), pool(3, id=2))]
    page = Page()
    assert "process(2) · pool 2 of 3" in shown(jobs, page=page)  # the one that works
    page.move(jobs, 0, 1)
    assert "process(3) · pool 3 of 3" in shown(jobs, page=page)
    page.move(jobs, 0, 1)
    assert "process(1) · pool 1 of 3" in shown(jobs, page=page)
    page.move([], 1, 1)
    shown([], page=page)


def test_hiding_workers() -> None:
    assert "WORKER" in shown([job(pool())])
    assert "WORKER" not in shown([job(pool())], page=Page(workers=False))


def test_a_paused_page_says_so() -> None:
    assert "PAUSED" in shown([job(pool())], page=Page(paused=True))


def test_help() -> None:
    text = shown([job(pool())], page=Page(help=True))
    assert "show or hide the table of workers" in text
    assert "crunch" not in text


def test_threads_have_no_process_of_their_own() -> None:
    text = shown([job(pool(workers=[worker(number, kind="thread") for number in range(3)]))])
    header = next(line for line in text.splitlines() if line.startswith("WORKER"))
    assert "PID" not in header
    assert "RUNS" in header


def test_everything_once() -> None:
    lines = printed(draw_once([job(pool(40)), job(pool(3), pid=4712)], 2, 80), 80)
    text = "\n".join(lines)
    assert "process(40)" in text
    assert "process(3)" in text
    assert "24 more" in text
    assert "quit" not in text
