# SPDX-License-Identifier: BSD-3-Clause
"""What scripts do between steps, where each rank has a part of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.launching import run, script

HEAD = """
    import os, sys, time, traceback, torch
    from torch import nn
    from teamster.errors import UsageError
    from teamster.train import Trainer

    rank, folder = int(os.environ["RANK"]), sys.argv[1]

    def say(*words):
        os.write(1, (" ".join(map(str, ["told", rank, *words])) + chr(10)).encode())

    def attempt(function, *arguments):
        try:
            function(*arguments)
            say("done")
        except Exception as error:
            names = [each.name for each in traceback.extract_tb(error.__traceback__)]
            say(type(error).__name__, error, names[-1], getattr(error, "__notes__", ""))

    def loss_fn(module, x):
        return module(x).square().mean()

    def fails(module, x):
        if rank == 1:
            raise ZeroDivisionError("of the user's")
        return loss_fn(module, x)

    def all_fail(module, x):
        raise KeyError("in each")

    def penalty(module, x):
        return loss_fn(module, x) + sum(each.square().sum() for each in module.parameters())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 600))
    x, records = torch.ones(4, 600), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""

BETWEEN = """
    stays = nn.Sequential(nn.Linear(2, 2, dtype=torch.double), nn.Linear(2, 2))
    attempt(Trainer, stays, torch.optim.SGD(stays.parameters()), "fsdp")
    norm = model[0].weight.norm()
    with Trainer(model, optimizer, "fsdp", loggers=[records.append]) as trainer:
        trainer.log(norm=model[0].weight.norm())
        trainer.log_histogram("weight", model[1].weight)
        say("before", float(norm))
        for function in (all_fail, loss_fn, all_fail, loss_fn):
            attempt(trainer.step, function, x)
        with torch.no_grad():
            model(x)  # by hand; leaves parameters whole
        attempt(trainer.step, loss_fn, x)
        attempt(trainer.step, penalty, x)
        for _ in range(2):
            attempt(trainer.save, folder + "/file/run")
            attempt(trainer.step, loss_fn, x)
        attempt(trainer.evaluate, fails, [x])
    for each in records:
        (value,) = each.values.values()
        say("logged", each.kind, value if each.kind == "scalars" else tuple(value.shape))
    os._exit(0)
"""

ALONE = """
    with Trainer(model, optimizer, "fsdp") as trainer:
        trainer.step(loss_fn, x)
        if trainer.is_main:
            attempt(trainer.save, folder)
            os._exit(0)
        attempt(trainer.step, loss_fn, x)
    os._exit(0)
"""


def told(folder: Path, program: str) -> list[list[str]]:
    """What each of the two ranks has said."""
    (folder / "file").touch()
    result = run(script(folder, HEAD + program), str(folder), ranks=2)
    lines = result.stdout.splitlines()
    said = [
        [line.removeprefix(f"told {rank} ") for line in lines if line.startswith(f"told {rank} ")]
        for rank in (0, 1)
    ]
    assert all(said), result.stderr[-3_000:]
    return said


def test_what_scripts_do_between_steps(tmp_path: Path) -> None:
    said, others = told(tmp_path, BETWEEN)
    refused, before, *lines = said
    assert refused.startswith(
        "UsageError strategy 'fsdp' gathers the parameters of a layer in one piece, and those that "
        "are trained are of several types (torch.float32, torch.float64): take one, or 'ddp'"
    )
    assert lines[0].startswith("KeyError 'in each' all_fail")
    assert lines[1] == "done"
    assert lines[2].startswith("KeyError 'in each' all_fail")
    assert lines[3:5] == ["done", "done"]
    assert lines[5].startswith("UsageError under 'fsdp' a rank has a part")
    assert "give the optimizer a weight_decay" in lines[5]
    assert lines[6:8] == ["done", "done"]
    assert lines[8].startswith("NotADirectoryError")
    assert lines[9] == "done"
    assert lines[10].startswith("ZeroDivisionError of the user's")
    assert "in rank 1" in lines[10]
    assert lines[11].startswith("logged scalars")
    assert float(lines[11].split()[-1]) == pytest.approx(float(before.split()[-1]), rel=1e-5)
    assert lines[12:] == ["logged histogram (600, 600)"]
    assert others[10].startswith("NotADirectoryError")  # of rank 0, in both
    assert others[12].startswith("ZeroDivisionError of the user's fails")  # its own traceback


def test_a_save_in_one_rank_alone_is_an_error_and_no_wait(tmp_path: Path) -> None:
    said, others = told(tmp_path, ALONE)
    assert said[0].startswith(
        "UsageError save() was called in rank 0, and rank 1 has gone on to step 1, forward and "
        "backward, without it: each rank has a part of the model"
    )
    assert others[0].startswith("WorkerDied rank 0")
