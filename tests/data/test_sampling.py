# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers of samples are the same with any workers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.sampling import SampleSeeds, Seed
from teamster.errors import UsageError

KINDS = ["inline", "thread", "process"]
pytestmark = pytest.mark.filterwarnings("ignore:samples draw random numbers")


class Augmented(data.Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(
            [index, random.random(), float(np.random.rand()), float(torch.rand(1))],
            dtype=torch.float64,
        )


class Sometimes(Augmented):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index, 0.0 if index % 4 == 1 else random.random()])


def mixed(samples: list[Any]) -> Any:
    return torch.stack(samples) * random.random()


def epochs(kind: str, dataset: Any, count: int = 2, **how: Any) -> list[Any]:
    torch.manual_seed(11)
    loader = DataLoader(dataset, 5, shuffle=True, workers=kind, **how)  # type: ignore[arg-type]
    return [torch.cat(list(loader)) for _ in range(count)]


@pytest.mark.parametrize("dataset", [Augmented(), Sometimes()], ids=["all draw", "some draw"])
@pytest.mark.parametrize("collate", [None, mixed], ids=["default", "mixed"])
def test_augmented_batches_are_the_same_with_any_workers(dataset: Any, collate: Any) -> None:
    expected = epochs("inline", dataset, collate_fn=collate)
    assert not torch.equal(*expected)  # another epoch, other numbers
    for kind, workers in (("thread", 2), ("process", 1), ("process", 2), ("hybrid", 4)):
        found = epochs(kind, dataset, collate_fn=collate, num_workers=workers)
        assert all(map(torch.equal, found, expected)), (kind, workers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_s_own_numbers_are_not_disturbed(kind: str) -> None:
    loader = DataLoader(Augmented(), 6, num_workers=2, workers=kind)  # type: ignore[arg-type]
    batches = iter(loader)
    next(batches)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    list(batches)
    drawn = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1))


def test_torchs_own_seeds_are_torchs() -> None:
    def batches(make: Any, **how: Any) -> list[Any]:
        torch.manual_seed(3)
        return list(make(Augmented(), 4, num_workers=2, **how))

    ours = batches(DataLoader, seeding="torch", workers="process")
    theirs = batches(data.DataLoader)
    assert all(map(torch.equal, (each[:, 3] for each in ours), (each[:, 3] for each in theirs)))


def test_threads_are_told_of_generators_that_are_all_threads_own() -> None:
    with pytest.warns(UserWarning, match="samples draw random numbers from `random`, which all"):
        list(DataLoader(Sometimes(), 4, num_workers=2, workers="thread"))


def test_a_sample_that_draws_nothing_is_read_without_seeds() -> None:
    seeds = SampleSeeds()
    with seeds.kept():
        for index in range(20):
            assert seeds.read(lambda index: index + 1, index, Seed(1, 0, index)) == index + 1
    assert not seeds.drawn


class Episodes(data.Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_drawn_again_has_other_numbers(kind: str) -> None:
    loader = DataLoader(
        Episodes(),
        5,
        sampler=[0] * 20,
        num_workers=1,
        workers=kind,  # type: ignore[arg-type]
    )
    drawn = torch.cat(list(loader))
    assert len({tuple(row.tolist()) for row in drawn}) == 20


class Endless(data.Sampler[Any]):
    def __iter__(self) -> Any:
        while True:
            yield from ([0, 1], [2, 3])


def test_an_iterator_that_goes_through_the_dataset_again_has_other_numbers() -> None:
    batches = iter(DataLoader(Augmented(), batch_sampler=Endless()))
    first, second = (torch.cat([next(batches), next(batches)]) for _ in range(2))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not (first[:, 1:] == second[:, 1:]).any()


class Still(Augmented):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


@pytest.mark.parametrize("dataset", [Augmented(), Still()], ids=["draw", "draw nothing"])
def test_generators_of_gpus_are_left_alone(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    assert len(list(DataLoader(dataset, 4))) == 6
    assert seeded == []


def test_the_seed_of_a_sample_fits_into_a_tensor() -> None:
    class Tells(Augmented):
        def __getitem__(self, index: int) -> Any:
            return torch.initial_seed()

    assert len(set(next(iter(DataLoader(Tells(), 8))).tolist())) == 8


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="seeding must be 'sample' or 'torch', not 'none'"):
        DataLoader([1], seeding="none")  # type: ignore[arg-type]
