# SPDX-License-Identifier: BSD-3-Clause
"""The public names: listed, sorted, lazy, documented, and none of them hides a file."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import teamster

SOURCE = Path(__file__).parents[2] / "src" / "teamster"

# Public functions that bear the name of a file or folder on their path, and why that is right.
SAME_NAME = {
    "cli/main.py:main": "the entry point's name by convention; nothing re-exports it",
}


def packages() -> list[str]:
    """The package and its rooms, those that list public names."""
    found = []
    for path in sorted(SOURCE.rglob("__init__.py")):
        name = ".".join(["teamster", *path.parent.relative_to(SOURCE).parts])
        if hasattr(importlib.import_module(name), "__all__"):
            found.append(name)
    return found


def test_the_package_lists_its_names() -> None:
    assert teamster.__all__


@pytest.mark.parametrize("package", packages())
def test_names_are_sorted_and_unique(package: str) -> None:
    names = list(importlib.import_module(package).__all__)
    assert names == sorted(set(names))


@pytest.mark.parametrize("package", packages())
def test_names_resolve_and_show_in_dir(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


@pytest.mark.parametrize("package", packages())
def test_names_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    objects = {name: getattr(module, name) for name in module.__all__}
    documented = {
        name: value
        for name, value in objects.items()
        if inspect.isclass(value) or inspect.isroutine(value)
    }
    assert [
        name for name, value in documented.items() if not (inspect.getdoc(value) or "").strip()
    ] == []


@pytest.mark.parametrize("package", packages())
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018 (asking is the test)


@pytest.mark.parametrize("package", packages())
def test_no_listed_function_or_class_hides_a_file(package: str) -> None:
    # A lazy `trace()` beside a folder trace/ is the function or the module, by who imported first.
    module = importlib.import_module(package)
    folder = SOURCE.joinpath(*package.split(".")[1:])
    files = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {
        name for name in module.__all__ if not inspect.ismodule(getattr(module, name))
    } & files == set()


def test_nouns_are_files_and_verbs_are_functions() -> None:
    clashes = []
    for path in sorted(SOURCE.rglob("*.py")):
        inside = path.relative_to(SOURCE)
        on_the_path = {"teamster", *inside.with_suffix("").parts}
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name in on_the_path
            ):
                clashes.append(f"{inside.as_posix()}:{node.name}")
    assert [clash for clash in clashes if clash not in SAME_NAME] == []
