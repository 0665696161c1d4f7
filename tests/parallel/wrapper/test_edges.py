# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` where it is easily wrong.

Batches for one device, unregistered tensors, packed sequences, threads that share.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from teamster.errors import UsageError
from teamster.parallel import DataParallel
from tests.parallel.models import check_gradients, mlp

pytestmark = pytest.mark.filterwarnings(
    "ignore:the module returns a tensor without dimensions:UserWarning"
)


class Total(nn.Module):
    """One number for each device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Loose(nn.Module):
    """A parameter, and a tensor that wants a gradient and that nobody has registered."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.scale = torch.tensor(3.0, requires_grad=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight**2 * self.scale**2


def test_one_sample_on_two_devices_has_the_shape_that_two_have() -> None:
    parallel = DataParallel(Total(), 2)
    assert parallel(torch.ones(2, 3)).tolist() == [3.0, 3.0]
    assert parallel(torch.ones(1, 3)).tolist() == [3.0]
    assert DataParallel(Total(), 1)(torch.ones(1, 3)).shape == ()
    parallel.close()


def test_one_sample_with_a_loss_gives_one_number() -> None:
    plain = mlp()
    parallel = DataParallel(plain, 2, loss=nn.CrossEntropyLoss())
    x, target = torch.randn(1, 6), torch.tensor([2])
    loss = parallel(x, target)
    torch.testing.assert_close(loss, functional.cross_entropy(plain(x), target))
    assert loss.shape == ()
    parallel.close()


def test_unregistered_tensors_have_second_derivatives() -> None:
    parallel, x = DataParallel(Loose(), 2), torch.arange(1.0, 5.0)
    module: Loose = parallel.module
    (first,) = torch.autograd.grad(parallel(x).sum(), module.scale, create_graph=True)
    assert first.item() == 10 * 4 * 2 * 3
    (second,) = torch.autograd.grad(first, module.weight)
    assert second.item() == 10 * 2 * 2 * 2 * 3
    parallel.close()


def test_unregistered_tensors_get_gradients_when_they_are_asked_for_and_not_else() -> None:
    parallel, x = DataParallel(Loose(), 2), torch.arange(1.0, 5.0)
    module: Loose = parallel.module
    torch.autograd.grad(parallel(x).sum(), module.weight)
    assert module.scale.grad is None
    parallel(x).sum().backward()
    assert module.scale.grad is not None
    assert module.scale.grad.item() == 10 * 4 * 2 * 3
    module.scale.grad = None
    parallel.step(lambda replica, x: replica(x).mean(), x)
    assert module.scale.grad.item() == 10 * 4 * 2 * 3 / 4
    module.scale.requires_grad_(False)  # a change that the replicas have to notice
    module.scale.grad = None
    parallel(x).sum().backward()
    assert module.scale.grad is None
    module.scale = torch.tensor(1.0, requires_grad=True)
    assert parallel(x).tolist() == (x * 4).tolist()
    parallel.close()


@pytest.mark.parametrize(
    "weights", [[math.nan, 1.0], [math.inf, 1.0], [-1.0, 2.0], [0.0, 0.0], [1.0]]
)
def test_weights_that_are_no_speeds_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights must be 2 numbers of 0 or more"):
        DataParallel(mlp(), 2, weights=weights)


@pytest.mark.parametrize("step", [False, True])
def test_modules_that_write_over_their_input(step: bool) -> None:
    # Slices of one tensor counted what was written into any of them: 20 of 20 backward passes
    # failed.
    plain = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True))
    parallel = DataParallel(copy.deepcopy(plain), 2)
    for _ in range(10):
        x = torch.randn(40, 6)
        plain.zero_grad()
        parallel.zero_grad()
        plain(x.clone()).mean().backward()
        if step:
            parallel.step(lambda module, x: module(x).mean(), x.clone())
        else:
            parallel(given := x.clone()).mean().backward()
            assert torch.equal(given, x.relu())
        check_gradients(plain, parallel.module)
    parallel.close()


def test_an_input_written_into_before_the_backward_pass_is_an_error_as_in_a_plain_module() -> None:
    for model in (mlp(), DataParallel(mlp(), 2)):
        x = torch.randn(8, 6)
        loss = model(x).sum()
        x.zero_()
        with pytest.raises(RuntimeError, match=r"written into|modified by an inplace operation"):
            loss.backward()


