# SPDX-License-Identifier: BSD-3-Clause
"""What a step costs as replicas grow from 1 to 8: a model of four numbers beside measurements.

Question: can the time of a step be told from compute, the interpreter's lock, memory bandwidth and the hand-over?
Model:    T(n) = max(C / min(n, cores), n * P) + (n - 1) * B / W + H        for n > 1;  T(1) = C + P
          C   compute of the whole batch in one thread               measured: the plain module with one thread, less P
          P   Python's share of a replica, under the lock            measured: the same with a batch of one sample
          B/W bytes of the parameters by the rate of adding them     measured: torch._foreach_add_ of the parameters
          H   hand-over to threads and back                          measured: step() of a module that does nothing
Method:   the four numbers are measured, none is fitted to T(n); T(n) is the median of rounds, n in turn.
Command:  .venv/bin/python -m benchmarks.data_parallel_model
Result:   see docs/data_parallel.md
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.data_parallel import MODELS, batch_of, loss_of
from teamster.machine.cpus import usable_cores
from teamster.parallel import DataParallel

COUNTS = (1, 2, 3, 4, 6, 8)


def seconds_of(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def plain_seconds(name: str, samples: int | None, rounds: int) -> float:
    module = MODELS[name]()
    inputs, target = (each if samples is None else each[:samples] for each in batch_of(name))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return seconds_of(lambda: (module.zero_grad(), loss_of(module, inputs, target).backward()), rounds)
    finally:
        torch.set_num_threads(before)


def hand_over_seconds(rounds: int) -> float:
    empty = DataParallel(nn.Linear(1, 1), 2)
    inputs = torch.zeros(2, 1)
    took = seconds_of(lambda: empty.step(lambda module, x: module(x).sum(), inputs), rounds)
    empty.close()
    return took


def adding_seconds(name: str, rounds: int) -> float:
    weights = [each.detach().clone() for each in MODELS[name]().parameters()]
    others = [each.clone() for each in weights]
    return seconds_of(lambda: torch._foreach_add_(weights, others), rounds)


def model_of(name: str, rounds: int) -> Callable[[int], float]:
    python = plain_seconds(name, 1, rounds)
    compute = max(plain_seconds(name, None, rounds) - python, 0.0)
    adding, hand_over, cores = adding_seconds(name, rounds), hand_over_seconds(rounds), usable_cores()

    def predict(count: int) -> float:
        if count == 1:
            return compute + python
        return max(compute / min(count, cores), count * python) + (count - 1) * adding + hand_over

    return predict


def measured(name: str, rounds: int) -> dict[int, float]:
    inputs, target = batch_of(name)
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    models = {count: DataParallel(MODELS[name](), count) for count in COUNTS}
    for number in range(rounds + 2):
        for count, model in models.items():
            torch.set_num_threads(1)
            model.zero_grad()
            began = time.perf_counter()
            model.step(loss_of, inputs, target)
            if number >= 2:
                times[count].append(time.perf_counter() - began)
    for model in models.values():
        model.close()
    return {count: statistics.median(found) for count, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="mlp,cnn,gpt,deep")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    errors = []
    print(f"{'ms a step, predicted / measured':34}" + "".join(f"{f'n = {count}':>16}" for count in COUNTS))
    for name in arguments.models.split(","):
        predict, found = model_of(name, arguments.rounds), measured(name, arguments.rounds)
        cells = [f"{predict(count) * 1e3:.1f} / {found[count] * 1e3:.1f}" for count in COUNTS]
        print(f"{name:34}" + "".join(f"{cell:>16}" for cell in cells))
        errors += [abs(predict(count) / found[count] - 1) for count in COUNTS]
    print(f"\nmean error {statistics.mean(errors):.0%}, largest {max(errors):.0%}")


if __name__ == "__main__":
    main()
