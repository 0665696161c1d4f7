# SPDX-License-Identifier: BSD-3-Clause
"""A training step, optimizer included, under every strategy and beside the peers.

Question: how many samples a second train, on 2 workers with 1 inner thread each? What does a
          trainer cost beside a plain loop, a start, a checkpoint, a line of the log?
Method:   each contender is a program of its own, which warms up for some steps and then times
          others; all of them in turn, medians of rounds. DDP is torch's own over gloo, started by
          torchrun, as are Lightning's Fabric and accelerate.
Command:  make bench-training          (make bench-training ARGS="--models mlp --rounds 5")
Result:   see docs/training.md
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.data_parallel import MODELS, batch_of

WORKERS = 2
WARM_UP = 60  # steps; "auto" has made its choice then
SECONDS = 2.0  # that are timed


def loss_fn(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(module(x), y)


def timed(step: Callable[[], object], samples: int) -> float:
    """Samples a second."""
    for _ in range(WARM_UP):
        step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        step()
        steps += 1
    return samples * steps / (time.perf_counter() - began)


def steps_together(step: Callable[[], object], samples: int) -> float:
    """The same for ranks, which must make the same number of steps."""
    for _ in range(WARM_UP):
        step()
    began = time.perf_counter()
    for _ in range(10):
        step()
    steps = torch.tensor([SECONDS / (time.perf_counter() - began) * 10])
    torch.distributed.broadcast(steps, 0)
    began = time.perf_counter()
    for _ in range(int(steps)):
        step()
    return samples * int(steps) / (time.perf_counter() - began)


def made(name: str) -> tuple[nn.Module, Any, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4), batch_of(name)


def by_hand(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    def step() -> None:
        optimizer.zero_grad()
        loss_fn(model, x, y).backward()
        optimizer.step()

    return step


def plain(name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    model, optimizer, (x, y) = made(name)
    return timed(by_hand(model, optimizer, x, y), len(x))


def ours(name: str, strategy: Any) -> float:
    from teamster.train import Trainer

    model, optimizer, (x, y) = made(name)
    torch.set_num_threads(1 if strategy == "single" else torch.get_num_threads())
    workers = None if strategy in ("single", "auto") else WORKERS
    with Trainer(model, optimizer, strategy, workers) as trainer:
        found = timed(lambda: trainer.step(loss_fn, x, y), len(x))
        print(trainer.plan.choice, file=sys.stderr)
    return found


def half(x: torch.Tensor) -> torch.Tensor:
    rank = int(os.environ["RANK"])
    return x.chunk(WORKERS)[rank]


def ddp(name: str) -> float:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    model, optimizer, (x, y) = made(name)
    wrapped = nn.parallel.DistributedDataParallel(model)
    return steps_together(by_hand(wrapped, optimizer, half(x), half(y)), len(x))


def fabric(name: str) -> float:
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    launched = Fabric(accelerator="cpu", devices=WORKERS, strategy="ddp")
    launched.launch()
    model, optimizer, (x, y) = made(name)
    wrapped, wrapped_optimizer = launched.setup(model, optimizer)
    mine, labels = half(x), half(y)

    def step() -> None:
        wrapped_optimizer.zero_grad()
        launched.backward(loss_fn(wrapped, mine, labels))
        wrapped_optimizer.step()

    return steps_together(step, len(x))


def accelerate(name: str) -> float:
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model, optimizer, (x, y) = made(name)
    wrapped, wrapped_optimizer = accelerator.prepare(model, optimizer)
    mine, labels = half(x), half(y)

    def step() -> None:
        wrapped_optimizer.zero_grad()
        accelerator.backward(loss_fn(wrapped, mine, labels))
        wrapped_optimizer.step()

    return steps_together(step, len(x))


CONTENDERS: dict[str, tuple[Callable[[str], float], bool]] = {
    "plain loop, 1 thread": (lambda name: plain(name, 1), False),
    "plain loop, 2 threads": (lambda name: plain(name, 2), False),
    "DDP, gloo": (ddp, True),
    "Fabric": (fabric, True),
    "accelerate": (accelerate, True),
    "single": (lambda name: ours(name, "single"), False),
    "dp": (lambda name: ours(name, "dp"), False),
    "ddp": (lambda name: ours(name, "ddp"), False),
    "auto": (lambda name: ours(name, "auto"), False),
}


def program(contender: str, name: str) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    own = ["-m", "benchmarks.training", "--contender", contender, "--models", name]
    return [sys.executable, *(launch if CONTENDERS[contender][1] else []), *own]


def run(contender: str, name: str) -> tuple[float, str] | None:
    result = subprocess.run(
        program(contender, name), capture_output=True, text=True, check=False, timeout=300
    )
    match = re.search(r"^found (.*)$", result.stdout, re.MULTILINE)
    if match is None:
        last = result.stderr.strip().splitlines()[-1:] or [""]
        print(f"  {contender:22} did not run: {last[0][:120]}")
        return None
    choice = [line for line in result.stderr.splitlines() if re.fullmatch(r"\w+\(\d+\)", line)]
    return json.loads(match[1]), choice[-1] if choice else ""


def compare(name: str, rounds: int) -> None:
    found: dict[str, list[float]] = {}
    choices: list[str] = []
    missing: set[str] = set()
    for _ in range(rounds):
        for contender in CONTENDERS:
            told = None if contender in missing else run(contender, name)
            if told is None:
                missing.add(contender)
                continue
            found.setdefault(contender, []).append(told[0])
            if contender == "auto":
                choices.append(told[1])
    medians = {contender: statistics.median(each) for contender, each in found.items()}
    print(f"\n{name}, batches of {len(batch_of(name)[0])}: samples a second")
    for contender, median in medians.items():
        beside = f"{median / medians['DDP, gloo']:5.2f} of DDP"
        print(f"  {contender:22} {median:10.1f}   {beside}")
    best = max(median for contender, median in medians.items() if contender != "auto")
    print(f"  auto beside the best: {medians['auto'] / best:.2f} ({', '.join(choices)})")
    print(
        f"  single beside the plain loop: {medians['single'] / medians['plain loop, 1 thread']:.3f}"
    )


START = """
import os, time
began = float(os.environ["BEGAN"])
import torch
from torch import nn
loaded = time.time()
{body}
if int(os.environ.get("RANK", 0)) == 0:
    print("found", time.time() - {since})
