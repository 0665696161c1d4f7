# SPDX-License-Identifier: BSD-3-Clause
"""Copies of modules: what they share, what they keep, when they are built again."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from teamster.parallel import DataParallel, replicate
from teamster.parallel import replicas as module_under_test
from teamster.parallel.replicas import Replicas, buckets_of, copy_structure
from tests.parallel.module_kinds import MODELS, Sharing

TWO = ["cpu", "cpu"]
TWO_GPUS = torch.cuda.is_available() and torch.cuda.device_count() > 1


pytestmark = pytest.mark.usefixtures("doubles")


def same_twice(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Modules that deepcopy refuses are made twice."""
    torch.manual_seed(3)
    first = make()
    torch.manual_seed(3)
    return first, make()


@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_module_trains_as_without_replicas(name: str, replicas: int) -> None:
    plain, wrapped = same_twice(MODELS[name])
    parallel = DataParallel(wrapped, ["cpu"] * replicas)
    optimizers = [torch.optim.SGD(each.parameters(), 0.05) for each in (plain, wrapped)]
    for _ in range(3):
        x = torch.randn(7, 4)
        for module, optimizer in zip((plain, parallel), optimizers, strict=True):
            optimizer.zero_grad()
            module(x).pow(2).mean().backward()
            optimizer.step()
    for (label, mine), (_, theirs) in zip(
        plain.state_dict().items(), wrapped.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(
            theirs, mine, rtol=1e-9, atol=1e-9, msg=lambda told, label=label: f"{label}: {told}"
        )
    with torch.no_grad():
        torch.testing.assert_close(parallel.eval()(x), plain.eval()(x), rtol=1e-9, atol=1e-9)
    parallel.close()


@pytest.mark.parametrize("name", MODELS)
def test_replicate_gives_modules_that_lead_back_to_the_original(name: str) -> None:
    plain, network = same_twice(MODELS[name])
    x = torch.randn(4, 4)
    expected = plain(x)
    first, second = replicate(network, TWO)
    found = second(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first(x), expected, rtol=1e-9, atol=1e-9)
    found.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(plain.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, mine.grad)


@pytest.mark.parametrize("detach", [False, True])
def test_replicas_share_the_memory_of_parameters(detach: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    for each in replicate(network, 3, detach):
        for mine, theirs in zip(
            network.parameters(),
            (each[0].weight, each[0].bias, each[1].weight, each[1].bias),
            strict=True,
        ):
            assert theirs.data_ptr() == mine.data_ptr()
            assert theirs.requires_grad is not detach
    kept = Replicas(network, 3)
    for each in kept.fresh():
        assert [one.data_ptr() for one in each.parameters()] == [
            one.data_ptr() for one in network.parameters()
        ]


def test_only_the_first_replicas_buffers_are_the_modules_own() -> None:
    network = nn.BatchNorm1d(3)
    for first, second in (replicate(network, TWO), Replicas(network, 2).fresh()):
        for name, buffer in network.named_buffers():
            assert getattr(first, name).data_ptr() == buffer.data_ptr()
            assert getattr(second, name).data_ptr() != buffer.data_ptr()
            assert torch.equal(getattr(second, name), buffer)


def test_buffers_written_in_place_stay_on_the_first_device_only() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += len(x)
            return x + self.count

    parallel = DataParallel(Counting(), 2)
    assert parallel(torch.zeros(5)).tolist() == [3.0] * 3 + [2.0] * 2
    assert parallel(torch.zeros(5)).tolist() == [6.0] * 3 + [5.0] * 2
    assert parallel.module.count == 6
    parallel.close()


def test_buffers_and_children_that_a_forward_replaces_are_back_in_the_next() -> None:
    class Replacing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.child = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert type(self.child) is nn.Identity
            self.count = self.count + 1
            self.child = nn.Tanh()
            return x + self.count

    parallel = DataParallel(Replacing(), 2)
    for _ in range(3):
        assert parallel(torch.zeros(4)).tolist() == [1.0] * 4
    assert parallel.module.count == 0
    parallel.close()


def test_a_running_average_with_a_graph_is_not_carried_into_the_next_step() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1)
            self.register_buffer("average", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert self.average.grad_fn is None
            out = self.linear(x)
            self.average = 0.5 * self.average + 0.5 * out.mean()
            return out - self.average

    parallel = DataParallel(Average(), 2)
    for _ in range(3):
        parallel(torch.randn(4, 3)).pow(2).sum().backward()
    parallel.close()


def test_gradients_of_buffers_are_right() -> None:
    class Scaling(nn.Module):
        def __init__(self, scale: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("scale", scale)
            self.register_buffer("shift", scale.detach().clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + self.shift

    module = Scaling(torch.randn(3, requires_grad=True))
    parallel, x = DataParallel(module, 2), torch.randn(4, 3)
    assert torch.autograd.gradcheck(lambda _: parallel(x), (module.scale,))
    assert torch.autograd.gradgradcheck(lambda _: parallel(x), (module.scale,))
    assert torch.autograd.gradcheck(lambda _: replicate(module, TWO)[1](x), (module.scale,))
    parallel.step(lambda each, x: each(x).sum() / len(x), x)
    torch.testing.assert_close(module.scale.grad, x.mean(0))
    parallel.close()


def test_a_buffer_that_was_computed_gets_its_gradient_through() -> None:
    source = torch.randn(3, requires_grad=True)

    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", source * 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    parallel, x = DataParallel(Scaling(), 2), torch.randn(4, 3)
    parallel(x).sum().backward()
    torch.testing.assert_close(source.grad, 2 * x.sum(0))
    parallel.close()


def test_derivatives_of_any_order_go_through_the_broadcast() -> None:
    def run(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
        network = nn.Linear(2, 2)
        del network.weight, network.bias
        network.register_buffer("weight", weight)
        network.register_buffer("bias", bias)
        return tuple(each(torch.ones(1, 2)).tanh() for each in replicate(network, TWO))

    tensors = torch.randn(2, 2, requires_grad=True), torch.randn(2, requires_grad=True)
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_tensors_travel_in_buckets_of_one_dtype() -> None:
    tensors = [
        torch.zeros(4),
        torch.zeros(2, dtype=torch.float32),
        torch.zeros(4),
        torch.zeros(100),
        torch.zeros(1),
    ]
    assert buckets_of(tensors, 64) == [[0, 2], [1], [3], [4]]
    assert sorted(index for group in buckets_of(tensors) for index in group) == [0, 1, 2, 3, 4]
    assert buckets_of([]) == []


def test_a_broadcast_to_another_device_keeps_shapes_dtypes_and_ties(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module_under_test, "as_devices", lambda names: [torch.device(each) for each in names]
    )
    network = nn.Sequential(Sharing(), nn.BatchNorm1d(4), nn.Linear(4, 2, dtype=torch.float32))
    (copied,) = replicate(network, ["meta"])
    assert {
        tensor.device.type
        for tensor in (copied[0].one.weight, copied[1].running_mean, copied[2].weight)
    } == {"meta"}
    assert copied[0].tied.weight is copied[0].one.weight
    assert (copied[2].weight.dtype, copied[2].weight.shape) == (torch.float32, (2, 4))
    assert network[0].one.weight.device.type == "cpu"


def test_a_copy_is_built_once_and_again_only_after_a_change() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    kept = Replicas(network, 2)
    first = kept.fresh()
    with torch.no_grad():
        network[0].weight.mul_(2)  # as an optimizer does
    assert kept.fresh()[0] is first[0]
    assert kept.built == 1
    changes: list[Callable[[], object]] = [
        lambda: network.eval(),
        lambda: network[0].weight.requires_grad_(False),
        lambda: network.append(nn.Linear(3, 1)),
        lambda: setattr(network[2], "bias", None),
        lambda: setattr(network[0], "weight", nn.Parameter(torch.ones(3, 3))),
        lambda: network.float(),
        lambda: network.__delitem__(1),
        lambda: setattr(network, "attribute", 3),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        kept.fresh()
        assert kept.built == number
        kept.fresh()
        assert kept.built == number


def test_hooks_of_submodules_run_in_every_replica() -> None:
    seen: list[tuple[str, int]] = []
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    network[0].register_forward_pre_hook(
        lambda module, given: seen.append(("before", len(given[0])))
    )
    network[0].register_forward_hook(lambda module, given, output: output * 2)
    network[0].register_full_backward_hook(
        lambda module, back, forth: seen.append(("backward", len(forth[0])))
    )
    parallel, x = DataParallel(network, 2), torch.randn(5, 3, requires_grad=True)
    found = parallel(x)
    found.sum().backward()
    assert sorted(seen) == [("backward", 2), ("backward", 3), ("before", 2), ("before", 3)]
    torch.testing.assert_close(
        found, torch.tanh(2 * nn.functional.linear(x, network[0].weight, network[0].bias))
    )
    late = network[1].register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    assert parallel(x).abs().sum() == 0
    late.remove()
    assert parallel(x).abs().sum() > 0
    parallel.close()


def test_replicas_go_with_their_last_reference() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    gc.collect()
    gc.disable()
    try:
        # On GPUs in every step: what waits for the collector fills their memory
        replicate(network, TWO)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_zero_grad_inside_of_forward_warns_that_it_does_nothing() -> None:
    class Zeroing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.zero_grad()
            return super().forward(x)

    parallel = DataParallel(Zeroing(3, 3), 2)
    with pytest.warns(
        UserWarning, match=r"zero_grad\(\) from a module created with nn\.DataParallel"
    ):
        parallel(torch.randn(4, 3))
    parallel.close()


@pytest.mark.parametrize("detach", [False, True])
def test_replicas_can_be_saved(detach: bool) -> None:
    network, buffer = nn.Linear(3, 3), io.BytesIO()
    torch.save(replicate(network, TWO, detach), buffer)
    buffer.seek(0)
    first, second = torch.load(buffer, weights_only=False)
    x = torch.randn(2, 3)
    assert torch.equal(first(x), network(x))
    assert torch.equal(second(x), network(x))


def test_a_copy_of_the_structure_leaves_the_original_alone() -> None:
    network = Sharing()
    before = dict(network.__dict__), dict(network._modules), dict(network.one._parameters)
    copied = copy_structure(network, lambda tensor: tensor * 2, lambda tensor: tensor)
    assert (dict(network.__dict__), dict(network._modules), dict(network.one._parameters)) == before
    assert copied.one is copied.other
    assert copied.one is not network.one


@pytest.mark.skipif(not TWO_GPUS, reason="needs two GPUs")
def test_replicas_on_gpus_are_where_they_are_said_to_be() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).cuda()
    x = torch.randn(4, 3, device="cuda:0")
    for index, each in enumerate(replicate(network, [0, 1])):
        assert {tensor.device.index for tensor in (each[0].weight, each[1].running_mean)} == {index}
        each.eval()
        torch.testing.assert_close(each(x.cuda(index)).cpu(), network.eval()(x).cpu())
