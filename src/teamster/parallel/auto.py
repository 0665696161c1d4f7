# SPDX-License-Identifier: BSD-3-Clause
"""How many CPU replicas pay, found out in the first steps: some numbers of them take turns, the fastest stays.

::

    16 cores:   1, 2, 4, 8, 16 replicas of 16, 8, 4, 2, 1 inner threads, 1, 2, ...    -->    the fastest, for some hundred steps

One replica is the plain module. Who is more than twice as slow as the fastest has no further turn.

Training and evaluation, forward passes and `step()` choose each for themselves. A forward pass with gradients is timed together
with its backward pass, where one follows before the next forward pass. After some hundred steps both take turns again: what was
measured on a busy machine does not stay for good.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import torch

from teamster.tensors.nest import tensors_of

_TURNS = 4  # of each; the first is a warm-up
_WORTH = 0.95
_HOPELESS = 2.0
_AGAIN = 500  # steps, and twice as many each time
_HINT_AFTER = 12
_ALONE = 1.25


class Kind(NamedTuple):
    """Steps that are alike."""

    by_step: bool
    with_grad: bool
    training: bool


@dataclass(slots=True)
class Trial:
    """One step on its way.

    Attributes:
        replicas: how many run it.
        ended: of a trial, those that as many ran; None where nothing is tried.
        samples: in the batch.
        began_s: when it began.
        forward_s: how long it took a sample, without what comes back.
        backward_s: of its backward pass, in which nothing else came back; 0 where there was none.
    """

    replicas: int
    ended: list[Trial] | None = None
    samples: int = 1
    began_s: float = field(default_factory=perf_counter)
    forward_s: float = 0.0
    backward_s: float = 0.0
    is_latest: Callable[[], bool] = lambda: True

    def end(self, output: Any = None) -> None:
        """The step, or its forward pass, is over; a graph in `output` tells when the backward pass is."""
        if self.ended is None:
            return
        self.forward_s = self._seconds()
        self.ended.append(self)
        self.began_s = 0.0
        for tensor in tensors_of(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(self._at_backward)

    def _seconds(self) -> float:
        return (perf_counter() - self.began_s) / max(1, self.samples)

    def _at_backward(self, grads: Any) -> None:
        # A second pass over the same graph is another affair, and so is one that goes through later forward passes, too: of two
        # that come back at once, the first would have had the time of both.
        if not self.began_s and not self.backward_s and self.is_latest():
            self.began_s = perf_counter()
            torch.autograd.Variable._execution_engine.queue_callback(self._at_its_end)

    def _at_its_end(self) -> None:
        self.backward_s = self._seconds()


class Trials:
    """Numbers of replicas that take turns until the fastest is known.

    Args:
        counts: the first one stays unless another is clearly faster.

    Attributes:
        best: the fastest, as far as one knows.

    Example:
        >>> trials = Trials([1, 2])
        >>> while trials.is_open():
        ...     trial = trials.begin()
        ...     trial.ended.append(Trial(trial.replicas, forward_s=1.0 / trial.replicas))
        >>> trials.best
        2
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._ended: dict[int, list[Trial]] = {count: [] for count in counts}
        self._open = len(counts) > 1
        self._pause = self._left = _AGAIN
        self._begun = 0
        self._lock = threading.Lock()
        self.best = counts[0]

    def is_open(self) -> bool:
        """Whether they take turns."""
        with self._lock:
            return self._is_open()

    def _is_open(self) -> bool:
        if self._open and all(len(self._ended[count]) >= _TURNS for count in self._hopeful()):
            self._conclude()
        return self._open

    def _hopeful(self) -> list[int]:
        """Those that may still be the fastest; the first of them always."""
        seconds = self._seconds()
        least = min(seconds.values(), default=0.0)
        return [count for count in self._counts if count == self._counts[0] or seconds.get(count, 0.0) <= _HOPELESS * least]

    def _seconds(self) -> dict[int, float]:
        """The shortest trials so far, after the first: with the backward pass where all have had one."""
        trials = {count: ended[1:] for count, ended in self._ended.items() if len(ended) > 1}
        if all(any(trial.backward_s for trial in each) for each in trials.values()):
            return {
                count: min(trial.forward_s + trial.backward_s for trial in each if trial.backward_s)
                for count, each in trials.items()
            }
        return {count: min(trial.forward_s for trial in each) for count, each in trials.items()}

    def begin(self) -> Trial:
        """The next step: whoever had fewest turns has it, or the best."""
        with self._lock:
            self._begun += 1
            if self._is_open():
                number = self._begun
                count = min(self._hopeful(), key=lambda count: len(self._ended[count]))
                return Trial(count, self._ended[count], is_latest=lambda: number == self._begun)
            if len(self._counts) > 1:
                self._left -= 1
                self._open = self._left <= 0
            return Trial(self.best)

    def rule_out(self) -> None:
        """More replicas than the first number cannot do it: no more trials."""
        with self._lock:
            self.best = self._counts[0]
            self._counts, self._open = self._counts[:1], False

    def _conclude(self) -> None:
        seconds = self._seconds()
        first, fastest = self._counts[0], min(seconds, key=seconds.__getitem__)
        self.best = fastest if seconds[fastest] < _WORTH * seconds[first] else first
        self._ended = {count: [] for count in self._counts}
        self._open = False
        self._left = self._pause
        self._pause *= 2


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
        >>> Choosing(2, fixed=False, cpu=True).begin(Kind(False, True, True)).replicas
        1
    """

    def __init__(self, most: int, *, fixed: bool, cpu: bool) -> None:
        self._most = most
        self._hints = fixed and cpu and most > 1
        self._counts = group_counts(most) if cpu and not fixed else [most]
        self._trials: dict[Kind, Trials] = {}

    def begin(self, kind: Kind) -> Trial:
        """A step begins.

        Args:
            kind: what it is like.

        Returns:
            How to run it; to be told of its end.
        """
        trials = self._trials.get(kind)
        if trials is None:
            trials = self._trials.setdefault(kind, Trials(self._counts))
        return trials.begin()

    def rule_out(self, kind: Kind) -> None:
        """Leave steps like this one to the plain module.

        Args:
            kind: of a step that replicas could not do.
        """
        self._trials[kind].rule_out()

    def in_use(self) -> set[int] | None:
        """The numbers of replicas that were chosen; None while something is tried."""
        contests = list(self._trials.values())
        return None if any(each.is_open() for each in contests) else {each.best for each in contests}

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
                f"of {self._most} CPU replicas {at_once:.2f} compute at one time: operations as small as this module's hold the"
                " interpreter's lock (GIL); device_ids=None measures whether the plain module is faster",
                stacklevel=4,
            )
