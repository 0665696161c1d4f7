# SPDX-License-Identifier: BSD-3-Clause
"""The working folder as `os.getcwd` tells it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from teamster.machine.folder import working_folder


def test_it_follows_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b" * 200, "n\udcff", "a"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        assert working_folder() == os.getcwd() == str(tmp_path / name)


def test_a_path_that_is_longer_than_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    assert _answer_of(working_folder) == _answer_of(os.getcwd)


def _answer_of(ask: Callable[[], str]) -> object:
    try:
        return ask()
    except OSError as error:
        return error.errno


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        working_folder()
