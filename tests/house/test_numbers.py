# SPDX-License-Identifier: BSD-3-Clause
"""A number at the head of a module has its reason on its line, above it, or in a text below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "teamster"
PLAIN = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.Tuple, ast.Load)


def is_number(value: ast.expr) -> bool:
    nodes = list(ast.walk(value))
    return all(isinstance(node, PLAIN) for node in nodes) and any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
        for node in nodes
    )


def without_a_reason(path: Path) -> Iterator[str]:
    text = path.read_text()
    lines, body = text.splitlines(), ast.parse(text).body
    for place, node in enumerate(body):
        if (
            not isinstance(node, ast.Assign | ast.AnnAssign)
            or node.value is None
            or not is_number(node.value)
        ):
            continue
        assert node.end_lineno is not None
        beside = any("#" in line for line in lines[node.lineno - 1 : node.end_lineno])
        above = lines[node.lineno - 2].lstrip().startswith("#")
        after = body[place + 1] if place + 1 < len(body) else None
        below = (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        )
        if not (beside or above or below):
            yield f"{path.relative_to(SOURCE)}:{node.lineno}: {lines[node.lineno - 1]}"


def test_every_number_says_why() -> None:
    assert [line for path in sorted(SOURCE.rglob("*.py")) for line in without_a_reason(path)] == []
