# SPDX-License-Identifier: BSD-3-Clause
"""Classes of ours that derive from another package's.

No private name of ours hides one of theirs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
import threading
from collections.abc import Iterator

import pytest

import teamster


def classes() -> Iterator[type]:
    """All that a module of ours defines; modules whose packages are not installed are left out."""
    for found in pkgutil.walk_packages(teamster.__path__, "teamster."):
        if found.name.rpartition(".")[2] == "__main__":
            continue
        try:
            module = importlib.import_module(found.name)
        except ImportError:
            continue
        yield from (
            each
            for each in vars(module).values()
            if isinstance(each, type) and each.__module__ == module.__name__
        )


def foreign_bases(kind: type) -> list[type]:
    return [
        each
        for each in kind.__mro__[1:]
        if not each.__module__.startswith("teamster") and each is not object
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def written_in(kind: type) -> set[str]:
    """Private names that a class gives to itself or to its objects.

    What metaclasses add is not among them.
    """
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):  # it is not written in Python
        return set(filter(is_private, vars(kind)))
    found: set[str] = set()
    for each in ast.walk(body):
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= {each.name} & set(vars(kind))
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            found |= {each.id} & set(vars(kind))
        elif (
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and ast.unparse(each.value) == "self"
        ):
            found.add(each.attr)
    return set(filter(is_private, found))


def takes_the_same(mine: object, theirs: object) -> bool:
    """Whether a method may stand for another, which it replaces on purpose then."""
    if not (inspect.isfunction(mine) and inspect.isfunction(theirs)):
        return False
    return list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters)


# A future that makes its condition on demand has to set by itself what the base sets under that
# condition. An iterator that leaves out the base's mark for a profiler counts batches by itself.
ON_PURPOSE = {
    "teamster.tasks.futures.CallFuture": {"_exception", "_result", "_state"},
    "teamster.data.prefetch.BatchIterator": {"_num_yielded"},
}


def hidden(kind: type) -> list[str]:
    bases = foreign_bases(kind)
    both = written_in(kind) & set().union(*(written_in(base) for base in bases))
    theirs = {
        name: next((vars(base)[name] for base in bases if name in vars(base)), None)
        for name in both
    }
    return sorted(name for name in both if not takes_the_same(vars(kind).get(name), theirs[name]))


DERIVED = sorted(
    {each for each in classes() if foreign_bases(each)},
    key=lambda each: (each.__module__, each.__qualname__),
)


def test_there_are_some() -> None:
    assert {"DataParallel", "TeamsterError"} <= {each.__name__ for each in DERIVED}


@pytest.mark.parametrize("kind", DERIVED, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_no_private_name_hides_one_of_its_base(kind: type) -> None:
    assert set(hidden(kind)) == ON_PURPOSE.get(f"{kind.__module__}.{kind.__qualname__}", set())


class Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__()
        self._target = self._state = None

    def _bootstrap(self, pieces: object) -> None: ...  # type: ignore[override]

    def _delete(self) -> None: ...


def test_one_that_does_is_found() -> None:
    assert hidden(Worker) == ["_bootstrap", "_target"]
