# SPDX-License-Identifier: BSD-3-Clause
"""Kinds of workers as data."""

from importlib import import_module

import pytest

from teamster.kinds import KINDS, label, order_of


def test_they_are_listed_from_the_simplest_on() -> None:
    assert [order_of(kind) for kind in KINDS] == [1, 2, 3, 4]
    assert order_of("caller") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_a_home_that_makes_its_backend(kind: str) -> None:
    module, _, function = KINDS[kind].home.partition(":")
    assert callable(getattr(import_module(module), function))


def test_a_label_tells_how_many_there_are() -> None:
    assert [label("process", 8), label("serial", 1), label("thread", None)] == [
        "process(8)",
        "serial",
        "thread",
    ]
