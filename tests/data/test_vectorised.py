# SPDX-License-Identifier: BSD-3-Clause
"""Datasets in memory: selections of rows are what torch's loop over samples gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from teamster.data import DataLoader
from teamster.data.vectorised import selection

TENSORS = torch.arange(60.0).reshape(20, 3), torch.arange(20), torch.ones(20, 2, 2) > 0
DATASETS: dict[str, Any] = {
    "TensorDataset": data.TensorDataset(*TENSORS),
    "one tensor": data.TensorDataset(TENSORS[1]),
    "tensor": TENSORS[0],
    "Subset": data.Subset(data.TensorDataset(*TENSORS), [3, 1, 19, 4, 4]),
    "Subset of Subset": data.Subset(data.Subset(TENSORS[0], range(2, 12)), [9, 0, 3]),
    "array": np.arange(40).reshape(20, 2),
    "numbers": np.linspace(0, 1, 20),
    "small floats": np.arange(20, dtype=np.float32),
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and all(map(equal, one, other))


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("how", [{"batch_size": 4}, {"batch_size": 3, "drop_last": True}])
def test_batches_are_torchs(name: str, how: Any) -> None:
    dataset = DATASETS[name]
    assert selection(dataset) is not None
    for shuffle in (False, True):

        def seeded(shuffle: bool = shuffle) -> Any:
            return {**how, "shuffle": shuffle, "generator": torch.Generator().manual_seed(2)}

        assert equal(
            list(DataLoader(dataset, workers="inline", **seeded())),
            list(data.DataLoader(dataset, **seeded())),
        )


class Own(data.TensorDataset):
    def __getitem__(self, index: Any) -> Any:
        return index


@pytest.mark.parametrize(
    "dataset", [Own(TENSORS[0]), [1, 2], data.Subset([1, 2], [0]), np.array(["a"], dtype=object)]
)
def test_others_are_read_sample_by_sample(dataset: Any) -> None:
    assert selection(dataset) is None


@pytest.mark.parametrize("rows", [torch.arange(8), torch.ones(8, 2, dtype=torch.float8_e5m2)])
@pytest.mark.parametrize("indices", [[-1, 0, -8], (3, 3), np.array([2, 1]), [torch.tensor(4)]])
def test_indices_of_any_kind_and_rows_of_any_type(rows: Any, indices: Any) -> None:
    dataset = data.TensorDataset(rows)
    (ours,) = DataLoader(dataset, batch_sampler=[indices], workers="inline")
    (torchs,) = data.DataLoader(dataset, batch_sampler=[indices])
    assert ours[0].dtype == torchs[0].dtype
    assert torch.equal(ours[0].float(), torchs[0].float())


def test_an_index_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        list(DataLoader(data.TensorDataset(torch.ones(3)), sampler=[3], workers="inline"))


@pytest.mark.parametrize("indices", [[0.7, 1.5], [np.float64(2.9)], ["1", "2"]])
def test_what_is_no_index_is_an_error(indices: Any) -> None:
    dataset = data.TensorDataset(torch.arange(4))
    for kind in (data.DataLoader, DataLoader):
        with pytest.raises((IndexError, TypeError, ValueError)):
            list(kind(dataset, batch_sampler=[indices]))


def test_the_default_device_is_not_that_of_indices() -> None:
    dataset = data.TensorDataset(torch.arange(4))
    batches = iter(DataLoader(dataset, 4))
    with torch.device("meta"):
        (batch,) = next(batches)
    assert batch.tolist() == [0, 1, 2, 3]
