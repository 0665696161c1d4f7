# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel` and threads: several callers, one inside of another, replicas that call what they
are part of, forks.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from teamster.errors import UsageError
from teamster.parallel import DataParallel, data_parallel
from tests.conftest import RunScript
from tests.parallel.models import mlp

WAIT_S = 20


class Inside(nn.Module):
    """Runs another module on two devices inside of its own forward pass."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = [run]  # not a child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run[0](x)


def test_a_replica_that_calls_what_it_is_part_of_is_told_so() -> None:
    parallel, x = DataParallel(mlp(), 2), torch.randn(8, 6)
    for _ in range(3):
        # In turn, and at once: where both replicas waited for the caller, who waited for them
        with pytest.raises(UsageError, match="called the DataParallel that it is part of"):
            parallel.step(lambda module, x: parallel(x).mean(), x)
        assert parallel(x).shape == (8, 3)
    parallel.close()


def test_threads_whose_replicas_use_each_others_threads_do_not_wait_for_each_other() -> None:
    plain, x = mlp(), torch.randn(12, 6)
    found: list[torch.Tensor] = []

    def nested(outer: int, inner: int) -> None:
        module = Inside(lambda x: data_parallel(plain, x, ["cpu"] * inner))
        for _ in range(20):
            found.append(data_parallel(module, x, ["cpu"] * outer))

    threads = [threading.Thread(target=nested, args=pair, daemon=True) for pair in ((2, 3), (3, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(found) == 40, "they wait for each other"
    for each in found:
        torch.testing.assert_close(each, plain(x))


class Recomputed(nn.Module):
    """Runs in turn: it draws, and makes checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(
            lambda x: self.inner(functional.dropout(x, 1e-12)), x, use_reentrant=False
        )


def test_threads_of_the_program_whose_replicas_take_turns_get_their_own_gradients() -> None:
    # Backward passes in turn ran in each caller's thread, on the same leaves: 102 of 450 gradients
    # were wrong.
    plain = Recomputed()
    parallel, weights = DataParallel(plain, 2), list(plain.parameters())
    inputs = [torch.randn(16, 6) for _ in range(3)]
    expected = [torch.autograd.grad(plain(x).sum(), weights) for x in inputs]
    for x in inputs:
        parallel(x)
    wrong: list[str] = []

    def work(index: int) -> None:
        for _ in range(40):
            try:
                found = torch.autograd.grad(parallel(inputs[index]).sum(), weights)
                if not all(
                    torch.allclose(one, other)
                    for one, other in zip(found, expected[index], strict=True)
                ):
                    wrong.append("another gradient")
            except RuntimeError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    parallel.close()


def test_threads_of_the_program_that_meet_a_new_model_get_their_own_gradients() -> None:
    # The first pass ran in turn, in its caller's thread; the others' ran at once, on the same
    # leaves: 24 of 40 were wrong.
    x, wrong = torch.randn(16, 6), []
    for _ in range(15):
        plain = mlp()
        parallel, weights = DataParallel(plain, 2), list(plain.parameters())
        expected = torch.autograd.grad(plain(x).sum(), weights)

        def work() -> None:
            for _ in range(3):
                try:
                    found = torch.autograd.grad(parallel(x).sum(), weights)  # noqa: B023
                    pairs = zip(found, expected, strict=True)  # noqa: B023
                    wrong.extend(1 for one, other in pairs if not torch.allclose(one, other))
                except RuntimeError as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        parallel.close()
    assert not wrong


FORKED = """
import os, threading, torch
from torch import nn
from teamster.parallel import DataParallel

inside, go_on = threading.Event(), threading.Event()

class Waiting(nn.Module):
    def forward(self, x):
        if threading.current_thread() is not threading.main_thread() and x.sum() > 1000:
            inside.set()
            go_on.wait()
        return x

parallel = DataParallel(Waiting(), 2)
for _ in range(2):
    parallel(torch.ones(4))
thread = threading.Thread(target=parallel, args=(torch.full((4,), 1e4),), daemon=True)
thread.start()
inside.wait()
pid = os.fork()
if pid == 0:
    os._exit(0 if parallel(torch.ones(4)).tolist() == [1.0] * 4 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
go_on.set()
thread.join()
"""


def test_a_copy_that_was_forked_in_the_middle_of_a_step_works(run_script: RunScript) -> None:
    found = run_script(FORKED, timeout=40)
    assert found.stdout.strip() == "0", found.stderr[-2000:]


def test_shared_threads_that_are_reached_again_through_others_do_not_wait_for_themselves() -> None:
    plain, devices = mlp(), ["cpu", "cpu"]
    middle = DataParallel(Inside(lambda x: data_parallel(plain, x, devices)), 2)
    outer = Inside(middle)
    x, found = torch.randn(8, 6), []
    # The shared threads ran `outer`, whose replicas waited for those of `middle`, which waited for
    # the shared threads.
    thread = threading.Thread(
        target=lambda: found.append(data_parallel(outer, x, devices)), daemon=True
    )
    thread.start()
    thread.join(WAIT_S)
    assert found, "it waits for itself"
    torch.testing.assert_close(found[0], plain(x))
    middle.close()


def test_one_inside_of_another_leaves_the_programs_number_of_threads_alone() -> None:
    plain = mlp()
    inner = [DataParallel(plain, 2) for _ in range(8)]
    number = iter(inner)
    outer = DataParallel(Inside(lambda x: next(number)(x)), 2)
    for _ in range(4):
        torch.testing.assert_close(outer(x := torch.randn(8, 6)), plain(x))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [torch.get_num_threads()]
    for each in (outer, *inner):
        each.close()
