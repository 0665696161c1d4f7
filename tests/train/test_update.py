# SPDX-License-Identifier: BSD-3-Clause
"""What is done with gradients is the same under every strategy."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.models import batch, loss_fn, make

STRATEGIES = ["single", "dp", "ddp"]


def trainer_of(model: Any, strategy: Any, optimizer: Any = None, **more: Any) -> Trainer:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, optimizer, strategy, None if strategy == "single" else 2, **more)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_precision(strategy: str, precision: Any) -> None:
    """Beside torch's own way, by hand; so coarse a type differs a little by slices."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    seen: list[Any] = []
    model, plain = make("mlp"), make("mlp")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    with trainer_of(model, strategy, precision=precision) as trainer:
        for number in range(6):
            x, y = batch("mlp", 8, number)
            loss = trainer.step(loss_fn, x, y)
            assert isinstance(loss, torch.Tensor)
            with torch.autocast("cpu", dtype):
                output = plain(x)
                expected = nn.functional.cross_entropy(output, y)
            seen.append((float(loss), float(expected.detach())))
            scaler.scale(expected).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert output.dtype == dtype
    for mine, theirs in seen:
        assert mine == pytest.approx(theirs, abs=0.02)
    torch.testing.assert_close(
        dict(model.named_parameters()), dict(plain.named_parameters()), atol=5e-3, rtol=5e-2
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_average_of_the_parameters(strategy: str) -> None:
    """A copy that follows, as it is made by hand."""
    found = {}
    for kind in ("single", strategy):
        model = make("mlp")
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        with trainer_of(model, kind) as trainer:
            for number in range(5):
                trainer.step(loss_fn, *batch("mlp", 8, number))
                average.update_parameters(model)
        found[kind] = average.state_dict()
    torch.testing.assert_close(found[strategy], found["single"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_optimizers_and_schedulers(strategy: str) -> None:
    model = make("mlp")
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.01)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in (first, second)]
    with trainer_of(model, strategy, [first, second], scheduler=schedulers) as trainer:
        for number in range(3):
            trainer.step(loss_fn, *batch("mlp", 8, number))
    assert first.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    assert second.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unused_parameters_are_named_once(strategy: str) -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 5), "unused": nn.Linear(6, 5)})
    model["used"].bias.requires_grad_(False)

    def function(module: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        return nn.functional.cross_entropy(module["used"](x), y)

    with (
        warnings.catch_warnings(record=True) as caught,
        trainer_of(model, strategy) as trainer,
    ):
        warnings.simplefilter("always")
        for number in range(3):
            trainer.step(function, *batch("mlp", 8, number))
    told = [str(each.message) for each in caught if "no gradient" in str(each.message)]
    assert len(told) == 1
    assert "unused.weight, unused.bias" in told[0]


def test_sparse_gradients_cannot_be_clipped() -> None:
    model = make("sparse")
    with (
        trainer_of(model, "single", max_grad_norm=1.0) as trainer,
        pytest.raises(UsageError, match="max_grad_norm= cannot clip the sparse gradients"),
    ):
        trainer.step(loss_fn, *batch("sparse", 4, 0))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"workers": 0}, "workers= must be a whole number of 1 or more; not 0"),
        ({"accumulate": 1.5}, "accumulate= must be a whole number"),
        ({"max_grad_norm": 0.0}, "max_grad_norm= must be above 0"),
        ({"precision": "fp8"}, "precision must be 'bf16', 'fp16' or None"),
        ({"strategy": "fast"}, "strategy must be one of 'auto', 'single', 'dp', 'ddp'"),
        ({"optimizer": "adam"}, "the optimizer must be a torch.optim.Optimizer"),
        ({"model": 3}, "the model must be a torch.nn.Module; not int"),
    ],
)
def test_misuse_is_one_line(how: dict[str, Any], told: str) -> None:
    model = nn.Linear(1, 1)
    given = {"model": model, "optimizer": torch.optim.SGD(model.parameters()), **how}
    with pytest.raises(UsageError, match=told) as caught:
        Trainer(**given)
    assert "\n" not in str(caught.value)


def test_the_model_stays_the_users() -> None:
    model = make("mlp")
    names, identity = list(model.state_dict()), [id(each) for each in model.parameters()]
    with trainer_of(model, "ddp") as trainer:
        trainer.step(loss_fn, *batch("mlp", 8, 0))
        assert list(model.state_dict()) == names
        assert [id(each) for each in model.parameters()] == identity
        copied = copy.deepcopy(model)
    x, _ = batch("mlp", 3, 0)
    torch.testing.assert_close(copied(x), model(x))


def test_two_trainers_over_one_model() -> None:
    model = make("mlp")
    first, second = trainer_of(model, "single"), trainer_of(model, "single")
    second.step(loss_fn, *batch("mlp", 4, 0))
    with pytest.raises(UsageError, match="another Trainer has this model since"):
        first.step(loss_fn, *batch("mlp", 4, 0))


@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_parameters_that_come_later(strategy: str) -> None:
    model = make("mlp")
    with trainer_of(model, strategy) as trainer:
        trainer.step(loss_fn, *batch("mlp", 4, 0))
        model.append(nn.Linear(5, 5))
        with pytest.raises(UsageError, match=r"3.weight, 3.bias came into the model after"):
            for number in range(4):
                trainer.step(loss_fn, *batch("mlp", 4, number))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_compiled_model(strategy: str) -> None:
    model, plain = make("mlp"), make("mlp")
    compiled = torch.compile(model, backend="eager")
    with trainer_of(compiled, strategy) as mine, trainer_of(plain, "single") as theirs:
        for number in range(3):
            x, y = batch("mlp", 7, number)
            losses = [float(each.step(loss_fn, x, y)) for each in (mine, theirs)]  # type: ignore[arg-type]
            assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        assert ("without torch.compile" in mine.plan.reason) == (strategy == "dp")
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), atol=1e-5, rtol=1e-5)


class Global(torch.optim.SGD):
    """Keeps more in its state than parameters."""

    def step(self, closure: Any = None) -> Any:
        seen = self.state.setdefault("of all", {"steps": 0})
        seen["steps"] += 1
        return super().step(closure)


def test_an_optimizers_state_of_its_own_comes_back(tmp_path: Any) -> None:
    optimizers = []
    for number in range(2):
        model = make("mlp")
        optimizers.append(Global(model.parameters(), lr=0.1))
        with Trainer(model, optimizers[-1], "single", folder=tmp_path, resume="auto") as trainer:
            for _ in range(2 - number):
                trainer.step(loss_fn, *batch("mlp", 4, 0))
            trainer.save()
    assert optimizers[1].state["of all"] == {"steps": 3}
