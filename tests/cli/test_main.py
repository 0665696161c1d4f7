# SPDX-License-Identifier: BSD-3-Clause
"""The frame: which command is imported, what reaches the terminal, which exit code."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

import pytest

from teamster.cli import main as frame
from teamster.errors import TaskError, TeamsterError, TransferError, UsageError


def command(monkeypatch: pytest.MonkeyPatch, run: Callable[[argparse.Namespace], int]) -> None:
    """Put one command named `fake` in the place of the real ones."""
    module = ModuleType("fake_command")

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--number", type=int)

    vars(module).update(DESCRIPTION="nothing real", add_options=add_options, run=run)
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setattr(frame, "COMMANDS", {"fake": ("fake_command", "nothing real")})


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> NoReturn:
        raise error

    return run


def test_the_command_gets_its_arguments_and_gives_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def run(arguments: argparse.Namespace) -> int:
        seen.append(arguments.number)
        return 7

    command(monkeypatch, run)
    assert frame.main(["fake", "--number", "3"]) == 7
    assert seen == [3]


def test_argv_comes_from_the_command_line_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command(monkeypatch, lambda arguments: arguments.number)
    monkeypatch.setattr(sys, "argv", ["teamster", "fake", "--number", "5"])
    assert frame.main() == 5


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["--nonsense"], ["machine", "--nonsense"], ["machine", "surplus"]],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("teamster")
    assert "--help)" in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "map m:f x --wrkers 2",
            "teamster map: there is no option --wrkers; did you mean --workers? (see teamster map "
            "--help)",
        ),
        (
            "map m:f x --outptu=y",
            "teamster map: there is no option --outptu; did you mean --output? (see teamster map "
            "--help)",
        ),
        (
            "compare --zzz m:f x",
            "teamster compare: there is no option --zzz (see teamster compare --help)",
        ),
        ("lab surplus", "teamster lab: unrecognized arguments: surplus (see teamster lab --help)"),
        ("--jsn machine", "teamster: there is no option --jsn (see teamster --help)"),
        (
            "machine --jsn",
            "teamster machine: there is no option --jsn; did you mean --json? (see teamster "
            "machine --help)",
        ),
    ],
)
def test_an_unknown_option_is_told_by_the_command_that_has_not_it(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.main(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"{says}\n")


@pytest.mark.parametrize("name", ["map", "compare", "lab"])
@pytest.mark.parametrize("option", ["-o", "--output"])
def test_where_the_output_goes_is_said_alike(name: str, option: str) -> None:
    parser, _ = frame.build_parser([name])
    inputs = [] if name == "lab" else ["module:function", "input"]
    assert parser.parse_args([name, *inputs, option, "place"]).output == "place"
    older = {"map": "--output", "compare": "--html", "lab": "--out"}[name]
    assert parser.parse_args([name, *inputs, older, "place"]).output == "place"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such thing"), 2),
        (TeamsterError("no such thing"), 1),
        (TaskError("no such thing", index=3), 1),
        (TransferError("no such thing", index=3), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_our_errors_are_one_line(
    error: TeamsterError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(monkeypatch, raising(error))
    assert frame.main(["fake"]) == code
    assert capsys.readouterr().err == f"teamster: {error}\n"


def test_a_message_of_several_lines_becomes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, raising(TeamsterError("what happened\n  the likely cause\n  what to do")))
    assert frame.main(["fake"]) == 1
    assert capsys.readouterr().err == "teamster: what happened the likely cause what to do\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        frame.main(["fake"])


def test_ctrl_c_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, raising(KeyboardInterrupt()))
    assert frame.main(["fake"]) == 130
    assert capsys.readouterr() == ("", "")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, summary) in frame.COMMANDS.items():
        assert f" {name} " in shown
        assert " ".join(summary.split()) in " ".join(shown.split())


def test_help_of_a_command_says_what_the_list_says(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (_, summary) in frame.COMMANDS.items():
        parser, _ = frame.build_parser([name])
        actions = [
            action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
        ]
        choices = {choice.dest: choice.help for choice in actions[0]._choices_actions}
        assert choices[name] == summary
        assert frame.main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: teamster {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--version"]) == 0
    word, version = capsys.readouterr().out.split()
    assert word == "teamster"
    assert version[0].isdigit()


@pytest.mark.parametrize("name", frame.COMMANDS)
def test_only_the_named_command_is_imported(name: str) -> None:
    program = (
        "import sys; from teamster.cli.main import build_parser; "
        f"build_parser([{name!r}]); print(*(module for module in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(result.stdout.split())
    assert {module for module, _ in frame.COMMANDS.values()} & loaded == {frame.COMMANDS[name][0]}
    assert not loaded & {"numpy", "torch", "multiprocessing", "tqdm", "importlib.metadata"}


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    # More output than a pipe holds, so the writer is sure to meet the closed end; `head` is played
    # by this process.
    program = (
        "import sys; from types import ModuleType; from teamster.cli import main as frame\n"
        "module = ModuleType('fake_command')\n"
        "def run(arguments):\n"
        "    for number in range(1_000_000): print(number)\n"
        "    return 0\n"
        "module.DESCRIPTION, module.add_options, module.run = '', lambda parser: None, run\n"
        "sys.modules['fake_command'] = module; frame.COMMANDS['fake'] = ('fake_command', '')\n"
        "sys.exit(frame.main(['fake']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "0\n"
        running.stdout.close()
        assert running.wait(timeout=30) == 141
        assert running.stderr.read() == ""


def test_the_program_is_installed() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "teamster.cli.main", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("teamster: ")
    assert len(result.stderr.splitlines()) == 1
