# SPDX-License-Identifier: BSD-3-Clause
"""How many CPU replicas pay: in the first steps some numbers take turns, and the fastest stays.

::

    16 cores:  1, 2, 4, 8, 16 replicas of 16, 8, 4, 2, 1 inner threads, 1, 2, ...
               -->  the fastest, for some hundred steps

One replica is the plain module. Training and evaluation, forward passes and `step()` choose each
for themselves; how the turns are taken is written in spine/plan/trials.py. A forward pass with
gradients is timed together with its backward pass, where one follows before the next forward pass.
"""

from __future__ import annotations

import warnings
from time import perf_counter
from typing import Any, NamedTuple

import torch

from teamster.spine.plan.trials import Trials, Turn
from teamster.tensors.nest import tensors_of

_HINT_AFTER = 12  # steps, of which the first are no rule
_ALONE = 1.25  # replicas at one time, on average: no more than one at work, as timing goes


class StepKind(NamedTuple):
    """Steps that are alike."""

    by_step: bool
    with_grad: bool
    training: bool


class Trial:
    """One step on its way: a turn of `spine.plan.trials`, timed by the sample.

    Args:
        turn: with the number of replicas; its time counts where that takes turns.

    Attributes:
        samples: in the batch.
        began_s: when it began.
    """

    __slots__ = ("began_s", "samples", "turn")

    def __init__(self, turn: Turn[int]) -> None:
        self.turn = turn
        self.samples = 1
        self.began_s = perf_counter()

    @property
    def replicas(self) -> int:
        """How many run it."""
        return self.turn.setting

    def end(self, output: Any = None) -> None:
        """The step, or its forward pass, is over; a graph of `output` tells of a backward pass."""
        if not self.turn.counts:
            return
        self.turn.end(self._seconds())
        self.began_s = 0.0
        for tensor in tensors_of(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(self._at_backward)

    def _seconds(self) -> float:
        return (perf_counter() - self.began_s) / max(1, self.samples)

    def _at_backward(self, grads: Any) -> None:
        # Not a second pass over the same graph, nor one that goes through later forward passes: of
        # two that come back at once, the first would have had the time of both
        if not self.began_s and not self.turn.later_seconds and self.turn.is_latest:
            self.began_s = perf_counter()
            torch.autograd.Variable._execution_engine.queue_callback(self._at_its_end)

    def _at_its_end(self) -> None:
        self.turn.later_seconds = self._seconds()


def group_counts(cores: int) -> list[int]:
    """Into how many groups cores are shared out to see what pays.

    Args:
        cores: that may be used.

    Returns:
        Powers of two, and one group for each core.

    Example:
        >>> group_counts(2), group_counts(12)
        ([1, 2], [1, 2, 4, 8, 12])
    """
    return [*(1 << power for power in range(cores.bit_length()) if 1 << power < cores), cores]


class Choosing:
    """Chooses the number of replicas for each kind of step.

    Args:
        most: replicas at the most.
        fixed: whether the user has named them: then they are used.
        cpu: whether they are on the CPU.

    Example:
        >>> Choosing(2, fixed=False, cpu=True).begin(StepKind(False, True, True)).replicas
        1
    """

    def __init__(self, most: int, *, fixed: bool, cpu: bool) -> None:
        self._most = most
        self._hints = fixed and cpu and most > 1
        self._counts = group_counts(most) if cpu and not fixed else [most]
        self._trials: dict[StepKind, Trials[int]] = {}

    def begin(self, kind: StepKind) -> Trial:
        """A step begins.

        Args:
            kind: what it is like.

        Returns:
            How to run it; to be told of its end.
        """
        trials = self._trials.get(kind)
        if trials is None:
            trials = self._trials.setdefault(kind, Trials(self._counts))
        return Trial(trials.begin())

    def rule_out(self, kind: StepKind) -> None:
        """Leave steps like this one to the plain module.

        Args:
            kind: of a step that replicas could not do.
        """
        self._trials[kind].rule_out()

    def in_use(self) -> set[int] | None:
        """The numbers of replicas that were chosen; None while something is tried."""
        trials = list(self._trials.values())
        return None if any(each.is_open() for each in trials) else {each.best for each in trials}

    def say_nothing(self) -> None:
        """No hint: who uses the replicas measures by itself whether they pay."""
        self._hints = False

    def hint(self, steps: int, at_once: float) -> None:
        """Say once that replicas which the user has asked for do not run at the same time.

        Args:
            steps: so far.
            at_once: how many replicas computed at one time, on average.
        """
        if not self._hints or steps < _HINT_AFTER:
            return
        self._hints = False
        if at_once < _ALONE:
            warnings.warn(
                f"of {self._most} CPU replicas {at_once:.2f} compute at one time: operations as "
                "small as this module's hold the interpreter's lock (GIL); device_ids=None "
                "measures whether the plain module is faster",
                stacklevel=4,
            )
