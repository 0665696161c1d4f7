# SPDX-License-Identifier: BSD-3-Clause
"""Scripts of the tests under torchrun."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

DEADLINE_S = 120.0

FAILS = """
    import os, signal, sys, time, torch
    from torch import nn
    from teamster.train import Trainer
    strategy, how = sys.argv[1:]
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 600))
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), strategy)
    rank = int(os.environ["RANK"])

    def loss_fn(module, x):
        if trainer._steps == 2 and rank == 1:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "late":
                this_is_where_it_is()
            raise ZeroDivisionError("of the user's")
        return module(x).mean()

    def this_is_where_it_is():
        time.sleep(60)

    if how == "late" and rank == 0:
        trainer._world._patience_s = 2.0
    try:
        for _ in range(4):
            trainer.step(loss_fn, torch.ones(4, 600))
    except BaseException as error:
        notes = getattr(error, "__notes__", "")
        line = f"told {rank} {type(error).__name__} {error} {notes}"
        os.write(1, (line + chr(10)).encode())  # whole, beside those of the others
        if how == "stays":
            time.sleep(60)
        os._exit(1)
"""
"""Rank 1 fails in the third step, in one of several ways; each rank tells its error."""


def run(
    program: str, *arguments: str, ranks: int = 0, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    launch += [f"--max-restarts={restarts}"]
    return subprocess.run(
        [sys.executable, *(launch if ranks else []), program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env=environment(),
    )


def errors_of(stderr: str) -> str:
    """What each rank has raised, and the end of it all; torchrun's own words are many."""
    raised = re.findall(r"^(?:\[rank\d+\]: )?\w+(?:\.\w+)*Error: .*", stderr, re.MULTILINE)
    return "\n".join([*raised, stderr[-3_000:]])


def start_ranks(program: str, *arguments: str, ranks: int = 2) -> list[subprocess.Popen[str]]:
    """Without torchrun, which ends the others before they can tell what they saw."""
    rendezvous = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        subprocess.Popen(
            [sys.executable, program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(), **rendezvous, "RANK": str(rank)},
        )
        for rank in range(ranks)
    ]


def environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")
    }
    return {**kept, "OMP_NUM_THREADS": "1"}


def script(folder: Path, text: str) -> str:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


def found(result: subprocess.CompletedProcess[str]) -> Any:
    match = re.search(r"found (.*)", result.stdout)
    assert match is not None, errors_of(result.stderr)
    return json.loads(match[1])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
