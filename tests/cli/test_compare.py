# SPDX-License-Identifier: BSD-3-Clause
"""``teamster compare``, run as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import os, time

def wait(line):
    time.sleep(0.02)
    return line

def fussy(line):
    return 1 / (int(line) - 3)

def note(line):
    with open("ran", "a") as file:
        file.write(line + chr(10))
"""
LINES = "".join(f"{number}\n" for number in range(12))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def compare(folder: Path, *arguments: str, stdin: str = LINES) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "teamster.cli.main", "compare", *arguments]
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_waiting_is_best_done_in_many_threads(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", "--workers", "2,6", "--json")
    assert (done.stderr, done.returncode) == ("", 0)
    facts = json.loads(done.stdout)
    assert facts["inputs"] == 12
    ways = [(run["asked"], run["workers"]) for run in facts["runs"]]
    assert ways[:5] == [("serial", 1), ("thread", 2), ("thread", 6), ("process", 2), ("process", 6)]
    assert ways[5][0] == "auto"
    assert {run["items"] for run in facts["runs"]} == {12}
    assert facts["recommended"]["workers"] == 6
    assert "times as fast as the plain loop" in facts["sentence"]
    for run in facts["runs"]:
        assert 0 < run["first_s"] <= run["seconds"]
        assert run["cpu"] >= 0


def test_the_table_names_every_way(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", "--workers", "3", "--limit", "4")
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    assert lines[0] == "4 of 4 inputs, start of the workers included"
    assert [line.split()[0] for line in lines[3:7]] == [
        "serial",
        "thread(3)",
        "process(3)",
        "auto:",
    ]
    assert lines[-1].endswith(".")


def test_every_way_runs_every_input_once(folder: Path) -> None:
    assert compare(folder, "work:note", "-", "--workers", "2").returncode == 0
    ran = (folder / "ran").read_text().split()
    assert sorted(ran) == sorted([str(number) for number in range(12)] * 4)


def test_failures_are_counted_and_told(folder: Path) -> None:
    done = compare(folder, "work:fussy", "-", "--workers", "2")
    assert done.returncode == 1
    assert done.stdout.count("1 failed") == 4


def test_a_budget_cuts_the_loop_and_what_follows(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", "--workers", "2", "--budget", "0.4", "--json")
    runs = json.loads(done.stdout)["runs"]
    assert 1 <= runs[0]["items"] < 12
    assert all(run["items"] <= runs[0]["items"] for run in runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["work:wait", "-", "--workers", "2,x"],
            "--workers takes numbers from 1 on with commas between them, as in 2,4,8; not",
        ),
        (["work:wait", "-", "--workers", "0"], "--workers takes numbers from 1 on"),
        (["work:wait", "-", "--limit", "0"], "--limit must be more than 0, not 0"),
        (["work:wait", "-", "--budget", "-1"], "--budget must be more than 0, not -1.0"),
        (["work:nosuch", "-"], "module 'work' has no 'nosuch'"),
        (["work:wait", "empty"], "no file below 'empty' matches '*'"),
        (["work:wait", "-", "work.py"], "cannot be mixed"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    done = compare(folder, *arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_lines_at_all(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", stdin="")
    assert (done.stderr, done.returncode) == ("teamster: there is no input\n", 2)


def test_a_page_shows_all_ways_above_each_other(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", "--workers", "2", "--html", "page.html")
    assert (done.stderr, done.returncode) == ("", 0)
    page = (folder / "page.html").read_text()
    for text in (
        "serial",
        "thread(2)",
        "process(2)",
        "auto: ",
        "work:wait: 12 of 12 inputs",
        "times as fast as the plain loop",
    ):
        assert text in page
    facts = json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0]
    )
    assert [group["name"].split(":")[0] for group in facts["groups"]] == [
        "serial",
        "thread(2)",
        "process(2)",
        "auto",
    ]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("page.png", "--output takes a file that ends in .html, not 'page.png'"),
        ("no/page.html", "No such file or directory"),
    ],
)
def test_a_page_that_cannot_be_written_is_an_error_before_anything_runs(
    folder: Path, path: str, says: str
) -> None:
    done = compare(folder, "work:note", "-", "-o", path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "ran").exists()


def test_the_figures_are_the_same_with_a_page(folder: Path) -> None:
    done = compare(folder, "work:wait", "-", "--workers", "2", "--html", "page.html", "--json")
    facts = json.loads(done.stdout)
    assert [run["items"] for run in facts["runs"]] == [12] * 4
    assert "timeline" not in facts["runs"][0]
