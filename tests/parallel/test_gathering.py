# SPDX-License-Identifier: BSD-3-Clause
"""Outputs put together: gradients, containers, plain values, and what cannot be."""

from __future__ import annotations

import dataclasses
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from teamster.errors import UsageError
from teamster.parallel import DataParallel, gather, gathering


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    note: str
    extra: Any = None


@pytest.fixture
def not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_warned", False)


def pair(shape: tuple[int, ...] = (2, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return first, second


@pytest.mark.parametrize("target", ["cpu", -1, torch.device("cpu")])
def test_tensors_are_concatenated_and_gradients_go_back(target: Any) -> None:
    first, second = pair()
    joined = gather((first, second), target)
    assert torch.equal(joined, torch.cat([first, second]))
    grad = torch.randn(4, 4, dtype=torch.float64)
    joined.backward(grad)
    assert first.grad is not None
    assert second.grad is not None
    assert torch.equal(first.grad, grad[:2])
    assert torch.equal(second.grad, grad[2:])
    for dim in (0, 1):
        assert torch.autograd.gradcheck(
            lambda x, y, dim=dim: gather((x, y), target, dim), (first, second)
        )
        assert torch.autograd.gradgradcheck(
            lambda x, y, dim=dim: gather((x, y), target, dim), (first, second)
        )


@pytest.mark.usefixtures("not_warned")
def test_scalars_become_a_vector_and_the_warning_comes_once() -> None:
    first, second = pair(())
    with pytest.warns(UserWarning, match="without dimensions"):
        joined = gather((first, second), "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gather((first, second), "cpu").shape == (2,)
    joined.backward(torch.tensor([2.0, 3.0], dtype=torch.float64))
    assert first.grad is not None
    assert second.grad is not None
    assert (first.grad.item(), second.grad.item()) == (2.0, 3.0)
    assert torch.autograd.gradcheck(lambda x, y: gather((x, y), "cpu"), (first, second))
    assert torch.autograd.gradgradcheck(lambda x, y: gather((x, y), "cpu"), (first, second))


@pytest.mark.usefixtures("not_warned")
def test_a_module_with_a_scalar_output_warns_once_in_many_steps() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean()

    parallel = DataParallel(Mean(), 2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(5):
            assert parallel(torch.tensor([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert len(told) == 1
    parallel.close()


def test_keys_that_differ_are_named() -> None:
    first, second = pair()
    with pytest.raises(UsageError, match="other keys on device number 1 than on the first: 'only'"):
        gather([{"a": first}, {"a": second, "only": second}], "cpu")
    with pytest.raises(UsageError, match=r"\['inner'\] has other keys .* 'x', 'y'"):
        gather([{"inner": {"x": first}}, {"inner": {"y": first}}], "cpu")


def test_the_order_of_keys_is_the_first_devices() -> None:
    first, second = pair()
    joined = gather([OrderedDict(b=first, a=second), OrderedDict(a=second, b=first)], "cpu")
    assert list(joined) == ["b", "a"]
    assert isinstance(joined, OrderedDict)
    assert torch.equal(joined["b"], torch.cat([first, first]))


def test_containers_keep_their_types_to_any_depth() -> None:
    def output(x: torch.Tensor) -> Any:
        return [x, (x.sin(), [x + 1]), OrderedDict(a=x, b=[x.cos()]), Output(x, "same"), x.max(1)]

    first, second = pair()
    joined, expected = (
        gather([output(first), output(second)], "cpu"),
        output(torch.cat([first, second])),
    )
    assert [type(each) for each in joined] == [type(each) for each in expected]
    assert torch.equal(joined[1][1][0], expected[1][1][0])
    assert torch.equal(joined[2]["b"][0], expected[2]["b"][0])
    assert torch.equal(joined[3].logits, expected[3].logits)
    assert (joined[3].note, joined[3].extra) == ("same", None)
    assert torch.equal(joined[4].indices, expected[4].indices)


@pytest.mark.parametrize(
    "value", [3, 2.5, True, "name", b"bytes", 1j, None, float("nan"), [], {}, ()]
)
def test_plain_values_that_all_devices_agree_on_stay(value: Any) -> None:
    joined = gather([value, value], "cpu")
    assert type(joined) is type(value)
    assert joined == value or value != value


def test_plain_values_that_differ_are_an_error_that_shows_them() -> None:
    with pytest.raises(UsageError, match=r"type int and not the same on all devices \(3, 4\)"):
        gather([3, 4], "cpu")
    with pytest.raises(UsageError, match=r"the output\[1\] is of type str"):
        gather([(None, "a"), (None, "b")], "cpu")


def test_arrays_are_concatenated() -> None:
    joined = gather([np.ones((1, 2)), np.zeros((2, 2))], "cpu")
    assert isinstance(joined, np.ndarray)
    assert joined.tolist() == [[1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([torch.ones(1), None], "not of one type on all devices: NoneType, Tensor"),
        ([[torch.ones(1)], [torch.ones(1)] * 2], "1 and 2 elements"),
        ([object(), object()], "type object, which cannot be gathered"),
        (
            [torch.ones(1, 2), torch.ones(1, 3)],
            r"along dimension 0: its shapes are \(1, 2\) and \(1, 3\)",
        ),
        ([torch.ones(1, 2), torch.ones(3)], r"its shapes are \(1, 2\) and \(3,\)"),
        ([pack_sequence([torch.ones(1)])] * 2, "PackedSequence"),
    ],
)
def test_outputs_that_cannot_be_put_together_are_refused_by_name(
    outputs: list[Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        gather(outputs, "cpu")


def test_a_modules_own_types_come_back() -> None:
    class Everything(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return Output(
                x * 2,
                "note",
                {"count": 3, "array": x.detach().numpy(), "none": None, "names": ("a", 1.5)},
            )

    parallel = DataParallel(Everything(), 3)
    x = torch.arange(7.0, requires_grad=True)
    found = parallel(x)
    assert isinstance(found, Output)
    assert found.logits.tolist() == (x * 2).tolist()
    assert found.extra["array"].tolist() == x.tolist()
    assert (found.note, found.extra["count"], found.extra["none"], found.extra["names"]) == (
        "note",
        3,
        None,
        ("a", 1.5),
    )
    found.logits.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 7
    parallel.close()
