# SPDX-License-Identifier: BSD-3-Clause
"""``teamster serve``, as a shell runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from teamster.cli.main import main

DEADLINE_S = 60.0


def scripted(module: nn.Module, folder: Path) -> str:
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 2)), folder / "model.pt")
    return "model.pt"


def exported(module: nn.Module, folder: Path) -> str:
    """With a batch of one row, as most are: larger ones fail, and none is tried."""
    torch.export.save(torch.export.export(module, (torch.zeros(1, 2),)), folder / "model.pt2")
    return "model.pt2"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("save", [scripted, exported])
def test_a_file(save: Callable[[nn.Module, Path], str], tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    name = save(module, tmp_path)
    (tmp_path / "input.json").write_text("[1, 2]")
    command = [sys.executable, "-m", "teamster.cli.main", "serve", name, "--port", "0"]
    with subprocess.Popen(
        [*command, "--example", "input.json", "--p99", "5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        found = re.match(r"\S+ on (http://127.0.0.1:\d+/predict), \w+(\(\d+\))?: ", line)
        assert found is not None, line or program.communicate()[1]
        with urllib.request.urlopen(found[1], b"[1, 2]", timeout=DEADLINE_S) as answer:
            assert json.load(answer) == pytest.approx(module(torch.tensor([1.0, 2.0])).tolist())
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 0, errors
    assert ("served unbatched" in errors) == (save is exported)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "the model must be given as package.module:model, not 'nothing'"),
        (["math:pi"], "a model is a torch module, a callable, or has predict(); not 3.14"),
        (["missing.pt"], "cannot load missing.pt: "),
        (["math:sqrt", "--example", "missing.json"], "--example missing.json: "),
        (["math:sqrt", "--p99", "-1"], "p99= is a number of seconds above 0"),
        (["math:sqrt", "--port", "70000"], "cannot listen on 127.0.0.1:70000"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_file_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(1, 1).state_dict(), path)
    assert main(["serve", str(path)]) == 2
    assert "a state_dict has no code: give package.module:model" in capsys.readouterr().err
