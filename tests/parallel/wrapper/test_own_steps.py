# SPDX-License-Identifier: BSD-3-Clause
"""Subclasses that have scatter, replicate, parallel_apply or gather in their own way, as balanced
and other variants do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from teamster.errors import UsageError
from teamster.parallel import DataParallel, gather, parallel_apply, replicate, scatter_kwargs
from tests.parallel.models import check_gradients, mlp

CPUS = ["cpu", "cpu"]


class Told(DataParallel):
    """Notes which of its steps were called."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.told: list[str] = []


class Balanced(Told):
    """The first device gets less than the others."""

    def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
        self.told.append("scatter")
        return scatter_kwargs(
            inputs, kwargs, device_ids, dim=self.dim, weights=[1, 3][: len(device_ids)]
        )


class WithCallbacks(Told):
    """Gives each replica its number."""

    def replicate(self, module: nn.Module, device_ids: Any) -> list[nn.Module]:
        self.told.append("replicate")
        replicas = super().replicate(module, device_ids)
        for number, each in enumerate(replicas):
            each.number = number
        return replicas


class OneByOne(Told):
    def parallel_apply(self, replicas: Any, inputs: Any, kwargs: Any) -> list[Any]:
        self.told.append("parallel_apply")
        return [
            replica(*given, **named)
            for replica, given, named in zip(replicas, inputs, kwargs, strict=True)
        ]


class Doubling(Told):
    def gather(self, outputs: Any, output_device: Any) -> Any:
        self.told.append("gather")
        return super().gather([output * 2 for output in outputs], output_device) / 2


class AllOfThem(Balanced, WithCallbacks, OneByOne, Doubling):
    pass


KINDS = [Balanced, WithCallbacks, OneByOne, Doubling, AllOfThem]


