# SPDX-License-Identifier: BSD-3-Clause
"""Replicas in processes: what a death costs, and what it does not."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from torch import nn

from teamster.errors import UsageError
from teamster.serve import Server
from tests.serve.asking import client, error_of, expected
from tests.serve.deadly import deadly, deadly_batch


def test_a_process_that_dies_costs_no_other_request() -> None:
    server = Server(deadly_batch, kind="process", workers=2, batched=True)
    with server.start() as running, client(running) as found:
        assert server.plan.choice == "process(2)"

        def ask(number: int) -> httpx.Response:
            return found.post("/predict", json=number)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(64)))
        good = [answer.json() for number, answer in enumerate(answers) if number != 13]
        assert [number for number, _ in good] == [each for each in range(64) if each != 13]
        assert os.getpid() not in {pid for _, pid in good}
        assert error_of(answers[13])[:2] == (503, "ReplicaDied")
        assert "SIGKILL" in answers[13].json()["error"]["message"]


def test_a_killed_replica_is_replaced_and_its_requests_are_run_again() -> None:
    with Server(deadly, kind="process", workers=1).start() as running, client(running) as found:
        (_, pid) = found.post("/predict", json=1).json()
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(found.post, "/predict", json=number) for number in range(8)]
            os.kill(pid, signal.SIGKILL)
            answers = [each.result().json() for each in asked]
        assert [number for number, _ in answers] == list(range(8))
        assert answers[-1][1] != pid


def test_what_may_not_be_computed_twice_is_not() -> None:
    with (
        Server(deadly, kind="process", workers=1, idempotent=False).start() as running,
        client(running) as found,
    ):
        assert error_of(found.post("/predict", json=13))[:2] == (503, "ReplicaDied")
        assert found.post("/predict", json=2).json()[0] == 2


def test_a_module_in_processes_and_an_error_of_its_own(module: nn.Module) -> None:
    with Server(module, kind="process", workers=2, example=[0.0] * 4).start() as running:
        with client(running) as found:
            answer = found.post("/predict", json=[1.0, 2.0, 3.0, 4.0])
            (wanted,) = expected(module, [[1.0, 2.0, 3.0, 4.0]])
            np.testing.assert_allclose(answer.json(), wanted, rtol=1e-5)
            assert error_of(found.post("/predict", json=[1.0]))[:2] == (422, "WrongInput")


class Unready:
    def setup(self) -> None:
        raise FileNotFoundError("weights.bin")

    def predict(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_replica_that_cannot_be_made_is_told_at_the_start(kind: Any) -> None:
    with pytest.raises(UsageError, match=r"a replica has failed: FileNotFoundError\('weights.bin'"):
        Server(Unready, kind=kind).start()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_model_that_would_end_the_program(kind: Any) -> None:
    with Server(lambda x: sys.exit(x), kind=kind, workers=1).start() as running:
        with client(running) as found:
            for number in (3, 4):
                status, name, _ = error_of(found.post("/predict", json=number))
                assert (status, name) == (500, "SystemExit" if kind == "thread" else "RemoteError")
