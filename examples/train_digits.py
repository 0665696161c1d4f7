# SPDX-License-Identifier: BSD-3-Clause
"""A CNN on scikit-learn's digits, under any strategy.

::

    python -m examples.train_digits                      "auto": measured on the first steps
    python -m examples.train_digits --strategy ddp       two processes, started by Teamster
    torchrun --nproc-per-node=2 -m examples.train_digits the same script, started by torchrun

It reaches 98% on digits that it has not seen (needs torch and scikit-learn).
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils import data

from teamster.data import DataLoader
from teamster.train import Trainer

EPOCHS = 12


def digits() -> tuple[data.Dataset, data.Dataset]:
    """Four fifths of them to train with, and the rest."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, rest = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return tuple(data.TensorDataset(images[rows], labels[rows]) for rows in (train, rest))


def network() -> nn.Module:
    """Two convolutions, without BatchNorm: the same under every strategy."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def loss_fn(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(images), labels)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (model(images).argmax(1) == labels).float().mean()


def train(strategy: str = "auto", epochs: int = EPOCHS) -> float:
    """Train, and tell the share of unseen digits that are recognised."""
    torch.manual_seed(0)
    seen, unseen = digits()
    model = network()
    loader = DataLoader(seen, batch_size=64, shuffle=True)
    with Trainer(model, torch.optim.Adam(model.parameters(), lr=2e-3), strategy) as trainer:
        for epoch in range(epochs):
            for images, labels in trainer.batches(loader):
                trainer.log(loss=trainer.step(loss_fn, images, labels))
            found = trainer.evaluate(accuracy, DataLoader(unseen, batch_size=100))
            if trainer.is_main:
                print(f"epoch {epoch + 1}: {found:.1%}")
        if trainer.is_main:
            print(trainer.plan, trainer.report(), sep="\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    train(arguments.strategy, arguments.epochs)


if __name__ == "__main__":
    main()
