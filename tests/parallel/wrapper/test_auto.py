# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` without `device_ids`: whatever the trial does, results are the plain module's."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from teamster.errors import UsageError
from teamster.parallel import DataParallel, applying
from teamster.tensors import devices
from tests.parallel.models import check_gradients, mlp


class Lengths(nn.Module):
    def forward(self, packed: PackedSequence) -> torch.Tensor:
        return packed.data.sum(), packed.batch_sizes


def test_a_packed_sequence_goes_to_the_plain_module_where_nobody_named_replicas() -> None:
    packed = pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])
    for parallel in (DataParallel(Lengths()), DataParallel(Lengths(), 1)):
        for _ in range(16):
            total, sizes = parallel(packed)
            assert (total.item(), sizes.tolist()) == (3.0, [2, 1])
        parallel.close()
    with pytest.raises(UsageError, match="PackedSequence cannot be scattered"):
        DataParallel(Lengths(), 2)(packed)


def test_cores_in_groups_compute_what_the_plain_module_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (devices, applying):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain))
    seen = set()
    for _ in range(30):
        x = torch.randn(13, 6)
        for model in (plain, parallel):
            model.zero_grad()
            model(x).pow(2).sum().backward()
        check_gradients(plain, parallel.module)
        seen |= {(count, each._inner) for count, each in parallel._runtime.threads.items()}
    assert seen == {(2, 3), (4, 1), (6, 1)}
    assert len(parallel._runtime.threads) <= 1  # those of the others have ended
    parallel.close()


class Odd(nn.Module):
    """Outputs that replicas cannot put together as the plain module has them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.rnn = kind, nn.RNN(3, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        if self.kind == "scalar":
            return x.mean()
        if self.kind == "strings":
            return torch.ones(len(x), 1)
        if self.kind == "hidden":
            return self.rnn(x)[1]
        if self.kind == "object":
            return object()
        return len(x)


@pytest.mark.parametrize("kind", ["scalar", "strings", "hidden", "object", "length"])
def test_without_device_ids_outputs_are_the_plain_modules_whatever_they_are(kind: str) -> None:
    plain = Odd(kind)
    parallel = two(plain)
    for size in (3, 4, 5, 3, 4, 5, 3, 4, 5, 3):
        x: Any = ["a"] * size if kind == "strings" else torch.randn(size, 2, 3)
        found, expected = parallel(x), plain(x)
        assert type(found) is type(expected)
        if isinstance(found, torch.Tensor):
            torch.testing.assert_close(found, expected)
        elif isinstance(found, int):
            assert found == expected
    parallel.close()


class Similarity(nn.Module):
    """A square of samples, as contrastive losses take it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.t()


def two(module: nn.Module) -> DataParallel:
    """As on a machine with two cores."""
    parallel = DataParallel(module)
    parallel.device_ids = [torch.device("cpu")] * 2
    parallel._fixed = False
    return parallel


def test_without_device_ids_samples_may_meet_each_other() -> None:
    parallel = two(Similarity())
    for _ in range(10):
        x = torch.randn(8, 6)
        torch.testing.assert_close(parallel(x), x @ x.t())
    parallel.close()


def test_without_device_ids_small_batches_end_a_trial_too() -> None:
    parallel = two(mlp())
    for _ in range(20):
        parallel(torch.randn(1, 6)).sum().backward()
    assert parallel._runtime.choosing.in_use() is not None
    parallel.close()


class Whole(nn.Module):
    """Works for the whole batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 8
        return self.linear(x)


def test_without_device_ids_what_only_the_plain_module_can_do_is_done() -> None:
    plain = Whole()
    parallel, x = two(copy.deepcopy(plain)), torch.randn(8, 6)
    for _ in range(6):
        for model in (plain, parallel):
            model.zero_grad()
        loss = plain(x).mean()
        loss.backward()
        torch.testing.assert_close(
            parallel.step(lambda module, x: module(x).mean(), x), loss.detach()
        )
        check_gradients(plain, parallel.module)
        torch.testing.assert_close(parallel(x), plain(x))
    with pytest.raises(AssertionError):
        parallel(torch.randn(7, 6))
    parallel.close()


def test_without_device_ids_an_error_is_the_plain_modules() -> None:
    parallel = DataParallel(mlp())
    for _ in range(6):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
            parallel(torch.randn(8, 5))
        assert not hasattr(caught.value, "__notes__")  # no replica's
    assert parallel(torch.randn(8, 6)).shape == (8, 3)
    parallel.close()


NESTED = """
import torch, warnings
from torch import nn
from teamster.parallel import DataParallel
warnings.simplefilter("ignore")
class Ragged(nn.Module):
    def forward(self, x):
        return torch.nested.as_nested_tensor([x[0], x[1, :1]])
model = DataParallel(Ragged())
model.device_ids, model._fixed = [torch.device("cpu")] * 2, False
for size in (3, 4, 5, 3, 4, 5):
    x = torch.randn(size, 2, 3)
    found = model(x).unbind()
    assert torch.equal(found[0], x[0]) and torch.equal(found[1], x[1, :1])
model.close()
"""


def test_without_device_ids_a_nested_output_is_the_plain_modules() -> None:
    """It has no shape, so nothing that looks at shapes may look at it."""
    done = subprocess.run(
        [sys.executable, "-c", NESTED], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
