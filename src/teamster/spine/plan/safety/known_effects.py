# SPDX-License-Identifier: BSD-3-Clause
"""What functions and methods of libraries are known to change, and where a thing is from."""

from __future__ import annotations

import io
import types
from typing import Any

CHANGING = (
    *("append", "appendleft", "extend", "extendleft", "insert", "remove"),
    *("pop", "popitem", "popleft", "clear", "add", "discard"),
    *("update", "setdefault", "subtract", "sort", "reverse", "fill", "put"),
    *("difference_update", "intersection_update", "symmetric_difference_update"),
)
"""Methods of containers that change them."""

CHANGING_FIRST = {
    **dict.fromkeys(
        ("heappush", "heappop", "heapify", "heapreplace", "heappushpop"), ("_heapq", "heapq")
    ),
    **dict.fromkeys(("insort", "insort_left", "insort_right"), ("_bisect", "bisect")),
    **dict.fromkeys(("setattr", "delattr", "next"), ("builtins",)),
    **dict.fromkeys(("setitem", "delitem"), ("_operator", "operator")),
    "copyto": ("numpy",),
}
"""Functions that change their first argument, and the packages that have them."""

_CONTAINERS = ("builtins", "collections", "array", "numpy", "os")
ELSEWHERE = ("multiprocessing", "contextvars", "_contextvars")
"""Modules: what is set in objects of theirs is seen by all, or by one context."""

_GENERATORS = (
    "random.Random",
    "numpy.random._generator.Generator",
    "numpy.random.mtrand.RandomState",
)
FOR_ALL = {
    **dict.fromkeys(
        ("chdir", "fchdir", "umask", "putenv", "unsetenv"), ("posix", "nt", "contextlib")
    ),
    **dict.fromkeys(("redirect_stdout", "redirect_stderr"), ("contextlib",)),
    **dict.fromkeys(("seed", "setstate", "set_state"), ("random", "numpy")),
    **dict.fromkeys(("signal", "setitimer", "alarm"), ("signal", "_signal")),
    "catch_warnings": ("warnings",),
    "manual_seed": ("torch",),
    "patch": ("unittest",),
    "setlocale": ("locale", "_locale"),
    "tzset": ("time",),
}
"""What sets something for the whole process, and the packages that have it."""

WRITING, BUFFERS = ("write", "writelines", "truncate"), (io.StringIO, io.BytesIO)
TIMERS = ("setitimer", "alarm")


def is_of_container(kind: type, method: str) -> bool:
    """Whether the method is one of a known container's."""
    owner = next((each for each in kind.__mro__ if method in vars(each)), None)
    return owner is not None and owner.__module__.partition(".")[0] in _CONTAINERS


def is_generator(value: Any) -> bool:
    """Whether it is a generator of random numbers."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" in _GENERATORS for kind in type(value).__mro__
    )


def home_of(value: Any) -> str:
    """The package that a function, a class or a method of an object is from."""
    owner = getattr(value, "__self__", None)
    module = (
        getattr(value, "__module__", None)
        if owner is None or isinstance(owner, types.ModuleType)
        else type(owner).__module__
    )
    return str(module).partition(".")[0]
