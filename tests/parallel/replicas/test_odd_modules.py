# SPDX-License-Identifier: BSD-3-Clause
"""Modules that are not plain Python with tensors of a shape: scripted, compiled, lazy."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel import DataParallel
from teamster.parallel.validation import check_replicable


def test_lazy_parameters_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'1\.weight' has no shape yet"):
        DataParallel(nn.Sequential(nn.Identity(), nn.LazyLinear(3)), 2)


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def test_python_modules_below_a_script_module_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = scripted(nn.Linear(2, 2))
    # No public way leads there any more
    monkeypatch.setattr(type(parent), "modules", lambda self: iter([self, nn.Linear(2, 2)]))
    with pytest.raises(UsageError, match="below a ScriptModule"):
        check_replicable(parent)


def test_script_modules_work() -> None:
    network = nn.Sequential(scripted(nn.Sequential(nn.Linear(3, 3), nn.Tanh())), nn.Linear(3, 1))
    parallel, x = DataParallel(network, 2), torch.randn(4, 3)
    expected = network(x)
    torch.testing.assert_close(parallel(x), expected)
    parallel(x).sum().backward()
    found = [dense.grad.clone() for dense in network.parameters() if dense.grad is not None]
    network.zero_grad()
    expected.sum().backward()
    torch.testing.assert_close(found, [each.grad for each in network.parameters()])
    parallel.close()


def test_a_compiled_submodule_works_or_is_refused_and_stays_whole() -> None:
    inner = nn.Linear(3, 3)
    network = nn.Sequential(torch.compile(inner, backend="eager"), nn.Tanh())
    x, y = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    expected = torch.tanh(nn.functional.linear(x, inner.weight, inner.bias))
    try:
        parallel = DataParallel(network, 2)
        found = parallel(x)
    except UsageError as error:
        told = str(error)
    else:
        told = "compile"
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(parallel(y).sum(), inner.weight)
        (plain,) = torch.autograd.grad(
            torch.tanh(nn.functional.linear(y, inner.weight, inner.bias)).sum(), inner.weight
        )
        torch.testing.assert_close(gradient, plain)
        parallel.close()
    assert "compile" in told
    assert set(inner._parameters) == {"weight", "bias"}
    assert len(list(network.parameters())) == 2
    torch.testing.assert_close(torch.tanh(inner(x)), expected)
