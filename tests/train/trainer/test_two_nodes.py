# SPDX-License-Identifier: BSD-3-Clause
"""Two machines, as far as one can be two: network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.launching import DEADLINE_S, environment, found, run, script

SCRIPT = """
    import json, os, socket, torch
    from torch import nn
    from torch.utils import data
    from teamster.train import Trainer

    torch.manual_seed(7)
    inputs, labels = torch.randn(26, 6), torch.randint(0, 5, (26,))

    def loss_fn(module, x, y):
        return nn.functional.cross_entropy(module(x), y)

    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = data.DataLoader(data.TensorDataset(inputs, labels), 8, shuffle=True)
    losses = []
    with Trainer(model, optimizer, "ddp", 1) as trainer:
        for epoch in range(3):
            for x, y in trainer.batches(loader):
                losses.append(float(trainer.step(loss_fn, x, y)))
        here = trainer.gather(os.readlink("/proc/self/ns/net"))
        if trainer.is_main:
            print("found", json.dumps([losses, len(set(here))]), flush=True)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Names of two network namespaces, each with an end of a cable: veth0, at 10.99.0.1 and 2."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with")
    names = [f"teamster-{os.getpid()}-{number}" for number in (1, 2)]
    made: list[str] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            cable = ["link", "add", "veth0", "netns", names[0], "type", "veth"]
            ip(*cable, "peer", "name", "veth0", "netns", names[1])
            for number, name in enumerate(names, start=1):
                ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", "veth0")
                ip("-n", name, "link", "set", "veth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield names
    finally:
        for name in made:
            ip("netns", "delete", name)


def test_two_nodes_train_as_one(nodes: list[str], tmp_path: Path) -> None:
    path = script(tmp_path, SCRIPT)
    programs = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", "--nproc_per_node=1", f"--node_rank={rank}"),
                *("--master_addr=10.99.0.1", "--master_port=29555", path),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(), "GLOO_SOCKET_IFNAME": "veth0"},
        )
        for rank, name in enumerate(nodes)
    ]
    try:
        ended = [program.communicate(timeout=DEADLINE_S) for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert [program.returncode for program in programs] == [0, 0], ended[0][1][-2_000:]
    told = next(line for line in ended[0][0].splitlines() if line.startswith("found "))
    losses, networks = json.loads(told.removeprefix("found "))
    assert networks == 2
    assert losses == pytest.approx(found(run(path))[0], abs=1e-5)
