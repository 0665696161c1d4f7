# SPDX-License-Identifier: BSD-3-Clause
"""A training that was ended goes on from its newest whole checkpoint, in the epoch that it was."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data

import teamster.data
from teamster.errors import UsageError
from teamster.train import Trainer
from tests.train.launching import run, script


def loader() -> Any:
    draw = torch.Generator().manual_seed(4)
    rows = data.TensorDataset(torch.arange(24.0).reshape(12, 2))
    return teamster.data.DataLoader(rows, 4, shuffle=True, generator=draw)


def trainer_in(folder: Path, **more: Any) -> Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    return Trainer(model, optimizer, "single", folder=folder, resume="auto", **more)


def train(trainer: Trainer, batches: Any, most: int, save_each: bool) -> list[Any]:
    """Until so many steps are done; the steps with their epochs."""
    seen: list[Any] = []
    for epoch in trainer.epochs(3):
        for (x,) in trainer.batches(batches):
            loss = trainer.step(lambda module, x: module(x).square().mean(), x)
            seen.append((epoch, x.tolist(), float(loss)))
            if save_each:
                trainer.save()
            if len(seen) == most:
                return seen
        if not save_each:
            trainer.save()
    return seen


@pytest.mark.parametrize("save_each", [True, False], ids=["each step", "each epoch"])
def test_it_goes_on_from_any_step(save_each: bool, tmp_path: Path) -> None:
    """Nine steps in three epochs, ended after any of them."""
    with trainer_in(tmp_path / "whole") as trainer:
        whole = train(trainer, loader(), 99, save_each)
    assert [epoch for epoch, *_ in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for done in (1, 3, 4, 8):
        folder = tmp_path / f"after {done}"
        with trainer_in(folder) as trainer:
            first = train(trainer, loader(), done, save_each)
        kept = done if save_each else (done - 1) // 3 * 3
        with trainer_in(folder) as trainer:
            assert first[:kept] + train(trainer, loader(), 99, save_each) == whole
        with trainer_in(folder) as trainer:
            assert train(trainer, loader(), 99, save_each) == []  # all epochs are done


def test_it_begins_where_there_is_no_checkpoint_and_passes_over_a_broken_one(
    tmp_path: Path,
) -> None:
    with trainer_in(tmp_path) as trainer:
        expected = train(trainer, loader(), 2, save_each=True)
    (tmp_path / "step-00000002" / "rest.pickle").write_bytes(b"half of it")
    with trainer_in(tmp_path) as trainer:
        assert train(trainer, loader(), 1, save_each=False) == expected[1:]


@pytest.mark.parametrize("way", ["resume", "load", "save", "auto"])
def test_a_path_that_is_not_there_is_one_line(way: str, tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    if way == "resume":
        with pytest.raises(UsageError, match=r"there is no checkpoint in .*nowhere"):
            Trainer(model, optimizer, "single", resume=tmp_path / "nowhere")
        return
    with pytest.raises(UsageError, match="no path of a run was given"):
        if way == "auto":
            Trainer(model, optimizer, "single", resume="auto")
        trainer = Trainer(model, optimizer, "single")
        getattr(trainer, way)()


SCRIPT = """
    import os, signal, sys, torch
    from torch import nn
    from torch.utils import data
    import teamster.data
    from teamster.train import Trainer

    torch.manual_seed(7)
    rank = os.environ.get("RANK", "0")
    folder = f"{sys.argv[1]}/of {rank}"
    rows = data.TensorDataset(torch.randn(26, 6), torch.randint(0, 5, (26,)))
    draw = torch.Generator().manual_seed(4)
    loader = teamster.data.DataLoader(rows, 8, shuffle=True, generator=draw)

    def loss_fn(module, x, y):
        return nn.functional.cross_entropy(module(x), y)

    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with Trainer(model, optimizer, "ddp", 1, folder=folder, resume="auto") as trainer:
        for epoch in trainer.epochs(3):
            for x, y in trainer.batches(loader):
                loss = float(trainer.step(loss_fn, x, y))
                if saved := trainer.save():
                    saved.result()
                trainer.gather(None)
                with open(f"{sys.argv[1]}/seen by {rank}", "a") as file:
                    print(trainer._steps, epoch, loss, file=file)
                if trainer._steps == 6 and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
                    os.kill(os.getpid(), signal.SIGKILL) if rank == "1" else None
"""


def test_it_goes_on_when_torchrun_restarts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 is killed after six steps; each rank has a disk of its own, and only rank 0 saves."""
    path = script(tmp_path, SCRIPT)
    for name in ("one", "ranks"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "argv", [path, str(tmp_path / "one")])
    runpy.run_path(path)
    run(path, str(tmp_path / "ranks"), ranks=2, restarts=1)
    expected = (tmp_path / "one" / "seen by 0").read_text().split()
    for rank in range(2):
        seen = (tmp_path / "ranks" / f"seen by {rank}").read_text().split()
        assert seen[0::3] + seen[1::3] == expected[0::3] + expected[1::3]  # steps and epochs
        losses = [float(each) for each in seen[2::3]]
        assert losses == pytest.approx([float(each) for each in expected[2::3]], abs=1e-5)
