# SPDX-License-Identifier: BSD-3-Clause
"""The caller's context variables, seen by the task.

In threads and in the caller they are the caller's own (threads work on a copy of the context, as
``asyncio.to_thread`` does). Into processes they go by copy: those variables that are a global of
some module, or that a function has taken there, with values that pickle; the others keep their
default there.
"""

from __future__ import annotations

import contextvars
from typing import Any

from teamster.spine.transport.by_value import originals
from teamster.spine.transport.by_value.context_variables import locate_context_variable
from teamster.spine.transport.pickled import pack_whole

Carried = list[bytes]
"""Each variable that travels, pickled with its value."""

_MOST_BYTES = 1 << 20  # a variable with more is not what a context is for


def carry(context: contextvars.Context) -> Carried:
    """What of `context` can travel to another process."""
    carried: Carried = []
    for variable, value in context.items():
        if locate_context_variable(variable) is None and originals.known(variable) is None:
            continue
        try:
            data = pack_whole((variable, value))
        except Exception:
            continue
        if len(data) <= _MOST_BYTES:
            carried.append(data)
    return carried


def unfold(carried: Carried) -> contextvars.Context:
    """A context with the carried variables set, in the process where the task runs.

    The others are as the initializer left them.
    """
    import pickle

    context = contextvars.copy_context()
    for data in carried:
        try:
            variable: contextvars.ContextVar[Any]
            variable, value = pickle.loads(data)
            context.run(variable.set, value)
        except Exception:
            continue
    return context
