# SPDX-License-Identifier: BSD-3-Clause
"""A training that goes on from a checkpoint is the one that was not interrupted, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data

import teamster.data
from teamster.errors import UsageError
from teamster.train import Trainer
from teamster.train.checkpoint_files import find, is_whole
from tests.train.models import batch, loss_fn, make

DEADLINE_S = 60.0


def trainer_of(model: Any, strategy: Any = "single", **more: Any) -> Trainer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    workers = None if strategy == "single" else 2
    return Trainer(model, optimizer, strategy, workers, scheduler=scheduler, **more)


def dropping() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Linear(16, 5))


def go(trainer: Trainer, numbers: range) -> list[float]:
    return [float(trainer.step(loss_fn, *batch("mlp", 8, number))) for number in numbers]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_the_curve_goes_on_bit_for_bit(strategy: str, accumulate: int, tmp_path: Path) -> None:
    """With dropout, a scheduler, and an update that is not complete."""
    torch.manual_seed(1)
    with trainer_of(model := dropping(), strategy, accumulate=accumulate, seed=5) as trainer:
        go(trainer, range(4))
        trainer.save(tmp_path)
        expected = go(trainer, range(4, 10))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(77)
    with trainer_of(model := dropping(), strategy, accumulate=accumulate) as trainer:
        trainer.load(tmp_path)
        assert go(trainer, range(4, 10)) == expected
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(("saved", "loaded"), [("single", "ddp"), ("ddp", "dp"), ("dp", "single")])
def test_any_strategy_loads_what_another_has_saved(saved: str, loaded: str, tmp_path: Path) -> None:
    with trainer_of(make("mlp"), saved) as trainer:
        go(trainer, range(3))
        saving = trainer.save(tmp_path)
        expected = go(trainer, range(3, 6))
    assert saving is not None
    with trainer_of(make("mlp"), loaded) as trainer:
        trainer.load(saving.result())
        assert go(trainer, range(3, 6)) == pytest.approx(expected, abs=1e-5)


def test_the_loader_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    def loader() -> Any:
        draw = torch.Generator().manual_seed(4)
        rows = data.TensorDataset(torch.arange(40.0).reshape(20, 2))
        return teamster.data.DataLoader(rows, 4, shuffle=True, generator=draw)

    def seen(trainer: Trainer, batches: Any, most: int) -> list[Any]:
        found = []
        for (x,) in batches:
            trainer.step(lambda module, x: module(x).mean(), x)
            found.append(x.tolist())
            if len(found) == most:
                break
        return found

    with trainer_of(nn.Linear(2, 1)) as trainer:
        whole = seen(trainer, trainer.batches(loader()), 99)
    with trainer_of(nn.Linear(2, 1)) as trainer:
        batches = trainer.batches(loader())
        first = seen(trainer, batches, 2)
        trainer.save(tmp_path)
        del batches
    with trainer_of(nn.Linear(2, 1)) as trainer:
        trainer.load(tmp_path)
        assert first + seen(trainer, trainer.batches(loader()), 99) == whole


def test_it_is_read_by_torch_and_by_safetensors_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    model = make("gpt")  # with tied weights
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single") as trainer:
        trainer.step(loss_fn, *batch("gpt", 4, 0))
        place = trainer.save(tmp_path, export="safetensors")
    assert place is not None
    dcp_to_torch_save(place.result(), tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")
    other = make("gpt")
    other.load_state_dict(
        {name[6:]: value for name, value in whole.items() if name.startswith("model.")}
    )
    alone = load_file(place.result() / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
        assert torch.equal(alone[name], value)


def test_the_copy_is_of_the_moment(tmp_path: Path) -> None:
    """Steps that come while it is written do not change it."""
    model = nn.Linear(1_000, 1_000)
    with Trainer(model, torch.optim.SGD(model.parameters(), lr=1.0), "single") as trainer:
        expected = model.weight.detach().clone()
        trainer.save(tmp_path)
        trainer.step(lambda module, x: module(x).mean(), torch.ones(4, 1_000))
        assert not torch.equal(expected, model.weight)
    other = nn.Linear(1_000, 1_000)
    with Trainer(other, torch.optim.SGD(other.parameters()), "single") as trainer:
        trainer.load(tmp_path)
    assert torch.equal(other.weight, expected)


def test_the_oldest_go(tmp_path: Path) -> None:
    with trainer_of(make("mlp")) as trainer:
        for number in range(5):
            go(trainer, range(1))
            trainer.save(tmp_path, keep=2)
            del number
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_one_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    with trainer_of(make("mlp")) as trainer:
        for _ in range(3):
            go(trainer, range(1))
            trainer.save(tmp_path)
    newest, older = tmp_path / "step-00000003", tmp_path / "step-00000002"
    with open(newest / "__0_0.distcp", "r+b") as file:
        file.seek(500)
        byte = file.read(1)
        file.seek(500)
        file.write(bytes([byte[0] ^ 1]))
    (tmp_path / "step-00000009").mkdir()
    assert find(tmp_path) == older
    assert not is_whole(newest)


def test_misuse_is_one_line(tmp_path: Path) -> None:
    with trainer_of(make("mlp")) as trainer:
        with pytest.raises(UsageError, match="there is no checkpoint in"):
            trainer.load(tmp_path)
        place = trainer.save(tmp_path)
        assert place is not None
        place.result()
    with (
        trainer_of(make("lstm")) as trainer,
        pytest.raises(UsageError, match="is of another training"),
    ):
        trainer.load(tmp_path)


def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    """The system's limit of a file's size stands for the disk."""
    program = f"""
        import resource, torch
        from torch import nn
        from teamster.train import Trainer
        model = nn.Linear(500, 500)
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single")
        trainer.save({str(tmp_path)!r}).result()
        trainer.step(lambda module, x: module(x).mean(), torch.ones(2, 500))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        saving = trainer.save({str(tmp_path)!r})
        print(type(saving.exception()).__name__)
        try:
            trainer.close()
        except OSError as error:
            print("close:", error.strerror)
    """
    result = run(program)
    assert result.stdout.splitlines() == ["OSError", "close: File too large"], result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000000"]
    assert is_whole(find(tmp_path))


def test_the_end_of_the_program_waits_for_what_was_saved(tmp_path: Path) -> None:
    program = f"""
        import torch
        from torch import nn
        from teamster.train import Trainer
        model = nn.Linear(2_000, 2_000)
        trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single")
        trainer.save({str(tmp_path)!r})
    """
    result = run(program)
    assert result.stderr == ""
    assert is_whole(find(tmp_path))


KILLED_AGAIN_AND_AGAIN = """
    import itertools, os, random, signal, sys, time, torch
    import torch._dynamo, torch.distributed.checkpoint  # once, and not in each of the copies
    from torch import nn
    from teamster.train import Trainer

    def save_all_the_time(folder, tell):
        model = nn.Linear(300, 300)
        trainer = Trainer(model, torch.optim.Adam(model.parameters()), "single")
        for number in itertools.count():
            trainer.step(lambda module, x: module(x).mean(), torch.ones(2, 300))
            trainer.save(folder, keep=2)
            os.write(tell, b".")

    torch.set_num_threads(1)
    draw = random.Random(0)
    for trial in range(20):
        read, write = os.pipe()
        copy = os.fork()  # torch is loaded once; no thread has begun
        if not copy:
            save_all_the_time(os.path.join(sys.argv[1], str(trial)), write)
        for _ in range(4):
            os.read(read, 1)
        time.sleep(draw.random() * 0.05)  # the moment of the kill, not a hope for anything
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)
        os.close(read)
        os.close(write)
"""


def test_a_kill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    result = run(KILLED_AGAIN_AND_AGAIN, str(tmp_path))
    assert result.returncode == 0, result.stderr
    runs = list(tmp_path.iterdir())
    assert len(runs) == 20
    for folder in runs:
        newest = find(folder)
        visible = [each for each in folder.iterdir() if not each.name.startswith(".")]
        assert all(is_whole(each) for each in visible), os.listdir(folder)
        assert int(newest.name[5:]) >= 3


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
