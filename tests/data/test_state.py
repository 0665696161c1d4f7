# SPDX-License-Identifier: BSD-3-Clause
"""A loader goes on where it was, exactly, with other workers, too."""

from __future__ import annotations

import pickle
import random
import time
from typing import Any

import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.errors import UsageError

COUNT = 26
pytestmark = pytest.mark.filterwarnings("ignore:samples draw random numbers")


class Augmented(data.Dataset[Any]):
    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return torch.tensor([index, random.random()], dtype=torch.float64)


def loader(kind: str, workers: int = 2, **how: Any) -> DataLoader:
    how = {"batch_size": 3, "shuffle": True, **how}
    return DataLoader(Augmented(), num_workers=workers, workers=kind, **how)  # type: ignore[arg-type]


SETTINGS: dict[str, dict[str, Any]] = {
    "global generator": {},
    "own generator": {"generator": True},
    "persistent": {"persistent_workers": True},
    "distributed": {"sampler": True},
    "no batches": {"batch_size": None},
}


def made(kind: str, setting: str, workers: int = 2) -> DataLoader:
    how = dict(SETTINGS[setting])
    if "generator" in how:
        how["generator"] = torch.Generator().manual_seed(4)
    if "sampler" in how:
        how["sampler"] = data.DistributedSampler(Augmented(), 2, 1, seed=8)
        how["sampler"].set_epoch(3)
        how["shuffle"] = None
    if kind == "inline":
        how.pop("persistent_workers", None)
    return loader(kind, workers, **how)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("before", "after"),
    [("inline", "thread"), ("thread", "process"), ("process", "inline"), ("thread", "hybrid")],
)
@pytest.mark.parametrize("given", [0, 1, 4])
def test_it_goes_on_exactly(setting: str, before: str, after: str, given: int) -> None:
    torch.manual_seed(7)
    first = made(before, setting)
    list(first)  # an epoch before
    batches = iter(first)
    for _ in range(given):
        next(batches)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    expected = list(batches)
    torch.manual_seed(99)
    again = made(after, setting, workers=1)
    again.load_state_dict(state)
    assert again.state_dict() is not state
    found = list(again)
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


class Waits(data.Dataset[Any]):
    """So that "auto" has threads after some batches, as far as the machine lets it."""

    def __len__(self) -> int:
        return 160

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.004)
        return torch.tensor([index])


def test_it_goes_on_where_auto_has_others_than_at_the_beginning() -> None:
    def loader() -> DataLoader[Any]:
        draw = torch.Generator().manual_seed(3)
        return DataLoader(Waits(), 4, shuffle=True, generator=draw)

    whole = [batch.flatten().tolist() for batch in loader()]
    first = loader()
    batches, found = iter(first), list[Any]()
    while first.explain().backend == "serial" and len(found) < 30:
        found.append(next(batches).flatten().tolist())
    found += [next(batches).flatten().tolist() for _ in range(4)]
    again = loader()
    again.load_state_dict(first.state_dict())
    del batches
    assert found + [batch.flatten().tolist() for batch in again] == whole


def test_nothing_that_was_given_is_read_again() -> None:
    first = loader("inline", shuffle=False)
    batches = iter(first)
    for _ in range(5):
        next(batches)
    again = loader("inline", shuffle=False)
    again.load_state_dict(first.state_dict())
    list(again)
    assert again.dataset.read == list(range(15, COUNT))


def test_between_epochs_the_next_epoch_is_the_same() -> None:
    torch.manual_seed(5)
    first = loader("thread")
    list(first)
    state = first.state_dict()
    expected = [torch.cat(list(first)) for _ in range(1)]
    torch.manual_seed(6)
    again = loader("inline")
    again.load_state_dict(state)
    assert torch.equal(torch.cat(list(again)), expected[0])


def test_out_of_order_what_was_given_is_not_given_again() -> None:
    first = loader("thread", in_order=False)
    batches = iter(first)
    seen = [int(row) for _ in range(4) for row in next(batches)[:, 0]]
    again = loader("process", in_order=False)
    again.load_state_dict(first.state_dict())
    rest = [int(row) for batch in again for row in batch[:, 0]]
    assert sorted(seen + rest) == list(range(COUNT))
    batches.close()


def test_the_program_s_own_numbers_go_on() -> None:
    first = loader("inline")
    next(iter(first))
    state = first.state_dict()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    again = loader("inline")
    again.load_state_dict(state)
    iter(again)
    assert torch.equal(torch.rand(1), expected)


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no state of a teamster\.data\.DataLoader"):
        loader("inline").load_state_dict({"epoch": 1})
    state = loader("inline").state_dict()
    with pytest.raises(UsageError, match="of a dataset with 26 samples, this one has 2"):
        DataLoader([1, 2]).load_state_dict(state)


class Interrupts:
    def __init__(self) -> None:
        self.struck = False

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index == 2 and not self.struck:
            self.struck = True
            raise KeyboardInterrupt
        return index


@pytest.mark.parametrize("how", [{"workers": "inline"}, {}])
def test_a_batch_that_ctrl_c_has_struck_was_not_given(how: Any) -> None:
    loader = DataLoader(Interrupts(), 1, **how)
    batches = iter(loader)
    assert [next(batches).item(), next(batches).item()] == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    again = DataLoader(list(range(10)), 1, **how)
    again.load_state_dict(loader.state_dict())
    assert [batch.item() for batch in again] == [*range(2, 10)]
