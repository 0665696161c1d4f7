# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel import DataParallel, scatter, shared

CPUS = ["cpu", "cpu"]


class Masked(nn.Module):
    def forward(self, x: torch.Tensor, mask: Any, more: Any = None) -> torch.Tensor:
        y = (
            x @ torch.as_tensor(numpy.asarray(mask))
            if isinstance(mask, numpy.ndarray)
            else (mask.t() @ x.t()).t()
        )
        return y if more is None else y + more["bias"][0]


MASKS: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.ones(3, 3).tril(),
    "sparse": lambda: torch.ones(3, 3).tril().to_sparse(),
    "array": lambda: numpy.tri(3),
}


@pytest.mark.parametrize("devices", [CPUS, ["cpu"], None], ids=["two", "one", "measured"])
@pytest.mark.parametrize("kind", MASKS)
def test_an_argument_goes_whole_to_every_replica(kind: str, devices: Any, doubles: None) -> None:
    module, mask, x = Masked(), MASKS[kind](), torch.randn(8, 3)
    parallel, bias = DataParallel(module, devices), torch.ones(1, 3)
    expected = module(x, mask)
    for _ in range(6):
        torch.testing.assert_close(parallel(x, shared(mask)), expected)
        torch.testing.assert_close(parallel(x, mask=shared(mask)), expected)
        torch.testing.assert_close(
            parallel(x, shared(mask), {"bias": [shared(bias)]}), expected + 1
        )
        torch.testing.assert_close(
            parallel(x, more=shared({"bias": [bias]}), mask=shared(mask)), expected + 1
        )
    torch.testing.assert_close(
        parallel.step(lambda module, x, mask: module(x, mask).mean(), x, shared(mask)),
        expected.mean(),
    )
    parallel.close()


@pytest.mark.parametrize("leaf", [True, False])
def test_gradients_of_an_argument_that_goes_whole_are_summed(leaf: bool, doubles: None) -> None:
    x, mask = torch.randn(8, 3), torch.randn(3, 3, requires_grad=True)
    Masked()(x, mask).pow(2).sum().backward()
    expected, mask.grad = mask.grad, None
    parallel = DataParallel(Masked(), CPUS)
    parallel(x, shared(mask if leaf else mask * 1)).pow(2).sum().backward()
    torch.testing.assert_close(mask.grad, expected)
    parallel.close()


def test_the_mark_is_on_what_shared_gives_and_on_nothing_else() -> None:
    mask = torch.ones(4, 4)
    marked = shared(mask)
    assert marked.data_ptr() == mask.data_ptr()
    for sliced in (mask, marked + 1, marked[:], marked.clone()):
        assert [len(each) for each in scatter(sliced, CPUS)] == [2, 2]
    assert [len(each[1]) for each in scatter((torch.ones(2), marked), CPUS)] == [4, 4]
    assert shared(("text", 3, None)) == ("text", 3, None)


@pytest.mark.parametrize(
    "other",
    [torch.ones(5, 5), torch.ones(3, 3).to_sparse(), numpy.ones((5, 5))],
    ids=["dense", "sparse", "array"],
)
def test_the_error_says_how(other: Any) -> None:
    with pytest.raises(UsageError, match=r"teamster\.parallel\.shared\(it\)"):
        DataParallel(Masked(), CPUS)(torch.ones(8, 3), other)
    with pytest.raises(UsageError, match=r"no dimension 1 .* teamster\.parallel\.shared\(it\)"):
        DataParallel(Masked(), CPUS, dim=1)(torch.ones(3, 8), torch.ones(3))
