# SPDX-License-Identifier: BSD-3-Clause
"""Backward in parallel: the plain module's gradients, whatever is asked of autograd."""

from __future__ import annotations

import contextlib
import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from teamster.parallel import DataParallel
from teamster.parallel.autograd.gradients import sum_gradients, take_gradients
from teamster.parallel.threads import DeviceThreads
from tests.conftest import RunScript

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.fixture
def threads() -> Iterator[DeviceThreads]:
    made = DeviceThreads([torch.device("cpu")] * 3, 1)
    yield made
    made.close()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def check_gradients(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), (_, theirs) in zip(
        one.named_parameters(), other.named_parameters(), strict=True
    ):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_any_batch_on_any_number_of_replicas_equals_the_plain_module(
    batch: int, replicas: int, seed: int, stepping: bool
) -> None:
    torch.manual_seed(seed)
    plain = mlp()
    wrapped = copy.deepcopy(plain)
    x = torch.randn(batch, 4, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    with contextlib.closing(DataParallel(wrapped, ["cpu"] * replicas)) as parallel:
        expected, found = plain(x), parallel(y)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        expected.pow(2).sum().backward()
        found.pow(2).sum().backward()
        torch.testing.assert_close(y.grad, x.grad, rtol=1e-9, atol=1e-9)
        check_gradients(plain, wrapped)
        if stepping and batch:
            loss = plain(x).pow(2).mean()
            loss.backward()
            told = parallel.step(lambda module, given: module(given).pow(2).mean(), y.detach())
            torch.testing.assert_close(told, loss.detach(), rtol=1e-9, atol=1e-9)
            check_gradients(plain, wrapped)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_accumulate_and_are_zeroed_as_without_replicas(set_to_none: bool) -> None:
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain), 3)
    for _ in range(2):
        for module in (plain, parallel):
            module.zero_grad(set_to_none=set_to_none)
        for _ in range(3):
            x = torch.randn(5, 4)
            for module in (plain, parallel):
                module(x).pow(2).mean().backward()
        check_gradients(plain, parallel.module)
    parallel.zero_grad(set_to_none=set_to_none)
    assert all(
        (each.grad is None) if set_to_none else not each.grad.any()
        for each in parallel.parameters()
    )
    parallel.close()


def test_two_graphs_may_be_open_at_once() -> None:
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain), 2)
    x, y = torch.randn(4, 4), torch.randn(6, 4)
    for module in (plain, parallel):
        first, second = module(x).sum(), module(y).pow(2).sum()
        second.backward()
        first.backward()
    check_gradients(plain, parallel.module)
    parallel.close()


def test_a_gradient_penalty() -> None:
    module, x = nn.Linear(4, 1), torch.ones(2, 4, requires_grad=True)
    parallel = DataParallel(module, 2)
    out = parallel(x)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
    gradient.mean().backward()
    assert module.weight.grad is not None
    torch.testing.assert_close(module.weight.grad, torch.full((1, 4), 0.25))
    assert module.bias.grad is None or module.bias.grad.item() == 0.0
    parallel.close()


def test_a_part_of_the_outputs_or_of_the_parameters() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return self.left(x), self.right(x), (self.left(x) > 0).sum(1)

    plain = Two()
    parallel, x = DataParallel(copy.deepcopy(plain), 2), torch.randn(5, 4)
    plain(x)[0].sum().backward()
    parallel(x)[0].sum().backward()
    check_gradients(plain, parallel.module)
    (found,) = torch.autograd.grad(parallel(x)[1].sum(), [parallel.module.right.weight])
    torch.testing.assert_close(found, x.sum(0).expand(2, 4))
    assert torch.equal(parallel(x)[2], plain(x)[2])
    parallel.close()


