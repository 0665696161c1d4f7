# SPDX-License-Identifier: BSD-3-Clause
"""Plans in a file: recorded in one run, repeated in the next (``TEAMSTER_PLAN_FILE``).

::

    {"version": 1, "plans": {
        "package.module:function#0": {"backend": "process", "workers": 8, ...},
        ...}}

The number counts the calls of one function in one run; calls beyond those recorded repeat the last
of them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from teamster import lifetime
from teamster.errors import UsageError
from teamster.spine.plan.choice import CANDIDATES
from teamster.spine.plan.plan import Plan

VARIABLE = "TEAMSTER_PLAN_FILE"
_VERSION = 1  # of the file's form
_STRATEGIES = "single", "dp", "ddp"  # of a training
_PAUSE_S = 1.0  # between two writes of one file


class PlanStore:
    """The plans of one file.

    Args:
        path: the file; made when the first plan is recorded.

    Raises:
        UsageError: the file is there and holds no plans, or it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if not self._path.exists() and not os.access(self._path.parent, os.W_OK):
            raise UsageError(f"{VARIABLE}: {self._path.parent} is no folder that can be written to")
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._known = self._read()
        self._written: dict[str, Plan] = {}
        self._wrote, self._behind = float("-inf"), False
        lifetime.end_at_exit(self._write_the_rest)

    def _read(self) -> dict[str, Plan]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{VARIABLE}: cannot read {self._path}: {error}") from None
        try:
            plans = json.loads(text)["plans"]
            found = {name: Plan.from_dict(values) for name, values in plans.items()}
            for name, plan in found.items():
                if plan.backend not in (*CANDIDATES, *_STRATEGIES):
                    raise ValueError(f"{name} has backend {plan.backend!r}")
            return found
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"{VARIABLE}: {self._path} holds no plans ({type(error).__name__}: {error}); "
                "remove it to record new ones"
            ) from None

    def next_call(self, function: Callable[..., Any]) -> tuple[str, Plan | None]:
        """The name of the next call of `function`, and the plan recorded for it.

        The plan is None when there is none.
        """
        name = name_of(function)
        with self._lock:
            number = self._calls[name]
            self._calls[name] += 1
        for each in range(number, -1, -1):
            if (plan := self._known.get(f"{name}#{each}")) is not None:
                return f"{name}#{number}", plan
        return f"{name}#{number}", None

    def record(self, call: str, plan: Plan) -> None:
        """Write the plan of a call, beside those that are in the file.

        The file is written at most once a second, and at the end.

        Raises:
            UsageError: the file cannot be written.
        """
        with self._lock:
            self._written[call] = plan
            if monotonic() - self._wrote < _PAUSE_S:
                self._behind = True
                return
        self.write()

    def write(self) -> None:
        """Write all plans.

        Raises:
            UsageError: the file cannot be written.
        """
        with self._lock:
            self._wrote, self._behind = monotonic(), False
            plans = {
                name: each.to_dict() for name, each in {**self._known, **self._written}.items()
            }
            beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            try:
                beside.write_text(
                    json.dumps({"version": _VERSION, "plans": plans}, indent=1) + "\n"
                )
                beside.replace(self._path)  # so that a reader never finds half a file
            except OSError as error:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise UsageError(
                    f"{VARIABLE}: cannot write {self._path}: {error.strerror or error}"
                ) from None

    def _write_the_rest(self) -> None:
        if self._behind:
            with contextlib.suppress(UsageError):  # the program is over
                self.write()


def name_of(function: Any) -> str:
    """A name that means the same function in the next run.

    Example:
        >>> name_of(json.dumps)
        'json:dumps'
    """
    while isinstance(function, functools.partial):
        function = function.func
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(kind, '__module__', None) or type(function).__module__}:{kind.__qualname__}"


_stores: dict[str, PlanStore] = {}


def store_from_environment() -> PlanStore | None:
    """The store that ``TEAMSTER_PLAN_FILE`` names, the same one for the whole run.

    It is None when the variable names none.

    Raises:
        UsageError: the file is there and holds no plans.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    path = os.path.abspath(path)
    if path not in _stores:
        _stores[path] = PlanStore(path)
    return _stores[path]
