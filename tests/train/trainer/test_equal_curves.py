# SPDX-License-Identifier: BSD-3-Clause
"""The same training under every strategy: the same losses, the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teamster.train import Trainer
from tests.train.models import MODELS, batch, loss_fn, make, weighted_loss, whole_worth

SIZES = [*[12] * 17, 7, 2, 1]
"""Even, uneven, and smaller than the number of workers."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=1e-2),
}


def trained(
    name: str, optimizer: Any, sizes: list[int], **how: Any
) -> tuple[list[float], dict[str, torch.Tensor]]:
    model = make(name)
    losses = []
    with Trainer(model, optimizer(model.parameters()), **how) as trainer:
        batches = [batch(name, size, number) for number, size in enumerate(sizes)]
        for x, y in trainer.batches(batches):
            function = weighted_loss if "weight" in how else loss_fn
            losses.append(float(trainer.step(function, x, y)))
    return losses, {key: value.clone() for key, value in model.state_dict().items()}


def check_equal(mine: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    losses, state = mine
    expected, expected_state = theirs
    assert losses == pytest.approx(expected, abs=tolerance)
    assert list(state) == list(expected_state)
    for key, value in state.items():
        torch.testing.assert_close(value, expected_state[key], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["dp", "ddp"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_curves_are_those_of_single(optimizer: str, strategy: str, workers: int) -> None:
    make_it = OPTIMIZERS[optimizer]
    expected = trained("mlp", make_it, SIZES, strategy="single")
    check_equal(trained("mlp", make_it, SIZES, strategy=strategy, workers=workers), expected)


@pytest.mark.parametrize("strategy", ["dp", "ddp"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "cnn"])
def test_kinds_of_models(name: str, strategy: str) -> None:
    make_it = partial(torch.optim.SGD, lr=0.1)
    expected = trained(name, make_it, [*SIZES[:3], 5, 1], strategy="single")
    found = trained(name, make_it, [*SIZES[:3], 5, 1], strategy=strategy, workers=2)
    check_equal(found, expected)


@pytest.mark.parametrize("strategy", ["dp", "ddp"])
def test_statistics_are_those_of_the_first_replica(strategy: str) -> None:
    """What differs by nature is said."""
    model = make("cnn")
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), strategy, 2) as trainer:
        x, y = batch("cnn", 8, 0)
        trainer.step(loss_fn, x, y)
        assert "BatchNorm takes the statistics of each" in trainer.plan.reason
    alone = make("cnn")
    alone(x[:4])
    torch.testing.assert_close(model.norm.running_mean, alone.norm.running_mean)
    torch.testing.assert_close(model.norm.running_var, alone.norm.running_var)


HOW: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate": 3},
    "clipped": {"max_grad_norm": 0.05},
    "accumulate and clipped": {"accumulate": 2, "max_grad_norm": 0.05},
    "weight": {"weight": whole_worth},
    "weight and accumulate": {"weight": whole_worth, "accumulate": 2},
}


@pytest.mark.parametrize("strategy", ["single", "dp", "ddp"])
@pytest.mark.parametrize("how", HOW)
def test_options_mean_the_same(how: str, strategy: str) -> None:
    """Beside a loop by hand that computes each mean over all samples of an update."""
    sizes = [12, 5, 12, 1, 7, 3, 9]
    make_it = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    found = trained("mlp", make_it, sizes, strategy=strategy, **HOW[how])
    check_equal(found, by_hand("mlp", make_it, sizes, **HOW[how]))


def by_hand(
    name: str,
    optimizer: Any,
    sizes: list[int],
    accumulate: int = 1,
    max_grad_norm: float | None = None,
    weight: Any = None,
) -> Any:
    model = make(name)
    making = optimizer(model.parameters())
    batches = [batch(name, size, number) for number, size in enumerate(sizes)]
    losses = []
    for first in range(0, len(batches), accumulate):
        group = batches[first : first + accumulate]
        counts = [float(weight(x, y)) if weight else len(y) for x, y in group]
        for (x, y), count in zip(group, counts, strict=True):
            loss = (weighted_loss if weight else loss_fn)(model, x, y)
            losses.append(float(loss.detach()))
            (loss * count / sum(counts)).backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        making.step()
        making.zero_grad()
    return losses, model.state_dict()


def check_any(strategy: str, sizes: list[int], workers: int, accumulate: int) -> None:
    make_it = partial(torch.optim.SGD, lr=0.1)
    expected = by_hand("mlp", make_it, sizes, accumulate)
    how = {"strategy": strategy, "workers": workers, "accumulate": accumulate}
    check_equal(trained("mlp", make_it, sizes, **how), expected)


ANY = {
    "sizes": st.lists(st.integers(1, 9), min_size=1, max_size=5),
    "workers": st.integers(1, 4),
    "accumulate": st.integers(1, 3),
}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(**ANY)
def test_any_sizes_in_threads(sizes: list[int], workers: int, accumulate: int) -> None:
    check_any("dp", sizes, workers, accumulate)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(**ANY)
def test_any_sizes_in_processes(sizes: list[int], workers: int, accumulate: int) -> None:
    check_any("ddp", sizes, workers, accumulate)
