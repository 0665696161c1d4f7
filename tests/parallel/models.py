# SPDX-License-Identifier: BSD-3-Clause
"""Small models of several kinds, with a batch for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Tied(nn.Module):
    """A transformer with tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(tokens)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "mlp": (mlp, lambda n: torch.randn(n, 6)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)),
        lambda n: torch.randn(n, 2, 8, 8),
    ),
    "lstm": (Recurrent, lambda n: torch.randn(n, 5, 4)),
    "transformer": (Tied, lambda n: torch.randint(0, 11, (n, 7))),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(11, 5, sparse=True), nn.Flatten(), nn.Linear(20, 2)),
        lambda n: torch.randint(0, 11, (n, 4)),
    ),
}


def dense(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor.to_dense() if tensor.is_sparse else tensor


def check_gradients(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), (_, theirs) in zip(
        one.named_parameters(), other.named_parameters(), strict=True
    ):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(
                dense(mine.grad),
                dense(theirs.grad),
                rtol=1e-9,
                atol=1e-9,
                msg=lambda told, name=name: f"{name}: {told}",
            )
