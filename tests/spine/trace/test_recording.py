# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import teamster as ts


@pytest.mark.parametrize("ending", [".html", ".png", ".svg", ".json", ".pftrace", ".HTML"])
def test_the_ending_chooses_the_view(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"run{ending}"
    with ts.record(path):
        ts.map(abs, range(10), backend="serial")
    begins = {
        ".html": b"<!doctype html>",
        ".png": b"\x89PNG",
        ".svg": b"<?xml",
        ".json": b"{",
        ".pftrace": b"\n",
    }
    assert path.read_bytes().lower().startswith(begins[ending.lower()].lower())
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "run.txt",
            "a timeline is written as .html, .png, .svg, .json or .pftrace; 'run.txt' ends "
            "otherwise",
        ),
        ("run", "'run' ends otherwise"),
        ("/no/such/folder/run.html", "No such file or directory"),
        ("/proc/run.html", "cannot be written"),
    ],
)
def test_a_path_that_cannot_be_written_is_an_error_before_the_work(path: str, says: str) -> None:
    with pytest.raises(ts.UsageError, match=says):
        ts.record(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(ts.UsageError, match="it is a folder"):
        ts.record(tmp_path / "x.html")


def test_a_picture_without_matplotlib_is_an_error_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ts.UsageError, match=r"pip install 'teamster\[plot\]'"):
        ts.record(tmp_path / "run.png")
    with ts.record(tmp_path / "run.json"):
        pass


def test_the_file_is_there_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with ts.record(tmp_path / "run.json"):
            ts.map(lambda n: 1 // n, [1, 0], backend="serial")
    names = {
        event["name"] for event in json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    }
    assert any("<lambda>" in name for name in names)


def test_the_users_error_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("teamster.spine.trace.recording.save", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        with ts.record(tmp_path / "run.json"):
            _ = 1 // 0
    assert "and the timeline could not be written" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="No space left"):
        with ts.record(tmp_path / "run.json"):
            pass


FULL = """
import os, resource, signal, sys, teamster as ts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recording = ts.record("run.html")
try:
    with recording:
        results = ts.map(abs, range(1000), backend="serial")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
except OSError as error:
    left = sorted(name for name in os.listdir() if "run" in name)
    print(type(error).__name__, len(results), left)
    print(recording.timeline.spans > 0)
"""


def test_a_full_disk_leaves_no_half_of_a_file(run_script: Any) -> None:
    script = run_script(FULL)
    assert script.stdout.splitlines() == ["OSError 1000 []", "True"], script.stderr


def test_without_a_path_there_is_the_timeline() -> None:
    recording = ts.record()
    with pytest.raises(ts.UsageError, match="use the recording in a with block"):
        _ = recording.timeline
    with recording:
        ts.map(abs, range(10), backend="serial")
        assert recording.timeline.spans  # so far
    before = recording.timeline
    with recording:  # again: another timeline
        pass
    assert recording.timeline is not before


def test_it_cannot_be_entered_twice_at_once() -> None:
    with ts.record() as recording:
        with pytest.raises(ts.UsageError, match="under way already"):
            recording.__enter__()


def test_saving_once_more(tmp_path: Path) -> None:
    with ts.record(tmp_path / "run.json") as recording:
        ts.map(abs, range(10), backend="serial")
    recording.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "run.json").read_bytes()


def test_notebooks_show_it() -> None:
    with ts.record() as recording:
        ts.map(abs, range(10), backend="serial")
    assert (recording._repr_png_() or b"").startswith(b"\x89PNG")
    assert "<svg" in recording._repr_html_()
    assert recording.plot().axes


PROGRAM = """
import teamster as ts
if __name__ == "__main__":
    print(sum(ts.map(abs, range(100), backend="process", workers=2)))
"""


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found


def test_the_environment_records_any_program(run_script: Any, tmp_path: Path) -> None:
    script = run_script(PROGRAM, env={"TEAMSTER_TRACE": "out.json"})
    assert (script.stdout, script.stderr, script.returncode) == ("4950\n", "", 0)
    items = sum(
        event["args"].get("items", 1)
        for event in events(script.folder / "out.json")
        if event.get("cat") == "compute"
    )
    assert items == 100


def test_the_environment_names_the_folder_of_the_start(run_script: Any) -> None:
    elsewhere = PROGRAM.replace(
        "import teamster as ts", "import os, teamster as ts\nts.Pool()\nos.chdir('/')"
    )
    script = run_script(elsewhere, env={"TEAMSTER_TRACE": "out.json"})
    assert script.stderr == ""
    assert events(script.folder / "out.json")


def test_a_program_that_fails_has_its_timeline_too(run_script: Any) -> None:
    script = run_script(PROGRAM.replace("range(100)", "'xy'"), env={"TEAMSTER_TRACE": "out.json"})
    assert "TypeError" in script.stderr
    assert events(script.folder / "out.json")


def test_a_bad_path_in_the_environment_stops_the_program_before_its_work(run_script: Any) -> None:
    script = run_script(PROGRAM, env={"TEAMSTER_TRACE": "out.txt"})
    assert "UsageError: TEAMSTER_TRACE: a timeline is written as .html" in script.stderr
    assert script.stdout == ""


def test_a_path_that_breaks_later_is_one_line(run_script: Any) -> None:
    text = f"import os; os.mkdir('sub')\n{PROGRAM}\n    os.rmdir('sub')"
    script = run_script(text, env={"TEAMSTER_TRACE": "sub/out.json"})
    assert script.stdout == "4950\n"
    assert script.returncode == 0
    (line,) = script.stderr.splitlines()
    assert line.startswith("teamster: the timeline could not be written to ")


def test_workers_and_copies_do_not_write_over_it(run_script: Any) -> None:
    nested = """
import multiprocessing, os, sys, teamster as ts
def inner(n):
    return sum(ts.map(abs, range(n), backend="thread", workers=2))
def copy():
    ts.map(abs, range(5)); sys.exit(0)
if __name__ == "__main__":
    print(sum(ts.map(inner, range(20), backend="process", workers=2)))
    child = multiprocessing.get_context("fork").Process(target=copy)
    child.start(); child.join()
    pid = os.fork()
    if not pid:
        sys.exit(0)
    os.waitpid(pid, 0)
"""
    script = run_script(nested, env={"TEAMSTER_TRACE": "out.json"})
    assert script.returncode == 0, script.stderr
    names = {event["name"] for event in events(script.folder / "out.json")}
    assert "inner" in names
