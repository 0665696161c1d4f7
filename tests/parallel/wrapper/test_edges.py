# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` where it is easily wrong: batches for one device, unregistered tensors, packed sequences, threads that share."""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from teamster.errors import UsageError
from teamster.parallel import DataParallel, applying, data_parallel, wrapper
from tests.parallel.models import check_gradients, mlp

pytestmark = [
    pytest.mark.filterwarnings("ignore:of [0-9]+ CPU replicas:UserWarning"),
    pytest.mark.filterwarnings("ignore:the module returns a tensor without dimensions:UserWarning"),
]
WAIT_S = 20


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


class Lengths(nn.Module):
    def forward(self, packed: PackedSequence) -> torch.Tensor:
        return packed.data.sum(), packed.batch_sizes


def test_a_packed_sequence_goes_to_the_plain_module_where_nobody_named_replicas() -> None:
    packed = pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])
    for parallel in (DataParallel(Lengths()), DataParallel(Lengths(), 1)):
        for _ in range(16):
            total, sizes = parallel(packed)
            assert (total.item(), sizes.tolist()) == (3.0, [2, 1])
        parallel.close()
    with pytest.raises(UsageError, match="PackedSequence cannot be scattered"):
        DataParallel(Lengths(), 2)(packed)


@pytest.mark.parametrize("weights", [[math.nan, 1.0], [math.inf, 1.0], [-1.0, 2.0], [0.0, 0.0], [1.0]])
def test_weights_that_are_no_speeds_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights must be 2 numbers of 0 or more"):
        DataParallel(mlp(), 2, weights=weights)


class Inside(nn.Module):
    """Runs another module on two devices inside of its own forward pass."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = [run]  # not a child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run[0](x)


def test_cores_in_groups_compute_what_the_plain_module_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (wrapper, applying):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain))
    seen = set()
    for _ in range(30):
        x = torch.randn(13, 6)
        for model in (plain, parallel):
            model.zero_grad()
            model(x).pow(2).sum().backward()
        check_gradients(plain, parallel.module)
        seen |= {(count, each._inner) for count, each in parallel._threads.items()}
    assert seen == {(2, 3), (4, 1), (6, 1)}
    assert len(parallel._threads) <= 1  # those of the others have ended
    parallel.close()


def test_shared_threads_that_are_reached_again_through_others_do_not_wait_for_themselves() -> None:
    plain, devices = mlp(), ["cpu", "cpu"]
    middle = DataParallel(Inside(lambda x: data_parallel(plain, x, devices)), 2)
    outer = Inside(middle)
    x, found = torch.randn(8, 6), []
    # The shared threads ran `outer`, whose replicas waited for those of `middle`, which waited for the shared threads.
    thread = threading.Thread(target=lambda: found.append(data_parallel(outer, x, devices)), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert found, "it waits for itself"
    torch.testing.assert_close(found[0], plain(x))
    middle.close()


def test_one_inside_of_another_leaves_the_programs_number_of_threads_alone() -> None:
    plain = mlp()
    inner = [DataParallel(plain, 2) for _ in range(8)]
    number = iter(inner)
    outer = DataParallel(Inside(lambda x: next(number)(x)), 2)
    for _ in range(4):
        torch.testing.assert_close(outer(x := torch.randn(8, 6)), plain(x))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [torch.get_num_threads()]
    for each in (outer, *inner):
        each.close()
