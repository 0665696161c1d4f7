# SPDX-License-Identifier: BSD-3-Clause
"""What a CPU replica costs in memory: gradients and activations, and no parameters.

Question: how far does the peak of a process's memory rise with each replica, beside the bytes of
          the parameters?
Method:   a new process for each number of replicas: an MLP with wide layers, steps until nothing is
          new, then the peak of its resident memory less what it had before there was a model. DDP
          is two such processes, each with all of it.
Command:  .venv/bin/python -m benchmarks.data_parallel_memory
Result:   see docs/data_parallel.md
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import warnings

import torch
from torch import nn
from torch.nn import functional

from teamster.parallel import DataParallel

COUNTS = (1, 2, 4, 8)
WIDTH, LAYERS, SAMPLES, STEPS = 2048, 4, 64, 6
MIB = 1 << 20


def model() -> nn.Module:
    return nn.Sequential(
        *[layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    )


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(replicas: int) -> float:
    """MiB of one process that trains on so many replicas."""
    warnings.simplefilter("ignore")
    before = peak_bytes()
    parallel = DataParallel(model(), replicas)
    inputs, target = torch.randn(SAMPLES, WIDTH), torch.randint(0, WIDTH, (SAMPLES,))
    for _ in range(STEPS):
        parallel.zero_grad()
        parallel.step(lambda module, x, y: functional.cross_entropy(module(x), y), inputs, target)
    parallel.close()
    return (peak_bytes() - before) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--replicas", type=int, help="measure in this process, and print one number"
    )
    arguments = parser.parse_args()
    if arguments.replicas:
        print(measure(arguments.replicas))
        return
    parameters = sum(each.nbytes for each in model().parameters()) / MIB
    print(
        f"parameters {parameters:.0f} MiB\n"
        f"{'replicas':>10}{'MiB above the empty process':>30}{'parameters':>14}"
    )
    first = 0.0
    for count in COUNTS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.data_parallel_memory",
            "--replicas",
            str(count),
        ]
        found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        first = first or found
        print(f"{count:>10}{found:>30.0f}{found / parameters:>13.1f}x")
    print(
        f"two processes of DDP, without its buckets: {2 * first:.0f} MiB, "
        f"{2 * first / parameters:.1f}x"
    )


if __name__ == "__main__":
    main()
