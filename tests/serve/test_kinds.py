# SPDX-License-Identifier: BSD-3-Clause
"""Inputs by annotations that msgspec does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
import torch

from teamster.serve import Server
from tests.serve.asking import client, error_of


class Order(pydantic.BaseModel):
    name: str
    amount: int = pydantic.Field(gt=0)


@dataclass
class Picture:
    pixels: npt.NDArray[np.float32]
    label: str


def shape(array: np.ndarray) -> list[int]:
    return [*array.shape, array.dtype.itemsize]


def mean(tensor: torch.Tensor) -> float:
    return float(tensor.float().mean())


def order(given: Order) -> Order:
    return Order(name=given.name, amount=given.amount + 1)


def orders(given: list[Order]) -> list[str]:
    return [each.name for each in given]


def picture(given: Picture) -> str:
    return f"{given.label} {given.pixels.dtype} {given.pixels.sum():g}"


def ask(model: Any, value: Any, **options: Any) -> httpx.Response:
    with Server(model, workers=1, **options).start() as running, client(running) as asked:
        return asked.post("/predict", json=value)


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (shape, [[1.5, 2, 3]], [1, 3, 8]),
        (mean, [1, 2, 3], 2.0),
        (order, {"name": "a", "amount": 2}, {"name": "a", "amount": 3}),
        (picture, {"pixels": [[1, 2], [3, 4]], "label": "cat"}, "cat float32 10"),
    ],
)
def test_annotations(model: Any, given: Any, expected: Any) -> None:
    assert ask(model, given).json() == expected


def test_items_of_a_batched_function() -> None:
    assert ask(orders, {"name": "a", "amount": 1}, batched=True).json() == "a"


def test_arrays_as_messagepack() -> None:
    with Server(shape, workers=1).start() as running, client(running) as asked:
        body = msgspec.msgpack.encode([[1, 2]])
        headers = {"content-type": "application/msgpack"}
        assert asked.post("/predict", content=body, headers=headers).json() == [1, 2, 8]


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (shape, [[1], [2, 3]], "inhomogeneous"),
        (shape, {"a": 1}, "no array of numbers"),
        (mean, "text", ""),
        (order, {"name": "a", "amount": 0}, "Input should be greater than 0 (at .amount)"),
        (order, {"amount": 1}, "Field required (at .name)"),
        (order, [], "Input should be a valid dictionary"),
    ],
)
def test_what_is_of_another_kind(model: Any, given: Any, message: str) -> None:
    answer = ask(model, given)
    assert error_of(answer)[:2] == (422, "WrongInput")
    assert message in answer.json()["error"]["message"]


def test_where_a_bad_array_is() -> None:
    answer = ask(picture, {"pixels": ["x"], "label": "cat"})
    assert error_of(answer) == (422, "WrongInput", "$.pixels")
