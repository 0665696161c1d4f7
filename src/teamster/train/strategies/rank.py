# SPDX-License-Identifier: BSD-3-Clause
"""A rank other than the first, in its own process: it does what the program sends.

::

    program                                  rank
                <-- "started"
      "module", module, shared  ------------->  has the module, over the shared parameters
      "state", flags            ------------->  train() or eval(), what wants gradients
      "meet", line, channels    ------------->  where slices meet for BatchNorm's statistics
      "work", Work, share, ...  ------------->  forward, loss, backward of a slice
                <-- "done", losses, which gradients are there, sparse ones
                <-- "failed", the error
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

import torch
from torch import nn

from teamster.spine.workers.exceptions import describe
from teamster.tasks.spawned import Parent, parent
from teamster.train.strategies.batchnorm import Together, run_together
from teamster.train.strategies.meeting import sum_by
from teamster.train.strategies.shared_model import Gradients, SharedModel, Survey, copy_all
from teamster.train.strategies.strategy import Work
from teamster.train.training_state import random_states, restore_random


class Rank:
    """What a rank knows between messages.

    Args:
        number: 1 and up.
        threads: inner ones of torch.
    """

    def __init__(self, number: int, threads: int) -> None:
        self._number = number
        self._module: nn.Module = nn.Identity()
        self._gradients = Gradients(self._module, [])
        self._published: list[torch.Tensor] = []
        self._together: Together | None = None
        torch.set_num_threads(threads)

    def take_module(self, module: nn.Module, shared: SharedModel) -> None:
        """Have the module, which was changed in the program or is new here."""
        shared.attach(module)
        self._module = module
        self._gradients.close()
        self._gradients = Gradients(module, shared.gradients(self._number))
        self._published = shared.published()

    def take_state(self, state: ModuleState) -> None:
        """What may change from one step to the next."""
        state.apply(self._module)
        self._gradients.watch(self._module)

    def meet(self, line: Any, channels: int) -> None:
        """Have a line by which sums over all slices come."""
        self._together = Together(partial(sum_by, line), channels)

    def work(self, work: Work, share: float, meets: bool) -> tuple[Any, ...]:
        """Forward, loss and backward of a slice."""
        if self._published:
            copy_all(Survey.of(self._module).buffers, self._published)
        if work.seed is not None:
            seed_all(work.seed, work.number, self._number)
        self._gradients.begin()
        losses = run_together(self._module, work, share, self._together if meets else None)
        found = self._gradients
        return "done", losses, sorted(found.seen), found.sparse


class ModuleState:
    """Flags of a module that a program may change at any time, and that cost little to read.

    Args:
        survey: of it.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> state = ModuleState(Survey.of(module.eval()))
        >>> state == ModuleState(Survey.of(module)), state == ModuleState(Survey.of(module.train()))
        (True, False)
    """

    def __init__(self, survey: Survey) -> None:
        self.training = [each.training for each in survey.modules]
        self.wanted = [each.requires_grad for each in survey.parameters]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ModuleState)
            and self.training == other.training
            and self.wanted == other.wanted
        )

    __hash__ = None  # type: ignore[assignment]  # it is compared, and kept nowhere

    def apply(self, module: nn.Module) -> None:
        """Have a copy of the module be as it was."""
        for each, training in zip(module.modules(), self.training, strict=True):
            each.training = training
        for parameter, wanted in zip(module.parameters(), self.wanted, strict=True):
            parameter.requires_grad_(wanted)


def seed_all(seed: int, step: int, rank: int) -> None:
    """The random numbers of one rank in one step.

    Args:
        seed: of the training.
        step: its number.
        rank: its number.

    Example:
        >>> seed_all(0, 1, 1)
        >>> first = torch.rand(1)
        >>> seed_all(0, 1, 1)
        >>> bool(first == torch.rand(1))
        True
    """
    value = hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF
    torch.manual_seed(value)
    random.seed(value)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(value & 0xFFFF_FFFF)


@contextlib.contextmanager
def drawing_as(rank: int, work: Work) -> Iterator[None]:
    """A block in which a rank's numbers are drawn; after it all generators are as before.

    Args:
        rank: its number.
        work: says the seed and the step.

    Example:
        >>> before = torch.get_rng_state()
        >>> with drawing_as(1, Work(print, (), seed=7)):
        ...     drawn = torch.rand(1)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    states = random_states()
    try:
        if work.seed is not None:
            seed_all(work.seed, work.number, rank)
        yield
    finally:
        restore_random(states)


class Prefixed:
    r"""A stream that puts a text before each line.

    Args:
        stream: where lines go, whole.
        prefix: the text.

    Example:
        >>> import io
        >>> stream = io.StringIO()
        >>> print("a", end="\nb", file=(prefixed := Prefixed(stream, "1: ")))
        >>> prefixed.flush()
        >>> stream.getvalue()
        '1: a\n1: b\n'
    """

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix
        self._line = ""

    def write(self, text: str) -> int:
        """Whole lines go on; the rest waits."""
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """A line that waits is ended."""
        if self._line:
            self.write("\n")
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_rank(number: int, threads: int) -> None:
    """What the process of a rank does, until the program wants no more of it.

    Args:
        number: of the rank.
        threads: inner ones of torch.
    """
    program = parent()
    assert program is not None
    sys.stdout = Prefixed(sys.stdout, f"rank {number}: ")
    rank = Rank(number, threads)
    program.send(("started",))
    while (message := program.recv()) is not None:
        _serve(program, rank, *message)
        sys.stdout.flush()


def _serve(program: Parent, rank: Rank, kind: str, *rest: Any) -> None:
    try:
        if kind == "module":
            rank.take_module(*rest)
        elif kind == "state":
            rank.take_state(*rest)
        elif kind == "meet":
            rank.meet(*rest)
        else:
            program.send(rank.work(*rest))
    except Exception as error:
        program.send(("failed", describe(error)))
        if kind != "work":  # the program waits for one answer a step
            raise
