# SPDX-License-Identifier: BSD-3-Clause
"""``teamster map``, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import os, signal, time

def size(path):
    return os.path.getsize(path)

def slow(line):
    time.sleep(0.01)
    return int(line) * 2

def stuck(line):
    while int(line) >= 100 and not os.path.exists("go"):
        time.sleep(0.001)
    return int(line) * 2

def fussy(line):
    if line == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if line == "lock":
        return object()
    return int(line)

number = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def teamster(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "teamster.cli.main", "map", *arguments]
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def entries(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_files_and_folders(folder: Path) -> None:
    (folder / "data" / "deep").mkdir(parents=True)
    for name, text in {"a.txt": "x", "deep/b.txt": "xx", "c.bin": "xxx"}.items():
        (folder / "data" / name).write_text(text)
    done = teamster(folder, "work:size", "data", "work.py", "--glob", "*.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert entries(done.stdout) == [
        {"input": "data/a.txt", "result": 1},
        {"input": "data/deep/b.txt", "result": 2},
        {"input": "work.py", "result": len(MODULE)},
    ]


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_lines_of_standard_input(folder: Path, backend: str) -> None:
    done = teamster(folder, "work:slow", "-", "--backend", backend, stdin="3\n1\n2\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry["result"] for entry in entries(done.stdout)] == [6, 2, 4]


def test_unordered_has_every_result(folder: Path) -> None:
    done = teamster(folder, "work:slow", "-", "--unordered", stdin="\n".join(map(str, range(50))))
    assert sorted(entry["result"] for entry in entries(done.stdout)) == list(range(0, 100, 2))


def test_failures_are_told_and_cost_nobody_else(folder: Path) -> None:
    done = teamster(
        folder,
        "work:fussy",
        "-",
        "--errors",
        "errors.jsonl",
        "--backend",
        "process",
        stdin="1\nx\ndie\nlock\n5\n",
    )
    assert done.returncode == 1
    assert [entry["input"] for entry in entries(done.stdout)] == ["1", "5"]
    problems = {entry["input"]: entry for entry in entries((folder / "errors.jsonl").read_text())}
    assert {name: entry["type"] for name, entry in problems.items()} == {
        "x": "ValueError",
        "die": "WorkerDied",
        "lock": "TypeError",
    }
    assert "fussy" in problems["x"]["traceback"]
    assert "SIGKILL" in problems["die"]["error"]


def test_without_an_errors_file_a_failure_is_one_line(folder: Path) -> None:
    done = teamster(folder, "work:fussy", "-", stdin="x\n")
    assert done.stderr.splitlines() == [
        "teamster: x: ValueError: invalid literal for int() with base 10: 'x'"
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["work", "work.py"], "package.module:function"),
        (["nosuch:f", "work.py"], "cannot import 'nosuch'"),
        (["work:nosuch", "work.py"], "has no 'nosuch'"),
        (["work:number", "work.py"], "cannot be called"),
        (["work:size", "nosuch.txt"], "no file or folder 'nosuch.txt'"),
        (["work:size", "empty"], "no file below 'empty'"),
        (["work:size", "work.py", "--backend", "gpu"], "unknown backend 'gpu'"),
        (["work:size", "work.py", "--workers", "0"], "workers must be at least 1"),
        (["work:size", "work.py", "--chunksize", "-2"], "chunksize must be at least 1"),
        (["work:size", "work.py", "--resume"], "--resume needs"),
        (["work:size", "-", "work.py"], "cannot be mixed"),
        (["work:size", "work.py", "-o", "nowhere/out.jsonl"], "cannot write"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(folder: Path, arguments: list[str], line: str) -> None:
    (folder / "empty").mkdir()
    done = teamster(folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    command = f"seq 100000 | {sys.executable} -m teamster.cli.main map builtins:int - | head -2"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (
        '{"input": "1", "result": 1}\n{"input": "2", "result": 2}\n',
        "",
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_stopped(
    folder: Path, end: int, wait_until: Callable[..., None]
) -> None:
    inputs = "".join(f"{number}\n" for number in range(300))
    (folder / "in.txt").write_text(inputs)
    output = folder / "out.jsonl"
    command = [
        sys.executable,
        "-m",
        "teamster.cli.main",
        "map",
        "work:stuck",
        "-",
        "-o",
        "out.jsonl",
    ]
    with (
        open(folder / "in.txt") as lines,
        subprocess.Popen(command, cwd=folder, stdin=lines) as killed,
    ):
        wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") > 20, seconds=20)
        os.kill(killed.pid, end)
    held = output.read_bytes()
    assert 20 < held.count(b"\n") < 300
    output.write_bytes(held + b'{"input": "29')  # a line torn by the kill
    (folder / "go").touch()
    done = teamster(folder, "work:stuck", "-", "-o", "out.jsonl", "--resume", stdin=inputs)
    assert done.returncode == 0
    assert entries(output.read_text()) == [
        {"input": str(number), "result": number * 2} for number in range(300)
    ]


def test_resume_refuses_a_file_of_something_else(folder: Path) -> None:
    (folder / "out.jsonl").write_text("precious\n")
    done = teamster(folder, "work:size", "work.py", "-o", "out.jsonl", "--resume")
    assert done.returncode == 2
    assert "is not the output of teamster map" in done.stderr
    assert (folder / "out.jsonl").read_text() == "precious\n"


def test_the_report_goes_to_stderr(folder: Path) -> None:
    done = teamster(folder, "work:size", "work.py", "--report", "--backend", "process")
    assert "process(" in done.stderr
    assert len(entries(done.stdout)) == 1
