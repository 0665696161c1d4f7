# SPDX-License-Identifier: BSD-3-Clause
"""A pickled object on its way: the pickle, and beside it what is too large to stand in it."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from teamster.spine.transport.multiprocessing_objects import Passed

INLINE_BYTES = 32 * 1024
"""Buffers smaller than this stay inside the pickle (bytes).

A mapping of their own would cost more than the copy.
"""


class Definition:
    """The pickled definition of an original, and of all that it refers to.

    Attributes:
        number: by which a peer that has it can ask for it; 0 for what is told rather than opened.
        data: the pickle; or, with number 0, the places of modules.
        passed: descriptors that go along.
        keys: of the originals that are in it.
    """

    __slots__ = ("data", "keys", "number", "passed")

    def __init__(
        self, number: int, data: Any, passed: Sequence[Any] = (), keys: Sequence[int] = ()
    ) -> None:
        self.number = number
        self.data = data
        self.passed = passed
        self.keys = keys


class Parcel:
    """A pickled object: its `data` (bytes), and what goes beside it.

    That is `buffers` (flat views), descriptors (`passed`), and what it `needs`.
    """

    __slots__ = ("buffers", "data", "needs", "passed")

    def __init__(
        self,
        data: bytes,
        buffers: list[memoryview],
        needs: tuple[Definition, ...] = (),
        passed: Sequence[Passed] = (),
    ) -> None:
        self.data = data
        self.buffers = buffers
        self.needs = needs
        self.passed = passed

    @property
    def nbytes(self) -> int:
        """Size of data and buffers together, in bytes."""
        return len(self.data) + sum(view.nbytes for view in self.buffers)


def keep_inside(buffer: pickle.PickleBuffer, outside: list[memoryview]) -> bool:
    """Whether a buffer stays inside the pickle.

    Large contiguous ones do not, and are added to those `outside`.
    """
    try:
        view = buffer.raw()
    except BufferError:
        return True
    if view.nbytes < INLINE_BYTES:
        return True
    outside.append(view)
    return False
