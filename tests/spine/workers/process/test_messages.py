# SPDX-License-Identifier: BSD-3-Clause
"""The tables of messages say what is sent, and what is sent is dealt with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from teamster.spine.workers.process import messages

FOLDER = Path(messages.__file__).parent
CALLS = {"put", "_tell", "post", "_post"}


def trees() -> Iterator[ast.Module]:
    for path in sorted(FOLDER.glob("*.py")):
        if path.name != "messages.py":
            yield ast.parse(path.read_text())


def named(value: ast.expr) -> Iterator[tuple[str, int]]:
    """Name and number of fields, where it is a tuple that begins with a text."""
    if isinstance(value, ast.Tuple) and value.elts and isinstance(value.elts[0], ast.Constant):
        name = value.elts[0].value
        if isinstance(name, str):
            yield name, len(value.elts) - 1
    if isinstance(value, ast.Tuple):  # message, descriptors = ("spawn", ...), ...
        for each in value.elts:
            yield from named(each)


def sent() -> dict[str, int]:
    found: dict[str, int] = {}
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                values = node.args if called in CALLS else []
            elif isinstance(node, ast.Assign) and "message" in ast.unparse(node.targets[0]):
                values = [node.value]
            else:
                continue
            for value in values:
                found.update(named(value))
    return found


def dealt_with() -> set[str]:
    """Texts that a message's name is compared with, looked up by, or found among."""
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare | ast.Dict) or (
                isinstance(node, ast.Call) and ast.unparse(node.func) == "frozenset"
            ):
                found |= {
                    each.value
                    for each in ast.walk(node)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def test_the_tables_are_what_is_sent() -> None:
    fields = {
        name: len([each for each in said.split(",") if each])
        for name, said in messages.MESSAGES.items()
    }
    assert sent() == fields


def test_no_message_has_two_meanings() -> None:
    tables = (
        messages.TO_CHILD,
        messages.FROM_CHILD,
        messages.TO_WORKER,
        messages.FROM_WORKER,
        messages.TO_SERVER,
        messages.FROM_SERVER,
    )
    assert sum(len(table) for table in tables) == len(messages.MESSAGES)


# Each is the only one, or the last, of what its receiver can get.
LAST = {"setup", "connect", "kill", "died"}


@pytest.mark.parametrize("name", sorted(messages.MESSAGES.keys() - LAST))
def test_each_is_dealt_with(name: str) -> None:
    assert name in dealt_with()
