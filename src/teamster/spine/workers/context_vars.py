# SPDX-License-Identifier: BSD-3-Clause
"""The caller's context variables, seen by the task.

In threads and in the caller they are the caller's own (threads work on a copy of the context, as
``asyncio.to_thread`` does). Into processes they go by copy: those variables that are a global of
some module, with values that pickle; the others keep their default there.
"""

from __future__ import annotations

import contextvars
from typing import Any

from teamster.spine.transport.by_value.context_variables import (
    find_context_variable,
    locate_context_variable,
)
from teamster.spine.transport.pickled import pack_whole

Carried = list[tuple[str, str, bytes]]
"""Module, name and pickled value of each variable that travels."""

_MOST_BYTES = 1 << 20  # a variable with more is not what a context is for

_addresses: dict[int, tuple[contextvars.ContextVar[Any], tuple[str, str] | None]] = {}


def carry(context: contextvars.Context) -> Carried:
    """What of `context` can travel to another process."""
    carried: Carried = []
    for variable, value in context.items():
        address = _address(variable)
        if address is None:
            continue
        try:
            data = pack_whole(value)
        except Exception:
            continue
        if len(data) <= _MOST_BYTES:
            carried.append((*address, data))
    return carried


def unfold(carried: Carried) -> contextvars.Context:
    """A context with the carried variables set, in the process where the task runs.

    The others are as the initializer left them.
    """
    import pickle

    context = contextvars.copy_context()
    for module, name, data in carried:
        try:
            context.run(find_context_variable(module, name).set, pickle.loads(data))
        except Exception:
            continue
    return context


def _address(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    if id(variable) not in _addresses:
        _addresses[id(variable)] = variable, locate_context_variable(variable)
    return _addresses[id(variable)][1]
