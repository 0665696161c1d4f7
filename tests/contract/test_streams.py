# SPDX-License-Identifier: BSD-3-Clause
"""What tasks print, log and warn; functions of a program's ``__main__``; progress."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import teamster as ts


def test_prints_arrive_in_whole_lines(pool: ts.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 35."""

    def say(n: int) -> None:
        print(f"item {n}", "of many")
        print("to stderr", n, file=sys.stderr)

    pool.map(say, range(50))
    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == sorted(f"item {n} of many" for n in range(50))
    assert sorted(captured.err.splitlines()) == sorted(f"to stderr {n}" for n in range(50))


def test_log_records_reach_the_callers_loggers(
    pool: ts.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        with ts.Pool(pool.plan.backend, workers=2) as fresh:  # type: ignore[arg-type]
            fresh.map(lambda n: logging.getLogger("tasks.mine").info("item %d", n), range(5))
    assert sorted(
        record.getMessage() for record in caplog.records if record.name == "tasks.mine"
    ) == [f"item {n}" for n in range(5)]


def test_warnings_reach_the_callers_filters(backend: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ts.Pool(backend, workers=1) as pool:  # type: ignore[arg-type]
            pool.map(
                lambda n: warnings.warn("old thing", DeprecationWarning, stacklevel=1), range(3)
            )
    assert [(str(each.message), each.category) for each in caught] == [
        ("old thing", DeprecationWarning)
    ] * 3


def test_a_filter_of_a_class_that_a_worker_has_not_loaded_loads_nothing_and_holds() -> None:
    numpy = pytest.importorskip("numpy")

    def warn(load: bool) -> bool:
        loaded = "numpy" in sys.modules
        if load:
            import numpy

            warnings.warn("steep", numpy.exceptions.RankWarning, stacklevel=1)
        return loaded

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", numpy.exceptions.RankWarning)
        with ts.Pool("process", workers=1) as pool:
            assert pool.map(warn, [False, True]) == [False, False]
    assert [str(each.message) for each in caught] == []


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_task_may_close_its_streams(stream: str) -> None:
    with ts.Pool("process", workers=1) as pool:
        assert pool.map(lambda n: getattr(sys, stream).close() or n, range(3)) == [0, 1, 2]
        assert pool.map(abs, [-1]) == [1]


SCRIPT = """
import dataclasses, enum, functools, os, sys
import teamster as ts

print("main runs", flush=True)

@dataclasses.dataclass
class Point:
    x: int

class Colour(enum.Enum):
    RED = 1

CONNECTION = None

def connect(name):
    global CONNECTION
    CONNECTION = name

def use(n):
    return f"{CONNECTION} {n}"

def move(point):
    return Point(point.x + 1)

class Counter:
    def __init__(self, step): self.step = step
    def add(self, n): return n + self.step

options = dict(backend="process", workers=2)
print(ts.map(move, [Point(1), Point(2)], **options) == [Point(2), Point(3)])
print(
    ts.map(lambda c: c is Colour.RED, [Colour.RED], **options),
    ts.map(lambda n: Colour.RED, [1], **options)[0] is Colour.RED,
)
print(ts.map(use, [1], initializer=connect, initargs=("db",), **options))
print(ts.map(Counter(5).add, [1], **options), ts.map(functools.partial(pow, 2), [3], **options))
print(ts.map(lambda _: sys.argv[1:], [1], **options))
"""
EXPECTED = "main runs\nTrue\n[True] True\n['db 1']\n[6] [8]\n[['argument']]\n"


def test_a_program_without_a_guard(run_script: Callable[..., Any]) -> None:
    """Traps 4 to 7: its `__main__` runs once, and what it defines works in the workers."""
    script = run_script(SCRIPT, "argument")
    assert (script.stdout, script.stderr, script.returncode) == (EXPECTED, "", 0)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_same_with_other_start_methods(method: str, run_script: Callable[..., Any]) -> None:
    """Trap 5: no error, no recursion, no storm of processes."""
    script = run_script(
        SCRIPT.replace("workers=2", f"workers=2, start_method={method!r}"), "argument"
    )
    assert (script.stdout, script.stderr, script.returncode) == (EXPECTED, "", 0)


def test_a_program_given_on_the_command_line_or_by_standard_input(
    run_script: Callable[..., Any],
) -> None:
    """Trap 6."""
    script = run_script(
        "import subprocess, sys\n"
        'code = "import teamster as ts\\ndef f(n): return n + 1\\n'
        "print(ts.map(f, [1, 2], backend='process', workers=2))\"\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True, "
        "text=True).stdout, end='')\n"
        "print(subprocess.run([sys.executable, '-'], input=code, capture_output=True, "
        "text=True).stdout, end='')\n"
    )
    assert script.stdout == "[2, 3]\n[2, 3]\n"


def test_functions_of_notebook_cells(run_script: Callable[..., Any]) -> None:
    """Trap 6: a notebook executes its cells in `__main__`, from no file.

    A cell that runs again replaces what it defines.
    """
    script = run_script(
        "import __main__, builtins\n"
        "def run_cell(number, text): exec(compile(text, f'<cell {number}>', 'exec'), "
        "__main__.__dict__)\n"
        "run_cell(1, 'import teamster as ts, dataclasses\\n"
        'pool = ts.Pool("process", workers=2)\')\n'
        "run_cell(2, 'def scale(n): return n * factor\\nfactor = 2')\n"
        "run_cell(3, 'print(pool.map(scale, range(3)))')\n"
        "run_cell(2, 'def scale(n): return n * factor\\nfactor = 5')\n"
        "run_cell(3, 'print(pool.map(scale, range(3)))')\n"
        "run_cell(4, '@dataclasses.dataclass\\nclass Point:\\n    x: int')\n"
        "run_cell(5, 'print(pool.map(lambda p: Point(p.x + 1), [Point(1)]))')\n"
        "run_cell(6, 'pool.close()')\n"
    )
    assert (script.stdout, script.stderr) == ("[0, 2, 4]\n[0, 5, 10]\n[Point(x=2)]\n", "")


@pytest.mark.parametrize("chunksize", [1, 10])
def test_progress_counts_items(backend: str, chunksize: int) -> None:
    """Trap 41."""
    seen: list[tuple[int, int | None]] = []
    with ts.Pool(
        backend,  # type: ignore[arg-type]
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    ) as pool:
        pool.map(abs, range(101), chunksize=chunksize)
        assert seen[-1] == (101, 101)
        list(pool.imap(abs, iter(range(7))))
        assert seen[-1] == (7, 7)


def test_a_bar_only_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with ts.Pool("thread", workers=2) as pool:
        pool.map(abs, range(10))
    assert capsys.readouterr().err == ""
    with ts.Pool("thread", workers=2, progress="counting") as pool:
        pool.map(abs, range(10))
    assert "counting: 100%" in capsys.readouterr().err


def test_the_report_adds_up(pool: ts.Pool) -> None:
    pool.map(lambda n: 1 // (n - 3), range(10), on_error="return")
    report = pool.report()
    assert (report.items, report.failures, sum(report.items_by_worker)) == (10, 1, 10)
    assert 0 <= report.utilization <= 1
    assert len(str(report).splitlines()) <= 12
    assert report.to_dict()["backend"] == pool.plan.backend
