# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the kinds that people report about torch's DataParallel.

Each runs with the plain module and with replicas.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from teamster.parallel import DataParallel
from tests.parallel.models import mlp

Wrap = Callable[[nn.Module], Any]


def batch(samples: int = 9) -> torch.Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> list[torch.Tensor | None]:
    return [each.grad for each in model.parameters()]


def gradient_penalty(wrap: Wrap) -> Any:
    """Two networks, two optimizers, second derivatives."""
    critic, generator = wrap(mlp()), wrap(nn.Linear(3, 6))
    optimizers = [
        torch.optim.RMSprop(critic.parameters(), 1e-3),
        torch.optim.Adam(generator.parameters(), 1e-3),
    ]
    for _ in range(3):
        fake = generator(batch()[:, :3])
        mixed = (batch() + fake.detach()).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        optimizers[0].zero_grad()
        (
            critic(fake.detach()).mean()
            - critic(batch()).mean()
            + (slope.norm(2, 1) - 1).pow(2).mean()
        ).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (-critic(fake).mean()).backward()
        optimizers[1].step()
    return list(critic.parameters()) + list(generator.parameters())


def changed_in_place(wrap: Wrap) -> Any:
    """Pruned, parametrized and given another head, each after a pass."""
    module = mlp()
    model, found = wrap(module), []
    for change in (
        lambda: prune.l1_unstructured(module[0], "weight", 0.5),
        lambda: prune.remove(module[0], "weight"),
        lambda: parametrizations.weight_norm(module[2]),
        lambda: module.__setitem__(2, nn.Linear(16, 2)),
        lambda: module[0].requires_grad_(False),
        lambda: model.float().double(),
    ):
        model(batch()).sum().backward()
        change()
        model.zero_grad()
        output = model(batch())
        output.pow(2).sum().backward()
        found.append((output, gradients(model)))
    return found


class Outputs(collections.OrderedDict):  # type: ignore[type-arg]
    """By name, by attribute and by number, as outputs of large models."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(
        self, inputs: Any = None, mask: Any = None, *, labels: Any = None, flag: bool = False
    ) -> Outputs:
        logits = self.body(inputs) * (1 if mask is None else mask[:, None])
        assert flag
        assert labels is None
        return Outputs(logits=logits, hidden=(logits, [logits * 2, None]), name="a")


def named_outputs(wrap: Wrap) -> Any:
    """Keywords alone, some of them None; fewer samples than devices, and none."""
    model = wrap(Named())
    found = [
        model(inputs=batch(n), mask=torch.arange(n) % 2 == 0, labels=None, flag=True)
        for n in (9, 2, 1, 0)
    ]
    return [(each[0], each.hidden, each["name"], type(each).__name__) for each in found]


def several_passes(wrap: Wrap) -> Any:
    """Three passes in one graph, twice backward, clipped, in groups, averaged."""
    model = wrap(mlp())
    module = getattr(model, "module", model)
    optimizer = torch.optim.SGD(module[0].parameters(), 0.1)
    optimizer.add_param_group({"params": module[2].parameters(), "lr": 0.01})
    average = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(3):
        loss = functional.triplet_margin_loss(model(batch()), model(batch() + 0.1), model(-batch()))
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        average.update_parameters(model)
    return [*model.parameters(), average(batch()), copy.deepcopy(model)(batch())]


@pytest.mark.parametrize("devices", [2, 3, 1, None])
@pytest.mark.parametrize(
    "program",
    [gradient_penalty, changed_in_place, named_outputs, several_passes],
    ids=lambda each: each.__name__,
)
def test_it_is_as_with_the_plain_module(
    program: Callable[[Wrap], Any], devices: int | None
) -> None:
    found = []
    for wrap in (lambda module: module, lambda module: DataParallel(module, devices)):
        torch.manual_seed(0)
        found.append(program(wrap))
    check_same(*found)


def check_same(one: Any, other: Any) -> None:
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, their in zip(one, other, strict=True):
            check_same(mine, their)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    else:
        assert one == other
