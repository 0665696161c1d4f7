# SPDX-License-Identifier: BSD-3-Clause
"""What a step costs as replicas grow from 1 to 8: on paper and by simulation, beside measurements.

Question: can the time of step() be told from compute, the interpreter's lock, memory bandwidth and
          the hand-over?
Measured: C   compute that grows with the batch,         plain module, 1 thread: whole batch less
              in one thread                              one sample
          F   work of each replica whatever its batch    the same with one sample
          A   adding the gradients of one replica to     torch._foreach_add_ of the parameters
              another's
          H   hand-over to threads and back,             step() that does nothing with the module
              replicas put back
          K   operations of a forward and backward pass  counted
Fitted:   l   time under the interpreter's lock as a share of F; over 1 where handing it over costs
              more than what is done
          m   how much slower a processor is beside a busy one (memory)
Paper:    T(n) = max((C + n F) / p * (1 + m (p - 1)), n l F) + (n - 1) A + H
          with p = min(n, processors);  T(1) = C + F
Simulated: n threads run K operations each, l F / K of each under the lock, the rest on one of the
          processors, slower by m when others are busy; no operation is interrupted. Then
          (n - 1) A + H.
Method:   l and m by least squares of relative errors over a grid, twice: with all n (error of the
          fit), and with n <= 3 only (error of the prediction for more). T(n) is the median of
          rounds, n in turn.
Command:  .venv/bin/python -m benchmarks.data_parallel_model
Result:   see docs/data_parallel.md
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.data_parallel import MODELS, batch_of, loss_of
from teamster.machine.cpus import usable_cores
from teamster.parallel import DataParallel

COUNTS = (1, 2, 3, 4, 6, 8)
KNOWN = (1, 2, 3)
LOCKS = [number / 10 for number in range(41)]
SLOWNESSES = [number / 20 for number in range(21)]


@dataclass(frozen=True)
class Costs:
    """Of one model; seconds."""

    compute: float
    fixed: float
    adding: float
    hand_over: float
    operations: int
    processors: int


Model = Callable[[Costs, float, float, int], float]
"""Takes costs, share of the lock, slowness beside others and the number of replicas.

Gives seconds.
"""


def on_paper(costs: Costs, lock: float, slowness: float, count: int) -> float:
    if count == 1:
        return costs.compute + costs.fixed
    busy = min(count, costs.processors)
    shared = (costs.compute + count * costs.fixed) / busy * (1 + slowness * (busy - 1))
    return max(shared, count * lock * costs.fixed) + (count - 1) * costs.adding + costs.hand_over


def simulated(costs: Costs, lock: float, slowness: float, count: int) -> float:
    if count == 1:
        return costs.compute + costs.fixed
    simulation = Simulation(costs, lock, slowness, count)
    return simulation.run() + (count - 1) * costs.adding + costs.hand_over


class Simulation:
    """Threads that run operations: a part of each under the lock, the rest on a processor."""

    def __init__(self, costs: Costs, lock: float, slowness: float, count: int) -> None:
        self._locked_s = lock * costs.fixed / costs.operations
        self._free_s = (costs.compute / count + max(0.0, 1 - lock) * costs.fixed) / costs.operations
        self._slowness = slowness
        self._idle = self._processors = costs.processors
        self._left = [costs.operations] * count
        self._for_lock: deque[int] = deque(range(count))
        self._for_processor: deque[int] = deque()
        self._held = False
        self._events: list[tuple[float, int, bool]] = []  # when, whose, whether it held the lock

    def run(self) -> float:
        """Seconds until all have ended."""
        now = 0.0
        self._start(now)
        while self._events:
            now, thread, held = heapq.heappop(self._events)
            self._idle += 1
            if held:
                self._held = False
                self._for_processor.append(thread)
            else:
                self._left[thread] -= 1
                if self._left[thread]:
                    self._for_lock.append(thread)
            self._start(now)
        return now

    def _start(self, now: float) -> None:
        while self._idle and (self._for_processor or (self._for_lock and not self._held)):
            self._idle -= 1
            if self._for_processor:
                others = self._processors - self._idle - 1
                seconds = self._free_s * (1 + self._slowness * others)
                heapq.heappush(self._events, (now + seconds, self._for_processor.popleft(), False))
            else:
                self._held = True
                heapq.heappush(self._events, (now + self._locked_s, self._for_lock.popleft(), True))


def fitted(
    model: Model, costs: Costs, found: dict[int, float], counts: Sequence[int]
) -> tuple[float, float]:
    """Share of the lock and slowness, with the least squares of relative errors."""

    def badness(numbers: tuple[float, float]) -> float:
        return sum(
            (model(costs, *numbers, count) / found[count] - 1) ** 2 for count in counts if count > 1
        )

    return min(product(LOCKS, SLOWNESSES), key=badness)


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
        return seconds_of(
            lambda: (module.zero_grad(), loss_of(module, inputs, target).backward()), rounds
        )
    finally:
        torch.set_num_threads(before)


def hand_over_seconds(name: str, rounds: int) -> float:
    parallel = DataParallel(MODELS[name](), 2)
    batch, weight = batch_of(name), torch.zeros((), requires_grad=True)
    took = seconds_of(lambda: parallel.step(lambda module, x, y: weight * 1.0, *batch), rounds)
    parallel.close()
    return took


def adding_seconds(name: str, rounds: int) -> float:
    weights = [each.detach().clone() for each in MODELS[name]().parameters()]
    others = [each.clone() for each in weights]
    return seconds_of(lambda: torch._foreach_add_(weights, others), rounds)


class Counting(TorchDispatchMode):
    """Counts operations, of backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        self.operations += 1
        return function(*arguments, **(keywords or {}))


