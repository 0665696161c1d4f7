# SPDX-License-Identifier: BSD-3-Clause
"""Paths and bodies that are not what the protocol says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from teamster.serve import Server
from tests.serve.asking import client

INFER = "/v2/models/total/infer"


def total(rows: list[list[float]]) -> list[float]:
    return [sum(row) for row in rows]


@pytest.fixture(scope="module")
def asked() -> Iterator[httpx.Client]:
    models = {"total": total}
    with Server(models, batched=True, workers=1, max_body=20_000).start() as running:
        with client(running) as found:
            yield found


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}
    return {name: value for name, value in whole.items() if value is not None}


def test_data_may_be_nested_or_flat(asked: httpx.Client) -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        answer = asked.post(INFER, json={"inputs": [tensor(data=data)]})
        assert answer.json() == {
            "model_name": "total",
            "model_version": "1",
            "outputs": [{"name": "output", "datatype": "FP64", "shape": [2], "data": [3.0, 7.0]}],
        }
    versioned = asked.post(
        INFER.replace("/infer", "/versions/1/infer"), json={"inputs": [tensor()]}
    )
    assert versioned.status_code == 200


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "length >= 1 (at $.inputs)"),
        ([tensor(shape=[3, 2])], "4 elements, and a shape of [3, 2] (at $.inputs[0])"),
        ([tensor(shape=[-1, 2])], "Expected `int` >= 0 (at $.inputs[0].shape[0])"),
        ([tensor(shape="x")], "Expected `array`, got `str` (at $.inputs[0].shape)"),
        ([tensor(datatype="FLOAT")], "there is no datatype FLOAT (at $.inputs[0])"),
        ([tensor(data=["a", "b", "c", "d"])], "no FP32: "),
        ([tensor(datatype="UINT8", data=[1, 2, 3, 400])], "no UINT8: "),
        ([tensor(data=[[1, 2], [3]])], "3 elements"),
        ([tensor(data=[[1, 2], 3, 4, 5])], "no FP32: "),
        ([tensor(datatype="BYTES")], "elements of BYTES are texts"),
        ([tensor(data=None)], "it has neither data nor binary_data_size (at $.inputs[0])"),
        ([tensor(), tensor()], "two inputs are named x (at $.inputs[1])"),
        ([tensor(), tensor(name="y", shape=[4])], "inputs of [2, 4] rows"),
        ([tensor(shape=[], data=[1])], "the first dimension of a tensor is that of the batch"),
        ([tensor(shape=[0, 2], data=[])], "there are no rows"),
        ([tensor(data=None, parameters={"binary_data_size": 16})], "of 0 bytes left"),
        ([tensor(data=None, parameters={"binary_data_size": "16"})], "binary_data_size: 16"),
        ([tensor(data=None, parameters={"shared_memory_region": "r"})], "shared memory"),
        ([tensor(shape=[4])], "Expected `array`, got `float`"),
    ],
)
def test_inputs_that_are_refused(asked: httpx.Client, inputs: list[Any], message: str) -> None:
    answer = asked.post(INFER, json={"inputs": inputs})
    assert answer.status_code in (400, 422)
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"", {}, "truncated"),
        (b"{", {}, "truncated"),
        (b'{"inputs": [{"data": ' + b"[" * 10_000, {}, "recursion"),
        (b"{}", {"inference-header-content-length": "9"}, "the body has 2 bytes"),
        (b"{}", {"inference-header-content-length": "x"}, "the body has 2 bytes"),
        (b"{}", {"content-encoding": "br"}, "content-encoding br is not read"),
        (b"{}", {"content-encoding": "gzip"}, "content-encoding gzip: "),
        (gzip.compress(b"{}" * 99)[:-9], {"content-encoding": "gzip"}, "is cut off"),
        (gzip.compress(bytes(100_000)), {"content-encoding": "gzip"}, "more than 20000 bytes"),
        (bytes(30_000), {}, "of at most 20000"),
    ],
)
def test_bodies_that_are_refused(
    asked: httpx.Client, body: bytes, headers: dict[str, str], message: str
) -> None:
    answer = asked.post(INFER, content=body, headers=headers)
    assert answer.status_code in (400, 413, 415, 422)
    assert message in answer.json()["error"]


def test_memory_that_is_left(asked: httpx.Client) -> None:
    header = json.dumps({"inputs": [tensor()]}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    answer = asked.post(INFER, content=header + b"xyz", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "3 bytes after the last tensor")


def test_outputs_that_are_not_there(asked: httpx.Client) -> None:
    answer = asked.post(INFER, json={"inputs": [tensor()], "outputs": [{"name": "mean"}]})
    assert answer.status_code == 422
    assert "there is no output mean; there are: output" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("HEAD", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("POST", "/v2/repository/index", 200),
        ("GET", "/v2/models/total", 200),
        ("GET", "/v2/models/total/versions/1", 200),
        ("GET", "/v2/models/total/versions/1/ready", 200),
        ("GET", "/v2/models/total/versions/2", 404),
        ("GET", "/v2/models/total/stats", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/a/b/c/d/e/f/g/h", 404),
        ("GET", "/v2x", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/total", 405),
    ],
)
def test_paths(asked: httpx.Client, method: str, path: str, status: int) -> None:
    answer = asked.request(method, path)
    assert answer.status_code == status
    if status >= 400 and path.startswith("/v2/"):
        assert isinstance(answer.json()["error"], str)


def test_the_token_and_the_deadline() -> None:
    with Server({"total": total}, batched=True, token="t", workers=1).start() as running:
        with client(running) as asking:
            assert asking.post(INFER, json={"inputs": [tensor()]}).status_code == 401
            headers = {"authorization": "Bearer t", "x-request-timeout": "soon"}
            answer = asking.post(INFER, json={"inputs": [tensor()]}, headers=headers)
            assert answer.json()["error"] == "x-request-timeout: 'soon' is no number of seconds"
            del headers["x-request-timeout"]
            answer = asking.post(INFER, json={"inputs": [tensor()]}, headers=headers)
            assert answer.headers["server-timing"].startswith("queue;dur=")
            metrics = asking.get("/metrics").text
    assert 'teamster_requests_total{model="total",status="200"} 1' in metrics
