# SPDX-License-Identifier: BSD-3-Clause
"""Helpers of OpenMP are let go where there are some, and nothing happens where there are none."""

from __future__ import annotations

import builtins
import io
import sys
from typing import Any

import pytest

from teamster.machine import openmp
from tests.conftest import RunScript


@pytest.fixture(autouse=True)
def unlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had asked before."""
    monkeypatch.setattr(openmp, "_pause", None)
    monkeypatch.setattr(openmp, "_looked", -1)


def fake_maps(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    real = builtins.open

    def opened(path: Any, *arguments: Any, **options: Any) -> Any:
        return io.StringIO(text) if path == "/proc/self/maps" else real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opened)


LINE = "7f0000000000-7f0000001000 r-xp 00000000 00:00 1234   {}\n"


def test_without_openmp_nothing_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maps(monkeypatch, LINE.format("/lib/libc.so.6"))
    assert openmp.release_helpers() is False


def test_of_several_libraries_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maps(monkeypatch, LINE.format("/a/libgomp.so.1") + LINE.format("/b/libgomp-x.so.1"))
    assert openmp.release_helpers() is False


def test_a_library_that_cannot_be_loaded_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maps(monkeypatch, LINE.format("/nowhere/libgomp.so.1") * 2)
    assert openmp.release_helpers() is False


def test_where_maps_cannot_be_read_nothing_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError

    monkeypatch.setattr(builtins, "open", refused)
    assert openmp.release_helpers() is False


def test_it_looks_again_only_when_a_library_may_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(openmp, "_find", lambda: looks.append(1))
    for _ in range(3):
        openmp.release_helpers()
    assert len(looks) == 1
    monkeypatch.setitem(sys.modules, "a_module_that_has_just_come", openmp)
    openmp.release_helpers()
    assert len(looks) == 2


@pytest.mark.parametrize(("code", "released"), [(0, True), (1, False)])
def test_what_the_library_answers_is_passed_on(monkeypatch: pytest.MonkeyPatch, code: int, released: bool) -> None:
    asked: list[int] = []
    monkeypatch.setattr(openmp, "_pause", lambda kind: asked.append(kind) or code)
    assert openmp.release_helpers() is released
    assert asked == [1]  # softly: what the threads know is kept


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_helpers_of_torch_end_and_come_back(run_script: RunScript) -> None:
    found = run_script(
        "import os, time, torch\n"
        "from teamster.machine.openmp import release_helpers\n"
        "torch.set_num_threads(3)\n"
        "def count(): return len(os.listdir('/proc/self/task'))\n"
        "work = lambda: torch.randn(1 << 20).exp_().sum().item()\n"
        "before = count(); work(); with_helpers = count()\n"
        "done = release_helpers()\n"
        "until = time.monotonic() + 5\n"
        "while count() >= with_helpers and done and time.monotonic() < until: pass\n"
        "without = count(); work(); again = count()\n"
        "print(done, with_helpers > before, without < with_helpers, again == with_helpers)\n",
        timeout=30,
    )
    assert found.returncode == 0, found.stderr
    told = found.stdout.split()
    if told[0] == "False":
        pytest.skip("torch here has no GNU OpenMP of version 5")
    assert told == ["True", "True", "True", "True"]
