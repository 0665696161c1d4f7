# SPDX-License-Identifier: BSD-3-Clause
"""One word, one thing: no class name twice, no file name twice on the spine."""

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "teamster"
ALIKE = {"backend", "handle", "worker"}  # each kind of worker has them


def test_no_class_has_the_name_of_another() -> None:
    names = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_of_the_spine_has_the_name_of_another() -> None:
    names = Counter(
        path.stem for path in (SOURCE / "spine").rglob("*.py") if path.name != "__init__.py"
    )
    assert {name for name, count in names.items() if count > 1} <= ALIKE
