# SPDX-License-Identifier: BSD-3-Clause
"""The ``__main__`` of a worker.

It looks like the program's and is empty, since what tasks use of it comes with them.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def describe_main() -> dict[str, Any]:
    """What the program's ``__main__`` knows of itself; of its spec the name and the origin."""
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    told = {name: main.get(name) for name in ("__package__", "__doc__")}
    if (file := main.get("__file__")) is not None:
        told["__file__"] = file
    spec = main.get("__spec__")
    told["__spec__"] = None if spec is None else {"name": spec.name, "origin": spec.origin}
    return told


def make_main(told: dict[str, Any]) -> None:
    """Have a ``__main__`` of which this is known.

    What is imported by a relative name in there is found in its package.
    """
    main = ModuleType("__main__")
    main.__dict__.update({**told, "__builtins__": __builtins__})
    if (spec := told["__spec__"]) is not None:
        main.__spec__ = ModuleSpec(spec["name"], None, origin=spec["origin"])
    sys.modules["__main__"] = main
