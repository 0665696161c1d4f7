# SPDX-License-Identifier: BSD-3-Clause
"""What is done with gradients, the same under every strategy: scaled back, clipped, applied."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from time import perf_counter_ns
from typing import Any

import torch

from teamster.errors import UsageError
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring, note
from teamster.train.shards import as_part

Kept = list[tuple[Any, torch.Tensor]]
"""Parameters and their gradients."""


def put_back(kept: Kept) -> None:
    """Add gradients to those that there are.

    Args:
        kept: by `Update.begin`.
    """
    for parameter, grad in kept:
        parameter.grad = grad if parameter.grad is None else grad + parameter.grad


def _as_parts(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The saved state of an optimizer, with a rank's parts where it has parts of parameters."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state = dict(saved["state"])  # some optimizers keep more in it than parameters
    for index, parameter in enumerate(parameters):
        if index in state:
            state[index] = {name: as_part(each, parameter) for name, each in state[index].items()}
    return {**saved, "state": state}


class Update:
    """The optimizers' part of a step.

    Args:
        optimizers: all of them take a step at the same time.
        accumulate: batches an update.
        max_grad_norm: of all gradients together; None for any.
        scaler: for half precision; None where there is no need of one.
        schedulers: each takes a step after an update.

    Attributes:
        updates: so far.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> update = Update([torch.optim.SGD([weight], lr=0.5)], accumulate=2)
        >>> for count, gradient in [(3, 1.0), (1, 5.0)]:
        ...     weight.grad = torch.full((1,), count * gradient) + (
        ...         0 if weight.grad is None else weight.grad)
        ...     print(update.add(count))
        False
        True
        >>> weight.tolist()  # 1 - 0.5 * (3 * 1 + 1 * 5) / 4
        [0.0]
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        accumulate: int = 1,
        max_grad_norm: float | None = None,
        scaler: Any = None,
        schedulers: Sequence[Any] = (),
    ) -> None:
        self.optimizers = list(optimizers)
        self.schedulers = list(schedulers)
        self.scaler = scaler
        self.updates = 0
        self._accumulate = accumulate
        self._max_grad_norm = max_grad_norm
        self._batches, self._counted = 0, 0.0  # since the last update
        self._unit = 1.0  # what the first batch of it counts
        self._known: tuple[list[tuple[int, int]], list[torch.Tensor]] = [], []  # lists, all in them

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What the optimizers have, each once."""
        groups = [group["params"] for each in self.optimizers for group in each.param_groups]
        shape = [(id(each), len(each)) for each in groups]
        if shape != self._known[0]:  # else none was added since
            found = {id(each): each for group in groups for each in group}
            self._known = shape, list(found.values())
        return self._known[1]

    def begin(self, others: Iterable[torch.Tensor]) -> Kept:
        """A step begins without gradients: what was left by others counts for nothing.

        Args:
            others: parameters that may have some, beside those of the optimizers.

        Returns:
            Gradients of batches of an update that is not complete.
        """
        kept: Kept = []
        for each in itertools.chain(others, self.parameters):
            if (grad := each.grad) is not None:
                kept.append((each, grad))
                each.grad = None
        return kept if self._batches else []

    def scale(self, count: float) -> float:
        """What the gradients of the next batch are to be multiplied with.

        Args:
            count: how much the batch counts.
        """
        scale = 1.0
        if self._accumulate > 1:
            if not self._batches:
                self._unit = count or 1.0  # numbers near 1 go into half precision
            scale = count / self._unit
        if self.scaler is not None:
            scale *= float(self.scaler.scale(torch.ones((), device=self._device())))
        return scale

    def _device(self) -> torch.device:
        return next((each.device for each in self.parameters), torch.device("cpu"))

    def add(self, count: float = 1.0) -> bool:
        """The gradients of a batch were added; an update when it is time for one.

        Args:
            count: what `scale` was told.

        Returns:
            Whether there was an update.
        """
        self._batches += 1
        self._counted += count
        if self._batches < self._accumulate:
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """Update with what is there, if there is something."""
        if not self._batches:
            return
        began = perf_counter_ns()
        if self._accumulate > 1:
            self._divide((self._counted or 1.0) / self._unit)
        self._batches, self._counted = 0, 0.0
        self._apply()  # gradients stay until the next step begins, for those who look at them
        for scheduler in self.schedulers:
            scheduler.step()
        self.updates += 1
        note(current_ring(), COMPUTE, "update", began)

    def state_dict(self) -> dict[str, Any]:
        """All of it, with the gradients of an update that is not complete."""
        return {
            "optimizer": [each.state_dict() for each in self.optimizers],
            "scheduler": [each.state_dict() for each in self.schedulers],
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "gradient": [each.grad for each in self.parameters] if self._batches else [],
            "counts": (self.updates, self._batches, self._counted, self._unit),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be as another one was.

        Args:
            state: of its `state_dict`.

        Raises:
            UsageError: that had other optimizers or schedulers.
        """
        for name, mine in (("optimizer", self.optimizers), ("scheduler", self.schedulers)):
            if len(mine) != len(state[name]):
                raise UsageError(
                    f"the checkpoint has {len(state[name])} {name}s, and this trainer {len(mine)}"
                )
            for each, saved in zip(mine, state[name], strict=True):
                each.load_state_dict(_as_parts(saved, each) if name == "optimizer" else saved)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        gradients = state["gradient"] or [None] * len(self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            part = as_part(gradient, parameter)
            parameter.grad = None if gradient is None else part.to(parameter.device)
        self.updates, self._batches, self._counted, self._unit = state["counts"]

    def _divide(self, whole: float) -> None:
        grads = [each.grad for each in self.parameters if each.grad is not None]
        with torch.no_grad():
            dense = [grad for grad in grads if grad.layout is torch.strided]
            if dense:
                torch._foreach_div_(dense, whole)
            for grad in grads:
                if grad.layout is not torch.strided:
                    grad.div_(whole)

    def _apply(self) -> None:
        scaler = self.scaler
        if scaler is not None:
            for optimizer in self.optimizers:
                scaler.unscale_(optimizer)
        if self._max_grad_norm is not None:
            self._clip(self._max_grad_norm)
        for optimizer in self.optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None:
            scaler.update()

    def _clip(self, most: float) -> None:
        if any(
            each.grad is not None and each.grad.layout is not torch.strided
            for each in self.parameters
        ):
            raise UsageError(
                "max_grad_norm= cannot clip the sparse gradients of an Embedding(sparse=True): "
                "leave one of the two out"
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, most)
