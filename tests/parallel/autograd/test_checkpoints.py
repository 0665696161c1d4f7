# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints inside of replicas: gradients are of the random numbers that the outputs were of."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import checkpoint as module_of_checkpoints
from torch.utils.checkpoint import checkpoint
from torch.utils.checkpoint import checkpoint as again

from teamster.parallel import DataParallel
from teamster.parallel.autograd.checkpoints import Recomputing

ROUNDS = 30


pytestmark = pytest.mark.usefixtures("doubles")


class Dropping(nn.Module):
    """Several checkpoints that draw.

    What comes out is a product with the weight, so its gradient can be told from it.
    """

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


def passes(recomputing: Recomputing, module: nn.Module, count: int, built: int = 1) -> list[bool]:
    """Whether each ran in turn."""
    turns = []
    for _ in range(count):
        with recomputing.watch(module, built) as watch:
            output = module(torch.ones(2, requires_grad=True))
            watch.look()
        del output
        turns.append(watch.in_turn)
    return turns


def test_without_random_numbers_only_the_first_pass_is_in_turn() -> None:
    recomputing, module = Recomputing(), Dropping(True, draws=False)
    assert passes(recomputing, module, 3) == [True, False, False]
    assert passes(recomputing, module.eval(), 2, built=2) == [True, False]  # it has changed
    for built in range(3, 20):
        turns = passes(recomputing, module, 2, built=built)
    assert turns == [False, False]  # it changes all the time, and does not draw


def test_a_module_that_draws_and_changes_all_the_time_runs_in_turn() -> None:
    recomputing, module = Recomputing(), nn.Dropout()
    for built in range(1, 30):
        turns = passes(recomputing, module, 2, built=built)
    assert turns == [True, True]


class Later(Dropping):
    """Makes checkpoints from some step on."""

    segments = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.segments else sum(self.part(x) for _ in range(4))


def test_checkpoints_that_begin_later_are_seen() -> None:
    module = Later(reentrant=False)
    parallel, x = DataParallel(module, 2), torch.rand(2000, requires_grad=True)
    for number in range(ROUNDS):
        if number == 5:
            module.segments = 2
        parallel.zero_grad()
        output = parallel(x)
        output.sum().backward()
        torch.testing.assert_close(module.weight.grad, output.detach().sum() / 2.0)
    parallel.close()


def test_in_step_mode_a_change_is_seen_in_the_step_in_which_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The replicas were asked how often they were built before they were built for the step: the
    # change came a step late.
    built: list[int] = []
    watch = Recomputing.watch
    monkeypatch.setattr(
        Recomputing,
        "watch",
        lambda self, module, number: (built.append(number), watch(self, module, number))[1],
    )
    module = Later(reentrant=False)
    parallel, x = DataParallel(module, 2), torch.rand(20, requires_grad=True)
    for segments in (0, 0, 2, 2):
        module.segments = segments
        parallel.step(lambda module, given: module(given).mean(), x)
    assert built == [1, 1, 2, 2]
    parallel.close()


def test_checkpoints_are_seen_though_as_many_old_ones_go_meanwhile() -> None:
    recomputing, module, kept = Recomputing(), Dropping(reentrant=False), {}
    turns = []
    for _ in range(4):
        with recomputing.watch(module, 1) as watch:
            # In the place of the one before
            kept["output"] = module(torch.ones(2, requires_grad=True))
            watch.look()
        turns.append(watch.in_turn)
    assert turns == [True] * 4


def test_with_random_numbers_and_without_checkpoints_the_second_is_looked_at_too() -> None:
    assert passes(Recomputing(), nn.Dropout(), 4) == [True, True, False, False]


@pytest.mark.parametrize("reentrant", [True, False])
def test_with_both_all_are_in_turn(reentrant: bool) -> None:
    assert passes(Recomputing(), Dropping(reentrant), 4) == [True] * 4


def test_a_module_that_begins_to_draw_is_told_of_and_takes_turns() -> None:
    recomputing, module = Recomputing(), Dropping(True, draws=False)
    passes(recomputing, module, 2)
    module.draws = True  # and nobody has built the replicas anew
    assert passes(recomputing, module, 1) == [False]
    with pytest.warns(UserWarning, match="has begun to draw random numbers"):
        assert passes(recomputing, module, 1) == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passes(recomputing, module, 2) == [True, True]


def test_embeddings_that_are_renormalised_take_turns() -> None:
    weight, tokens = nn.Embedding(500, 64, max_norm=1.0), torch.arange(500).repeat(2)
    # At once, replicas scaled a row twice in 26 of 30 runs: a norm of 0.06 where the plain module
    # has 1.
    for with_grad in (True, False):
        for _ in range(ROUNDS):
            parallel = DataParallel(weight, 2)
            with torch.no_grad():
                weight.weight.normal_()
            with torch.set_grad_enabled(with_grad):
                for _ in range(3):
                    parallel(tokens)
            assert (weight.weight.norm(dim=1) > 0.99).all()
            parallel.close()


class ByModule(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return module_of_checkpoints.checkpoint(functional.dropout, x, use_reentrant=False)


class ByOtherName(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (lambda: again(functional.dropout, x, use_reentrant=False))()


class Inherited(ByOtherName):
    pass


class Below(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Sequential(Inherited())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.child(x)


def helper(x: torch.Tensor) -> torch.Tensor:
    return checkpoint(lambda y: functional.dropout(y, 0.5), x, use_reentrant=False)


class ByHelper(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return helper(x)


class Decorated(nn.Module):
    @torch.autocast("cpu", enabled=False)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return helper(x)


class Static(nn.Module):
    @staticmethod
    def run(x: torch.Tensor) -> torch.Tensor:
        return helper(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


@pytest.mark.parametrize(
    "kind", [ByModule, ByOtherName, Inherited, Below, ByHelper, Decorated, Static]
)
def test_checkpoints_are_found_however_they_are_made(kind: type[nn.Module]) -> None:
    assert passes(Recomputing(), kind(), 3) == [True] * 3


def test_a_checkpoint_in_the_loss_function_of_a_step() -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    parallel, x = DataParallel(weight, 2), torch.rand(2000, 1)

    def loss(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
        return checkpoint(
            lambda y: functional.dropout(module(y), 0.5), given, use_reentrant=False
        ).mean()

    for _ in range(ROUNDS):
        parallel.zero_grad()
        found = parallel.step(loss, x)
        torch.testing.assert_close(weight.weight.grad.sum(), found / 2.0)
    parallel.close()
