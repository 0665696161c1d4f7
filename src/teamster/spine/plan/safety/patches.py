# SPDX-License-Identifier: BSD-3-Clause
"""Library functions that the program has replaced.

A new process imports the library anew, and has the original ones. A module of a library, or one of
its classes, that holds code of the program has been changed by it. What packages change when they
are imported they change in a worker, too; what they change later is seen where the function itself
names it (captures.py).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from time import perf_counter
from typing import Any

from teamster.spine.plan.safety.captures import is_library

# Those that are replaced most
_FIRST = ("builtins", "sys", "time", "os", "io", "socket", "ssl", "json", "random", "datetime")

Origins = dict[str, str]
"""Where the code comes from, by module and name in it."""


def replaced(seconds: float, first: Collection[str] = ()) -> Origins:
    """What of the loaded libraries is the program's own.

    Args:
        seconds: for libraries of which nothing is known.
        first: libraries to begin with, since the function names them.

    Example:
        >>> "json:dumps" in replaced(0.1)
        False
    """
    found, modules = Origins(), list(sys.modules)
    likely = [*_FIRST, *(name for name in modules if name.partition(".")[0] in first)]
    for name in likely:
        found |= _replaced_in(name)
    deadline = perf_counter() + seconds
    for name in modules:
        found |= _replaced_in(name)
        if perf_counter() > deadline:
            break
    return found


def _replaced_in(name: str) -> Origins:
    module = sys.modules.get(name)
    if (
        module is None
        or name == "__main__"
        or name.startswith("teamster.")
        or not _is_of_library(name)
    ):
        return {}
    return {
        label: _origin(value)
        for label, value in _foreign_code_in(name, module)
        if _is_of_program(value)
    }


def origins(names: Iterable[str]) -> Origins:
    """Where the code of these names comes from in this process."""
    found = {}
    for label in names:
        module, _, path = label.partition(":")
        value: Any = sys.modules.get(module)
        for part in path.split("."):
            value = getattr(value, part, None)
        found[label] = _origin(value)
    return found


def _foreign_code_in(name: str, module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and classes from elsewhere that a module, or a class of its own, holds."""
    file = getattr(module, "__file__", None)
    for attribute, value in list(getattr(module, "__dict__", {}).items()):
        kind = type(value)  # and not `isinstance`, which asks the value: some answer with a warning
        if kind is types.FunctionType:
            if value.__code__.co_filename != file:
                yield f"{name}:{attribute}", value
        elif issubclass(kind, type):
            if value.__module__ != name:
                yield f"{name}:{attribute}", value
                continue
            for method, function in list(vars(value).items()):
                if type(function) is types.FunctionType and function.__code__.co_filename != file:
                    yield f"{name}:{attribute}.{method}", function
        elif kind.__module__ == "unittest.mock" and "Mock" in kind.__name__:
            yield f"{name}:{attribute}", value


def _is_of_program(value: Any) -> bool:
    if type(value) is types.FunctionType:
        return _is_program_file(value.__code__.co_filename)
    return not issubclass(type(value), type) or not _is_of_library(value.__module__)


@lru_cache(maxsize=4096)
def _is_program_file(file: str) -> bool:
    # "<string>": made by the library itself, as namedtuple does
    return not file.startswith("<") and not is_library(file)


@lru_cache(maxsize=4096)
def _is_of_library(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and (file is None or not _is_program_file(file))


def _origin(value: Any) -> str:
    """A name for it that is the same in every process."""
    code = value.__code__ if type(value) is types.FunctionType else None
    place = f" {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
    return (
        f"{getattr(value, '__module__', '')}."
        f"{getattr(value, '__qualname__', type(value).__name__)}{place}"
    )
