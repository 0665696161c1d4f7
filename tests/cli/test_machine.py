# SPDX-License-Identifier: BSD-3-Clause
"""``teamster machine``, with and without ``--json``."""

from __future__ import annotations

import argparse
import json

import pytest

from teamster.cli import machine
from teamster.machine import Machine


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="teamster machine")
    machine.add_options(parser)
    return machine.run(parser.parse_args(arguments))


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    captured = capsys.readouterr()
    assert f"usable cores    {Machine.detect().usable_cores}\n" in captured.out
    assert len(captured.out.splitlines()) <= 12
    assert captured.err == ""


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == Machine.detect().to_dict().keys()
    assert shown["usable_cores"] == Machine.detect().usable_cores


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--xml")
    assert ended.value.code == 2
    assert "--xml" in capsys.readouterr().err
