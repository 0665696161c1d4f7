# SPDX-License-Identifier: BSD-3-Clause
"""Kinds of programs that a review has found to go wrong: each as the plain loop has it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data

from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.trainer.test_launched import found, run, script

STRATEGIES = ["single", "dp", "ddp"]


def trainer_of(model: Any, strategy: Any, rate: float = 1.0, **more: Any) -> Trainer:
    workers = None if strategy == "single" else 2
    return Trainer(model, torch.optim.SGD(model.parameters(), rate), strategy, workers, **more)


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 1)


def mean_of(module: Any, x: torch.Tensor) -> Any:
    return module(x).mean()


X = torch.linspace(-1, 2, 32).reshape(8, 4)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_that_fails_leaves_no_gradient(strategy: str, accumulate: int) -> None:
    def function(module: Any, x: torch.Tensor) -> Any:
        if x.isnan().any():
            raise ValueError("nan")
        return module(x).mean()

    bad = X.clone()
    bad[-1] = float("nan")  # among the rows of the last rank
    model = linear()
    before = model.weight.detach().clone()
    with trainer_of(model, strategy, accumulate=accumulate) as trainer:
        for _ in range(accumulate - 1):
            trainer.step(function, X)
        with pytest.raises(ValueError, match="nan"):
            trainer.step(function, bad)
        trainer.step(function, X)
    torch.testing.assert_close((model.weight - before)[0], -X.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_of_others_count_for_nothing(strategy: str) -> None:
    model = linear()
    before = model.weight.detach().clone()
    with trainer_of(model, strategy) as trainer:
        (1_000 * model(X).sum()).backward()
        trainer.step(mean_of, X)
    torch.testing.assert_close((model.weight - before)[0], -X.mean(0), atol=1e-5, rtol=1e-5)


def test_what_other_ranks_cannot_have_is_refused() -> None:
    model, own = linear(), nn.Parameter(torch.ones(1))
    with pytest.raises(UsageError, match="parameters that are not the model's"):
        Trainer(model, torch.optim.SGD([*model.parameters(), own], 1.0), "ddp", 2)
    with trainer_of(model, "ddp") as trainer:
        with pytest.raises(UsageError, match="uses the model itself"):
            trainer.step(lambda _, x: model(x).mean(), X)
        with pytest.raises(UsageError, match=r"uses the model itself \('weight'\)"):
            weight = model.weight
            trainer.step(lambda module, x: (x @ weight.T).mean(), X)
    model.weight.register_hook(lambda grad: grad * 2)
    with (
        trainer_of(model, "ddp") as trainer,
        pytest.raises(UsageError, match="weight has a hook, which ranks"),
    ):
        trainer.step(mean_of, X)


class Scaled(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.alpha = linear(), 1.0
        self.last: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.linear(x)) * self.alpha


def test_changes_of_the_model_reach_all_ranks() -> None:
    curves = {}
    for strategy in ("single", "ddp"):
        model = Scaled()
        losses = []
        with trainer_of(model, strategy, 0.1) as trainer:
            losses.append(float(trainer.step(mean_of, X)))  # type: ignore[arg-type]
            ranks = pids(trainer)
            model.alpha = 0.25
            losses.append(float(trainer.step(mean_of, X)))  # type: ignore[arg-type]
            model.last = nn.Tanh()
            losses.append(float(trainer.step(mean_of, X)))  # type: ignore[arg-type]
            model.linear.register_forward_hook(lambda module, given, output: 3 * output)
            losses.append(float(trainer.step(mean_of, X)))  # type: ignore[arg-type]
            assert pids(trainer) == ranks
        curves[strategy] = losses
    assert curves["ddp"] == pytest.approx(curves["single"], abs=1e-5)


def pids(trainer: Trainer) -> list[Any]:
    return [each.pid for each in getattr(trainer._strategy, "_processes", [])]


class Cached(nn.Module):  # type: ignore[misc]
    """A mask that is made at first use, and grows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        if self.mask is None or len(self.mask) < x.shape[1]:
            self.mask = torch.ones(x.shape[1])
        return self.linear((x * self.mask[: x.shape[1]])[:, :4])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_buffers_that_grow(strategy: str) -> None:
    model = Cached()
    with trainer_of(model, strategy, 0.0) as trainer:
        losses = [float(trainer.step(mean_of, torch.ones(8, width))) for width in (4, 4, 6, 6)]
    assert losses == pytest.approx([losses[0]] * 4)


