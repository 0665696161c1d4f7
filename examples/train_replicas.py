# SPDX-License-Identifier: BSD-3-Clause
"""Train a small network on CPU replicas, and draw what they did.

The picture in docs/data_parallel.md is made by this. Run it with ``python -m
examples.train_replicas --picture docs/data_parallel.png`` (needs torch and matplotlib).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import teamster as ts
from teamster.parallel import DataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/replicas.png"))
    arguments = parser.parse_args()
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = DataParallel(
        nn.Sequential(
            nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        ),
        2,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(512, 512), torch.randint(0, 10, (512,))

    def train() -> float:
        optimizer.zero_grad()
        with ts.span("forward of the batch"):
            loss = functional.cross_entropy(model(x), y)
        with ts.span("backward of the batch"):
            loss.backward()
        with ts.span("update"):
            optimizer.step()
        return loss.item()

    losses = [train() for _ in range(20)]
    with ts.record() as recording:
        losses += [train() for _ in range(3)]
    recording.save(arguments.picture)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; {arguments.picture}")
    print(model.report())
    model.close()


if __name__ == "__main__":
    main()
