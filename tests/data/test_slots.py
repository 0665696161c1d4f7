# SPDX-License-Identifier: BSD-3-Clause
"""Batches of processes in shared memory that is used again."""

from __future__ import annotations

import os
import signal
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.feeding import Feed
from teamster.data.fetch import Fetch, default_collate
from teamster.data.processes import ProcessFeed
from teamster.data.sampling import Seed
from teamster.data.slots import SlotRows, Slots, replaced, tensors_of, write

Pair = namedtuple("Pair", "image label")


class Images:
    """Samples of 64 KiB in some structure; every number tells the sample."""

    def __init__(self, structure: str, count: int = 26) -> None:
        self.structure = structure
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index >= self.count:
            raise IndexError(index)
        image = torch.full((128, 128), float(index))
        return {
            "tensor": image,
            "array": numpy.full((128, 128), index, numpy.uint8),
            "tuple": (image, index, f"name {index}"),
            "nested": {"x": {"image": image, "mask": [image > 3, -image]}, "y": float(index)},
            "named": Pair(image, index),
            "view": image.expand(2, 128, 128).transpose(0, 2),
            "half": image.to(torch.bfloat16),
        }[self.structure]


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return type(ours) is type(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize(
    "structure", ["tensor", "array", "tuple", "nested", "named", "view", "half"]
)
def test_batches_are_those_of_torch(structure: str) -> None:
    loader = DataLoader(
        Images(structure), 4, num_workers=1, workers="process", persistent_workers=True
    )
    theirs = list(data.DataLoader(Images(structure), 4))
    for _ in range(3):  # from the second on, all come by slots
        batches = 0
        for ours, expected in zip(loader, theirs, strict=True):
            assert same(ours, expected)
            batches += 1
        assert batches == 7
    assert type(loader._iterator._feed._slots) is Slots


@pytest.fixture(scope="module")
def feed() -> Iterator[ProcessFeed]:
    made = ProcessFeed(Fetch(Images("tuple", 1000), default_collate, True), 1, 2, base_seed=0)
    made.begin([0], Seed(0)).result(60)  # its worker is there
    yield made
    made.close()


def batches_of(feed: Feed, rows: list[list[int]]) -> list[Any]:
    return [feed.begin(each, Seed(0)).result(60).value for each in rows]


def test_batches_that_are_kept_stay_as_they_are(feed: ProcessFeed) -> None:
    rows = [[first, first + 1, first + 2] for first in range(0, 60, 3)]
    for (image, label, name), each in zip(batches_of(feed, rows), rows, strict=True):
        assert label.tolist() == image[:, 127, 127].tolist() == each
        assert name == tuple(f"name {index}" for index in each)


def test_a_slot_is_used_again_when_nothing_of_its_batch_is_left(feed: ProcessFeed) -> None:
    rows = [[first, first + 1] for first in range(0, 40, 2)]
    batches_of(feed, rows[:4])
    addresses, kept = set(), []
    for each in rows:
        image = feed.begin(each, Seed(0)).result(60).value[0]
        addresses.add(image.data_ptr())
        if each[0] in (4, 20):
            kept.append((each[0], image[0].numpy()[5:6]))  # a view of a view
        del image
    assert len(addresses) <= feed.ahead + 2
    assert all(view[0, 0] == first for first, view in kept)


def test_batches_of_many_sizes(feed: ProcessFeed) -> None:
    for rows in ([1], [2, 3, 4, 5, 6, 7], [8, 9], list(range(10, 30)), [3]):
        image, label, _ = feed.begin(rows, Seed(0)).result(60).value
        assert image[:, 0, 0].tolist() == label.tolist() == rows


def test_a_batch_that_was_given_up_is_written_to_its_own_slot(feed: ProcessFeed) -> None:
    batches_of(feed, [[0, 1]] * 4)
    for first in range(0, 30, 2):
        feed.begin([first, first + 1], Seed(0))  # its workers write it while the next one is there
        image, *_ = feed.begin([first + 2, first + 3], Seed(0)).result(60).value
        assert image[:, 64, 64].tolist() == [first + 2, first + 3]


class Odd(Images):
    """Now and then a sample that is not like the others."""

    def __getitem__(self, index: int) -> Any:
        image, label, name = super().__getitem__(index)
        if self.structure == "tuple" and index == 13:
            return image.double(), label, name
        return image, label, name


def test_a_sample_of_another_type_goes_the_ordinary_way() -> None:
    def loaded(make: Any, **more: Any) -> list[Any]:
        return list(make(Odd("tuple"), 4, **more))

    ours = loaded(DataLoader, num_workers=1, workers="process")
    assert all(map(same, ours, loaded(data.DataLoader)))


class TwoKinds(Images):
    """Batches of images, and batches of numbers in their place."""

    def __getitem__(self, index: int) -> Any:
        image, label, _ = super().__getitem__(index)
        return (image, label) if index < 12 else (0.5 * label, label)


def test_a_batch_of_another_kind_goes_the_ordinary_way() -> None:
    loader = DataLoader(TwoKinds("tuple", 24), 4, num_workers=1, workers="process")
    theirs = data.DataLoader(TwoKinds("tuple", 24), 4)
    assert all(map(same, loader, theirs))


class Ragged(Images):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(128, 128 + index // 20)


def test_samples_of_two_shapes_fail_as_they_do_with_torch() -> None:
    loader = DataLoader(Ragged(""), 4, num_workers=1, workers="process")
    with pytest.raises(RuntimeError, match="each tensor"):
        list(data.DataLoader(Ragged(""), 8, sampler=range(14, 24)))
    with pytest.raises(RuntimeError, match=r"[Ss]izes of tensors|each tensor"):
        list(DataLoader(Ragged(""), 8, sampler=range(14, 24), num_workers=1, workers="process"))
    assert [len(batch) for batch in loader] == [4, 4, 4, 4, 4, 4, 2]


class DiesOnce(Images):
    def __init__(self, folder: Path) -> None:
        super().__init__("tuple")
        self.mark = folder / "died"

    def __getitem__(self, index: int) -> Any:
        if index == 17 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_rows_of_a_worker_that_died_are_written_again(tmp_path: Path) -> None:
    loader = DataLoader(DiesOnce(tmp_path), 4, num_workers=2, workers="process")
    images = torch.cat([image[:, 0, 0] for image, *_ in loader])
    assert images.tolist() == list(range(26))
    assert (tmp_path / "died").exists()


def test_without_shared_memory_batches_come_by_pickle(
    feed: ProcessFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    slots = Slots.like(torch.zeros(4, 8192), 4, 2)
    assert slots is not None
    assert slots.take() is None
    own = ProcessFeed(feed.fetch, 1, 2, base_seed=0)
    own._slots = slots
    assert [label.tolist() for _, label, _ in batches_of(own, [[1], [2], [3, 4]])] == [
        [1],
        [2],
        [3, 4],
    ]
    own.close()


def test_a_file_that_is_another_one_by_now_is_not_written() -> None:
    slots = Slots.like(torch.zeros(4, 8192), 4, 2)
    assert slots is not None
    lease = slots.take()
    assert lease is not None
    pid, number, (device, inode) = lease.place.file
    other = SlotRows(
        (pid, number, (device, inode + 1)),
        lease.place.start,
        lease.place.nbytes,
        0,
        lease.place.leaves,
    )
    assert write([torch.ones(8192)], other) is None
    assert write([torch.ones(8192)], lease.place) == [0]


def test_where_tensors_are_and_what_is_put_there() -> None:
    batch = {"x": [torch.ones(1), "a"], "y": Pair(torch.ones(2), (torch.ones(3),))}
    paths = [path for path, _ in tensors_of(batch)]
    assert paths == [("x", 0), ("y", 0), ("y", 1, 0)]
    changed = replaced(batch, ("y", 1, 0), 7)
    assert changed["y"] == Pair(batch["y"].image, (7,))  # type: ignore[attr-defined]
    assert batch["y"].label[0].tolist() == [1, 1, 1]  # type: ignore[attr-defined]