def test_an_optimizer_that_replaces_the_memory_of_parameters() -> None:
    class Replacing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for each in self.param_groups[0]["params"]:
                each.data = each.data - 0.05 * each.grad

    curves = {}
    for strategy in ("single", "ddp"):
        model = linear()
        workers = 2 if strategy == "ddp" else None
        with Trainer(model, Replacing(model.parameters()), strategy, workers) as trainer:  # type: ignore[arg-type]
            first = float(trainer.step(mean_of, X))  # type: ignore[arg-type]
            ranks = pids(trainer)
            curves[strategy] = [first, *(float(trainer.step(mean_of, X)) for _ in range(4))]  # type: ignore[arg-type]
            assert pids(trainer) == ranks
    assert curves["ddp"] == pytest.approx(curves["single"], abs=1e-5)


def test_lists_have_a_value_a_row() -> None:
    rows = [(f"w{number}", torch.tensor([float(number)])) for number in range(8)]

    def function(module: Any, names: Any, x: torch.Tensor) -> Any:
        pairs = zip(names, x, strict=True)
        return sum(value.sum() - float(name[1:]) for name, value in pairs) + 0 * module(x).sum()

    model = nn.Linear(1, 1)
    for strategy in ("single", "ddp"):
        with trainer_of(model, strategy) as trainer:
            for names, x in trainer.batches(data.DataLoader(rows, 8)):
                assert float(trainer.step(function, names, x)) == 0.0  # type: ignore[arg-type]
    with trainer_of(model, "dp") as trainer, pytest.raises(UsageError, match="a list of 8 texts"):
        trainer.step(function, *next(iter(data.DataLoader(rows, 8))))


class Endless(data.IterableDataset):  # type: ignore[misc]
    def __iter__(self) -> Any:
        return iter(torch.arange(16.0).reshape(16, 1))


def test_a_loader_without_a_length() -> None:
    with trainer_of(linear(), "single") as trainer:
        assert len(list(trainer.batches(data.DataLoader(Endless(), 8)))) == 2


def test_the_log_has_what_there_was() -> None:
    seen: list[float] = []

    def slow(record: Any) -> None:
        time.sleep(0.01)  # longer than a step; not a hope for anything
        seen.extend(float(each) for each in record.values.values())

    total = torch.zeros(())
    with trainer_of(linear(), "single", loggers=[slow]) as trainer:
        for _ in range(5):
            total += 1
            trainer.log(total=total)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.filterwarnings("ignore:log.name=")
