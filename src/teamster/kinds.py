# SPDX-License-Identifier: BSD-3-Clause
"""What kinds of workers there are, as data.

To add one, write a backend (spine/workers/backend.py) and a row here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of worker.

    Attributes:
        name: what users write: ``backend="process"``.
        home: ``module:function`` that makes the backend of a team, of a `Staff`.
        can_kill: whether a worker can be ended in the middle of an item, and has memory of its own
            that is free after that.
        by_pickle: whether functions, items and results travel as pickles.
        in_program: whether tasks run in threads of the program, and share with it what a process
            has once.
        chosen: whether "auto" may choose it.
    """

    name: str
    home: str
    can_kill: bool = False
    by_pickle: bool = False
    in_program: bool = True
    chosen: bool = True


_WORKERS = "teamster.spine.workers."

KINDS = {
    kind.name: kind
    for kind in (
        Kind("serial", _WORKERS + "serial:SerialBackend"),
        Kind("thread", _WORKERS + "threads:ThreadBackend"),
        Kind(
            "interpreter",
            _WORKERS + "interpreter.backend:InterpreterBackend",
            by_pickle=True,
            chosen=False,
        ),
        Kind(
            "process",
            _WORKERS + "process.assembly:make_backend",
            can_kill=True,
            by_pickle=True,
            in_program=False,
        ),
    )
}
"""By name, from the simplest on.

In this order they are listed, and of two that are alike the first is taken.
"""


def order_of(kind: str) -> int:
    """The place of a kind among the others.

    It is 0 for the caller of a pool, which works before any worker does.
    """
    return list(KINDS).index(kind) + 1 if kind in KINDS else 0


def label(kind: str, workers: int | None) -> str:
    """What a number of workers of one kind is called.

    Example:
        >>> label("process", 8), label("serial", 1)
        ('process(8)', 'serial')
    """
    return kind if kind == "serial" or not workers else f"{kind}({workers})"
