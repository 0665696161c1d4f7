# SPDX-License-Identifier: BSD-3-Clause
"""What a function carries, by the names that a person knows it by."""

import functools
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from teamster.spine.plan.safety.captures import Captures

TABLE = {"a": 1}
SEEN: list[int] = []
TOTAL = 0


class Counter:
    made = 0

    def __init__(self) -> None:
        self.count = 0

    def add(self, item: int) -> int:
        self.count += item
        return self.count

    @classmethod
    def make(cls, _: int) -> None:
        cls.made += 1

    @staticmethod
    def look(key: str) -> int:
        return TABLE[key]

    def __call__(self, item: int) -> int:
        return self.add(item)


def look_up(key: str) -> int:
    return TABLE[key]


def through_a_helper(key: str) -> int:
    return look_up(key)


def nested(keys: list[str]) -> list[int]:
    return [look_up(key) for key in keys]


def assigns(item: int) -> None:
    global TOTAL
    TOTAL = item


def with_default(item: int, seen: list[int] = SEEN) -> None:
    seen.append(item)


def reads_a_library(text: str) -> Any:
    return json.loads(text)


def cell() -> Callable[[int], int]:
    seen: list[int] = []
    return lambda item: seen.append(item) or len(seen)


def counting() -> Callable[[], int]:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


def local_cell(items: list[int]) -> int:
    total = 0

    def add(item: int) -> None:
        nonlocal total
        total += item

    for item in items:
        add(item)
    return total


@functools.lru_cache
def cached(key: str) -> int:
    return TABLE[key]


def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[int] = []

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        calls.append(1)
        return function(*args)

    return wrapper


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (look_up, {"TABLE"}),
        (through_a_helper, {"TABLE"}),
        (nested, {"TABLE"}),
        (cached, {"TABLE"}),
        (Counter.look, {"TABLE"}),
        (with_default, {"default 0 of with_default"}),
        (cell(), {"seen"}),
        (functools.partial(look_up, "a"), {"TABLE", "argument 0 of the partial"}),
        (functools.partial(look_up, key="a"), {"TABLE", "key"}),
        (decorate(look_up), {"TABLE", "calls"}),
        (reads_a_library, set()),
        (len, set()),
        (json.loads, set()),
        (str.upper, set()),
    ],
)
def test_values(function: Callable[..., Any], names: set[str]) -> None:
    captures = Captures(function)
    assert set(captures.values) == names
    assert captures.assigned == []


def test_a_bound_object_and_its_class() -> None:
    counter = Counter()
    for function in (counter.add, counter):
        values = Captures(function).values
        assert any(value is counter for value in values.values())
        assert "Counter.made" in values
    assert "Counter.made" in Captures(Counter.make).values


@pytest.mark.parametrize(
    ("function", "names"), [(assigns, ["TOTAL"]), (counting(), ["count"]), (local_cell, [])]
)
def test_assignments(function: Callable[..., Any], names: list[str]) -> None:
    assert Captures(function).assigned == names


def test_a_module_of_the_users_is_asked_for_what_the_code_may_ask() -> None:
    import types

    settings = types.ModuleType("settings")
    settings.__file__ = "/home/somebody/settings.py"
    settings.depth = 3  # type: ignore[attr-defined]
    settings.colour = "red"  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"settings": settings}
    exec("def use(item):\n    return settings.depth", scope)
    assert Captures(scope["use"]).values == {"settings.depth": 3}


def test_functions_that_call_each_other_end() -> None:
    scope: dict[str, Any] = {"lock": threading.Lock()}
    exec("def a(n): return b(n)\ndef b(n): return a(n) and lock", scope)
    assert set(Captures(scope["a"]).values) == {"lock"}


def test_two_of_one_name_are_two() -> None:
    inner: dict[str, Any] = {"counts": {"n": 0}, "__name__": "inner"}
    exec("def count(item): counts['n'] += 1", inner)
    outer: dict[str, Any] = {"counts": {"n": 0}, "count": inner["count"], "__name__": "outer"}
    exec("def use(item):\n    counts['n']\n    return count(item)", outer)
    values = Captures(outer["use"]).values
    assert {id(value) for value in values.values()} == {id(inner["counts"]), id(outer["counts"])}


def test_classes_and_functions_among_the_arguments() -> None:
    assert "Counter.made" in Captures(len, [Counter()]).values
    assert "TABLE" in Captures(len, [look_up]).values


def test_modules_behind_modules_and_imports_in_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys
    import types

    package, module = types.ModuleType("pack"), types.ModuleType("pack.sub")
    for each in (package, module):
        each.__file__ = "/home/somebody/pack.py"
        monkeypatch.setitem(sys.modules, each.__name__, each)
    seen: list[int] = []
    package.sub = module  # type: ignore[attr-defined]
    module.seen = seen  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"pack": package, "__name__": "user"}
    exec(
        "def reach(item): pack.sub.seen.append(item)\ndef load(item):\n    from pack.sub import "
        "seen\n    seen.append(item)",
        scope,
    )
    for name in ("reach", "load"):
        assert [value for value in Captures(scope[name]).values.values() if value is seen], name
