# SPDX-License-Identifier: BSD-3-Clause
"""Batches on the device where they are wanted."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.transfer import Transfer, as_named, pin
from teamster.errors import UsageError

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Event:
    def __init__(self) -> None:
        self.over = self.waited_for = False

    def query(self) -> bool:
        return self.over

    def synchronize(self) -> None:
        self.over = self.waited_for = True


class Recorded:
    """A stream that says what it was asked for, and whose copies are over when a test says so."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.events: list[Event] = []

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        self.steps.append("copy")
        yield
        self.steps.append("copied")

    def finish(self) -> Event:
        self.steps.append("wait")
        self.events.append(Event())
        return self.events[-1]

    def hold(self, tensor: torch.Tensor) -> None:
        self.steps.append(f"hold {tuple(tensor.shape)}")


def test_the_device_waits_for_a_copy_and_the_program_does_not() -> None:
    stream = Recorded()
    transfer = Transfer("cpu", stream)
    batch = transfer({"x": torch.ones(2, 3), "name": ["a"], "y": (torch.ones(2),)})
    assert stream.steps == ["copy", "copied", "wait", "hold (2, 3)", "hold (2,)"]
    assert batch["name"] == ["a"]
    assert not stream.events[0].waited_for


def test_what_is_copied_is_kept_until_that_is_over() -> None:
    stream = Recorded()
    transfer = Transfer("cpu", stream)
    for number in range(5):
        transfer([torch.full((1,), float(number))])
    kept = [host[0].item() for _, host in transfer._under_way]
    assert kept == [3.0, 4.0]  # the others were waited for, so that their slots can be filled
    assert [event.waited_for for event in stream.events] == [True, True, True, False, False]
    stream.events[3].over = stream.events[4].over = True
    transfer([torch.zeros(1)])
    assert len(transfer._under_way) == 1


def test_objects_that_move_by_themselves_go_in_the_programs_own_stream() -> None:
    stream = Recorded()
    batch = Transfer("cpu", stream)([torch.ones(2), {"g": Graph([torch.ones(1)])}])
    assert batch[1]["g"].device == "cpu"
    assert stream.steps == []


def test_copies_under_way_are_waited_for_at_the_end() -> None:
    stream = Recorded()
    transfer = Transfer("cpu", stream)
    transfer([torch.ones(2)])
    transfer.finish()
    assert [event.waited_for for event in stream.events] == [True]


class Graph:
    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows, self.device = torch.stack(rows), "nowhere"

    def to(self, device: torch.device) -> Graph:
        self.device = str(device)
        return self


class Stream(data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.arange(6.0).split(1))


def test_batches_of_any_loader_are_on_the_device() -> None:
    rows = list(torch.arange(6.0).split(1))
    for dataset in (rows, Stream()):
        for how in ({"workers": "inline"}, {"num_workers": 1}):
            loader = DataLoader(dataset, 3, collate_fn=Graph, device="cpu", **how)  # type: ignore[arg-type]
            assert [batch.device for batch in loader] == ["cpu", "cpu"]
    shared = DataLoader(rows, 3, device="cpu", share="device", num_workers=1)
    assert [batch.flatten().tolist() for batch in shared] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("device", ["cuda:99", "nowhere", 77, 1.5])
def test_a_device_that_does_not_exist_is_refused(device: Any) -> None:
    with pytest.raises(UsageError, match=f"{device}"):
        DataLoader([1], device=device)


class Mapped:
    def __init__(self, nbytes: int) -> None:
        self.memory = mmap.mmap(-1, nbytes)


def test_memory_that_cannot_be_pinned_stays_as_it_is() -> None:
    mapped = Mapped(4096)
    pin(mapped)
    mapped.memory[:3] = b"abc"
    mapped.memory.close()  # nothing holds it


@needs_cuda
@pytest.mark.parametrize("how", [{"workers": "inline"}, {"workers": "thread"}, {"num_workers": 2}])
def test_on_a_device_of_cuda(how: Any) -> None:
    rows = torch.arange(200_000.0).reshape(20, 10_000)
    loader = DataLoader([(row, 3) for row in rows], 4, device="cuda", **how)
    for _ in range(3):
        batches = list(loader)
        assert {each.device for batch in batches for each in batch} == {as_named("cuda")}
        assert torch.equal(torch.cat([x for x, _ in batches]).cpu(), rows)


@needs_cuda
def test_memory_of_slots_is_pinned() -> None:
    mapped = Mapped(1 << 20)
    pin(mapped)
    assert torch.frombuffer(mapped.memory, dtype=torch.uint8).is_pinned()
