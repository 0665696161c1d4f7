# SPDX-License-Identifier: BSD-3-Clause
"""Modules that are copied with care: norms, lists, those that share, recurrent ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations


def old_norms() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            nn.utils.weight_norm(nn.Linear(4, 5)), nn.utils.spectral_norm(nn.Linear(5, 4))
        )


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(3)])
        self.named = nn.ParameterDict(
            {"scale": nn.Parameter(torch.randn(4)), "shift": nn.Parameter(torch.randn(4))}
        )
        self.children_by_name = nn.ModuleDict({"a": nn.Linear(4, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for row in self.rows:
            x = torch.tanh(x * row)
        assert len(self.rows) == 3
        assert set(self.named.keys()) == {"scale", "shift"}
        return self.children_by_name["a"](x * self.named["scale"] + self.named["shift"])


class Sharing(nn.Module):
    """A submodule that is there twice, a tied parameter, children and tensors that are None."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.one.weight
        self.nothing = None
        self.register_module("no_child", None)
        self.register_parameter("no_parameter", None)
        self.register_buffer("no_buffer", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.one is self.other
        assert self.tied.weight is self.one.weight
        assert self.no_child is self.no_parameter is self.no_buffer is None
        return self.tied(self.other(torch.tanh(self.one(x))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 3, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rnn.flatten_parameters()
        return self.rnn(x[:, None, :].expand(-1, 3, -1))[0]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "old weight and spectral norm": old_norms,
    "parametrized weight norm": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 4)
    ),
    "parametrized spectral norm": lambda: nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Linear(5, 4)
    ),
    "parametrized orthogonal": lambda: nn.Sequential(
        parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh()
    ),
    "lists and dicts": Lists,
    "sharing": Sharing,
    "lstm": lambda: Recurrent(nn.LSTM, bidirectional=True),
    "gru": lambda: Recurrent(nn.GRU, num_layers=2),
    "rnn with a projection": lambda: Recurrent(nn.LSTM, proj_size=2),
}
