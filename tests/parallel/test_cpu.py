# SPDX-License-Identifier: BSD-3-Clause
"""Step mode: the whole batch's mean loss and its gradients, in one go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from teamster.errors import UsageError
from teamster.parallel import DataParallel
from teamster.parallel.autograd.gradients import deposit
from teamster.parallel.criterion import check_loss

pytestmark = pytest.mark.usefixtures("doubles")


def loss_of(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, factor: float = 1.0
) -> torch.Tensor:
    return factor * functional.mse_loss(module(x), y)


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
@pytest.mark.parametrize("weights", [None, "measured", "given"])
def test_loss_and_gradients_are_the_whole_batchs(replicas: int, weights: Any) -> None:
    plain = nn.Linear(4, 2)
    shares = [float(index + 1) for index in range(replicas)] if weights == "given" else weights
    parallel = DataParallel(copy.deepcopy(plain), ["cpu"] * replicas, weights=shares)
    for batch in (11, 3):
        x, y = torch.randn(batch, 4), torch.randn(batch, 2)
        expected = loss_of(plain, x, y, factor=2.0)
        expected.backward()
        found = parallel.step(loss_of, x, y, factor=2.0)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)
        assert not found.requires_grad
    for mine, theirs in zip(plain.parameters(), parallel.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-9, atol=1e-9)
    parallel.close()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_steps_accumulate_until_they_are_zeroed(set_to_none: bool) -> None:
    parallel, x = DataParallel(nn.Linear(3, 1), 2), torch.randn(5, 3)
    for _ in range(2):
        parallel.zero_grad(set_to_none=set_to_none)
        for _ in range(3):
            parallel.step(lambda module, given: module(given).mean(), x)
        torch.testing.assert_close(parallel.module.weight.grad, 3 * x.mean(0, keepdim=True))
    parallel.close()


def test_a_failed_step_changes_no_gradient() -> None:
    parallel, x = DataParallel(nn.Linear(3, 1), 2), torch.randn(5, 3)

    def failing(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
        out = module(given)
        if len(given) == 2:  # only the second slice
            out.register_hook(lambda grad: 1 / 0)
        return out.mean()

    parallel.step(lambda module, given: module(given).mean(), x)
    before = parallel.module.weight.grad.clone()
    with pytest.raises(ZeroDivisionError) as caught:
        parallel.step(failing, x)
    assert caught.value.__notes__ == ["in replica 1 on device cpu"]
    assert torch.equal(parallel.module.weight.grad, before)
    parallel.step(lambda module, given: module(given).mean(), x)
    torch.testing.assert_close(parallel.module.weight.grad, 2 * before)
    parallel.close()


def test_without_gradients_only_the_loss_is_computed() -> None:
    parallel, x = DataParallel(nn.Linear(3, 1), 2), torch.randn(5, 3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = parallel.step(lambda module, given: module(given).mean(), x)
            torch.testing.assert_close(found, parallel.module(x).mean())
    assert parallel.module.weight.grad is None
    parallel.close()


def test_inputs_that_want_gradients_get_them() -> None:
    module, x = nn.Linear(3, 1), torch.randn(5, 3, requires_grad=True)
    parallel = DataParallel(module, 2)
    (expected,) = torch.autograd.grad(module(x).mean(), x)
    parallel.step(lambda each, given: each(given).mean(), x)
    torch.testing.assert_close(x.grad, expected)
    parallel.close()


def test_sparse_gradients() -> None:
    plain = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(8, 1))
    parallel, tokens = DataParallel(copy.deepcopy(plain), 2), torch.randint(0, 9, (5, 2))
    for _ in range(2):
        plain(tokens).pow(2).mean().backward()
        parallel.step(lambda module, given: module(given).pow(2).mean(), tokens)
    assert parallel.module[0].weight.grad.is_sparse
    torch.testing.assert_close(
        parallel.module[0].weight.grad.to_dense(), plain[0].weight.grad.to_dense()
    )
    parallel.close()


@pytest.mark.parametrize("value", [None, 3.0, torch.ones(2), torch.ones(0), [torch.ones(())]])
def test_what_is_no_loss_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="must return one number"):
        check_loss(value)
    parallel = DataParallel(nn.Linear(3, 1), 2)
    with pytest.raises(UsageError, match="must return one number"):
        parallel.step(lambda module, given: value, torch.randn(4, 3))
    parallel.close()


def test_a_loss_of_one_element_in_any_shape() -> None:
    assert check_loss(torch.ones(1, 1)).shape == ()


def test_hooks_of_parameters_run_once_a_step() -> None:
    seen: list[str] = []
    module = nn.Linear(3, 1)
    module.weight.register_hook(lambda grad: seen.append("tensor"))
    module.bias.register_post_accumulate_grad_hook(lambda parameter: seen.append("after"))
    parallel = DataParallel(module, 3)
    parallel.step(lambda each, given: each(given).mean(), torch.randn(6, 3))
    assert sorted(seen) == ["after", "tensor"]
    parallel.close()


def test_gradients_are_deposited_beside_what_is_there() -> None:
    empty, full, sparse = (torch.zeros(2, requires_grad=True) for _ in range(3))
    full.grad = torch.ones(2)
    sparse.grad = torch.ones(2)
    kept = full.grad
    deposit([(empty, torch.ones(2)), (full, torch.ones(2)), (sparse, torch.ones(2).to_sparse())])
    assert [each.grad.tolist() for each in (empty, full, sparse) if each.grad is not None] == [
        [1, 1],
        [2, 2],
        [2, 2],
    ]
    assert full.grad is kept  # in place, as autograd has it


def test_a_computed_tensor_passes_its_gradient_on() -> None:
    source = torch.ones(2, requires_grad=True)
    deposit([(source * 3, torch.ones(2))])
    assert source.grad is not None
    assert source.grad.tolist() == [3.0, 3.0]
