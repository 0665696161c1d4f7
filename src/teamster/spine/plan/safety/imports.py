# SPDX-License-Identifier: BSD-3-Clause
"""Whether a function finds in a new process what it finds here.

A function of a module travels by name, and a new process imports the module anew. What the program
has set there since (``config.depth = 3``, a table that it has loaded) is not there; the function
would quietly run without it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from teamster.spine.plan.safety import library_data
from teamster.spine.plan.safety.captures import Captures
from teamster.spine.plan.safety.fingerprint import checksum
from teamster.spine.plan.safety.patches import Origins, origins

_SECONDS = 0.1  # for reading what modules hold; then it is not known

States = dict[str, tuple[int, int] | None]
"""Checksums by name; None where there was no time for one."""


def imported_states(function: Callable[..., Any]) -> States:
    """What `function` finds in the modules that it names, in the process where this is called.

    Example:
        >>> imported_states(abs)
        {}

    Beside the program's own modules, that are functions of libraries, as far as its code names
    them.
    """
    deadline = perf_counter() + _SECONDS
    captures = Captures(function)
    states: States = {}
    found = {name: captures.values[name] for name in captures.imported} | captures.library
    for name in sorted(found):
        try:
            states[name] = checksum(found[name], deadline, anywhere=True)
        except Exception:
            states[name] = None
    return states


def look_there(
    function: Callable[..., Any],
    names: tuple[str, ...],
    library: library_data.States,
    modules: tuple[str, ...],
) -> tuple[States, Origins, str]:
    """In a worker: what `function` finds there, and where the code of libraries comes from.

    `names` are those of the code that the program has replaced, `library` is the data of libraries
    that the function reaches as the program has it, `modules` are those that have it loaded.
    """
    return imported_states(function), origins(names), library_data.changed(library, modules)


def difference(here: States, there: States) -> str:
    """The first name that is not the same, empty when there is none.

    Example:
        >>> difference({"depth": (1, 8)}, {"depth": (2, 8)})
        'depth'
    """
    for name, state in here.items():
        other = there.get(name, (0, 0))
        if state is not None and other is not None and state != other:
            return name
    return ""
