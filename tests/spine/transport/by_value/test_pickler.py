# SPDX-License-Identifier: BSD-3-Clause
"""Picklers of definitions: what they keep."""

import gc
import threading
import weakref
from array import array
from typing import Any

import pytest

from teamster.spine.transport.by_value.pickler import DefinitionPickler


@pytest.mark.parametrize("beside", [None, threading.Lock()], ids=["packed", "refused"])
def test_what_was_packed_is_let_go_of_at_once(beside: Any) -> None:
    """A function that carries 50 MB, one after the other.

    Not as many copies as fit between two collections of cycles.
    """
    carried = [array("b", bytes(2 << 20))]
    gc.disable()
    try:
        try:
            DefinitionPickler.pack(lambda: (carried, beside))
        except TypeError:
            assert beside is not None
        watch = weakref.ref(carried.pop())
        assert watch() is None
    finally:
        gc.enable()
