# SPDX-License-Identifier: BSD-3-Clause
"""When replicas have to take turns: for checkpoints that draw, and renormalised embeddings.

`torch.utils.checkpoint` runs a part of the module again in the backward pass, with the state that
the generator of random numbers had at first. torch has one such generator for all threads of a CPU:
replicas that run at once draw from it in between, and would be run again with other numbers than
they had. So the first pass of a module runs in turn, and one looks whether it draws random numbers;
if so, the second one, too, and one looks whether what it leaves for the backward pass belongs to a
checkpoint. Only then turns are for good. A module that has changed is looked at again, and one that
changes all the time runs in turn if it draws.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from teamster.parallel.thread_state import is_hooked

# Types of objects, of both kinds of checkpoints
_LEFT_BY_CHECKPOINTS = ("_CheckpointFrame", "CheckpointFunctionBackward")

_MOST_LOOKS = 8  # at a module that changes all the time


class Watch:
    """One pass: whether it runs in turn, and what is seen of it."""

    def __init__(self, *, in_turn: bool, looks: bool) -> None:
        self.in_turn = in_turn
        self.looks = looks
        # held: what is new must not have the place of what has gone
        self._before = _objects_of_checkpoints() if looks else []
        self.checkpoints = False

    def look(self) -> None:
        """The graph is there now."""
        if self.looks and not self.checkpoints:
            known = set(map(id, self._before))
            self.checkpoints = any(id(each) not in known for each in _objects_of_checkpoints())
            self._before.clear()


@dataclass(slots=True)
class _Seen:
    """Of a module as it is; None: not yet."""

    draws: bool | None = None
    checkpoints: bool | None = None
    late: bool = False
    """Whether it drew only after it had been seen not to."""


class Recomputing:
    """What the passes of one module have shown."""

    def __init__(self) -> None:
        self._built = self._changes = 0
        self._latest = _Seen()
        self._renormalised = False

    @contextmanager
    def watch(self, module: nn.Module, built: int) -> Iterator[Watch]:
        """Look at a pass that may have a backward pass.

        Args:
            module: the user's.
            built: how often its replicas were built; it has not changed while that stays the same.

        Yields:
            What says whether its replicas run in turn; to be told when the graph is there.
        """
        if built != self._built:
            self._built, self._renormalised = built, is_renormalised(module)
            self._changes += 1
            before = self._latest
            self._latest = (
                _Seen() if self._changes <= _MOST_LOOKS else _Seen(before.draws, bool(before.draws))
            )
        seen = self._latest
        in_turn = seen.draws is None or (seen.draws and seen.checkpoints is not False)
        watch = Watch(
            in_turn=in_turn or self._renormalised or is_hooked(),
            looks=bool(seen.draws) and seen.checkpoints is None,
        )
        state = torch.get_rng_state()
        yield watch
        draws = not torch.equal(state, torch.get_rng_state())
        if watch.looks:
            seen.checkpoints = watch.checkpoints
            if seen.late and seen.checkpoints:
                _warn()
        if draws and seen.draws is False:
            seen.late, seen.checkpoints = True, None
        seen.draws = draws or bool(seen.draws)


def _warn() -> None:
    warnings.warn(
        "a module that makes checkpoints has begun to draw random numbers: in a step before, "
        "gradients may be of other numbers than outputs; from now on its replicas take turns",
        stacklevel=7,
    )


def is_renormalised(module: nn.Module) -> bool:
    """Whether a forward pass writes into shared parameters, as embeddings with a largest norm do.

    Args:
        module: the user's.

    Returns:
        True where two replicas at once might scale a row twice.

    Example:
        >>> odd = nn.Sequential(nn.Embedding(3, 2, max_norm=1.0))
        >>> is_renormalised(odd), is_renormalised(nn.Embedding(3, 2))
        (True, False)
    """
    return any(each.__dict__.get("max_norm") is not None for each in module.modules())


def _objects_of_checkpoints() -> list[object]:
    """All in the program: the graph of a checkpoint keeps one."""
    return [each for each in gc.get_objects() if type(each).__name__ in _LEFT_BY_CHECKPOINTS]


def looking(function: Callable[..., torch.Tensor], watch: Watch) -> Callable[..., torch.Tensor]:
    """A loss function after which one looks.

    Args:
        function: the user's.
        watch: told when it has returned.

    Returns:
        The same function where nothing is looked for.

    Example:
        >>> looking(torch.sum, Watch(in_turn=False, looks=False)) is torch.sum
        True
    """
    if not watch.looks:
        return function

    def run(*arguments: object, **keywords: object) -> torch.Tensor:
        result = function(*arguments, **keywords)
        watch.look()
        return result

    return run
