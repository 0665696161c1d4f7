# SPDX-License-Identifier: BSD-3-Clause
"""The one namespace that all functions of a module by value share, in a worker and at home."""

from __future__ import annotations

import sys
import types
from typing import Any

from teamster.spine.transport.by_value import mentions, modules, originals


def namespace_name(values: dict[str, Any]) -> str | None:
    """Name of the module by value whose namespace this is."""
    name = values.get("__name__")
    if not isinstance(name, str) or name not in modules.by_value:
        return None
    return name if getattr(sys.modules.get(name), "__dict__", None) is values else None


def find_module(name: str, kind: type[types.ModuleType] = types.ModuleType) -> types.ModuleType:
    """The module by value of that name, made where there is none, as one of that `kind`."""
    modules.namespace(name, kind)
    return sys.modules[name]


class Namespace:
    """Stands for the globals of a module by value; on the way home, for a function's `names`."""

    def __init__(self, name: str, names: tuple[str, ...] | None = None) -> None:
        self._name = name
        self._names = names

    def __reduce__(self) -> Any:
        if self._names is None:
            return _namespace_there, (self._name, _about(self._name))
        return _namespace_at_home, (self._name, self._names)


def _about(name: str) -> dict[str, Any]:
    """What a module made in a worker must know of itself."""
    own = vars(sys.modules[name])
    if name == "__main__":
        return {}
    return {each: own[each] for each in ("__file__", "__package__", "__path__") if each in own}


def _namespace_there(name: str, about: dict[str, Any]) -> dict[str, Any]:
    return modules.namespace(name, **about)


def _namespace_at_home(name: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The program's own namespace where that has all the names, else one for this function."""
    own = modules.namespace(name)
    if all(each in own for each in names):
        return own
    return {
        each: own[each] for each in ("__name__", "__package__", "__file__", *names) if each in own
    }


def fill_function(function: Any, parts: Any) -> None:
    """In a worker: what a function has beside its code, and globals that are not there yet."""
    fill, (attributes, slots) = parts
    if originals.is_mine(function):
        return
    values = slots["__globals__"]
    values = {
        name: value
        for name, value in values.items()
        if value is not mentions.ABSENT and not name.startswith(mentions.IMPORTED)
    }
    if namespace_name(function.__globals__) is not None:
        originals.plant(function.__globals__, values)
        values = {}
    fill(function, (attributes, {**slots, "__globals__": values}))


def fill_function_at_home(function: Any, parts: Any) -> None:
    """In the program: the same, without a change of what it has itself."""
    fill, (attributes, slots) = parts
    missing = {
        name: value
        for name, value in slots["__globals__"].items()
        if name not in function.__globals__
    }
    fill(function, (attributes, {**slots, "__globals__": missing}))


def fill_module(module: types.ModuleType, values: dict[str, Any]) -> None:
    """Globals that a module by value does not have yet."""
    originals.plant(vars(module), values)
