# SPDX-License-Identifier: BSD-3-Clause
"""The same script under torchrun: each rank reads its own rows, and the curve is that of one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.launching import DEADLINE_S, FAILS, errors_of, found, run, script, start_ranks

SCRIPT = """
    import json, os, sys, torch
    from torch import nn
    from torch.utils import data
    from teamster.train import Trainer

    torch.manual_seed(7)
    inputs = torch.randn(26, 6)
    labels = torch.randint(0, 5, (26,))
    READ = []

    class Rows(data.Dataset):
        def __len__(self): return 26
        def __getitem__(self, index):
            READ.append(index)
            return inputs[index], labels[index]

    def loss_fn(module, x, y):
        return nn.functional.cross_entropy(module(x), y)

    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = data.DataLoader(Rows(), 8, shuffle=True)
    losses = []
    with Trainer(model, optimizer, sys.argv[1], accumulate=int(sys.argv[2])) as trainer:
        for epoch in range(3):
            for x, y in trainer.batches(loader):
                losses.append(float(trainer.step(loss_fn, x, y)))
        whole = trainer.step(loss_fn, inputs[:5], labels[:5])   # a batch that every rank has
        losses.append(float(whole))
        mean = trainer.evaluate(loss_fn, data.DataLoader(Rows(), 7))
        reads = trainer.gather(len(READ))
        with trainer.main_first():
            order = trainer.is_main
        if trainer.is_main:
            weights = [float(each.double().sum()) for each in model.parameters()]
            print("found", json.dumps([losses, mean, weights, reads]), flush=True)
"""


@pytest.mark.parametrize(("accumulate", "ranks"), [("1", 2), ("3", 3)])
def test_the_curve_is_that_of_one_program(accumulate: str, ranks: int, tmp_path: Path) -> None:
    """Even and uneven batches, one with fewer rows than ranks, and every row read by one rank."""
    path = script(tmp_path, SCRIPT)
    losses, mean, weights, reads = found(run(path, "single", accumulate))
    other = found(run(path, "ddp", accumulate, ranks=ranks))
    assert other[0] == pytest.approx(losses, abs=1e-5)
    assert other[1] == pytest.approx(mean, abs=1e-5)
    assert other[2] == pytest.approx(weights, abs=1e-4)
    # A rank without a row of a batch reads one of it, to know the shape
    assert sum(other[3]) <= reads[0] + 3 * (ranks - 1)
    assert max(other[3]) < reads[0]


def test_an_error_of_one_rank_is_that_of_all(tmp_path: Path) -> None:
    result = run(script(tmp_path, FAILS), "ddp", "error", ranks=2)
    assert "told 1 ZeroDivisionError of the user's" in result.stdout
    assert "told 0 ZeroDivisionError of the user's ['in rank 1']" in result.stdout


def test_a_rank_that_is_late_is_named_with_its_stack(tmp_path: Path) -> None:
    result = run(script(tmp_path, FAILS), "ddp", "late", ranks=2)
    assert "told 0 WorkerDied waited" in result.stdout, result.stderr[-2_000:]
    assert "rank 1 (process " in result.stdout
    assert "in step 2, forward and backward" in result.stdout
    assert "this_is_where_it_is" in result.stdout


def test_a_rank_that_is_killed_is_named(tmp_path: Path) -> None:
    processes = start_ranks(script(tmp_path, FAILS), "ddp", "kill")
    began = time.monotonic()
    output, _ = processes[0].communicate(timeout=DEADLINE_S)
    processes[1].communicate(timeout=DEADLINE_S)
    assert processes[1].returncode == -signal.SIGKILL
    assert "told 0 WorkerDied rank 1 (process " in output
    assert "has ended: its last sign of life was in step" in output
    assert time.monotonic() - began < 60.0


@pytest.mark.parametrize("strategy", ["single", "dp"])
def test_strategies_of_one_program_are_refused(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    model = nn.Linear(1, 1)
    told = f"strategy '{strategy}' is for one program, and this is one of 2 ranks"
    with pytest.raises(UsageError, match=told):
        Trainer(model, torch.optim.SGD(model.parameters()), strategy)  # type: ignore[arg-type]


AGAIN = """
    import os, time, torch
    from torch import nn
    from teamster.train import Trainer

    for number in range(4):
        if os.environ["RANK"] == "0":
            time.sleep(0.1)  # else the ranks may come in an order that hides it
        model = nn.Linear(2, 1)
        with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp") as trainer:
            trainer.step(lambda module, x: module(x).mean(), torch.ones(4, 2))
            told = trainer.gather(number)
    os.write(1, f"told {told}{chr(10)}".encode())
"""


@pytest.mark.parametrize("launcher", ["torchrun", "another"])
def test_trainers_one_after_the_other(launcher: str, tmp_path: Path) -> None:
    """Each makes a process group, and finds the last one's addresses in the launcher's store."""
    path = script(tmp_path, AGAIN)
    if launcher == "torchrun":
        result = run(path, ranks=2)
        assert result.stdout.count("told [3, 3]") == 2, errors_of(result.stderr)
        return
    told = [each.communicate(timeout=DEADLINE_S) for each in start_ranks(path)]
    assert [output for output, _ in told] == ["told [3, 3]\n"] * 2, told