def test_what_a_forward_writes_into_its_input_is_seen_by_the_graphs_of_others() -> None:
    class Scaling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(10)

    weight = torch.ones(4, requires_grad=True)
    for model in (Scaling(), warm(DataParallel(Scaling(), 2), torch.ones(4))):
        x = torch.ones(4)
        before = (x * weight).sum()
        model(x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            before.backward()


def test_numbers_that_are_passed_whole_may_be_written_into() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + number

    parallel, number = DataParallel(Adding(), 2), torch.tensor(1.0)
    for _ in range(3):
        loss = parallel(torch.randn(8, 6), number).sum()
        number += 1
        loss.backward()
    parallel.close()


def warm(parallel: DataParallel, *inputs: torch.Tensor) -> DataParallel:
    """After the first pass, which is in turn."""
    parallel(*inputs)
    return parallel


class Recompute(torch.autograd.Function):
    """Runs a block again in its backward pass, which no graph shows."""

    @staticmethod
    def forward(ctx: Any, block: nn.Module, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        ctx.block = block
        ctx.save_for_backward(x)
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.block(x)
        torch.autograd.backward(output, grad)
        return None, x.grad, None


class Reversible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Recompute.apply(self.block, x, torch.ones(1, requires_grad=True))


def test_parameters_that_no_graph_shows_get_their_gradients() -> None:
    plain = Reversible()
    parallel = DataParallel(copy.deepcopy(plain), 2)
    for wants in (False, True, False, True):
        x = torch.randn(8, 6)
        for model in (plain, parallel):
            model.zero_grad()
            model(x.clone().requires_grad_(wants) * 1.0).pow(2).sum().backward()
        check_gradients(plain, parallel.module)
    parallel.close()


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        return self.used(x)


def test_hooks_of_what_has_no_part_are_not_called() -> None:
    plain = Branches()
    seen: list[Any] = []
    for parameter in plain.parameters():
        parameter.register_hook(lambda grad: (seen.append(grad), grad.clamp(-1, 1))[1])
        parameter.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad))
    parallel, other = DataParallel(plain, 2), torch.randn(8, 6, requires_grad=True)
    twice = other * 2
    twice.register_hook(seen.append)
    parallel(torch.randn(8, 6), twice).mean().backward()
    assert len(seen) == 4  # two for each parameter of the branch that was used
    assert all(grad is not None for grad in seen)
    assert plain.unused.weight.grad is None
    assert other.grad is None
    parallel.close()


def test_a_module_that_was_compiled_in_place_runs_its_copies() -> None:
    # The copies had the original's compiled call: hooks ran three times, and both replicas wrote
    # into its statistics.
    module = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    module.compile(backend="eager")
    calls: list[Any] = []
    module[0].weight.register_hook(calls.append)
    parallel = DataParallel(module, 2)
    with pytest.warns(UserWarning, match="its replicas run without that"):
        output = parallel(torch.randn(8, 6))
    output.pow(2).mean().backward()
    assert (len(calls), module[1].num_batches_tracked.item()) == (1, 1)
    parallel.close()


class Offset(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight

    def other(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight * 3


def test_a_forward_that_was_replaced_works_on_the_copies_or_is_refused() -> None:
    bound, part, free = Offset(), Offset(), Offset()
    bound.forward = bound.other
    part.forward = functools.partial(Offset.other, part)
    x = torch.ones(4, 6)
    for module in (bound, part):
        parallel = DataParallel(module, 2)
        (found,) = torch.autograd.grad(parallel(x).sum(), module.weight)
        assert found.tolist() == [12.0] * 6
        parallel.close()
    free.forward = lambda x: free.other(x)
    with pytest.raises(UsageError, match="subclass it"):
        DataParallel(free, 2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
def test_transforms_of_torch_go_through_the_plain_module() -> None:
    plain, x = mlp(), torch.randn(8, 6)
    parallel = DataParallel(plain, 2)
    for model in (plain, parallel):
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(
                model(forward_ad.make_dual(x, torch.ones_like(x)))
            ).tangent
        assert tangent is not None
    torch.testing.assert_close(
        torch.func.grad(lambda x: parallel(x).sum())(x),
        torch.func.grad(lambda x: plain(x).sum())(x),
    )
    found = torch.autograd.functional.jacobian(parallel, x, vectorize=True)
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(plain, x))
    parallel.close()


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(functional.cross_entropy, ignore_index=0),
        functools.partial(functional.cross_entropy, reduction="sum"),
        lambda outputs, target: functional.cross_entropy(outputs, target, ignore_index=0),
        type(
            "Weighted",
            (nn.CrossEntropyLoss,),
            {"forward": lambda self, x, y: functional.cross_entropy(x, y, ignore_index=1)},
        )(),
    ],
    # Of which the third and the fourth are known as a whole only
    ids=["partial", "sum", "lambda", "subclass"],
)
def test_any_loss_is_that_of_the_whole_batch(loss: Any) -> None:
    plain, x, target = mlp(), torch.randn(9, 6), torch.tensor([0, 1, 2, 0, 0, 0, 1, 2, 1])
    parallel = DataParallel(plain, 2, loss=loss)
    for _ in range(3):
        torch.testing.assert_close(parallel(x, target), loss(plain(x), target))
    parallel(x, target).backward()
    found = plain[0].weight.grad.clone()
    plain.zero_grad()
    loss(plain(x), target).backward()
    torch.testing.assert_close(found, plain[0].weight.grad)
    parallel.close()


def test_a_criterion_whose_settings_change() -> None:
    criterion = nn.CrossEntropyLoss()
    plain, x, target = mlp(), torch.randn(9, 6), torch.tensor([0, 1, 2, 0, 0, 0, 1, 2, 1])
    parallel = DataParallel(plain, 2, loss=criterion)
    for name, value in (("label_smoothing", 0.5), ("ignore_index", 1)):
        setattr(criterion, name, value)
        torch.testing.assert_close(parallel(x, target), criterion(plain(x), target))
    parallel.close()


def test_a_mean_over_the_batch_along_any_dimension() -> None:
    criterion, x = nn.KLDivLoss(reduction="batchmean"), torch.randn(4, 6).log_softmax(1)
    target = torch.randn(4, 6).softmax(1)
    for dim in (0, 1):
        parallel = DataParallel(nn.Identity(), 2, dim=dim, loss=criterion)
        torch.testing.assert_close(parallel(x, target), criterion(x, target))
        parallel.close()


def test_a_loss_needs_a_target() -> None:
    with pytest.raises(UsageError, match="needs the target as its last positional argument"):
        DataParallel(mlp(), 2, loss=lambda outputs, target: outputs.mean())()
