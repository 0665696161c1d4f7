# SPDX-License-Identifier: BSD-3-Clause
"""Models and batches of the tests of training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

CLASSES = 5
WORDS = 11


class Lstm(nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


class Gpt(nn.Module):  # type: ignore[misc]
    """One layer, and the weights of the embedding again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, WORDS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.layer(self.embedding(x), mask, is_causal=True)).transpose(1, 2)


class Sparse(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, sparse=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.embedding(x).mean(1))


class Cnn(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 16, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(functional.relu(self.norm(self.convolution(x))).flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, CLASSES))


MODELS: dict[str, Any] = {"mlp": mlp, "lstm": Lstm, "gpt": Gpt, "sparse": Sparse, "cnn": Cnn}


def made(kind: Any) -> nn.Module:
    """A model of a class, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: nn.Module = kind()
    return model


def make(name: str) -> nn.Module:
    """A model, always the same."""
    return made(MODELS[name])


def batch(name: str, size: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for a model, always the same."""
    draw = torch.Generator().manual_seed(1_000 * number + size)
    words = torch.randint(0, WORDS, (size, 7), generator=draw)
    labels = torch.randint(0, CLASSES, (size,), generator=draw)
    if name == "gpt":
        return words[:, :-1], words[:, 1:]
    if name == "sparse":
        return words, labels
    shape = {"mlp": (6,), "lstm": (5, 4), "cnn": (1, 4, 4)}[name]
    return torch.randn(size, *shape, generator=draw), labels


def loss_fn(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(module(x), y)


def worth(y: torch.Tensor) -> torch.Tensor:
    """How much each sample counts."""
    return 1.0 + (y % 3)


def weighted_loss(module: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    each = functional.cross_entropy(module(x), y, reduction="none")
    return (each * worth(y)).sum() / worth(y).sum()


def whole_worth(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return worth(y).sum()