def pair(kind: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[nn.Module, Any]:
    plain = mlp()
    return plain, kind(copy.deepcopy(plain), *arguments, **keywords)


@pytest.mark.parametrize("devices", [CPUS, ["cpu"], None], ids=["two", "one", "measured"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_of_a_subclass_are_called_and_the_result_is_right(
    kind: Any, devices: Any
) -> None:
    plain, parallel = pair(kind, devices)
    x = torch.randn(9, 6, requires_grad=True)
    for _ in range(3):
        for model in (plain, parallel):
            model(x).pow(2).mean().backward()
        with torch.no_grad():
            torch.testing.assert_close(parallel(x), plain(x))
    check_gradients(plain, parallel.module)
    own = [
        name for name in ("scatter", "replicate", "parallel_apply", "gather") if name in vars(kind)
    ]
    expected = own or ["scatter", "replicate", "parallel_apply", "gather"]
    if len(parallel.device_ids) == 1:  # as torch has it
        expected = [name for name in expected if name == "scatter"]
    assert parallel.told == expected * 6
    parallel.close()


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_a_subclass_in_step_mode_and_with_a_loss(kind: Any) -> None:
    x, y = torch.randn(9, 6), torch.randint(0, 3, (9,))
    plain, parallel = pair(kind, CPUS)
    expected = functional.cross_entropy(plain(x), y)
    expected.backward()
    loss = parallel.step(lambda module, x, y: functional.cross_entropy(module(x), y), x, y)
    torch.testing.assert_close(loss, expected.detach())
    check_gradients(plain, parallel.module)
    parallel.zero_grad()
    parallel.loss = nn.CrossEntropyLoss()
    loss = parallel(x, y)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    check_gradients(plain, parallel.module)
    parallel.close()


def test_outputs_may_stay_in_a_list_with_a_criterion_for_each() -> None:
    class Model(DataParallel):
        def gather(self, outputs: Any, output_device: Any) -> Any:
            return outputs

    class Criterion(DataParallel):
        def forward(self, inputs: Any, *targets: Any, **kwargs: Any) -> torch.Tensor:
            scattered, named = self.scatter(targets, kwargs, self.device_ids)
            replicas = self.replicate(self.module, self.device_ids[: len(inputs)])
            given = [(output, *target) for output, target in zip(inputs, scattered, strict=True)]
            return torch.stack(self.parallel_apply(replicas, given, named)).mean()

    plain = mlp()
    parallel, criterion = Model(copy.deepcopy(plain), 2), Criterion(nn.CrossEntropyLoss(), 2)
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    functional.cross_entropy(plain(x), y).backward()
    outputs = parallel(x)
    assert [len(output) for output in outputs] == [4, 4]
    criterion(outputs, y).backward()
    check_gradients(plain, parallel.module)
    assert [len(output) for output in parallel(x[:1])] == [1]  # a list of one
    parallel.close()
    criterion.close()


def test_a_forward_of_its_own_goes_through_the_steps_as_functions() -> None:
    class Reserved(DataParallel):
        """The first device only has the parameters."""

        def forward(self, *inputs: Any, **kwargs: Any) -> Any:
            devices = self.device_ids[1:]
            given, named = self.scatter(inputs, kwargs, devices)
            replicas = self.replicate(self.module, self.device_ids[: len(given) + 1])[1:]
            return self.gather(self.apply_to(replicas, devices, given, named), self.output_device)

        def apply_to(self, replicas: Any, devices: Any, given: Any, named: Any) -> list[Any]:
            return parallel_apply(replicas, given, named, devices)

    plain, parallel = pair(Reserved, 3)
    x = torch.randn(7, 6)
    for model in (plain, parallel):
        model(x).pow(2).sum().backward()
    check_gradients(plain, parallel.module)


def test_batches_that_only_a_subclass_can_slice() -> None:
    class Images(DataParallel):
        """A list of images, each of its own size, is sliced by the list."""

        def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
            count = -(-len(inputs[0]) // len(device_ids))
            parts = [
                (inputs[0][start : start + count],) for start in range(0, len(inputs[0]), count)
            ]
            return parts, [dict(kwargs) for _ in parts]

    class Graphs(Images):
        """Gives each replica one object, and no keyword arguments."""

        def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
            return [
                {"list": part[0]} for part in super().scatter(inputs, kwargs, device_ids)[0]
            ], None

    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: Any) -> torch.Tensor:
            images = images["list"] if isinstance(images, dict) else images
            return torch.stack([image.mean() * self.scale.sum() for image in images])

    images = [torch.full((3, size, size + 1), float(size)) for size in (2, 3, 4)]
    for kind in (Images, Graphs):
        parallel = kind(Sizes(), CPUS)
        output = parallel(images)
        assert output.tolist() == [2.0, 3.0, 4.0]
        output.sum().backward()
        assert parallel.module.scale.grad.item() == 9.0
        parallel.close()


def test_a_step_that_the_object_itself_has() -> None:
    parallel = DataParallel(mlp(), CPUS)
    x = torch.randn(4, 6)
    expected = parallel(x)
    parallel.gather = lambda outputs, output_device: [output.shape for output in outputs]  # type: ignore[method-assign]
    assert parallel(x) == [(2, 3), (2, 3)]
    del parallel.gather
    torch.testing.assert_close(parallel(x), expected)
    parallel.close()


def test_what_a_scatter_gives_too_much_is_named() -> None:
    class Generous(DataParallel):
        def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
            return [inputs] * 3, [kwargs] * 3

    with pytest.raises(
        UsageError,
        match="scatter has made 3 chunks of positional and 3 of keyword arguments for 2 devices",
    ):
        Generous(mlp(), CPUS)(torch.ones(4, 6))


def test_the_methods_do_what_the_functions_do() -> None:
    module = mlp()
    parallel = DataParallel(module, CPUS, weights=[1, 2])
    x = torch.randn(6, 6)
    given, named = parallel.scatter((x,), {"flag": True}, parallel.device_ids)
    assert [len(each[0]) for each in given] == [2, 4]  # by the weights
    assert named == ({"flag": True}, {"flag": True})
    replicas: Sequence[nn.Module] = parallel.replicate(module, parallel.device_ids)
    outputs = parallel.parallel_apply(replicas, given, None)
    expected = parallel_apply(replicate(module, CPUS), given)
    torch.testing.assert_close(parallel.gather(outputs, "cpu"), gather(expected, "cpu"))
    with torch.no_grad():
        assert not any(
            each.requires_grad for each in parallel.replicate(module, CPUS)[0].parameters()
        )
    parallel.close()


class Handle:
    """What a subclass's own step 2 gives to its own step 3, and nothing else looks into."""

    def __init__(self, module: nn.Module, count: int) -> None:
        self.module, self.count = module, count


class WithHandle(DataParallel):
    def replicate(self, module: nn.Module, device_ids: Any) -> Any:
        return Handle(module, len(device_ids))

    def parallel_apply(self, replicas: Any, inputs: Any, kwargs: Any) -> list[Any]:
        assert isinstance(replicas, Handle)
        assert replicas.count == len(inputs)
        return [replicas.module(*each, **named) for each, named in zip(inputs, kwargs, strict=True)]


def test_what_replicate_gives_goes_to_parallel_apply_as_it_is() -> None:
    plain = mlp()
    x = torch.randn(7, 6)
    torch.testing.assert_close(WithHandle(plain, CPUS)(x), plain(x))
