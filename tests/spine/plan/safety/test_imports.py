# SPDX-License-Identifier: BSD-3-Clause
"""What a function would find in a new process."""

import subprocess
import sys
import types
from typing import Any

import pytest

from teamster.spine.plan.safety.imports import difference, imported_states

DEPTH = 3
NAMES = {"one", "two", "three"}
TABLE = {"a": [1, 2], "f": len}


def use(item: int) -> Any:
    return DEPTH, NAMES, TABLE


def test_what_modules_hold_has_names() -> None:
    assert set(imported_states(use)) == {"DEPTH", "NAMES", "TABLE"}
    assert imported_states(lambda item: item) == {}


def test_a_change_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = imported_states(use)
    assert difference(before, imported_states(use)) == ""
    monkeypatch.setitem(TABLE, "a", [1])
    assert difference(before, imported_states(use)) == "TABLE"
    monkeypatch.undo()
    monkeypatch.setattr(f"{__name__}.DEPTH", 4)
    assert difference(before, imported_states(use)) == "DEPTH"


def test_what_is_not_there_is_another_thing() -> None:
    assert difference({"x": (1, 1)}, {}) == "x"
    assert difference({"x": None}, {}) == ""  # too large to tell
    assert difference({"x": (1, 1)}, {"x": None}) == ""


def test_functions_of_main_bring_their_globals_along() -> None:
    module = types.ModuleType("__main__")
    module.__dict__["depth"] = 3
    exec("def use(item): return depth", module.__dict__)
    assert imported_states(module.__dict__["use"]) == {}


def test_another_process_finds_the_same() -> None:
    """Strings hash differently there, so sets have another order."""
    code = (
        "import sys; sys.path[:0] = [{!r}]; import {} as m; "
        "print(sorted(m.imported_states(m.use).items()))"
    )
    text = code.format(__file__.rsplit("/tests/", 1)[0], "tests.spine.plan.safety.test_imports")
    shown = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == str(sorted(imported_states(use).items()))
