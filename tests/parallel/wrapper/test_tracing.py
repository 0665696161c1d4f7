# SPDX-License-Identifier: BSD-3-Clause
"""What looks through a model (torch.jit, export, compile, fx, func) follows the plain module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from teamster.parallel import DataParallel
from tests.parallel.models import check_gradients, mlp

WAYS: dict[str, Callable[[nn.Module, torch.Tensor], Any]] = {
    "trace": lambda model, x: torch.jit.trace(model, x),
    "script": lambda model, x: torch.jit.script(model),
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "compile": lambda model, x: torch.compile(model, backend="eager", fullgraph=True),
    "fx": lambda model, x: torch.fx.symbolic_trace(nn.Sequential(model)),
    "func": lambda model, x: (
        lambda x: torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    ),
    "vmap": lambda model, x: lambda x: torch.func.vmap(model)(x[None])[0],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("wrapped", ["alone", "inside"])
@pytest.mark.parametrize("name", WAYS)
def test_it_is_the_plain_module_that_is_seen(name: str, wrapped: str) -> None:
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain), ["cpu", "cpu"])
    model: nn.Module = parallel if wrapped == "alone" else nn.Sequential(parallel, nn.Identity())
    model(torch.randn(4, 6))
    seen, x = WAYS[name](model, torch.randn(5, 6)), torch.randn(5, 6)
    for each in (plain, seen):
        each(x).pow(2).sum().backward()
    if name == "export":  # has parameters of its own
        torch.testing.assert_close(seen(x), plain(x))
    else:
        check_gradients(plain, parallel.module)
    torch.testing.assert_close(model(x), plain(x))  # and replicas run afterwards as before
    parallel.close()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_loss_is_traced_too() -> None:
    parallel = DataParallel(mlp(), ["cpu", "cpu"], loss=nn.MSELoss())
    x, y = torch.randn(4, 6), torch.randn(4, 3)
    torch.testing.assert_close(torch.jit.trace(parallel, (x, y))(x, y), parallel(x, y))
    parallel.close()