def test_a_value_that_is_no_number_loses_no_other() -> None:
    seen: list[Any] = []
    trainer = trainer_of(linear(), "single", loggers=[seen.append])
    trainer.log(name="hello")
    trainer.close()
    trainer.log(loss=1.0)  # after a close, as a step after it
    trainer.close()
    assert [record.values.get("loss") for record in seen] == [None, 1.0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_precision_with_accumulation_begins_at_once(strategy: str) -> None:
    model, x = nn.Linear(4, 1), torch.randn(512, 4)
    before = model.weight.detach().clone()
    how: Any = {"precision": "fp16", "accumulate": 2}
    with trainer_of(model, strategy, 0.01, **how) as trainer:
        for _ in range(8):
            trainer.step(
                lambda module, x: (module(x).float() - x.sum(1, keepdim=True)).square().mean(), x
            )
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_that_is_there_for_some_rows(strategy: str) -> None:
    def function(module: Any, x: torch.Tensor) -> Any:
        found = {"a": module(x).mean()}
        if (x > 5).any():
            found["b"] = module(x).square().mean()
        return found

    rows = torch.arange(8.0).reshape(8, 1).expand(8, 4)
    with trainer_of(linear(), strategy) as trainer:
        assert sorted(trainer.step(function, rows)) == ["a", "b"]


def test_sparse_gradients_of_an_update_that_is_not_complete(tmp_path: Path) -> None:
    def trainer_over(model: Any) -> Trainer:
        optimizer = torch.optim.SparseAdam(list(model.parameters()))
        return Trainer(model, optimizer, "single", accumulate=2)

    def go(trainer: Trainer, number: int) -> None:
        draw = torch.Generator().manual_seed(number)
        trainer.step(mean_of, torch.randint(20, (8, 3), generator=draw))

    model = nn.Embedding(20, 4, sparse=True)
    other = nn.Embedding(20, 4, sparse=True)
    with trainer_over(model) as trainer:
        go(trainer, 0)
        trainer.save(tmp_path)
        go(trainer, 1)
    with trainer_over(other) as trainer:
        trainer.load(tmp_path)
        go(trainer, 1)
    assert torch.equal(model.weight, other.weight)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_that_counts_nothing(strategy: str) -> None:
    def function(module: Any, x: torch.Tensor, kept: torch.Tensor) -> Any:
        return (module(x)[:, 0] * kept).sum() / kept.sum().clamp(min=1)

    with trainer_of(linear(), strategy, weight=lambda x, kept: kept.sum()) as trainer:
        assert float(trainer.step(function, X, torch.zeros(8))) == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda model, sgd: {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)},
            "wants a",
        ),
        (lambda model, sgd: {"optimizer": torch.optim.LBFGS(model.parameters())}, "LBFGS computes"),
        (lambda model, sgd: {"model": nn.LazyLinear(3)}, "weight has no shape yet"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_start(make: Any, told: str) -> None:
    model = linear()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(UsageError, match=told):
        Trainer(**{"model": model, "optimizer": sgd, **make(model, sgd)})


def test_a_vector_has_no_mean() -> None:
    with (
        trainer_of(linear(), "single") as trainer,
        pytest.raises(UsageError, match=r"a tensor of shape \(8, 1\)"),
    ):
        trainer.evaluate(lambda module, x: module(x), [X])


UNDER_TORCHRUN = """
    import json, multiprocessing, torch
    from torch import nn
    from torch.utils import data
    from teamster.train import Trainer
    torch.manual_seed(0)
    found = {}

    def trainer_of(model, rate=0.0):
        return Trainer(model, torch.optim.SGD(model.parameters(), rate), "ddp")

    X = torch.linspace(-1, 2, 32).reshape(8, 4)
    def fails(module, x):
        if x.isnan().any():
            raise ValueError("nan")
        return module(x).mean()
    bad = X.clone(); bad[-1] = float("nan")
    model = nn.Linear(4, 1); before = model.weight.detach().clone()
    first = trainer_of(model, 1.0)
    try:
        first.step(fails, bad)
    except ValueError:
        pass
    first.step(fails, X)
    found["moved"] = first.gather((model.weight - before)[0].tolist())
    found["drawn"] = first.gather(torch.randint(100, (1,)).item())

    class Rows(data.IterableDataset):
        def __iter__(self):
            return iter(torch.arange(16.0).reshape(16, 1))
    mine = [x.flatten().tolist() for x in first.batches(data.DataLoader(Rows(), 8))]
    found["iterable"] = first.gather(mine)
    split = data.distributed.DistributedSampler(range(8), shuffle=False)
    try:
        list(first.batches(data.DataLoader(torch.arange(8.0), 4, sampler=split)))
    except Exception as error:
        found["refused"] = str(error)
    loader = data.DataLoader(torch.ones(21, 1), 8)
    found["inside"] = []
    for x in first.batches(loader):
        found["inside"].append(first.evaluate(lambda module, x: x.mean(), loader))

    def some(module, x):
        told = {"a": module(x).mean()}
        if (x > 1.5).any():
            told["b"] = module(x).square().mean()
        return told
    found["names"] = first.gather(sorted(first.step(some, X)))
    first.close()

    normed = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    second = trainer_of(normed)
    many = torch.randn(64, 4) * torch.arange(64.0)[:, None]
    for _ in range(3):
        second.step(lambda module, x: module(x).mean(), many)
    told = second.evaluate(lambda module, x: module(x).square().mean(), [many])
    found["evaluated"] = [told, second.gather(normed.eval()(many).square().mean().item())[0]]
    found["samples"] = second.report().samples
    for _ in range(3):
        staying = data.DataLoader(torch.randn(8, 4), 4, num_workers=1, persistent_workers=True)
        for x in second.batches(staying):
            second.step(lambda module, x: module(x).mean(), x)
    found["samples"] = [found["samples"], second.report().samples]
    found["loaders"] = len(multiprocessing.active_children())
    if second.is_main:
        print("found", json.dumps(found), flush=True)
    second.close()
"""


def test_under_torchrun(tmp_path: Path) -> None:
    told = found(run(script(tmp_path, UNDER_TORCHRUN), ranks=2))
    for moved in told["moved"]:
        assert moved == pytest.approx((-X.mean(0)).tolist(), abs=1e-5)
    assert told["drawn"][0] == told["drawn"][1]
    assert told["iterable"] == [
        [[0.0, 1.0, 2.0, 3.0], [8.0, 9.0, 10.0, 11.0]],
        [[4.0, 5.0, 6.0, 7.0], [12.0, 13.0, 14.0, 15.0]],
    ]
    assert "leave the sampler out" in told["refused"]
    assert told["inside"] == [1.0, 1.0, 1.0]
    assert told["names"] == [["a", "b"]] * 2
    assert told["evaluated"][0] == pytest.approx(told["evaluated"][1], rel=1e-4)
    assert told["samples"] == [192.0, 192.0 + 24.0]
    assert told["loaders"] <= 1
    assert os.environ.get("WORLD_SIZE") is None
