# SPDX-License-Identifier: BSD-3-Clause
"""A loss in slices is the loss of the whole batch, for every criterion and for uneven slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from teamster.errors import UsageError
from teamster.parallel import DataParallel
from teamster.parallel.criterion import in_slices
from teamster.parallel.scattering import scatter

pytestmark = pytest.mark.usefixtures("doubles")


WEIGHT = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
CLASSES: dict[str, Callable[..., Any]] = {
    "plain": nn.CrossEntropyLoss(),
    "weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "weights and ignored": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1),
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2),
    "smoothing and weights": nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "nll": nn.NLLLoss(weight=WEIGHT),
    "function": functional.cross_entropy,
}
ELEMENTS: dict[str, Callable[..., Any]] = {
    "mse": nn.MSELoss(),
    "mse sum": nn.MSELoss(reduction="sum"),
    "l1": nn.L1Loss(),
    "smooth": nn.SmoothL1Loss(),
    "huber": nn.HuberLoss(delta=0.5),
    "bce": nn.BCELoss(),
    "logits": nn.BCEWithLogitsLoss(pos_weight=WEIGHT),
    "kl": nn.KLDivLoss(),
    "poisson": nn.PoissonNLLLoss(),
    "soft margin": nn.SoftMarginLoss(),
    "function": functional.mse_loss,
}


def whole_of(
    loss: Callable[..., Any], outputs: torch.Tensor, targets: torch.Tensor, replicas: int = 3
) -> torch.Tensor:
    in_slice = in_slices(loss)
    chunks = [in_slice(*chunk) for chunk in scatter((outputs, targets), ["cpu"] * replicas)]
    total = torch.stack([each for each, _ in chunks]).sum()
    return (
        total
        if getattr(loss, "reduction", "") == "sum"
        else total / torch.stack([count for _, count in chunks]).sum()
    )


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", ELEMENTS)
def test_losses_of_elements(name: str) -> None:
    outputs, targets = torch.rand(10, 3), torch.rand(10, 3)
    torch.testing.assert_close(
        whole_of(ELEMENTS[name], outputs, targets),
        ELEMENTS[name](outputs, targets),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("name", CLASSES)
def test_losses_of_classes(name: str, shape: tuple[int, ...]) -> None:
    outputs, targets = torch.randn(10, 3, *shape).log_softmax(1), torch.randint(0, 3, (10, *shape))
    torch.testing.assert_close(
        whole_of(CLASSES[name], outputs, targets),
        CLASSES[name](outputs, targets),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("name", ["plain", "weights", "smoothing and weights"])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_targets_that_are_probabilities(name: str, shape: tuple[int, ...]) -> None:
    outputs, targets = torch.randn(10, 3, *shape), torch.rand(10, 3, *shape).softmax(1)
    torch.testing.assert_close(
        whole_of(CLASSES[name], outputs, targets),
        CLASSES[name](outputs, targets),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("ignored", [-100, 255])
def test_an_ignored_index_that_is_no_class(ignored: int) -> None:
    criterion = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=ignored)
    outputs, targets = torch.randn(7, 3), torch.tensor([0, ignored, 1, 2, ignored, 2, 0])
    torch.testing.assert_close(whole_of(criterion, outputs, targets), criterion(outputs, targets))


def test_the_mean_of_a_function_is_weighed_by_samples_whatever_its_target_is() -> None:
    module, x, y = nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5, 2)
    kinds: list[tuple[Any, Callable[[torch.Tensor, Any], torch.Tensor]]] = [
        (y, functional.mse_loss),
        ({"y": y}, lambda outputs, target: functional.mse_loss(outputs, target["y"])),
        ((y, y), lambda outputs, target: functional.mse_loss(outputs, target[0])),
        (None, lambda outputs, target: outputs.pow(2).mean()),
        (torch.tensor(2.0), lambda outputs, target: (outputs.pow(2) * target).mean()),
    ]
    for target, loss in kinds:
        parallel = DataParallel(module, 2, loss=loss)
        torch.testing.assert_close(parallel(x, target), loss(module(x), target))
        parallel.close()


def test_samples_are_counted_along_the_dimension_that_is_sliced() -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    loss: Callable[..., torch.Tensor] = lambda outputs, target: functional.mse_loss(outputs, target)  # noqa: E731
    parallel = DataParallel(nn.Identity(), 2, dim=1, loss=loss)
    torch.testing.assert_close(parallel(x, y), loss(x, y))
    parallel.close()


def test_gradients_are_the_whole_batchs() -> None:
    module, x, y = nn.Linear(3, 3), torch.randn(7, 3), torch.tensor([0, 1, 2, 1, 1, 0, 2])
    for criterion in (CLASSES["weights and ignored"], CLASSES["smoothing"], CLASSES["function"]):
        parallel = DataParallel(module, 3, loss=criterion)
        expected = torch.autograd.grad(criterion(module(x), y), list(module.parameters()))
        found = torch.autograd.grad(parallel(x, y), list(module.parameters()))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        parallel.close()


def test_the_criterion_itself_is_not_changed() -> None:
    criterion = nn.MSELoss()
    in_slices(criterion)(torch.ones(2), torch.zeros(2))
    assert criterion.reduction == "mean"


def test_a_criterion_without_a_single_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="reduction 'mean' or 'sum'"):
        DataParallel(nn.Linear(2, 2), 2, loss=nn.MSELoss(reduction="none"))


def test_the_criterions_weights_do_not_change_the_state_dict() -> None:
    parallel = DataParallel(nn.Linear(2, 3), 2, loss=nn.CrossEntropyLoss(weight=WEIGHT))
    assert list(parallel.state_dict()) == ["module.weight", "module.bias"]
    parallel.close()
