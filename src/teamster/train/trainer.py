# SPDX-License-Identifier: BSD-3-Clause
"""`Trainer`: the class that a user holds; what it does stands in its neighbours.

::

    step(loss_fn, x, y) --> Work --> strategies/: gradients of the whole batch --> update.py
                                                                                   clip, optimizers
    batches(loader)   evaluate(function, loader)   plan   report()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from teamster.spine.plan.plan import Plan
from teamster.train.evaluating import Mean
from teamster.train.precision import Precision, precision_of
from teamster.train.strategies.by_name import make_strategy
from teamster.train.strategies.strategy import Losses, Weight, Work
from teamster.train.train_report import TrainReport
from teamster.train.update import Update
from teamster.train.validation import check_model, check_numbers, note_parameters

StrategyName = Literal["auto", "single", "dp", "ddp"]


class Trainer:
    """Trains a model by one `step`, whatever computes the gradients.

    The batch is the global one under every strategy, and so is the loss; the model stays the
    user's, with its own names in its `state_dict`.

    Args:
        model: any module; on the device that it is to be trained on.
        optimizer: of the model's parameters; or several, which all take a step at a time.
        strategy: "single", "dp" (replicas in threads, or on all accelerators), "ddp" (a process a
            replica); "auto" measures which of them is the fastest on the first steps.
        workers: replicas or ranks; None for one a core, or all accelerators.
        accumulate: batches an update of the optimizers.
        max_grad_norm: of all gradients together: larger ones are scaled down to it.
        precision: "bf16", or "fp16" with a scaler of gradients; None for the model's own.
        weight: of a slice, called as the loss function without the module: how much it counts, e.g.
            its tokens; None to count samples.
        scheduler: of learning rates; or several. They take a step after each update.
        retries: deaths of ranks that the training outlives; each costs the step that was under way.
        seed: of the random numbers of ranks; None to draw one from torch's generator.

    Raises:
        UsageError: the strategy cannot run here, another trainer has the model, or a number is out
            of its range.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> def loss_fn(module, x, y):
        ...     return nn.functional.mse_loss(module(x), y)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Trainer(model, optimizer, "single") as trainer:
        ...     losses = [
        ...         float(trainer.step(loss_fn, torch.ones(4, 2), torch.ones(4, 1)))
        ...         for _ in range(20)]
        >>> losses[-1] < 0.01 * losses[0] or losses[0] < 1e-4
        True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        strategy: StrategyName = "auto",
        workers: int | None = None,
        *,
        accumulate: int = 1,
        max_grad_norm: float | None = None,
        precision: Precision = None,
        weight: Weight | None = None,
        scheduler: Any = (),
        retries: int = 1,
        seed: int | None = None,
    ) -> None:
        optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        check_numbers(workers, accumulate, max_grad_norm, retries)
        check_model(model, optimizers)
        self.model = model
        self._autocast, scaler = precision_of(precision, model)
        schedulers = list(scheduler) if isinstance(scheduler, (list, tuple)) else [scheduler]
        self._update = Update(optimizers, accumulate, max_grad_norm, scaler, schedulers)
        self._accumulates = accumulate > 1
        self._weight = weight
        self._strategy = make_strategy(strategy, model, workers, retries)
        self._seed = torch.initial_seed() if seed is None else seed
        self._timing = TrainReport()
        self._steps = 0
        self._noted = False

    # --- steps ------------------------------------------------------------------------------------

    def step(
        self, loss_fn: Callable[..., Any], *batch: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Forward, loss, backward, and an update when it is time for one.

        Args:
            loss_fn: called as ``loss_fn(module, *slice)``; returns the mean loss of the slice, or a
                dict of losses, of which the sum is minimised.
            *batch: tensors and arrays in containers, whose first dimension is sliced.
            **kwargs: sliced, too.

        Returns:
            The mean loss of the whole batch, without a graph; a dict where the function returns
            one.

        Raises:
            UsageError: the batch cannot be sliced, or the loss is not one number.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single")
            >>> trainer.step(lambda module, x: {"a": module(x).mean()}, torch.ones(2, 1)).keys()
            dict_keys(['a'])
            >>> trainer.close()
        """
        began = perf_counter()
        work = Work(
            loss_fn,
            batch,
            kwargs,
            self._weight,
            autocast=self._autocast,
            number=self._steps,
            seed=self._seed,
        )
        count = work.count() if self._accumulates else 1.0
        losses = self._strategy.run(work.times(self._update.scale(lambda: count)))
        if not self._noted:
            self._noted = True
            note_parameters(self.model)
        computed = perf_counter()
        self._update.add(count)
        self._steps += 1
        self._timing.add(work.rows(), computed - began, perf_counter() - computed)
        return _told(losses)

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of a loader, once; then an update with what was accumulated.

        Args:
            loader: its batch size is the global one.

        Yields:
            What it gives.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single")
            >>> [len(x) for x in trainer.batches([torch.ones(2, 1), torch.ones(1, 1)])]
            [2, 1]
            >>> trainer.close()
        """
        yield from loader
        self._update.finish()

    def evaluate(self, function: Callable[..., Any], loader: Iterable[Any]) -> Any:
        """The mean of what a function of the model and a batch gives, over all samples.

        The model is in evaluation mode meanwhile, and computes no gradients.

        Args:
            function: called as ``function(module, *batch)``; returns a number, a tensor, or a dict
                of them: means over the batch.
            loader: of batches; a tuple or list is given as several arguments.

        Returns:
            The mean, weighted by samples, as float; a dict where the function returns one.

        Raises:
            UsageError: the loader is empty.

        Example:
            >>> model = nn.Identity()
            >>> trainer = Trainer(model, torch.optim.SGD([torch.ones(1)], lr=0.1), "single")
            >>> data = [(torch.tensor([1.0, 2.0]),), (torch.tensor([6.0]),)]
            >>> trainer.evaluate(lambda module, x: module(x).mean(), data)
            3.0
            >>> trainer.close()
        """
        mean = Mean()
        before = [(each, each.training) for each in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                for batch in loader:
                    given = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
                    work = Work(function, given, weight=self._weight)
                    mean.add(function(self.model, *given), work.count())
        finally:
            for each, training in before:
                each.training = training
        return mean.value()

    # --- the rest ---------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What computes the gradients, and why.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> with Trainer(model, torch.optim.SGD(model.parameters()), "single") as trainer:
            ...     print(trainer.plan)
            single(1): asked for
        """
        own: Plan | None = getattr(self._strategy, "plan", None)
        plan = own or Plan(self._strategy.name, self._strategy.workers, "asked for")
        if self._strategy.differs:
            reason = f"{plan.reason}; {self._strategy.differs}"
            plan = Plan(plan.backend, plan.workers, reason, plan.candidates)
        return plan

    def report(self) -> TrainReport:
        """What the steps so far have taken.

        Returns:
            Sums in seconds; ``print`` shows milliseconds a step.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> with Trainer(model, torch.optim.SGD(model.parameters()), "single") as trainer:
            ...     trainer.report().steps
            0
        """
        return self._timing.copy()

    def close(self) -> None:
        """End the threads and processes of the strategy; a later step starts them again.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> Trainer(model, torch.optim.SGD(model.parameters()), "single").close()
        """
        self._strategy.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if (strategy := self.__dict__.get("_strategy")) is not None:
            with contextlib.suppress(Exception):
                strategy.close()


def _told(losses: Losses) -> Any:
    return losses[None] if list(losses) == [None] else losses