"""
OURS = """
from teamster.train import Trainer
model = nn.Linear(10, 10)
trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "ddp", 2)
trainer.step(lambda module, x: module(x).mean(), torch.ones(4, 10))
"""
TORCHRUN = """
torch.distributed.init_process_group("gloo")
model = nn.parallel.DistributedDataParallel(nn.Linear(10, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(2, 10)).mean().backward()
optimizer.step()
"""


def compare_starts(rounds: int) -> None:
    """From the start of the trainer, or of torchrun, to the end of the first step."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found: dict[str, list[float]] = {"ours": [], "torchrun": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, body, since in (("ours", OURS, "loaded"), ("torchrun", TORCHRUN, "began")):
                path = os.path.join(folder, f"{name}.py")
                with open(path, "w") as file:
                    file.write(START.format(body=body, since=since))
                result = subprocess.run(
                    [sys.executable, *(launch if name == "torchrun" else []), path],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={**os.environ, "BEGAN": str(time.time())},
                )
                found[name].append(float(result.stdout.split("found")[1]))
    mine, theirs = (statistics.median(each) for each in found.values())
    told = f"{mine:.2f} s, torchrun {theirs:.2f} s: {mine / theirs:.2f}"
    print(f"\nstart to first step, 2 ranks: {told}")


def measure_saving() -> None:
    """Steps while a checkpoint of some 400 MB is written, beside those without."""
    from teamster.train import Trainer

    model = nn.Sequential(*[nn.Linear(2_048, 2_048) for _ in range(8)])  # 134 MB, Adam's 268 more
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(64, 2_048)
    with tempfile.TemporaryDirectory() as folder, Trainer(model, optimizer, "single") as trainer:

        def step() -> float:
            began = time.perf_counter()
            trainer.step(lambda module, x: module(x).square().mean(), x)
            return time.perf_counter() - began

        for _ in range(5):
            step()
        trainer.save(folder).result()  # type: ignore[union-attr]
        alone = [step() for _ in range(10)]
        beside: list[float] = []
        copies: list[float] = []
        for _ in range(3):
            began = time.perf_counter()
            saving = trainer.save(folder)
            copies.append(time.perf_counter() - began)
            while not saving.done():  # type: ignore[union-attr]
                beside.append(step())
            alone += [step() for _ in range(5)]
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"a step while a checkpoint is written: {ratio:.2f} of one without "
        f"({statistics.median(alone) * 1e3:.0f} ms; the copy {min(copies) * 1e3:.0f} ms)"
    )


def measure_log() -> None:
    from teamster.train import Trainer

    model = nn.Linear(1, 1)
    values = {f"value {index}": torch.tensor(float(index)) for index in range(10)}
    with (
        tempfile.TemporaryDirectory() as folder,
        Trainer(model, torch.optim.SGD(model.parameters()), "single", loggers=[folder]) as trainer,
    ):
        took = []
        for _ in range(300):
            began = time.perf_counter()
            trainer.log(**values)
            took.append(time.perf_counter() - began)
            time.sleep(1e-3)
    print(f"log of 10 scalars: {statistics.median(took) * 1e6:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.models.split(",")
    if asked.contender:
        found = CONTENDERS[asked.contender][0](names[0])
        if int(os.environ.get("RANK", 0)) == 0:
            print("found", found, flush=True)
        return
    for name in names:
        compare(name, asked.rounds)
    compare_starts(asked.rounds)
    measure_saving()
    measure_log()


if __name__ == "__main__":
    main()
