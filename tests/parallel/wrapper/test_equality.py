# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` beside the plain module: outputs, gradients, losses, in double precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from teamster.parallel import DataParallel
from tests.parallel.models import MODELS, check_gradients, dense, mlp


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_the_plain_modules(name: str, replicas: int) -> None:
    make, batch = MODELS[name]
    plain = make()
    parallel = DataParallel(copy.deepcopy(plain), ["cpu"] * replicas)
    x, y = batch(11), batch(11)
    if x.is_floating_point():
        x.requires_grad_()
        y.data.copy_(x.data)
        y.requires_grad_()
    else:
        y = x
    for _ in range(2):  # gradients accumulate
        expected, found = plain(x), parallel(y)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        (expected**2).mean().backward()
        (found**2).mean().backward()
    check_gradients(plain, parallel.module)
    if x.is_floating_point():
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-9)
    parallel.close()


@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_end_where_the_plain_module_ends(name: str) -> None:
    make, batch = MODELS[name]
    plain = make()
    dropin, stepped = DataParallel(copy.deepcopy(plain), 2), DataParallel(copy.deepcopy(plain), 3)
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in (plain, dropin, stepped)]
    for _ in range(20):
        x = batch(7)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (plain(x) ** 2).mean().backward()
        (dropin(x) ** 2).mean().backward()
        stepped.step(lambda module, x: (module(x) ** 2).mean(), x)
        for optimizer in optimizers:
            optimizer.step()
    for mine, theirs, others in zip(
        plain.parameters(), dropin.parameters(), stepped.parameters(), strict=True
    ):
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(others, mine, rtol=1e-9, atol=1e-9)
    dropin.close()
    stepped.close()


def test_results_repeat_bit_for_bit() -> None:
    x = torch.randn(64, 6)
    found = []
    for _ in range(3):
        torch.manual_seed(1)
        parallel = DataParallel(nn.Sequential(nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 300)), 3)
        parallel(x).pow(2).sum().backward()
        found.append([parameter.grad.clone() for parameter in parallel.parameters()])  # type: ignore[union-attr]
        parallel.close()
    assert all(
        torch.equal(one, other)
        for other_run in found[1:]
        for one, other in zip(found[0], other_run, strict=True)
    )


@pytest.mark.parametrize("replicas", [2, 3])
def test_second_and_third_derivatives(replicas: int) -> None:
    plain = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    parallel = DataParallel(copy.deepcopy(plain), replicas)
    x = torch.randn(7, 3, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for module, given in ((plain, x), (parallel, y)):
        (first,) = torch.autograd.grad(module(given).sum(), given, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), given, create_graph=True)
        (second.pow(2).sum() + first.pow(3).sum()).backward()
    check_gradients(plain, parallel.module)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-9)
    parallel.close()


def test_gradcheck() -> None:
    parallel = DataParallel(nn.Sequential(nn.Linear(2, 3), nn.Sigmoid()), 2)
    x = torch.randn(4, 2, requires_grad=True)
    assert torch.autograd.gradcheck(parallel, (x,))
    assert torch.autograd.gradgradcheck(parallel, (x,))
    parallel.close()


def test_batch_norm_keeps_the_statistics_of_the_first_replica() -> None:
    plain = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    parallel = DataParallel(copy.deepcopy(plain), 2)
    x = torch.randn(8, 4)
    expected = torch.cat([copy.deepcopy(plain)(x[4:]) if half else plain(x[:4]) for half in (0, 1)])
    torch.testing.assert_close(parallel(x), expected)
    torch.testing.assert_close(parallel.module[1].running_mean, plain[1].running_mean)
    assert parallel.module[1].num_batches_tracked == 1
    parallel.eval()
    plain.eval()
    torch.testing.assert_close(parallel(x), plain(x))
    parallel.close()


def test_the_graph_goes_with_the_backward_pass() -> None:
    parallel = DataParallel(mlp(), 2)
    out = parallel(torch.randn(4, 6)).sum()
    out.backward(retain_graph=True)
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()
    parallel.close()


def test_frozen_unused_and_hooked_parameters() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.frozen(self.used(x))

    plain = Partly()
    parallel = DataParallel(copy.deepcopy(plain), 2)
    seen: list[torch.Tensor] = []
    parallel.module.used.weight.register_hook(lambda grad: seen.append(grad) or 2 * grad)
    x = torch.randn(6, 3)
    plain(x).sum().backward()
    parallel(x).sum().backward()
    assert parallel.module.unused.weight.grad is None
    assert parallel.module.frozen.weight.grad is None
    torch.testing.assert_close(parallel.module.used.weight.grad, 2 * dense(plain.used.weight.grad))
    parallel.module.used.weight.grad = None
    parallel.step(lambda module, x: module(x).sum() / len(x), x)
    torch.testing.assert_close(
        parallel.module.used.weight.grad, 2 * dense(plain.used.weight.grad) / 6
    )
    assert len(seen) == 2
    parallel.close()


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(
            ignore_index=1, weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        ),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
)
def test_the_loss_is_that_of_the_whole_batch(criterion: nn.Module) -> None:
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain), 3, loss=criterion)
    x, y = torch.randn(10, 6), torch.randint(0, 3, (10,))
    expected = criterion(plain(x), y)
    found = parallel(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    expected.backward()
    found.backward()
    check_gradients(plain, parallel.module)
    parallel.close()


def test_the_last_slices_may_be_all_ignored() -> None:
    criterion = nn.CrossEntropyLoss(ignore_index=-100)
    plain = mlp()
    parallel = DataParallel(plain, 2, loss=criterion)
    x, y = torch.randn(4, 6), torch.tensor([0, 1, -100, -100])
    torch.testing.assert_close(parallel(x, y), criterion(plain(x), y))
    parallel.close()


def test_mean_squares_and_functions_as_losses() -> None:
    plain = mlp()
    x, y = torch.randn(7, 6), torch.randn(7, 3)
    for criterion in (nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), functional.mse_loss):
        parallel = DataParallel(plain, 3, loss=criterion)
        torch.testing.assert_close(parallel(x, y), criterion(plain(x), y))
        parallel.close()


def test_a_failed_backward_leaves_nothing_for_the_next() -> None:
    class Refusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            if grad.sum() > 1e6:
                raise ValueError("too steep")
            return grad

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(Refusing.apply(self.linear(x)))

    plain = Steep()
    parallel = DataParallel(copy.deepcopy(plain), 2)
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match="too steep"):
        (parallel(x) * torch.tensor([[1.0], [1.0], [1e9], [1e9]])).sum().abs().backward()
    parallel.zero_grad()
    plain(x).sum().backward()
    parallel(x).sum().backward()
    check_gradients(plain, parallel.module)
    parallel.close()
