# SPDX-License-Identifier: BSD-3-Clause
"""Measure a Python source: real work for a real processor, one file at a time.

Try it: ``teamster map examples.source_size:measure src --glob '*.py'``
"""

from __future__ import annotations

import ast
import tokenize
from typing import Any


def measure(path: str) -> dict[str, Any]:
    """Parse a Python source and measure it.

    Returns:
        Its lines, functions, classes, and its longest function with its length in lines.
    """
    with tokenize.open(path) as source:  # in the encoding that the file declares
        text = source.read()
    tree = ast.parse(text)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    classes = sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    longest = max(functions, key=length_of, default=None)
    return {
        "lines": text.count("\n"),
        "functions": len(functions),
        "classes": classes,
        "longest": None if longest is None else {"name": longest.name, "lines": length_of(longest)},
    }


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its decorators not counted."""
    return (node.end_lineno or node.lineno) - node.lineno + 1