def test_outputs_that_are_inputs_parameters_or_the_same_twice() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 3))

        def forward(self, x: torch.Tensor) -> Any:
            y = x * self.weight
            return x, self.weight, y, y

    plain = Odd()
    parallel, x = DataParallel(copy.deepcopy(plain), 2), torch.randn(4, 3, requires_grad=True)
    back, weight, one, two = parallel(x)
    assert torch.equal(back, x)
    assert weight.shape == (2, 3)
    (back.sum() + weight.sum() + one.sum() + 2 * two.sum()).backward()
    torch.testing.assert_close(x.grad, 1 + 3 * plain.weight.expand(4, 3))
    torch.testing.assert_close(parallel.module.weight.grad, 2 + 3 * x.detach().sum(0, keepdim=True))
    parallel.close()


def test_a_module_that_writes_over_its_input() -> None:
    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2).tanh()

    parallel, x = DataParallel(Doubling(), 2), torch.randn(4, 3, requires_grad=True)
    parallel(x * 1.0).sum().backward()
    torch.testing.assert_close(x.grad, 2 * (1 - torch.tanh(2 * x.detach()) ** 2))
    parallel.close()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = mlp(), nn.Linear(3, 2), reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(checkpoint(self.first, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_inside_of_the_module(reentrant: bool) -> None:
    plain = Checkpointed(reentrant)
    parallel = DataParallel(copy.deepcopy(plain), 2)
    x = torch.randn(5, 4, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for _ in range(2):
        plain(x).pow(2).sum().backward()
        parallel(y).pow(2).sum().backward()
    check_gradients(plain, parallel.module)
    torch.testing.assert_close(y.grad, x.grad)
    parallel.zero_grad()
    plain.zero_grad()
    plain(x).pow(2).mean().backward()
    parallel.step(lambda module, given: module(given).pow(2).mean(), y)
    check_gradients(plain, parallel.module)
    parallel.close()


AROUND = """
import copy, sys, torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from teamster.parallel import DataParallel

torch.set_default_dtype(torch.float64)
plain = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(6)])
parallel = DataParallel(copy.deepcopy(plain), 2)
for _ in range(10):  # what the replicas save comes in any order
    x = torch.randn(64, 4, requires_grad=True)
    plain(x).pow(2).sum().backward()
    checkpoint(parallel, x, use_reentrant=sys.argv[1] == "True").pow(2).sum().backward()
    for mine, theirs in zip(plain.parameters(), parallel.parameters()):
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-9, atol=1e-9)
print("right")
"""


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_it_all(reentrant: bool, run_script: RunScript) -> None:
    found = run_script(AROUND, str(reentrant), timeout=60)
    assert found.stdout.strip() == "right", found.stderr[-2000:]


def test_gradients_that_are_not_contiguous() -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(300, 200).t())
            self.scale = nn.Parameter(torch.randn(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.weight) * self.scale.expand(300)

    torch.manual_seed(1)
    plain = Turning()
    torch.manual_seed(1)
    wrapped = Turning()
    parallel, x = DataParallel(wrapped, 3), torch.randn(7, 200)
    for _ in range(2):
        out = plain(x)
        out.backward(torch.ones(1, 1).expand_as(out))
        found = parallel(x)
        found.backward(torch.ones(1, 1).expand_as(found))
    check_gradients(plain, wrapped)
    assert wrapped.weight.grad is not None
    assert wrapped.weight.grad.stride() == wrapped.weight.stride()
    parallel.close()


@pytest.mark.parametrize("formats", ["ccc", "lcl", "lll"])
@pytest.mark.parametrize("stepping", [False, True])
def test_gradients_keep_the_layout_of_their_parameters(formats: str, stepping: bool) -> None:
    layouts = {"c": torch.contiguous_format, "l": torch.channels_last}
    convolutions = [nn.Conv2d(3, 3, 2).to(memory_format=layouts[each]) for each in formats]
    plain = nn.Sequential(*convolutions)
    parallel = DataParallel(copy.deepcopy(plain), 2)
    for _ in range(2):
        x = torch.randn(4, 3, 8, 8)
        plain(x).pow(2).mean().backward()
        if stepping:
            parallel.step(lambda module, given: module(given).pow(2).mean(), x)
        else:
            parallel(x).pow(2).mean().backward()
        for each, name in zip(parallel.module, formats, strict=True):
            assert each.weight.grad.is_contiguous(memory_format=layouts[name])
        check_gradients(plain, parallel.module)
    parallel.close()


@pytest.mark.parametrize("stepping", [False, True])
def test_a_step_leaves_no_reference_cycles(stepping: bool) -> None:
    parallel, x = DataParallel(mlp(), 2), torch.randn(4, 4)

    def step() -> None:
        if stepping:
            parallel.step(lambda module, given: module(given).sum(), x)
        else:
            parallel(x).sum().backward()

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        assert gc.collect() == 0
    finally:
        gc.enable()
    parallel.close()


def test_a_forward_pass_that_is_dropped_leaves_no_reference_cycles() -> None:
    parallel, x = DataParallel(mlp(), 2), torch.randn(4, 4)
    gc.collect()
    gc.disable()
    try:
        parallel(x)
        assert gc.collect() == 0
    finally:
        gc.enable()
    parallel.close()


def test_what_replicas_have_saved_is_freed_by_the_backward_pass() -> None:
    class Token:
        """Lives as long as the graph whose node it hangs on."""

    kept: list[weakref.ref[Token]] = []

    class Saving(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = super().forward(x).exp()
            token = Token()
            kept.append(weakref.ref(token))
            assert inner.grad_fn is not None
            inner.grad_fn.metadata["token"] = token
            return inner.sin()

    parallel = DataParallel(Saving(3, 3), 2)
    out = parallel(torch.randn(4, 3))
    loss = out.sum()
    assert all(each() is not None for each in kept)
    loss.backward()
    assert all(each() is None for each in kept)
    del out, loss
    parallel.close()


def test_the_backward_pass_works_after_close() -> None:
    parallel, x = DataParallel(mlp(), 2), torch.randn(4, 4)
    loss = parallel(x).sum()
    parallel.close()
    loss.backward()
    assert parallel.module[0].weight.grad is not None
    del loss
    parallel.close()


def test_sums_are_in_the_replicas_order_and_in_place_of_the_first(threads: DeviceThreads) -> None:
    for size in (3, 200_000):  # small ones are summed by the caller, large ones are cut
        grads = [torch.full((size,), float(10**index)) for index in range(3)]
        total = sum_gradients([([0, 1], [grad, None]) for grad in grads], threads)
        assert list(total) == [0]
        assert total[0] is grads[0]
        assert total[0].unique().tolist() == [111.0]


def test_large_gradients_of_any_layout_are_summed(threads: DeviceThreads) -> None:
    shapes = [(300, 200), (64,), (0,), (500, 100)]
    found = [[torch.randn(shape) for shape in shapes] for _ in range(3)]
    for grads in found:
        grads[3] = torch.randn(100, 500).t()
    expected = [sum(each[1:], each[0].clone()) for each in map(list, zip(*found, strict=True))]
    total = sum_gradients([(list(range(4)), grads) for grads in found], threads)
    torch.testing.assert_close([total[index] for index in range(4)], expected)


def test_sparse_gradients_and_dense_ones_are_summed(threads: DeviceThreads) -> None:
    sparse = torch.eye(3).to_sparse()
    total = sum_gradients(
        [([0, 1], [sparse, sparse]), ([1, 0], [torch.ones(3, 3), sparse])], threads
    )
    assert torch.equal(total[0].to_dense(), 2 * torch.eye(3))
    assert torch.equal(total[1].to_dense(), torch.eye(3) + 1)


def test_gradients_are_taken_from_leaves() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    used.sum().backward()
    found = take_gradients([used, unused])
    assert found[0] is not None
    assert (found[0].tolist(), found[1]) == ([1.0, 1.0], None)
    assert used.grad is None
