# SPDX-License-Identifier: BSD-3-Clause
"""Context variables travel by their address: the module, and the name there, that hold them."""

from __future__ import annotations

import contextvars
import sys
from typing import Any

_addresses: dict[int, tuple[contextvars.ContextVar[Any], tuple[str, str] | None]] = {}


def find_context_variable(module: str, name: str) -> contextvars.ContextVar[Any]:
    """The context variable called `name` of `module` (by its attribute there)."""
    __import__(module)
    found: contextvars.ContextVar[Any] = getattr(sys.modules[module], name)
    return found


def make_context_variable(name: str, *default: Any) -> contextvars.ContextVar[Any]:
    """A new one, with a default or without."""
    return (
        contextvars.ContextVar(name, default=default[0])
        if default
        else contextvars.ContextVar(name)
    )


def take_context_variable_apart(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """How to make another like it.

    Example:
        >>> take_context_variable_apart(contextvars.ContextVar("depth", default=0))[1]
        ('depth', 0)
    """
    try:
        default = contextvars.Context().run(variable.get)  # in an empty context
    except LookupError:
        return make_context_variable, (variable.name,)
    return make_context_variable, (variable.name, default)


def locate_context_variable(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Module and attribute name that hold `variable`, None when no module does.

    Then it is an object without an address: in a class, a table, a closure.
    """
    if id(variable) not in _addresses:
        _addresses[id(variable)] = variable, _search(variable)
    return _addresses[id(variable)][1]


def _search(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    for module_name, module in list(sys.modules.items()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return module_name, name
    return None
