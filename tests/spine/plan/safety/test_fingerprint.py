# SPDX-License-Identifier: BSD-3-Clause
"""Checksums of values, with a deadline."""

import io
import socket
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

from teamster.spine.plan.safety.fingerprint import Bound, TooLong, bound_to_process, checksum


def soon() -> float:
    return perf_counter() + 5


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, [2, 3]], lambda value: value[1].append(4)),
        ({"a": 1}, lambda value: value.update(a=2)),
        (bytearray(100_000), lambda value: value.__setitem__(77_777, 1)),
        ({1, 2}, lambda value: value.add(3)),
        (type("Thing", (), {})(), lambda value: setattr(value, "x", 1)),
    ],
)
def test_a_change_shows(value: Any, change: Callable[[Any], object]) -> None:
    before = checksum(value, soon())
    assert checksum(value, soon()) == before
    change(value)
    assert checksum(value, soon()) != before


def test_a_change_in_an_array_shows() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros((300, 500))
    before = checksum(array, soon())
    array[299, 499] = 1e-300
    assert checksum(array, soon()) != before
    assert checksum(array[::2], soon())[1] > 0  # not contiguous


def test_functions_classes_and_modules_count_by_identity() -> None:
    first, second = (lambda: 1), (lambda: 1)
    assert checksum([first, int, io, len], soon()) == checksum([first, int, io, len], soon())
    assert checksum(first, soon()) != checksum(second, soon())


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (threading.Lock, "a lock"),
        (threading.RLock, "a lock"),
        (threading.Event, "a Event"),
        (lambda: io.FileIO(__file__), "an open file"),
        (socket.socket, "a socket"),
        (lambda: (n for n in ()), "a generator"),
    ],
)
def test_what_belongs_to_this_process_is_named(make: Callable[[], Any], what: str) -> None:
    value = make()
    try:
        assert bound_to_process(value) == what
        with pytest.raises(Bound, match=what):
            checksum({"deep": [value]}, soon())
    finally:
        getattr(value, "close", lambda: None)()


def test_what_is_in_memory_does_not() -> None:
    for value in (io.StringIO("x"), io.BytesIO(b"x"), 3, "x", [1], threading.local()):
        assert bound_to_process(value) is None


def test_a_deadline_ends_it_early() -> None:
    large = list(range(3_000_000))
    began = perf_counter()
    with pytest.raises(TooLong):
        checksum(large, began + 0.002)
    with pytest.raises(TooLong):
        checksum(bytes(100_000_000), perf_counter() + 0.01)
