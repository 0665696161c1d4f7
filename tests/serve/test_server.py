# SPDX-License-Identifier: BSD-3-Clause
"""What clients see, by a socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.serve import Server
from tests.serve.asking import DEADLINE_S, ask_many, client, error_of, expected, until
from tests.train.launching import free_port


@dataclass
class Item:
    name: str
    prices: list[float]


def total(item: Item) -> float:
    return sum(item.prices)


def picky(values: list[int]) -> list[int]:
    """Of a batch; it fails as a whole where one input is bad."""
    time.sleep(0.02)
    return [12 // value for value in values]


# --- inputs and outputs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_module(module: nn.Module) -> Iterator[httpx.Client]:
    with Server(module, example=[0.0] * 4).start() as running, client(running) as found:
        yield found


def test_json_messagepack_and_tensors(module: nn.Module, of_module: httpx.Client) -> None:
    row = [1.0, 2.0, 3.0, 4.0]
    (wanted,) = expected(module, [row])
    plain = of_module.post("/predict", json=row)
    np.testing.assert_allclose(plain.json(), wanted, rtol=1e-6)
    assert plain.headers["server-timing"].startswith("queue;dur=")
    packed = of_module.post(
        "/predict",
        content=msgspec.msgpack.encode(row),
        headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
    )
    np.testing.assert_allclose(msgspec.msgpack.decode(packed.content), wanted, rtol=1e-6)
    raw = of_module.post(
        "/predict",
        content=np.array(row, "float32").tobytes(),
        headers={"content-type": "application/octet-stream", "accept": "application/octet-stream"},
    )
    assert (raw.headers["x-dtype"], raw.headers["x-shape"]) == ("float32", "2")
    np.testing.assert_allclose(np.frombuffer(raw.content, "float32"), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "Malformed"),
        (b"{", 400, "Malformed"),
        (b"\xff\xfe", 400, "Malformed"),
        (b"[" * 200_000, 400, "Malformed"),
        (b'["a"]', 422, "WrongInput"),
        (b"null", 422, "WrongInput"),
        (b"[1, 2, 3]", 422, "WrongInput"),
        (b"[[1], [2, 3]]", 422, "WrongInput"),
    ],
)
def test_a_bad_body_is_the_clients_fault(
    body: bytes, status: int, kind: str, of_module: httpx.Client
) -> None:
    assert error_of(of_module.post("/predict", content=body))[:2] == (status, kind)


def test_other_types_paths_and_methods(of_module: httpx.Client) -> None:
    bad = of_module.post("/predict", content=b"a", headers={"content-type": "application/pickle"})
    assert error_of(bad)[0] == 415
    assert error_of(of_module.post("/other", content=b"1"))[0] == 404
    wrong = of_module.get("/predict")
    assert (error_of(wrong)[0], wrong.headers["allow"]) == (405, "POST")
    assert of_module.get("/readyz").status_code == 200
    assert of_module.head("/healthz").content == b""
    about = of_module.get("/").json()["models"]["/predict"]
    assert about["plan"].startswith(("serial: ", "thread(", "process("))  # as measured
    assert 'status="404"' not in of_module.get("/metrics").text  # of models only


def test_an_annotated_input_names_the_field_that_is_wrong() -> None:
    with Server(total).start() as running, client(running) as found:
        good = found.post("/predict", json={"name": "a", "prices": [1, 2.5]})
        assert good.json() == 3.5
        bad = found.post("/predict", json={"name": "a", "prices": [1, "x"]})
        assert error_of(bad) == (422, "WrongInput", "$.prices[1]")
        missing = found.post("/predict", json={"name": "a"})
        assert "missing required field `prices`" in missing.json()["error"]["message"]


def test_estimators_objects_and_classes() -> None:
    from sklearn.linear_model import LinearRegression

    class Counter:
        def setup(self) -> None:
            self.threads = {threading.current_thread().name}

        def predict(self, number: int) -> str:
            self.threads.add(threading.current_thread().name)
            assert len(self.threads) == 1  # each replica has one of its own
            return "x" * number

    line = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    models = {"line": line, "counter": Counter, "text": lambda text: text.upper()}
    with Server(models).start() as running, client(running) as found:
        assert found.post("/line/predict", json=[3.0]).json() == pytest.approx(6.0)
        assert found.post("/counter/predict", json=3).json() == "xxx"
        text = found.post(
            "/text/predict", content="ü".encode(), headers={"content-type": "text/plain"}
        )
        assert text.json() == "Ü"
        assert error_of(found.post("/other/predict", json=3))[0] == 404


def test_thousands_of_answers_are_those_of_their_requests(
    module: nn.Module, of_module: httpx.Client
) -> None:
    rows = torch.randn(5_000, 4).tolist()
    wanted = expected(module, rows)

    np.testing.assert_allclose(
        asyncio.run(ask_many(str(of_module.base_url), rows, 64)), wanted, rtol=1e-4, atol=1e-5
    )
    sizes = [
        line for line in of_module.get("/metrics").text.splitlines() if "batch_size_bucket" in line
    ]
    counts = [int(line.split()[-1]) for line in sizes]
    assert counts[-1] > counts[0]  # some were of more than one


# --- when things go wrong -------------------------------------------------------------------------


def test_one_bad_input_of_a_batch_is_one_error(caplog: pytest.LogCaptureFixture) -> None:
    with Server(picky, batched=True, workers=1).start() as running, client(running) as found:
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(found.post, "/predict", json=1)  # the others wait meanwhile
            others = [pool.submit(found.post, "/predict", json=number) for number in range(8)]
        answers = [each.result() for each in (first, *others)]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 500, *[200] * 7]
    assert error_of(answers[1])[1] == "ZeroDivisionError"
    assert [answer.json() for answer in answers[2:]] == [12 // each for each in range(1, 8)]
    assert "picky" in caplog.text  # with its traceback, for whoever runs it


def test_too_large_a_body(module: nn.Module) -> None:
    with Server(module, max_body=100).start() as running, client(running) as found:
        assert error_of(found.post("/predict", content=b"1" * 200))[0] == 413

        def stream() -> Iterator[bytes]:
            yield b"1" * 60
            yield b"1" * 60

        assert error_of(found.post("/predict", content=stream()))[0] == 413


def test_a_token() -> None:
    with Server(abs, token="secret").start() as running, client(running) as found:
        assert error_of(found.post("/predict", json=-1))[0] == 401
        wrong = found.post("/predict", json=-1, headers={"authorization": "Bearer other"})
        assert error_of(wrong)[0] == 401
        right = found.post("/predict", json=-1, headers={"authorization": "Bearer secret"})
        assert right.json() == 1
        assert found.get("/healthz").status_code == 200


def test_what_would_be_late_is_refused_at_once() -> None:
    """Ten times more than the server can do: it answers in time, or says at once that it cannot."""
    with Server(lambda x: time.sleep(0.02) or x, workers=1, p99=0.2).start() as running:
        with client(running) as found:
            for _ in range(3):
                found.post("/predict", json=1)

            def ask(number: int) -> tuple[int, float, Any]:
                began = time.monotonic()
                answer = found.post("/predict", json=number)
                return answer.status_code, time.monotonic() - began, answer.headers

            with ThreadPoolExecutor(60) as pool:
                answers = list(pool.map(ask, range(120)))
    refused = [headers for status, _, headers in answers if status == 429]
    done = [seconds for status, seconds, _ in answers if status == 200]
    assert len(refused) > 30
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    assert len(done) > 5


def test_a_request_has_a_time_of_its_own() -> None:
    with Server(lambda x: time.sleep(x) or x, workers=1).start() as running:
        with client(running) as found, ThreadPoolExecutor(2) as pool:
            slow = pool.submit(found.post, "/predict", json=0.3)
            until(lambda: 'in_flight{model="<lambda>"} 1' in found.get("/metrics").text)
            late = found.post("/predict", json=0, headers={"x-request-timeout": "0.05"})
            assert error_of(late)[0] in (429, 504)
            bad = found.post("/predict", json=0, headers={"x-request-timeout": "soon"})
            assert error_of(bad)[:2] == (422, "WrongInput")
            assert slow.result().json() == 0.3


def test_a_client_that_has_gone_is_not_computed_for() -> None:
    computed: list[Any] = []
    gate = threading.Event()

    def slow(number: int) -> int:
        computed.append(number)
        gate.wait(DEADLINE_S)
        return number

    with Server(slow, workers=1).start() as running, client(running) as found:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(found.post, "/predict", json=1)
            until(lambda: computed == [1])
            host, port = running.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as leaving:
                leaving.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n2")
                until(lambda: "} 2\n" in in_flight(found))
            until(lambda: "} 1\n" in in_flight(found))
            gate.set()
            assert first.result().json() == 1
            assert found.post("/predict", json=3).json() == 3
    assert computed == [1, 3]


def in_flight(found: httpx.Client) -> str:
    text = found.get("/metrics").text
    return next(line + "\n" for line in text.splitlines() if line.startswith("teamster_in_flight"))


def test_a_model_that_gets_slow_leaves_the_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(lambda x: time.sleep(x) or x, workers=2, example=0)
    with server.start() as running, client(running) as found:
        assert server.plan.choice == "serial"
        assert found.post("/predict", json=0).json() == 0
        for _ in range(2):  # one alone may have lost the processor
            assert found.post("/predict", json=0.05).json() == 0.05
        until(lambda: server.plan.choice == "thread(2)")
        answers = [found.post("/predict", json=number / 1_000).json() for number in range(20)]
    assert answers == [number / 1_000 for number in range(20)]
    assert "takes longer than its example" in caplog.text


# --- start and end --------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from teamster.serve import Server

def slow(x):
    print("begun", flush=True)
    time.sleep(0.5)
    return x

Server(slow, workers=1).run(port=int(sys.argv[1]))
print("over", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_all_have_their_answers(number: int, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as found:
            until(lambda: is_up(found) or program.poll() is not None)
            with ThreadPoolExecutor(3) as pool:
                asked = [pool.submit(found.post, "/predict", json=each) for each in range(3)]
                assert program.stdout.readline() == "begun\n"
                until(lambda: "} 3\n" in in_flight(found))
                os.kill(program.pid, number)
                assert [each.result().json() for each in asked] == [0, 1, 2]
        output, errors = program.communicate(timeout=DEADLINE_S)
        assert output.endswith("over\n")
        assert errors == ""
        assert program.returncode == 0


def is_up(found: httpx.Client) -> bool:
    try:
        return found.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_model_that_fails_on_its_example_does_not_start(module: nn.Module) -> None:
    with pytest.raises(UsageError, match="could not start: the model fails on the example"):
        Server(module, example=[0.0] * 3).start()


def test_a_port_that_is_taken_is_one_line() -> None:
    with Server(abs).start() as running:
        port = int(running.url.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            Server(abs).run(port=port)


def test_it_is_an_application_like_any_other() -> None:
    """Mounted, it starts with its first request: the lifespan is the other's."""
    server = Server(abs)

    async def ask() -> Any:
        transport = httpx.ASGITransport(app=server.app, root_path="/model")
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as asking:
            answer = await asking.post("/model/predict", json=-3)
        await server.app.stop()
        return answer.json()

    assert asyncio.run(ask()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p99": 0}, "p99= is a number of seconds above 0"),
        ({"workers": 0}, "workers= must be a whole number of 1 or more; not 0"),
        ({"kind": "magic"}, "kind= must be 'auto', 'thread' or 'process'; not 'magic'"),
        ({"max_batch": 1.5}, "max_batch= must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Server(abs, **options)


def test_what_is_no_model() -> None:
    with pytest.raises(UsageError, match="a model is a torch module, a callable, or has predict"):
        Server(3)
    with pytest.raises(UsageError, match="the dict is empty"):
        Server({})


def test_json_numbers_that_are_none() -> None:
    with Server(lambda x: [float("nan"), x]).start() as running, client(running) as found:
        assert json.loads(found.post("/predict", json=1).text) == [None, 1]
