# SPDX-License-Identifier: BSD-3-Clause
"""`Trainer`: the class that a user holds; what it does stands in its neighbours.

::

    step(loss_fn, x, y) --> Work --> strategies/: gradients of the whole batch --> update
                                                                                   clip, optimizers
    batches(loader)            loading        rows of a rank, position in the epoch
    evaluate(function, loader) evaluating     exact means
    save(path), load(path)     resumable      saving: copies, and a thread that writes files
    log(loss=...)              logs           a thread that writes
    gather(value)              ranked         this program among those that torchrun has started
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from teamster.spine.plan.plan import Plan
from teamster.train.evaluating import mean_over
from teamster.train.loading import Loading
from teamster.train.logs import Log, Logged, Logger, loggers_of
from teamster.train.precision import Precision, precision_of
from teamster.train.progress_line import ProgressLine
from teamster.train.resumable import PathLike, Resumable
from teamster.train.saving import Saver
from teamster.train.strategies.by_name import make_strategy, plan_of
from teamster.train.strategies.strategy import Losses, Weight, Work
from teamster.train.train_report import TrainReport
from teamster.train.update import Update, put_back
from teamster.train.validation import (
    ModelWatch,
    check_model,
    check_numbers,
    check_optimizers,
    check_schedulers,
    note_parameters,
)

StrategyName = Literal["auto", "single", "dp", "ddp", "fsdp"]


class Trainer(Resumable, Logged):
    """Trains a model by one `step`, whatever computes the gradients.

    The batch is the global one under every strategy, and so is the loss; the model stays the
    user's, with its own names in its `state_dict`.

    Args:
        model: any module; on the device that it is to be trained on.
        optimizer: of the model's parameters; or several, which all take a step at a time.
        strategy: "single", "dp" (replicas in threads, or on all accelerators), "ddp" (a process a
            replica), "fsdp" (under torchrun: each rank keeps a part of the model and of the
            optimizer's state); "auto" measures which of the first three is the fastest.
        workers: replicas or ranks; None for one a core, or all accelerators.
        accumulate: batches an update of the optimizers.
        max_grad_norm: of all gradients together: larger ones are scaled down to it.
        precision: "bf16", or "fp16" with a scaler of gradients; None for the model's own.
        weight: of a slice, called as the loss function without the module: how much it counts, e.g.
            its tokens; None to count samples.
        scheduler: of learning rates; or several. They take a step after each update.
        loggers: folders for TensorBoard's event files and `metrics.jsonl`, and functions of a
            record.
        progress: whether `batches` shows a line with what is logged; None to do so on a terminal.
        retries: deaths of ranks that the training outlives; each costs the step that was under way.
        seed: of the random numbers of ranks; None to take torch's.
        sync_batchnorm: whether BatchNorm has the statistics of the whole batch, and not of the
            rows of a rank; not for "dp".
        folder: of the run: where `save` and `load` go by default.
        resume: "auto" to go on from the newest whole checkpoint in `folder`, where there is one; or
            the path of one.

    Attributes:
        model: as above.

    Raises:
        UsageError: the strategy cannot run here, a number is out of its range, or there is no
            checkpoint where `resume` says.

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
        loggers: Sequence[Any] = (),
        progress: bool | None = None,
        retries: int = 1,
        seed: int | None = None,
        sync_batchnorm: bool = False,
        folder: PathLike | None = None,
        resume: PathLike | None = None,
    ) -> None:
        optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        check_numbers(workers, accumulate, max_grad_norm, retries)
        check_model(model, optimizers)
        check_schedulers(scheduler)
        self.model = model
        self._autocast, scaler = precision_of(precision, model)
        schedulers = scheduler if isinstance(scheduler, (list, tuple)) else [scheduler]
        self._update = Update(optimizers, accumulate, max_grad_norm, scaler, schedulers)
        self._accumulates = accumulate > 1
        self._weight = weight
        self._strategy = make_strategy(
            strategy,
            model,
            workers,
            retries,
            optimizers=optimizers,
            sync_batchnorm=sync_batchnorm,
        )
        self._watch = ModelWatch(model, optimizers)
        if self._strategy.name == "ddp" and self._strategy.workers > 1:
            check_optimizers(model, optimizers)
        self._loading = Loading(self._strategy)
        self._timing = TrainReport()
        self._line = ProgressLine(
            progress if self.is_main else False, partial(getattr, self._timing, "samples")
        )
        own: list[Logger] = [self._line] if self._line.is_on else []
        given = list(loggers) if self.is_main else []
        self._log = Log(lambda: [*own, *loggers_of(given)])
        self._saver = Saver()
        self._seed = torch.initial_seed() if seed is None else seed
        self._steps = self._epoch = 0
        self._noted = False
        self._folder = folder
        self._resume(resume)

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
        launched = self._launched
        if launched is not None:
            launched.settle()
        self._watch.look(self._steps)
        work = self._loading.mark(Work(loss_fn, batch, kwargs, self._weight))
        count = self._count(work)
        scale = self._update.scale(count)
        work = work.as_part_of(self._steps, self._seed, scale, self._autocast)
        losses = self._gradients(work)
        if not self._noted:
            self._noted = True
            note_parameters(self.model)
        computed = perf_counter()
        self._strategy.update(partial(self._update.add, count))
        self._steps += 1
        rows = launched.rows_of_batch if launched is not None else work.rows()
        self._timing.add(rows, computed - began, perf_counter() - computed)
        return _told(losses)

    def _gradients(self, work: Work) -> Losses:
        """Those of the batch, added to those of an update that is not complete."""
        kept = self._update.begin(self._watch.parameters)
        try:
            losses = self._strategy.run(work)
        except BaseException:  # Ctrl-C, too: nothing of the step stays
            self._update.begin(self._watch.parameters)
            put_back(kept)
            raise
        put_back(kept)
        return losses

    def _count(self, work: Work) -> float:
        """How much the whole batch counts among those of an update."""
        if not self._accumulates:
            return 1.0
        if work.is_own and self._launched is not None:
            return self._launched.count(work)
        return work.count()

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of a loader, once; then an update with what was accumulated.

        Args:
            loader: its batch size is the global one.

        Yields:
            What it gives; where torchrun has started the ranks, this rank's rows of it.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), "single")
            >>> [len(x) for x in trainer.batches([torch.ones(2, 1), torch.ones(1, 1)])]
            [2, 1]
            >>> trainer.close()
        """
        yield from self._line.over(self._loading.batches(loader), _length(loader))
        self._strategy.update(self._update.finish)

    def evaluate(self, function: Callable[..., Any], loader: Iterable[Any]) -> Any:
        """The mean of what a function of the model and a batch gives, over all samples.

        The model is in evaluation mode meanwhile, and computes no gradients.

        Args:
            function: called as ``function(module, *batch)``; returns a number (or a tensor of one),
                or a dict of them: means over the batch.
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
        batches = self._loading.batches(loader, training=False)
        launched = self._launched
        if launched is not None:
            launched.world.enter(self._steps, "evaluation")
            function = launched.evaluating(function)
        mean = mean_over(self.model, function, batches, self._weight, self._loading.mark)
        if launched is not None:
            launched.settle()
            mean.merge(launched.world.gather(mean))
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
        return plan_of(self._strategy)

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
        """End the strategy's threads and processes, when all that was saved and logged is written.

        Raises:
            OSError: a checkpoint could not be written.

        Example:
            >>> model = nn.Linear(1, 1)
            >>> Trainer(model, torch.optim.SGD(model.parameters()), "single").close()
        """
        self._strategy.close()
        self._log.close()
        self._saver.close()

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


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # an iterable dataset may have none
        return None


def _told(losses: Losses) -> Any:
    return losses[None] if list(losses) == [None] else losses
