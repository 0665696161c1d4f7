# SPDX-License-Identifier: BSD-3-Clause
"""BatchNorm with the statistics of the whole batch, whoever computes its rows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.launching import found, run, script

SIZES = 8, 7, 3, 1, 8, 2  # even, uneven, and fewer rows than ranks


def make() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 9, 6, bias=False),
            nn.BatchNorm1d(6, momentum=None),
            nn.Linear(6, 3),
        )


def loss_fn(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(module(x), y)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """With a mean far from zero, where sums of squares lose digits."""
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(max(2, size), 1, 3, 3, generator=draw) * 2 + 50,
            torch.randint(0, 3, (max(2, size),), generator=draw),
        )
        for size in SIZES
    ]


def curve(strategy: Any, workers: int | None, **how: Any) -> tuple[list[float], nn.Module]:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    function = how.pop("loss_fn", loss_fn)
    with Trainer(model, optimizer, strategy, workers, sync_batchnorm=True, **how) as trainer:
        losses = [float(trainer.step(function, x, y)) for x, y in batches()]
        assert "BatchNorm" not in str(trainer.plan)
        trainer.evaluate(loss_fn, batches())
    return losses, model


def test_it_is_the_batchs_own() -> None:
    expected, single = curve("single", None)
    losses, model = curve("ddp", 3)
    assert losses == pytest.approx(expected, abs=1e-5)
    for name, value in model.state_dict().items():  # running statistics, too
        assert torch.allclose(value, single.state_dict()[name], atol=1e-4), name
    assert all("forward" not in vars(each) for each in model.modules())


def once(folder: Path, act: Callable[[], object]) -> Callable[..., torch.Tensor]:
    """A loss function that does something in the middle of a pass of a rank, the first time."""

    program = os.getpid()

    def loss(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = module[1](module[0](x))  # type: ignore[index]
        if os.getpid() != program and not (folder / "done").exists() and len(x) == 3:
            (folder / "done").touch()
            act()
        for layer in list(module)[2:]:  # type: ignore[call-overload]
            hidden = layer(hidden)
        return nn.functional.cross_entropy(hidden, y)

    return loss


def test_a_rank_that_dies_between_two_sums_costs_a_step_that_is_done_again(tmp_path: Path) -> None:
    expected, _ = curve("single", None)
    kill = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    losses, _ = curve("ddp", 2, loss_fn=kill, retries=1)
    assert (tmp_path / "done").exists()
    assert losses == pytest.approx(expected, abs=1e-5)


def test_an_error_between_two_sums_is_that_rank_s_own(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("in the middle")

    with pytest.raises(ZeroDivisionError, match="in the middle") as caught:
        curve("ddp", 2, loss_fn=once(tmp_path, fail))
    assert any("in rank 1, rows 4 to 6" in note for note in caught.value.__notes__)


def test_replicas_in_threads_are_refused_and_auto_leaves_them_out() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="sync_batchnorm= is for ranks"):
        Trainer(model, optimizer, "dp", 2, sync_batchnorm=True)
    with Trainer(model, optimizer, workers=2, sync_batchnorm=True) as trainer:
        notes = trainer._strategy._notes  # type: ignore[attr-defined]
        assert "for ranks" in notes["dp"]
        assert "ddp" not in notes


SCRIPT = """
    import json
    from teamster.train import Trainer
    from tests.train.trainer.test_sync_batchnorm import batches, loss_fn, make
    import torch
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with Trainer(model, optimizer, "ddp", sync_batchnorm=True) as trainer:
        losses = [float(trainer.step(loss_fn, x, y)) for x, y in batches()]
        if trainer.is_main:
            print("found", json.dumps([losses, model[1].running_var.tolist()]), flush=True)
"""


def test_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    losses, variance = found(run(script(tmp_path, SCRIPT), ranks=3))
    expected, model = curve("single", None)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert variance == pytest.approx(model[1].running_var.tolist(), abs=1e-3)  # type: ignore[index]
