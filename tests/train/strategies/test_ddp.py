# SPDX-License-Identifier: BSD-3-Clause
"""While ranks start, the program does their rows, and no one can tell by the numbers."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import nn

from teamster.train import Trainer
from teamster.train.strategies.ddp import Ranks
from tests.train.models import batch, loss_fn, made, make, mlp


class Drawing(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Draws, and has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5)
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x) + 0.1 * torch.randn(5)


class Replacing(nn.Module):  # type: ignore[misc]
    """Makes its buffer anew in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


def trained(model: nn.Module, come: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Losses, parameters, buffers, and the program's next random number."""
    torch.manual_seed(1)
    losses = []
    with monkeypatch.context() as patch:
        if not come:
            patch.setattr(Ranks, "_has_come", lambda self, rank, timeout=0.0: False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Trainer(model, optimizer, "ddp", 3) as trainer:
            for number, size in enumerate((12, 7, 8)):
                losses.append(float(trainer.step(loss_fn, *batch("mlp", size, number))))  # type: ignore[arg-type]
    return losses, {**model.state_dict(), "next": torch.rand(1)}


@pytest.mark.parametrize("kind", [Drawing, Replacing, mlp])
def test_the_first_steps_are_those_of_ranks_that_are_there(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, state = trained(made(kind), False, monkeypatch)
    expected, expected_state = trained(made(kind), True, monkeypatch)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(state, expected_state, atol=1e-6, rtol=1e-5)


def test_the_first_step_waits_for_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        pids.append(os.getpid())
        return loss_fn(module, x, y)

    monkeypatch.setattr(Ranks, "_has_come", lambda self, rank, timeout=0.0: False)
    model = make("mlp")
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp", 3) as trainer:
        trainer.step(function, *batch("mlp", 8, 0))
    assert pids == [os.getpid()] * 3


def test_an_error_names_the_rank_whose_rows_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if len(x) == 2:
            raise ZeroDivisionError("of the user's")
        return loss_fn(module, x, y)

    monkeypatch.setattr(Ranks, "_has_come", lambda self, rank, timeout=0.0: False)
    model = make("mlp")
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp", 3) as trainer:
        with pytest.raises(ZeroDivisionError) as caught:
            trainer.step(function, *batch("mlp", 8, 0))
        assert "in rank 2, rows 6 to 7 of the batch" in caught.value.__notes__
        assert all(each.grad is None for each in model.parameters())
        trainer.step(loss_fn, *batch("mlp", 8, 0))
