# SPDX-License-Identifier: BSD-3-Clause
"""Many small objects in two buffers."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import data

from teamster.data import DataLoader, pack
from teamster.errors import UsageError

VALUES = (
    st.lists(st.text(st.characters()))
    | st.lists(st.binary())
    | st.lists(st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers()))
)


@given(values=VALUES, number=st.integers(-30, 30), cut=st.slices(20))
def test_it_is_like_the_list(values: list[Any], number: int, cut: slice) -> None:
    packed = pack(values)
    assert len(packed) == len(values)
    assert list(packed) == values
    assert packed == values
    assert packed[cut] == values[cut]
    for inside in (values, packed):
        if not -len(values) <= number < len(values):
            with pytest.raises(IndexError):
                inside[number]
    if -len(values) <= number < len(values):
        assert packed[number] == values[number]
        assert packed.index(values[number]) == values.index(values[number])
    assert copy.deepcopy(packed) == values
    for protocol in range(2, 6):
        assert pickle.loads(pickle.dumps(packed, protocol)) == values


def test_indices_of_any_kind() -> None:
    packed = pack("abc")
    assert [packed[np.int64(1)], packed[torch.tensor(2)]] == ["b", "c"]  # type: ignore[call-overload]
    with pytest.raises(AttributeError):
        packed["a"]  # type: ignore[call-overload]


def test_a_lone_surrogate_as_of_a_file_name() -> None:
    assert pack(["\udcff.jpg"])[0] == "\udcff.jpg"


def test_equality_is_that_of_a_list() -> None:
    assert pack("ab") == pack("ab")
    assert pack("ab") != ["a"]
    assert pack("ab") != ("a", "b")
    assert repr(pack("abcd")) == "pack(['a', 'b', 'c', ...])"


def test_what_does_not_pickle_is_named() -> None:
    with pytest.raises(UsageError, match="value 1 does not pickle"):
        pack([1, lambda: 2])


@pytest.mark.parametrize("count", [10, 1_000, 100_000])
def test_it_takes_the_bytes_of_the_text(count: int) -> None:
    texts = [f"images/{number:08}.jpg" for number in range(count)]
    gc.collect()
    tracemalloc.start()
    packed = pack(texts)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert packed.nbytes == count * (19 + 8) + 8
    assert taken < 1.3 * packed.nbytes + 4_000


class Files(data.Dataset[Any]):
    def __init__(self, paths: Any) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return len(self.paths[index])


def test_processes_say_what_a_long_list_costs_and_not_what_it_does_packed() -> None:
    paths = [f"{number:01000}.jpg" for number in range(40_000)]
    loader = DataLoader(data.Subset(Files(paths), range(64)), 8, num_workers=2)
    with pytest.warns(UserWarning, match=r"40,000 objects in dataset.paths take 4\d.*pack\("):
        list(loader)
    for batch in DataLoader(Files(pack(paths)), 8, num_workers=2):
        assert batch.tolist() == [1_004] * 8


def test_what_was_shared_may_be_part_of_a_cycle() -> None:
    """The collector of Python 3.11 crashed: it cleared a view that a buffer still used."""
    for _ in range(20):
        files = Files(pack(str(number) for number in range(10_000)))
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(files, 5, buffer_callback=buffers.append)
        there = pickle.loads(pickled, buffers=buffers)
        again: list[pickle.PickleBuffer] = []
        pickle.dumps(there, 5, buffer_callback=again.append)
        kept = [files, there, [buffer.raw() for buffer in (*buffers, *again)]]
        kept.append(kept)
        ended = weakref.ref(files)
        del files, there, buffers, again, kept
        gc.collect()
        assert ended() is None
