# SPDX-License-Identifier: BSD-3-Clause
"""Triton's own client, at a server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from torch import nn
from tritonclient.utils import InferenceServerException

from teamster.serve import Server

TYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


class Two(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "both": torch.stack([a, b], -1)}


def picky(rows: list[float]) -> list[float]:
    return [1 / row for row in rows]


def same(value: Any) -> Any:
    return value


def shout(value: np.ndarray) -> list[str]:
    return [(each.decode() if isinstance(each, bytes) else each).upper() for each in value.ravel()]


@pytest.fixture(scope="module")
def client(module: nn.Module) -> Iterator[triton.InferenceServerClient]:
    models = {"mlp": module, "two": Two(), "same": same, "shout": shout}
    with Server(models, workers=2).start() as running:
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        yield client
        client.close()


def tensor(name: str, array: Any, binary: bool = True, datatype: str = "") -> triton.InferInput:
    names = {np.dtype(type_): name for name, type_ in TYPES.items()}
    found = triton.InferInput(name, array.shape, datatype or names.get(array.dtype, "BYTES"))
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def output(name: str, binary: bool) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("count", [1, 5, 100])
def test_rows_of_a_module(
    client: triton.InferenceServerClient, module: nn.Module, binary: bool, asks: bool, count: int
) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    outputs = [output("output", binary)] if asks else None
    answer = client.infer("mlp", [tensor("x", rows, binary)], outputs=outputs, request_id="a/7")
    with torch.no_grad():
        expected = module.eval()(torch.tensor(rows)).numpy()
    np.testing.assert_allclose(answer.as_numpy("output"), expected, rtol=1e-5, atol=1e-6)
    assert answer.get_response()["id"] == "a/7"
    assert answer.get_response()["model_version"] == "1"


def test_several_inputs_and_outputs(client: triton.InferenceServerClient) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    inputs = [tensor("a", rows), tensor("b", 2 * rows, binary=False)]
    answer = client.infer("two", inputs, outputs=[output("both", True), output("sum", False)])
    assert [each["name"] for each in answer.get_response()["outputs"]] == ["both", "sum"]
    np.testing.assert_array_equal(answer.as_numpy("sum"), 3 * rows)
    np.testing.assert_array_equal(answer.as_numpy("both"), np.stack([rows, 2 * rows], -1))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_comes_back(
    client: triton.InferenceServerClient, datatype: str, binary: bool
) -> None:
    if datatype == "FP16" and not binary:
        pytest.skip("the client writes no FP16 as JSON")
    array = np.array([[0, 1, 2], [1, 1, 0]]).astype(TYPES[datatype])
    answer = client.infer("same", [tensor("x", array, binary)], outputs=[output("output", binary)])
    found = answer.as_numpy("output")
    np.testing.assert_array_equal(found, array)
    assert answer.get_output("output")["datatype"] == datatype


def test_the_upper_half_of_a_float_is_read(client: triton.InferenceServerClient) -> None:
    rows = np.array([[1.5, -2.0, 3e30]], dtype=np.float32)
    halves = triton.InferInput("x", [1, 3], "BF16")
    halves._raw_data = (rows.view(np.uint32) >> 16).astype("<u2").tobytes()
    halves._parameters["binary_data_size"] = 6
    answer = client.infer("same", [halves])
    np.testing.assert_allclose(answer.as_numpy("output"), rows, rtol=1e-2)


@pytest.mark.parametrize("binary", [True, False])
def test_texts(client: triton.InferenceServerClient, binary: bool) -> None:
    words = np.array(["a", "", "fünf"], dtype=object)
    answer = client.infer("shout", [tensor("x", words, binary)], outputs=[output("output", binary)])
    found = [
        each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("output")
    ]
    assert found == ["A", "", "FÜNF"]


def test_bytes_that_are_no_text(client: triton.InferenceServerClient) -> None:
    words = np.array([b"\xff\x00", b"\x00"], dtype=object)
    answer = client.infer("same", [tensor("x", words)])
    assert list(answer.as_numpy("output")) == [b"\xff\x00", b"\x00"]
    with pytest.raises(InferenceServerException, match="ask for binary_data"):
        client.infer("same", [tensor("x", words)], outputs=[output("output", False)])


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_compressed_requests(client: triton.InferenceServerClient, how: str) -> None:
    rows = np.zeros((50, 4), dtype=np.float32)
    answer = client.infer("same", [tensor("x", rows)], request_compression_algorithm=how)
    assert answer.as_numpy("output").shape == (50, 4)


def test_many_at_once(client: triton.InferenceServerClient, module: nn.Module) -> None:
    inputs = [np.full((2, 4), number, dtype=np.float32) for number in range(50)]
    waiting = [client.async_infer("mlp", [tensor("x", each)]) for each in inputs]
    with torch.no_grad():
        for array, each in zip(inputs, waiting, strict=True):
            expected = module.eval()(torch.tensor(array)).numpy()
            found = each.get_result().as_numpy("output")
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("mlp", "2")
    assert not client.is_model_ready("dogs")
    assert client.get_server_metadata()["name"] == "teamster"
    assert {each["name"] for each in client.get_model_repository_index()} == {
        "mlp",
        "two",
        "same",
        "shout",
    }
    client.infer("two", [tensor(name, np.zeros((1, 4), np.float32)) for name in "ab"])
    assert client.get_model_metadata("two")["outputs"] == [
        {"name": "sum", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "both", "datatype": "FP32", "shape": [-1, 4, 2]},
    ]


def test_what_an_example_says_of_the_inputs() -> None:
    with Server(picky, batched=True, example=2.0, workers=1).start() as running:
        client = triton.InferenceServerClient(running.url.removeprefix("http://"))
        assert client.get_model_metadata("picky")["inputs"] == [
            {"name": "input", "datatype": "FP64", "shape": [-1]}
        ]
        client.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_error_of_one_row(kind: Any) -> None:
    with Server(picky, batched=True, workers=1, kind=kind).start() as running:
        client = triton.InferenceServerClient(
            running.url.removeprefix("http://"), network_timeout=60
        )
        with pytest.raises(InferenceServerException, match="ZeroDivisionError: ") as caught:
            client.infer("picky", [tensor("x", np.array([1.0, 0.0, 2.0]))])
        assert caught.value.status() == "500"
        answer = client.infer("picky", [tensor("x", np.array([1.0, 4.0, 2.0]))])
        np.testing.assert_array_equal(answer.as_numpy("output"), [1, 0.25, 0.5])
        client.close()