def operations_of(name: str) -> int:
    module = MODELS[name]()
    with Counting() as counting:
        loss_of(module, *batch_of(name)).backward()
    return counting.operations


def costs_of(name: str, rounds: int) -> Costs:
    fixed = plain_seconds(name, 1, rounds)
    compute = max(plain_seconds(name, None, rounds) - fixed, 0.0)
    adding, hand_over = adding_seconds(name, rounds), hand_over_seconds(name, rounds)
    return Costs(compute, fixed, adding, hand_over, operations_of(name), int(usable_cores()))


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


def compare(name: str, rounds: int) -> dict[str, list[float]]:
    """Print a model's rows; give its relative errors."""
    costs, found = costs_of(name, rounds), measured(name, rounds)
    print(
        f"{name:28}"
        + "".join(f"{found[count] * 1e3:>9.1f}" for count in COUNTS)
        + f"    {costs.operations} operations"
    )
    errors: dict[str, list[float]] = {}
    models: dict[str, Model] = {"on paper": on_paper, "simulated": simulated}
    for (title, model), known in product(models.items(), (COUNTS, KNOWN)):
        lock, slowness = fitted(model, costs, found, known)
        times = {count: model(costs, lock, slowness, count) for count in COUNTS}
        label = f"{title}, n <= {max(known)} fitted"
        print(
            f"  {label:26}"
            + "".join(f"{times[count] * 1e3:>9.1f}" for count in COUNTS)
            + f"    l {lock:.2f}  m {slowness:.2f}"
        )
        told = [count for count in COUNTS if known == COUNTS or count not in known]
        errors[label] = [abs(times[count] / found[count] - 1) for count in told]
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="mlp,cnn,gpt,deep")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'ms a step':28}" + "".join(f"{f'n = {count}':>9}" for count in COUNTS))
    errors: dict[str, list[float]] = {}
    for name in arguments.models.split(","):
        for label, found in compare(name, arguments.rounds).items():
            errors.setdefault(label, []).extend(found)
    print()
    for label, found in errors.items():
        what = "error" if label.endswith(f"{max(COUNTS)} fitted") else f"error for n > {max(KNOWN)}"
        print(f"{label}: mean {what} {statistics.mean(found):.0%}, largest {max(found):.0%}")


if __name__ == "__main__":
    main()
