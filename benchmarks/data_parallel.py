# SPDX-License-Identifier: BSD-3-Clause
"""A training step on CPU replicas.

DataParallel beside the plain module, threads that are new in each pass, and DDP.

Question: how long does forward, loss and backward of one batch take, on 2 replicas with 1 inner
          thread each?
Method:   all contenders in one run, in turn, medians of rounds; DDP over gloo lives in two
          processes of its own, which wait on a pipe while others run. The optimizer is not timed:
          it is the same for all. What one replica costs over the plain module is too small beside a
          step: a module that does nothing shows it.
Command:  make bench-parallel          (make bench-parallel ARGS="--models mlp,cnn --rounds 15")
Result:   see docs/data_parallel.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.multiprocessing  # teaches pipes to pass tensors by their shared memory
from torch import nn
from torch.nn import functional

from teamster.parallel import DataParallel
from teamster.parallel.threads import DeviceThreads

REPLICAS = 2
WARM_UP = 12  # steps; device_ids=None has made its choice then


class Gpt(nn.Module):
    """Two blocks of a small GPT."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(512, 256)
        layer = nn.TransformerEncoderLayer(
            256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(256, 512)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        hidden = self.blocks(self.embedding(tokens), mask=mask, is_causal=True)
        return self.head(hidden).transpose(1, 2)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def cnn() -> nn.Module:
    convolutions = [
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
    ]
    return nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10))


def deep() -> nn.Module:
    return nn.Sequential(*[nn.Linear(32, 32) for _ in range(60)])


def batch_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    shapes: dict[str, tuple[torch.Tensor, Sequence[int], int]] = {
        "mlp": (torch.randn(256, 512), (256,), 10),
        "cnn": (torch.randn(64, 3, 32, 32), (64,), 10),
        "deep": (torch.randn(64, 32), (64,), 32),
        "gpt": (torch.randint(0, 512, (8, 64)), (8, 64), 512),
    }
    inputs, target, classes = shapes[name]
    return inputs, torch.randint(0, classes, tuple(target))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": cnn, "deep": deep, "gpt": Gpt}


