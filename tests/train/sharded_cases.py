# SPDX-License-Identifier: BSD-3-Clause
"""Trainings that have to give the same as "single"; as a program, all of them under "fsdp"."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from teamster.train import Trainer
from teamster.train.shards import whole_of
from tests.train.models import MODELS, batch, loss_fn, made, weighted_loss, whole_worth

SIZES = [12, 7, 12, 2, 1, 9]
"""Even, uneven, and with fewer rows than there are ranks."""

adam = partial(torch.optim.Adam, lr=1e-2)
sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
gently = partial(torch.optim.SGD, lr=0.01)


class Layers(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Layers that are large enough to be gathered one by one, and what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 512)
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(512, 5)
        for each in self.first.parameters():
            each.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        for layer in self.layers:
            x = self.scale * functional.relu(layer(x))
        return self.head(x)


class Named(nn.Module):  # type: ignore[misc]
    """Layers by name and in lists of lists, which a loss function calls one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict({"first": nn.Linear(6, 512), "head": nn.Linear(512, 5)})
        self.nested = nn.ModuleList(
            nn.ModuleList([nn.Linear(512, 512), nn.LayerNorm(512)]) for _ in range(2)
        )

    def loss_of(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.by_name["first"](x)
        for linear, norm in self.nested:
            x = norm(functional.relu(linear(x)))
        return functional.cross_entropy(self.by_name["head"](x), y)


class Routed(nn.Module):  # type: ignore[misc]
    """Rows choose their layer: a rank may have none for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 5) for _ in range(4))

    def forward(self, x: torch.Tensor) -> Any:
        chosen = (x[:, 0] * 10).long() % len(self.experts)
        found = x.new_zeros(len(x), 5)
        for number, expert in enumerate(self.experts):
            if (chosen == number).any():
                found[chosen == number] = expert(x[chosen == number])
        return found


def by_method(module: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = module.loss_of(x, y)
    return loss


def begun(parameters: Any) -> torch.optim.Optimizer:
    """One that has a state before there is a trainer."""
    optimizer = adam(given := list(parameters))
    for each in given:
        each.grad = torch.ones_like(each)
    optimizer.step()
    return optimizer


def several(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    found = loss_fn(module, x, y)
    return {"of the labels": found, "of the sizes": module(x).square().mean()}


def two_optimizers(parameters: Any) -> list[torch.optim.Optimizer]:
    first, *others = [each for each in parameters if each.requires_grad]
    return [adam([first]), sgd([{"params": others[:1]}, {"params": others[1:], "lr": 0.01}])]


def decaying(optimizers: Any) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizers, 0.8)


CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": adam},
    "lstm": {"model": "lstm"},
    "tied": {"model": "gpt"},
    "units": {"model": "layers", "optimizer": adam},
    "units and clipped": {"model": "layers", "max_grad_norm": 0.05},
    "accumulate": {"accumulate": 3},
    "accumulate and clipped": {"accumulate": 2, "max_grad_norm": 0.05},
    "weight": {"loss_fn": weighted_loss, "weight": whole_worth},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "scheduler": {"scheduler": decaying},
    "several losses": {"loss_fn": several},
    "compiled": {"wrap": partial(torch.compile, backend="aot_eager")},
    "two optimizers": {"optimizer": two_optimizers},
    "routed": {"model": "routed"},
    "by method": {"model": "named", "loss_fn": by_method, "optimizer": gently},
    "adagrad": {"optimizer": partial(torch.optim.Adagrad, lr=0.1)},
    "begun": {"optimizer": begun},
    "evaluated in between": {"between": True},
}


def as_numbers(told: Any) -> list[float]:
    return [float(each) for each in (told.values() if isinstance(told, dict) else [told])]


def train(case: str, strategy: str, save: Path | None = None, load: Path | None = None) -> Any:
    """The losses, the mean of an evaluation, and the sum of each parameter."""
    how = dict(CASES[case])
    name = how.pop("model", "mlp")
    function = how.pop("loss_fn", loss_fn)
    between = how.pop("between", False)
    kinds = {**MODELS, "layers": Layers, "named": Named, "routed": Routed}
    model = how.pop("wrap", lambda model: model)(made(kinds[name]))
    optimizer = how.pop("optimizer", sgd)(model.parameters())
    if "scheduler" in how:
        how["scheduler"] = how["scheduler"](optimizer)
    data = name if name in MODELS else "mlp"
    batches = [batch(data, size, number) for number, size in enumerate(SIZES)]
    losses: list[Any] = []
    with Trainer(model, optimizer, strategy, **how) as trainer:  # type: ignore[arg-type]
        if load is not None:
            trainer.load(load)
        for x, y in trainer.batches(batches):
            if between:  # a loader of its own, of which this rank may have no rows
                trainer.evaluate(function, batches[3:5])
            told = trainer.step(function, x, y)
            losses.append(as_numbers(told))
        losses.append(as_numbers(trainer.step(function, *batches[0])))  # every rank has it
        mean = trainer.evaluate(
            function if "weight" in how or name == "named" else loss_fn, batches[1:]
        )
        state = model.state_dict()
        sums = {key: float(whole_of(each).double().sum()) for key, each in state.items()}
        if save is not None and (saving := trainer.save(save)) is not None:
            saving.result()
        trainer.gather(None)  # until it is saved
    return losses, mean, sums


def main() -> None:
    folder = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo")  # one for all of them
    found = {case: train(case, "fsdp") for case in CASES}
    for case in ("adam", "units"):
        train(case, "fsdp", save=folder / case)
        found[f"{case}, goes on"] = train(case, "fsdp", load=folder / case)
        found[f"{case}, of single"] = train(case, "fsdp", load=folder / f"{case} of single")
    if torch.distributed.get_rank() == 0:
        print("found", json.dumps(found), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
