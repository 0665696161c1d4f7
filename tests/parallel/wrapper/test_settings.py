# SPDX-License-Identifier: BSD-3-Clause
"""What is set on a DataParallel after its first pass holds from the next one on, or is refused when
it is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel import DataParallel
from tests.parallel.models import check_gradients, mlp

CPUS = ["cpu", "cpu"]


def used(**keywords: Any) -> DataParallel:
    parallel = DataParallel(mlp(), CPUS, **keywords)
    parallel(torch.randn(4, 6)).sum().backward()
    return parallel


@pytest.mark.parametrize(
    "put",
    [
        lambda parallel, module: setattr(parallel, "module", module),
        lambda parallel, module: parallel.add_module("module", module),
        lambda parallel, module: parallel.set_submodule("module", module),
    ],
    ids=["module =", "add_module", "set_submodule"],
)
def test_another_module(put: Callable[[DataParallel, nn.Module], None]) -> None:
    parallel, other, plain = used(), mlp(), mlp()
    plain.load_state_dict(other.state_dict())
    put(parallel, other)
    x = torch.randn(5, 6)
    for model in (plain, parallel):
        model(x).pow(2).sum().backward()
    check_gradients(plain, other)
    torch.testing.assert_close(
        parallel.step(lambda module, x: module(x).mean(), x), plain(x).mean().detach()
    )
    parallel.close()


def test_another_loss() -> None:
    parallel, x, y = (
        DataParallel(mlp(), CPUS, loss=nn.MSELoss()),
        torch.randn(5, 6),
        torch.randn(5, 3),
    )
    parallel(x, y)
    output = parallel.module(x)
    for loss in (
        nn.L1Loss(),
        nn.functional.huber_loss,
        lambda output, target: (output - target).amax(),
    ):
        parallel.loss = loss
        torch.testing.assert_close(parallel(x, y), loss(output, y))
    parallel.loss = criterion = nn.MSELoss(reduction="sum")
    torch.testing.assert_close(parallel(x, y), criterion(output, y))
    criterion.reduction = "mean"
    torch.testing.assert_close(parallel(x, y), criterion(output, y))
    parallel.loss = None
    torch.testing.assert_close(parallel(x), output)
    assert [name for name, _ in parallel.named_children()] == ["module"]
    parallel.close()


def test_other_devices_another_dimension_other_weights() -> None:
    sizes: list[int] = []
    parallel = used()
    parallel.module.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(inputs[0]))
    )
    x = torch.randn(6, 6)

    def chunks() -> list[int]:
        sizes.clear()
        torch.testing.assert_close(parallel(x), parallel.module(x))
        return sorted(sizes[:-1])

    assert chunks() == [3, 3]
    parallel.device_ids = 3  # type: ignore[assignment]
    assert (chunks(), len(parallel.device_ids)) == ([2, 2, 2], 3)
    parallel.device_ids.pop()
    assert chunks() == [3, 3]
    parallel.weights = [1, 2]
    assert chunks() == [2, 4]
    parallel.device_ids = ["cpu"]  # type: ignore[list-item]
    parallel.weights = None
    assert chunks() == [6]
    parallel.device_ids = CPUS  # type: ignore[assignment]
    parallel.output_device = -1  # type: ignore[assignment]
    assert parallel.output_device == torch.device("cpu")
    parallel.module, parallel.dim, x = nn.Identity(), 1, torch.randn(2, 6)
    parallel.module.register_forward_hook(
        lambda module, inputs, output: sizes.append(inputs[0].shape[1])
    )
    assert chunks() == [3, 3]
    parallel.close()


def test_devices_may_be_left_to_be_measured_again() -> None:
    parallel = used()
    parallel.device_ids = None  # type: ignore[assignment]
    x = torch.randn(4, 6)
    torch.testing.assert_close(parallel(x), parallel.module(x))
    assert parallel._current().may_try
    parallel.close()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "device_ids": (list, "at least one device"),
    "output_device": (lambda: "nowhere", "there is no device 'nowhere'"),
    "weights": (lambda: [1], "weights must be 2 numbers"),
    "loss": (lambda: nn.MSELoss(reduction="none"), "'none' gives no single loss"),
    "module": (lambda: torch.compile(nn.Linear(6, 3)), "wrapped in torch.compile"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_when_it_is_set(name: str) -> None:
    (value, told), parallel, x = REFUSED[name], used(), torch.randn(4, 6)
    with pytest.raises(UsageError, match=told):
        setattr(parallel, name, value())
    torch.testing.assert_close(parallel(x), parallel.module(x))  # it is as it was
    parallel.close()
