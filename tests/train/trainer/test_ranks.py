# SPDX-License-Identifier: BSD-3-Clause
"""Ranks that Teamster starts: deaths, errors, what they print, what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import TransferError, UsageError, WorkerDied
from teamster.train import Trainer
from tests.train.models import batch, loss_fn, make

DEADLINE_S = 60.0


def trainer_of(model: Any, workers: int = 2, **more: Any) -> Trainer:
    return Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp", workers, **more)


def step(trainer: Trainer, number: int = 0, function: Any = loss_fn) -> float:
    return float(trainer.step(function, *batch("mlp", 8, number)))  # type: ignore[arg-type]


def dies_once(module: nn.Module, x: torch.Tensor, y: torch.Tensor, path: str, pid: int) -> Any:
    if os.getpid() != pid:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return loss_fn(module, x, y)


def test_a_rank_that_dies_costs_its_step_and_no_more(tmp_path: Path) -> None:
    expected_model, model = make("mlp"), make("mlp")
    with Trainer(
        expected_model, torch.optim.SGD(expected_model.parameters(), lr=0.1), "single"
    ) as trainer:
        expected = [step(trainer, number) for number in range(4)]
    path, pid = str(tmp_path / "died"), os.getpid()

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        return dies_once(module, x, y, path, pid)

    with trainer_of(model) as trainer:
        found = [step(trainer, 0)]
        found += [step(trainer, number, function) for number in (1, 2)]
        assert os.path.exists(path)
        found.append(step(trainer, 3))
    assert found == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(model.state_dict(), expected_model.state_dict())


def test_deaths_are_bounded() -> None:
    pid = os.getpid()

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if os.getpid() != pid:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss_fn(module, x, y)

    with trainer_of(make("mlp"), retries=2) as trainer:
        with pytest.raises(WorkerDied, match="SIGKILL") as caught:
            step(trainer, 0, function)
        assert any("in rank 1, rows 4 to 7" in note for note in caught.value.__notes__)
        step(trainer)  # it goes on


def test_an_error_arrives_as_itself_and_no_rank_waits() -> None:
    pid = os.getpid()

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if os.getpid() != pid:
            raise ZeroDivisionError("of the user's")
        return loss_fn(module, x, y)

    model = make("mlp")
    with trainer_of(model) as trainer:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ZeroDivisionError, match="of the user's") as caught:
            step(trainer, 0, function)
        assert "in rank 1, rows 4 to 7 of the batch" in caught.value.__notes__
        assert 'raise ZeroDivisionError("of the user' in str(caught.value.__cause__)
        torch.testing.assert_close(model.state_dict(), before)
        model.zero_grad()
        step(trainer)


def test_an_error_of_the_program_itself_names_its_rows() -> None:
    pid = os.getpid()

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if os.getpid() == pid:
            raise ZeroDivisionError
        return loss_fn(module, x, y)

    with trainer_of(make("mlp")) as trainer:
        with pytest.raises(ZeroDivisionError) as caught:
            step(trainer, 0, function)
        assert "in rank 0, rows 0 to 3 of the batch" in caught.value.__notes__
        step(trainer)


def test_what_the_program_changes_holds_in_all_ranks() -> None:
    """Evaluation mode, frozen parameters, another loss function, another type."""
    found: dict[str, list[Any]] = {}
    for strategy in ("single", "ddp"):
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.9), nn.Linear(16, 5)).eval()
        with torch.no_grad():
            for number, each in enumerate(model.parameters()):
                each.copy_(torch.linspace(-1, 1, each.numel()).reshape(each.shape) + number)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        workers = 2 if strategy == "ddp" else None
        with Trainer(model, optimizer, strategy, workers) as trainer:  # type: ignore[arg-type]
            losses = [step(trainer)]
            model[0].weight.requires_grad_(False)
            losses.append(step(trainer))
            model[0].weight.requires_grad_(True)
            losses.append(step(trainer, 1, lambda module, x, y: 3 * loss_fn(module, x, y)))
            model.double()
            losses.append(float(trainer.step(loss_fn, *doubled(batch("mlp", 8, 2)))))
        found[strategy] = [losses, model.state_dict()]
    assert found["ddp"][0] == pytest.approx(found["single"][0], abs=1e-5)
    torch.testing.assert_close(found["ddp"][1], found["single"][1], atol=1e-5, rtol=1e-5)


def doubled(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return found[0].double(), found[1]


def test_several_losses_by_name() -> None:
    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        return {"class": loss_fn(module, x, y), "size": module(x).square().mean()}

    told: dict[str, Any] = {}
    for strategy in ("single", "ddp", "dp"):
        model = make("mlp")
        workers = None if strategy == "single" else 2
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Trainer(model, optimizer, strategy, workers) as trainer:  # type: ignore[arg-type]
            losses = trainer.step(function, *batch("mlp", 7, 0))
        assert isinstance(losses, dict)
        told[strategy] = {name: float(loss) for name, loss in losses.items()}
    assert told["ddp"] == pytest.approx(told["single"], abs=1e-6)
    assert told["dp"] == pytest.approx(told["single"], abs=1e-6)


def test_ranks_print_with_their_names(capfd: pytest.CaptureFixture[str]) -> None:
    pid = os.getpid()

    def function(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if os.getpid() != pid:
            print("one", end=" ")
            print("line")
        return loss_fn(module, x, y)

    with trainer_of(make("mlp")) as trainer:
        step(trainer, 0, function)
    assert capfd.readouterr().out == "rank 1: one line\n"


def test_a_model_that_does_not_pickle_is_refused() -> None:
    model = make("mlp")
    model.source = iter(x for x in range(3))
    with trainer_of(model) as trainer, pytest.raises(TransferError, match="cannot pickle 'gen"):
        step(trainer)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda module, x, y: module(x), "one number, or a dict of such"),
        (lambda module, x, y: 3.0, "it has returned float"),
        (lambda module, x, y: {"a": module(x)}, "under 'a'"),
    ],
)
def test_a_loss_that_is_no_number_is_one_line(function: Any, told: str) -> None:
    for strategy in ("single", "ddp"):
        model = make("mlp")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with (
            Trainer(model, optimizer, strategy) as trainer,  # type: ignore[arg-type]
            pytest.raises(UsageError, match=told) as caught,
        ):
            step(trainer, 0, function)
        assert "\n" not in str(caught.value)


def test_a_batch_that_cannot_be_sliced_is_one_line() -> None:
    model = make("mlp")
    x, y = batch("mlp", 4, 0)
    with (
        trainer_of(model) as trainer,
        pytest.raises(UsageError, match="the batch cannot be sliced"),
    ):
        trainer.step(lambda module: loss_fn(module, x, y))


def test_memory_of_parameters_is_one_for_all(tmp_path: Path) -> None:
    model = nn.Linear(1_000, 1_000)
    with trainer_of(model) as trainer:
        trainer.step(lambda module, x: module(x).mean(), torch.ones(4, 1_000))
        before = model.weight.detach().clone()
        optimizer = trainer._update.optimizers[0]
        assert optimizer.param_groups[0]["params"][0] is model.weight
        trainer.step(lambda module, x: module(x).mean(), torch.ones(4, 1_000))
        assert not torch.equal(before, model.weight)
    model(torch.ones(1, 1_000))  # its memory stays, though the ranks are gone
    assert torch.isfinite(model.weight).all()


PROGRAM = """
    import os, sys, torch
    from torch import nn
    from teamster.train import Trainer
    model = nn.Linear(2, 1)
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp", 3)
    def loss_fn(module, x):
        return module(x).mean() + 0 * nn.functional.relu(module(x)).sum()
    trainer.step(loss_fn, torch.ones(6, 2))
    print(*(each.pid for each in trainer._strategy._processes), flush=True)
    if sys.argv[1] == "wait":
        sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["normal", "kill", "interrupt"])
def test_nothing_is_left_behind(end: str) -> None:
    """A script without a guard, and without a close."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), "wait" if end != "normal" else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ranks = [int(pid) for pid in process.stdout.readline().split()]
    assert len(ranks) == 2
    if end != "normal":
        process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    deadline = time.monotonic() + 5.0
    while any(is_there(rank) for rank in ranks):
        assert time.monotonic() < deadline, ranks
        time.sleep(0.01)
    if end == "normal":
        assert process.returncode == 0


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
