# SPDX-License-Identifier: BSD-3-Clause
"""Whether a call comes from the top level of a module that is being imported."""

from __future__ import annotations

import sys


def module_under_import() -> str:
    """The module whose top level this call comes from, while it is being imported; empty when there is none.

    The interpreter holds a module's lock until its top level is over. A thread that imports the module back waits for that, and the
    top level waits for the thread: neither ends.

    Example:
        >>> module_under_import()
        ''
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            spec = frame.f_globals.get("__spec__")
            if getattr(spec, "_initializing", False):
                return str(frame.f_globals.get("__name__"))
        frame = frame.f_back  # type: ignore[assignment]
    return ""
