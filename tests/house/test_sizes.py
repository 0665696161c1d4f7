# SPDX-License-Identifier: BSD-3-Clause
"""Small files, small functions, few parameters.

A body is what stands below the docstring, comments and blank lines included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "teamster"

MOST_FILE_LINES = 400
MOST_CLASS_LINES = 250
MOST_BODY_LINES = 50
MOST_BODY_LINES_P90 = 25
MOST_PARAMETERS = 8

# What may have more parameters, and why.
MANY_PARAMETERS = {
    "tasks/pool.py:Pool.__init__": "the keywords that people know from concurrent.futures and "
    "multiprocessing",
    "data/loader.py:DataLoader.__init__": "torch's own, in the place of which it stands",
    "serve/server.py:Server.__init__": "what others call settings of a server; none is needed",
    "train/trainer.py:Trainer.__init__": "the keywords that people know from Lightning's Fabric",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Measured:
    name: str  # path below src/teamster, colon, qualified name
    body_lines: int
    parameters: int


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def lines_of_code(text: str, node: ast.ClassDef) -> int:
    """Lines of a class that hold code: no docstrings, comments or empty lines."""
    documented = {
        line
        for each in ast.walk(node)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)
    }
    lines = enumerate(text.splitlines()[: node.end_lineno], 1)
    return sum(
        number >= node.lineno
        and number not in documented
        and not line.strip().startswith("#")
        and bool(line.strip())
        for number, line in lines
    )


def measure(path: Path, name: str, function: Function) -> Measured:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stars = [star for star in (arguments.vararg, arguments.kwarg) if star is not None]
    count = len([argument for argument in [*named, *stars] if argument.arg not in ("self", "cls")])
    return Measured(f"{path.relative_to(SOURCE).as_posix()}:{name}", lines, count)


@cache
def measured() -> list[Measured]:
    files = sorted(SOURCE.rglob("*.py"))
    return [
        measure(path, *found) for path in files for found in functions(ast.parse(path.read_text()))
    ]


@pytest.mark.parametrize("folder", ["src", "tests", "examples", "benchmarks"])
def test_files_are_short(folder: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines >= MOST_FILE_LINES} == {}


def test_no_function_is_long() -> None:
    assert {
        each.name: each.body_lines for each in measured() if each.body_lines > MOST_BODY_LINES
    } == {}


def test_most_functions_are_short() -> None:
    lengths = sorted(each.body_lines for each in measured())
    assert lengths[int(0.9 * (len(lengths) - 1))] <= MOST_BODY_LINES_P90


def test_parameters_are_few() -> None:
    many = {each.name: each.parameters for each in measured() if each.parameters > MOST_PARAMETERS}
    assert {name: count for name, count in many.items() if name not in MANY_PARAMETERS} == {}


@pytest.mark.parametrize("name", MANY_PARAMETERS)
def test_exceptions_are_needed(name: str) -> None:
    if not (SOURCE / name.partition(":")[0]).exists():
        pytest.skip("the file is not there yet")
    assert [
        each.parameters
        for each in measured()
        if each.name == name and each.parameters > MOST_PARAMETERS
    ]


def test_no_class_has_more_than_250_lines_of_code() -> None:
    """Docstrings, comments and empty lines do not count: a public class is mostly docstrings."""
    lengths = {
        f"{path.relative_to(SOURCE)}:{node.name}": lines_of_code(path.read_text(), node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_CLASS_LINES} == {}
