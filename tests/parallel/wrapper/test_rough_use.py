# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` used as programs use it.

Forked, in several threads, twice before one backward pass, inside of itself.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from teamster.parallel import DataParallel
from tests.conftest import RunScript
from tests.parallel.models import check_gradients, mlp


@dataclass
class Output(OrderedDict):  # type: ignore[type-arg]
    """A dataclass and a dict at once, as outputs of large models are."""

    logits: torch.Tensor
    hidden: Any = None

    def __post_init__(self) -> None:
        self["logits"] = self.logits


def test_outputs_that_are_dataclass_and_dict_at_once() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Output:
            return Output(2 * x)

    parallel = DataParallel(Model(), 2)
    out = parallel(torch.arange(6.0))
    assert out.logits.tolist() == out["logits"].tolist() == [0, 2, 4, 6, 8, 10]
    parallel.close()


def test_a_mapping_with_a_store_of_its_own_is_not_written_over() -> None:
    class Batch(MutableMapping):  # type: ignore[type-arg]
        def __init__(self, values: dict[str, Any]) -> None:
            self.store = dict(values)

        def __getitem__(self, key: str) -> Any:
            return self.store[key]

        def __setitem__(self, key: str, value: Any) -> None:
            self.store[key] = value

        def __delitem__(self, key: str) -> None:
            del self.store[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self.store)

        def __len__(self) -> int:
            return len(self.store)

    class Model(nn.Module):
        def forward(self, batch: Batch) -> torch.Tensor:
            return batch["x"]

    parallel = DataParallel(Model(), 2)
    batch = Batch({"x": torch.arange(4)})
    assert parallel(batch).tolist() == [0, 1, 2, 3]
    assert batch["x"].tolist() == [0, 1, 2, 3]
    parallel.close()


def test_two_forward_passes_before_one_backward_pass() -> None:
    plain = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).eval()
    parallel = DataParallel(copy.deepcopy(plain), 2).eval()
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    (plain(a).sum() + plain(b).pow(2).sum()).backward()
    (parallel(a).sum() + parallel(b).pow(2).sum()).backward()
    check_gradients(plain, parallel.module)
    parallel.train()
    (parallel(a).sum() + parallel(b).sum()).backward()
    parallel.close()


def test_steps_with_inputs_that_have_a_graph() -> None:
    encoder, head = nn.Linear(6, 6), mlp()
    whole = nn.Sequential(copy.deepcopy(encoder), copy.deepcopy(head))
    parallel = DataParallel(head, 2)
    x = torch.randn(8, 6)
    parallel.step(lambda module, x: module(x).pow(2).mean(), encoder(x))
    whole(x).pow(2).mean().backward()
    check_gradients(nn.Sequential(encoder, parallel.module), whole)
    parallel.close()


def test_threads_of_the_program_take_turns() -> None:
    plain = mlp()
    parallel = DataParallel(copy.deepcopy(plain), 2)
    batches = [torch.randn(8, 6) for _ in range(4)]
    found: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        for _ in range(10):
            found[number] = parallel(batches[number]).detach()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in enumerate(batches):
        torch.testing.assert_close(found[number], plain(batch).detach())
    parallel.close()


FORKED = """
import os, torch
from torch import nn
from teamster.parallel import DataParallel

torch.set_default_dtype(torch.float64)
torch.randn(1 << 18).exp()  # the caller has OpenMP's helpers, which the copy has not
for _ in range(10):
    parallel = DataParallel(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)), 2)
    x = torch.randn(4, 6)
    parallel(x)  # the first pass is looked at, in turn
    expected = parallel(x).detach()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(parallel(x).detach(), expected) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    parallel.close()
"""


def test_a_forked_copy_of_the_program_has_threads_of_its_own(run_script: RunScript) -> None:
    found = run_script(FORKED, timeout=60)
    assert found.stdout.split() == ["0"] * 10, found.stderr[-2000:]


def test_one_inside_of_another() -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    inner = DataParallel(copy.deepcopy(plain[0]), 2)
    parallel = DataParallel(nn.Sequential(inner, copy.deepcopy(plain[1])), 2)
    x = torch.randn(8, 3)
    torch.testing.assert_close(parallel(x), plain(x))
    parallel(x).sum().backward()
    plain(x).sum().backward()
    torch.testing.assert_close(inner.module.weight.grad, plain[0].weight.grad)
    inner.close()
    parallel.close()
    for replica in parallel._runtime.cpu.replicas._made:  # type: ignore[union-attr]
        replica[0].close()  # type: ignore[index]


def test_a_thread_that_cannot_be_started_is_an_error_and_no_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parallel = DataParallel(mlp(), 2)
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name.startswith("teamster-replica-1"):
            raise RuntimeError("can't start new thread")
        start(self)

    parallel(torch.randn(4, 6))  # in turn

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            parallel(torch.randn(4, 6))
    assert parallel(torch.randn(4, 6)).shape == (4, 3)
    parallel.close()


def test_functions_and_subclasses_as_losses() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return super().forward(input, target) ** 2

    plain = mlp()
    x, y = torch.randn(9, 6), torch.tensor([0, 1, 2, -100, -100, -100, -100, 1, 0])
    parallel = DataParallel(plain, 2, loss=functional.cross_entropy)
    torch.testing.assert_close(parallel(x, y), functional.cross_entropy(plain(x), y))
    parallel.close()
    focal = DataParallel(plain, ["cpu"], loss=Focal())
    torch.testing.assert_close(focal(x, y), Focal()(plain(x), y))


def test_weights_that_change_their_layout() -> None:
    parallel = DataParallel(nn.Linear(3, 3), 2)
    x = torch.randn(4, 3)
    parallel(x)
    parallel.module.weight.data = parallel.module.weight.data.t()
    torch.testing.assert_close(parallel(x), parallel.module(x))
    parallel.close()