def loss_of(module: nn.Module, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(module(inputs), target)


class FreshThreads(DeviceThreads):
    """A new thread for each job, as torch's parallel_apply has it."""

    def run(self, jobs: Sequence[Callable[[], Any]], **how: Any) -> list[Any]:
        results: list[Any] = [None] * len(jobs)

        def work(index: int) -> None:
            torch.set_num_threads(1)
            results[index] = jobs[index]()

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def serve_ddp(rank: int, name: str, rendezvous: str, pipe: Any, barrier: Any) -> None:
    """A rank of DDP: runs as many steps as the pipe says, and tells how long they took (s)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=REPLICAS
    )
    model = nn.parallel.DistributedDataParallel(MODELS[name]())
    inputs, target = (each.chunk(REPLICAS)[rank] for each in batch_of(name))
    while (steps := pipe.recv()) > 0:
        torch.distributed.barrier()
        began = time.perf_counter()
        for _ in range(steps):
            model.zero_grad()
            loss_of(model, inputs, target).backward()
        torch.distributed.barrier()
        pipe.send(time.perf_counter() - began)
    torch.distributed.destroy_process_group()


def serve_shared(rank: int, name: str, rendezvous: str, pipe: Any, barrier: Any) -> None:
    """A rank that adds up gradients in shared memory by hand.

    One flat tensor a rank, two barriers a step.
    """
    flat = pipe.recv()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MODELS[name]()
    weights = list(model.parameters())
    inputs, target = (each.chunk(REPLICAS)[rank] for each in batch_of(name))
    while (steps := pipe.recv()) > 0:
        barrier.wait()
        began = time.perf_counter()
        for _ in range(steps):
            model.zero_grad()
            loss_of(model, inputs, target).backward()
            torch.cat(
                [each.grad.reshape(-1) for each in weights if each.grad is not None], out=flat[rank]
            )
            barrier.wait()
            mean = torch.stack(list(flat)).mean(0)
            for each, part in zip(
                weights, mean.split([each.numel() for each in weights]), strict=True
            ):
                each.grad = part.view(each.shape)
            barrier.wait()
        pipe.send(time.perf_counter() - began)


class Ranks:
    """Two processes, as one contender."""

    def __init__(self, name: str, serve: Callable[..., None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        # Kept: it is gone with its last name here
        barrier = self._barrier = context.Barrier(REPLICAS)
        pairs = [context.Pipe() for _ in range(REPLICAS)]
        self._pipes = [ours for ours, _ in pairs]
        arguments = [
            (rank, name, f"{self._folder.name}/meet", theirs, barrier)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        self._ranks = [context.Process(target=serve, args=each, daemon=True) for each in arguments]
        for rank in self._ranks:
            rank.start()

    def share(self, numbers: int) -> None:
        """Give all of them the same memory."""
        flat = torch.zeros(REPLICAS, numbers).share_memory_()
        for pipe in self._pipes:
            pipe.send(flat)

    def run(self, steps: int) -> float:
        for pipe in self._pipes:
            pipe.send(steps)
        return max(pipe.recv() for pipe in self._pipes)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(0)
        for rank in self._ranks:
            rank.join()
        self._folder.cleanup()


def contenders_of(
    name: str,
) -> tuple[dict[str, Callable[[int], float]], list[Ranks], list[DataParallel]]:
    torch.manual_seed(0)
    inputs, target = batch_of(name)
    all_threads = torch.get_num_threads()
    plain, dropin, stepped, fresh, single, chosen = (MODELS[name]() for _ in range(6))
    parallel = [
        DataParallel(dropin, REPLICAS),
        DataParallel(stepped, REPLICAS),
        DataParallel(fresh, REPLICAS),
        DataParallel(single, 1),
        DataParallel(chosen),
    ]
    parallel[2]._current().threads[REPLICAS] = FreshThreads(parallel[2].device_ids, 1)

    def timed(
        module: nn.Module, step: Callable[[], object], threads: int = all_threads
    ) -> Callable[[int], float]:
        def run(steps: int) -> float:
            torch.set_num_threads(threads)
            began = time.perf_counter()
            for _ in range(steps):
                module.zero_grad()
                step()
            took = time.perf_counter() - began
            torch.set_num_threads(all_threads)
            return took

        return run

    def backward(module: nn.Module) -> Callable[[], object]:
        return lambda: loss_of(module, inputs, target).backward()

    ranks = [Ranks(name, serve_ddp), Ranks(name, serve_shared)]
    ranks[1].share(sum(each.numel() for each in plain.parameters()))
    return (
        {
            "plain, all threads": timed(plain, backward(plain)),
            "plain, 1 thread": timed(plain, backward(plain), 1),
            "DataParallel, 1 replica": timed(parallel[3], backward(parallel[3])),
            "DataParallel, drop-in": timed(parallel[0], backward(parallel[0])),
            "DataParallel, step()": timed(
                parallel[1], lambda: parallel[1].step(loss_of, inputs, target)
            ),
            "device_ids=None": timed(parallel[4], backward(parallel[4])),
            "a thread per pass": timed(parallel[2], backward(parallel[2])),
            "DDP, gloo": ranks[0].run,
            "averaging by shared memory": ranks[1].run,
        },
        ranks,
        parallel,
    )


def measure(name: str, rounds: int, seconds: float) -> dict[str, float]:
    """Milliseconds a step, by contender."""
    runs, ranks, parallel = contenders_of(name)
    times: dict[str, list[float]] = {each: [] for each in runs}
    for run in runs.values():
        run(WARM_UP)
    steps = max(1, int(seconds / (runs["plain, all threads"](3) / 3)))
    for _ in range(rounds):
        for each, run in runs.items():
            times[each].append(run(steps) / steps * 1e3)
            # Helpers of OpenMP that spin after one contender are not the next one's
            time.sleep(0.02)
    for rank in ranks:
        rank.close()
    for each in parallel:
        each.close()
    return {each: statistics.median(found) for each, found in times.items()}


def wrapper_us(calls: int = 20_000, rounds: int = 9) -> float:
    """What DataParallel with one replica adds to a call, in microseconds."""
    plain = nn.Identity()
    wrapped = DataParallel(nn.Identity(), 1)
    x = torch.zeros(1)

    def seconds(module: nn.Module) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            module(x)
        return time.perf_counter() - began

    return statistics.median(seconds(wrapped) - seconds(plain) for _ in range(rounds)) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="mlp,cnn,gpt,deep")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each contender in a round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {
        name: measure(name, arguments.rounds, arguments.seconds)
        for name in arguments.models.split(",")
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, times in found.items():
        best = times["DataParallel, step()"]
        print(f"{name:28}{'ms a step':>12}{'beside step()':>16}")
        for each, ms in times.items():
            print(f"  {each:26}{ms:>12.2f}{ms / best:>15.2f}x")
        print()
    added = wrapper_us()
    shares = ", ".join(
        f"{added / 10 / times['plain, all threads']:.2f}% of {name}"
        for name, times in found.items()
    )
    print(f"one replica adds {added:.1f} us to a call: {shares}")


if __name__ == "__main__":
    main()
