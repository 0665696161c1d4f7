# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints inside of replicas: gradients are of the random numbers that the outputs were of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import checkpoint as module_of_checkpoints
from torch.utils.checkpoint import checkpoint
from torch.utils.checkpoint import checkpoint as again

from teamster.parallel import DataParallel
from teamster.parallel.recomputing import Recomputing

ROUNDS = 30


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


class Dropping(nn.Module):
    """Several checkpoints that draw; what comes out is a product with the weight, so its gradient can be told from it."""

    def __init__(self, reentrant: bool, draws: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.reentrant, self.draws = reentrant, draws

    def part(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.weight
        return functional.dropout(x, 0.5, self.training) if self.draws else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(checkpoint(self.part, x, use_reentrant=self.reentrant) for _ in range(4))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_are_of_the_numbers_that_the_outputs_were_of(reentrant: bool) -> None:
    parallel = DataParallel(Dropping(reentrant), 2)
    x = torch.rand(2000, requires_grad=True)
    for _ in range(ROUNDS):
        parallel.zero_grad()
        output = parallel(x)
        output.sum().backward()
        torch.testing.assert_close(parallel.module.weight.grad, output.detach().sum() / 2.0)
    parallel.close()


@pytest.mark.parametrize("reentrant", [True, False])
def test_in_step_mode_too(reentrant: bool) -> None:
    parallel = DataParallel(Dropping(reentrant), 2)
    x = torch.rand(2000, requires_grad=True)
    for _ in range(ROUNDS):
        parallel.zero_grad()
        loss = parallel.step(lambda module, given: module(given).mean(), x)
        torch.testing.assert_close(parallel.module.weight.grad, loss / 2.0)
    parallel.close()


def test_without_random_numbers_only_the_first_pass_is_in_turn() -> None:
    recomputing, module = Recomputing(), Dropping(True, draws=False)
    assert recomputing.is_in_turn(module)
    with recomputing.watch(module):
        module(torch.ones(2, requires_grad=True))
    assert not recomputing.is_in_turn(module)
    assert recomputing.is_in_turn(module.eval())  # which has not been seen yet


def test_a_module_that_begins_to_draw_is_told_of_and_takes_turns() -> None:
    recomputing, module = Recomputing(), Dropping(True, draws=False)
    with recomputing.watch(module):
        module(torch.ones(2, requires_grad=True))
    module.draws = True
    with pytest.warns(UserWarning, match="has begun to draw random numbers"), recomputing.watch(module):
        module(torch.ones(2, requires_grad=True))
    assert recomputing.is_in_turn(module)
    module.draws = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with recomputing.watch(module):
            module(torch.ones(2, requires_grad=True))
    assert recomputing.is_in_turn(module)  # once is enough


class ByModule(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return module_of_checkpoints.checkpoint(torch.sin, x, use_reentrant=False)


class ByOtherName(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (lambda: again(torch.sin, x, use_reentrant=False))()


class Inherited(ByOtherName):
    pass


class Below(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Sequential(Inherited())


class Saving(nn.Module):
    """Checkpoints of another kind."""

    def save_checkpoint(self, path: str) -> None:
        torch.save(self.state_dict(), path)


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (ByModule(), True),
        (ByOtherName(), True),
        (Inherited(), True),
        (Below(), True),
        (Saving(), False),
        (nn.Dropout(), False),
        (nn.TransformerEncoderLayer(4, 2), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_checkpoints_are_found_in_the_code_of_a_module(module: nn.Module, found: bool) -> None:
    assert Recomputing().is_in_turn(module) is found
