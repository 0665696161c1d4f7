# SPDX-License-Identifier: BSD-3-Clause
"""``teamster lab``, from the command line to the files, with work for tenths of a second."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from teamster.cli.lab import command
from teamster.cli.lab.command import run_lab
from teamster.cli.lab.runs import Sizes
from teamster.cli.main import main

if TYPE_CHECKING:
    from tests.conftest import StartScript, WaitUntil

pytest.importorskip("matplotlib")
pytest.importorskip("numpy")

TINY = Sizes(0.0, 1)
WAYS = ["serial", "thread(2)", "thread(4)", "process(2)", "process(4)", "auto"]
NAMES = ["download", "write", "loop", "dot"]

INTERRUPTED = """
import sys
from pathlib import Path
from teamster.cli import main
from teamster.cli.lab import command
command._QUICK = 60.0, 1
print("begins", flush=True)
code = main.main(["lab", "--quick", "--only", sys.argv[1], "--out", sys.argv[2]])
print(code)
"""


@dataclass
class Done:
    folder: Path
    facts: dict[str, Any]
    tables: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All four, in a program of their own, as a user has it."""
    folder = tmp_path_factory.mktemp("lab") / "new" / "folder"
    program = (
        "import sys; from teamster.cli import main; from teamster.cli.lab import command;"
        " command._QUICK = 0.0, 1; sys.exit(main.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "lab", "--quick", "--json", "--out", str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == 0, process.stderr
    return Done(folder, json.loads(process.stdout), process.stderr)


def test_all_is_measured(done: Done) -> None:
    experiments = done.facts["experiments"]
    assert [each["name"] for each in experiments] == NAMES
    for experiment in experiments:
        assert experiment["skipped"] == ""
        for case in experiment["cases"]:
            assert [way["way"] for way in case["ways"]] == WAYS
            assert {way["items"] for way in case["ways"]} == {case["items"]}
            assert {way["failed"] for way in case["ways"]} == {0}
            assert case["fastest"] in ("auto", case["fastest_fixed"])
            assert case["fastest_fixed"] in WAYS[:-1]
            assert case["ways"][0]["speedup"] == 1.0
    assert [case["label"] for case in experiments[-1]["cases"]] == [
        "BLAS threads free",
        "one BLAS thread a worker",
    ]


def test_the_report_is_written(done: Done) -> None:
    names = {path.name for path in done.folder.iterdir()}
    pictures = {f"{name}.png" for name in NAMES} | {f"{name}-timelines.png" for name in NAMES[:-1]}
    # And no file of the experiment "write"
    assert names == {"index.html", *pictures, "dot-timelines-1.png", "dot-timelines-2.png"}
    assert done.facts["files"][0] == str(done.folder / "index.html")
    page = (done.folder / "index.html").read_text(encoding="utf-8")
    for case in (case for experiment in done.facts["experiments"] for case in experiment["cases"]):
        assert all(f"{way['speedup']:.2f}x" in page for way in case["ways"])


def test_the_tables_name_every_way(done: Done) -> None:
    lines = done.tables.splitlines()
    firsts = [
        line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] != "time"
    ]
    assert firsts == ["serial", "thread(2)", "thread(4)", "process(2)", "process(4)", "auto:"] * 5
    assert lines[-1] == f"The report: {done.folder / 'index.html'}"


def test_only_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_QUICK", (0.0, 1))
    assert main(["lab", "--quick", "--only", "loop, loop", "-o", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "index.html",
        "loop.png",
        "loop-timelines.png",
    }
    printed = capsys.readouterr().out
    assert "A loop in pure Python: 8 inputs" in printed
    assert "Dot products" not in printed


@pytest.mark.parametrize("names", ["upload", "", "loop,", "loop;dot"])
def test_an_unknown_name_is_one_line(
    names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "--only", names, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "download, write, loop, dot" in said
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "teamster.cli.lab.conducting.conduct", lambda *_: pytest.fail("it works already")
    )
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/lab")):
        assert main(["lab", "--out", str(folder)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"teamster: the report cannot be written to {str(folder)!r}: ")
        assert said.count("\n") == 1


def test_without_matplotlib_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        command, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    assert main(["lab", "--out", str(tmp_path / "new")]) == 2
    assert "pip install 'teamster[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_numpy_the_dot_products_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("teamster.cli.lab.conducting.import_module", missing)
    assert run_lab(["dot"], tmp_path, TINY) == 0
    assert (
        "skipped. It needs numpy, which is not installed: pip install numpy"
        in capsys.readouterr().out
    )
    assert "It needs numpy" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["download", "write"])
def test_ctrl_c_leaves_nothing_behind(
    name: str, tmp_path: Path, start_script: StartScript, wait_until: WaitUntil
) -> None:
    folder = tmp_path / "new" / "folder"
    script = start_script(INTERRUPTED, name, str(folder))
    wait_until(script.survivors, 20, "the server, or the processes that are started first")
    script.interrupt()
    script.wait()
    assert script.stdout.split() == ["begins", "130"]
    assert script.stderr == ""
    wait_until(lambda: not script.survivors(), 5)
    assert not (tmp_path / "new").exists()


def test_kill_leaves_no_process_and_no_file(
    tmp_path: Path, start_script: StartScript, wait_until: WaitUntil
) -> None:
    script = start_script(INTERRUPTED, "download", str(tmp_path / "out"))
    wait_until(lambda: len(script.survivors()) > 0, 20)
    script.send_signal(signal.SIGKILL)
    wait_until(lambda: not script.survivors(), 5, "everything is gone")
    assert list((tmp_path / "out").iterdir()) == []
