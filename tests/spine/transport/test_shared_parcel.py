# SPDX-License-Identifier: BSD-3-Clause
"""A parcel for several receivers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from teamster.spine.transport.channel import Channel
from teamster.spine.transport.pickled import pack
from teamster.spine.transport.shared_parcel import SharedParcel

Ends = tuple[Channel, Channel]


@pytest.fixture
def two() -> Iterator[list[Ends]]:
    made = []
    for _ in range(2):
        left, right = socket.socketpair()
        made.append((Channel(left, blocking=True), Channel(right, blocking=True)))
    yield made
    for each in made:
        for end in each:
            end.close()


def pass_on(shared: SharedParcel, ends: Ends) -> object:
    left, right = ends
    left.put((shared.stow(left),))
    messages: list[object] = []
    while not messages:
        messages += right.take() or ()
    (encoded,) = messages.pop()  # type: ignore[misc]
    return right.open(encoded)


def test_what_is_large_is_copied_once_and_each_has_its_own(two: list[Ends]) -> None:
    array = np.arange(100_000)
    shared = SharedParcel(pack((array, "small")))
    assert shared.nbytes == 0  # until it is wanted
    first = pass_on(shared, two[0])
    array[:] = 7  # the program goes on
    first[0][:] = 5  # type: ignore[index]
    second = pass_on(shared, two[1])
    shared.close()
    assert second[0].sum() == sum(range(100_000))  # type: ignore[index]
    assert first[0].sum() == 500_000  # type: ignore[index]
    assert shared.nbytes >= array.nbytes
    assert [left.bytes_moved for left, _ in two] == [0, 0]


def test_a_long_pickle_beside_what_is_shared(two: list[Ends]) -> None:
    text = "word " * 200_000
    shared = SharedParcel(pack((np.ones(10_000), text)))
    for ends in two:
        assert pass_on(shared, ends)[1] == text  # type: ignore[index]
        assert ends[0].bytes_sent < 2_000
    shared.close()


def test_without_shared_memory_each_gets_a_copy(
    two: list[Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    shared = SharedParcel(pack(np.arange(10_000)))
    with pytest.warns(RuntimeWarning, match="copied through a socket"):
        received = [pass_on(shared, ends) for ends in two]
    assert [array.sum() for array in received] == [49_995_000] * 2  # type: ignore[attr-defined]
    assert shared.nbytes == 0


def test_a_descriptor_that_is_somebody_elses_by_now_is_not_sent(two: list[Ends]) -> None:
    """A daemon has closed it, and opened another file under its number."""
    shared = SharedParcel(pack(np.arange(10_000)))
    assert pass_on(shared, two[0]).sum() == 49_995_000  # type: ignore[attr-defined]
    number = shared._broadcast.descriptor  # type: ignore[union-attr]
    other = os.open("/dev/zero", os.O_RDWR)
    os.dup2(other, number)
    try:
        assert pass_on(shared, two[1]).sum() == 49_995_000  # type: ignore[attr-defined]
    finally:
        os.close(other)
        os.close(number)
    shared.close()
