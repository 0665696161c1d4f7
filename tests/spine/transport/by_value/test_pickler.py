# SPDX-License-Identifier: BSD-3-Clause
"""Picklers of definitions: what they keep."""

import contextvars
import gc
import pickle
import sys
import threading
import types
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


class LooksUp(types.ModuleType):
    """As packages have for attributes that are made when they are asked for."""

    answer = 42


def test_a_module_of_a_class_of_its_own_goes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = LooksUp("looks_up")
    monkeypatch.setitem(sys.modules, "looks_up", module)
    function = pickle.loads(DefinitionPickler.pack(lambda: module.answer, whole=True).data)
    assert function() == 42
    assert function.__closure__[0].cell_contents is module


def test_a_context_variable_without_an_address_is_one_and_the_same() -> None:
    held = {"depth": contextvars.ContextVar("depth", default=3)}
    assert pickle.loads(DefinitionPickler.pack(held, whole=True).data)["depth"] is held["depth"]
