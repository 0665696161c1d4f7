# SPDX-License-Identifier: BSD-3-Clause
"""Context variables travel by their address: the module, and the name there, that hold them."""

from __future__ import annotations

import contextvars
import pickle
import sys
from typing import Any


def find_context_variable(module: str, name: str) -> contextvars.ContextVar[Any]:
    """The context variable called `name` of `module` (by its attribute there).

    In ``__main__`` it is made when missing.
    """
    if module == "__main__":
        main = sys.modules["__main__"].__dict__
        made: contextvars.ContextVar[Any] = main.setdefault(name, contextvars.ContextVar(name))
        return made
    __import__(module)
    found: contextvars.ContextVar[Any] = getattr(sys.modules[module], name)
    return found


def locate_context_variable(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Module and attribute name that hold `variable`, None when no module does.

    Then it is an object without an address.
    """
    for module_name, module in list(sys.modules.items()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return module_name, name
    return None


def reduce_context_variable(variable: contextvars.ContextVar[Any]) -> Any:
    """Reduce a context variable.

    Raises:
        PicklingError: no module holds it.
    """
    address = locate_context_variable(variable)
    if address is None:
        raise pickle.PicklingError(
            f"context variable {variable.name!r} is not a global of any module"
        )
    return find_context_variable, address
