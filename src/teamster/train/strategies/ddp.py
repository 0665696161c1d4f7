# SPDX-License-Identifier: BSD-3-Clause
"""`ddp`: a process a replica; the program is rank 0, and starts the others.

::

    batch --> rows of rank 0, 1, ... --send--> rank 1, 2, ...: forward, loss, backward
                 |                                 |  gradients into shared memory, losses back
                 +--> the same here                |
                          +<-----------------------+
                          gradients added up, on the user's own parameters

Parameters are in shared memory (shared_model.py), so nothing but rows and losses travels. A rank
that dies is started anew and does its rows again: the parameters have not changed since.

The first steps wait for no rank: while one starts, which takes seconds, the program does its rows
after its own, and draws and keeps for it what the rank would. So the curve is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError, WorkerDied, annotate
from teamster.machine.cpus import usable_cores
from teamster.parallel.scattering import chunk_sizes
from teamster.spine.trace.ring import COMPUTE
from teamster.spine.trace.spans import current_ring, note
from teamster.spine.workers.exceptions import rebuild
from teamster.tasks.spawning import Process, start_process
from teamster.train.strategies.batchnorm import (
    OtherFailed,
    Together,
    channels_of,
    first_of,
    run_together,
)
from teamster.train.strategies.meeting import Hub
from teamster.train.strategies.outline import (
    check_loss_function,
    check_parameters,
    outline_of_modules,
)
from teamster.train.strategies.rank import ModuleState, drawing_as, run_rank
from teamster.train.strategies.shared_model import SharedModel, Survey, add_gradients, copy_all
from teamster.train.strategies.strategy import Losses, Work, run_slice, what_differs
from teamster.train.strategies.threads_inside import inner_threads

_MANY_NUMBERS = 500_000  # of parameters: from here on an update is worth several threads
_END_S = 5.0  # how long a rank may take to end when it is told to


class Ranks:
    """The ranks of one machine, which Teamster starts.

    Args:
        module: the user's, on the CPU.
        workers: how many ranks, the program included; None for one a core.
        retries: deaths of ranks that a run outlives.
        sync_batchnorm: whether BatchNorm has the statistics of the whole batch.

    Raises:
        UsageError: the module is not on the CPU.

    Example:
        >>> module = nn.Linear(2, 1)
        >>> ranks = Ranks(module, 2)
        >>> work = Work(lambda module, x: module(x).mean(), (torch.ones(4, 2),))
        >>> ranks.run(work)[None].shape, module.weight.grad.tolist()
        (torch.Size([]), [[1.0, 1.0]])
        >>> ranks.close()
    """

    name = "ddp"

    def __init__(
        self,
        module: nn.Module,
        workers: int | None = None,
        retries: int = 1,
        *,
        sync_batchnorm: bool = False,
    ) -> None:
        places = {each.device.type for each in (*module.parameters(), *module.buffers())}
        if places - {"cpu"}:
            raise UsageError(
                f"strategy 'ddp' of one program computes on CPUs, and the model is on "
                f"{', '.join(sorted(places))}: start it with torchrun, or take strategy 'dp'"
            )
        cores = usable_cores()
        self.workers = max(1, cores if workers is None else workers)
        self._threads = max(1, cores // self.workers)
        self._all_threads = min(cores, max(torch.get_num_threads(), self._threads))
        several = self.workers > 1
        self.differs = what_differs(module, "rank", synchronized=sync_batchnorm) if several else ""
        self._channels = channels_of(module) if sync_batchnorm and several else 0
        self._hub = Hub(self._is_alive)
        self._together = Together(self._hub.sum_all, self._channels) if self._channels else None
        self._module = module
        self._retries = retries
        self._shared: SharedModel | None = None
        self._state: ModuleState | None = None
        self._processes: list[Process | None] = []
        self._outline: list[Any] = []
        self._come: set[int] = set()  # ranks whose processes run
        self._answered = True  # all that was asked for
        self._checked: Any = None  # loss function

    # --- their start and end ----------------------------------------------------------------------

    def start(self, survey: Survey | None = None) -> None:
        """Have the other ranks started; does not wait for them."""
        if not self._answered:
            self.close()  # Ctrl-C has struck in between: what they would say is of another step
        survey = survey or Survey.of(self._module)
        outline = outline_of_modules(survey.modules)
        is_shared = self._shared is not None and self._shared.fits(survey)
        if not is_shared:
            self._shared = SharedModel(self._module, self.workers)
        if not self._processes:
            self._processes = [None] * (self.workers - 1)
        if not is_shared or outline != self._outline:
            check_parameters(self._module)
            self._outline, self._state = outline, None
            for rank, process in enumerate(self._processes, start=1):
                if process is not None:
                    self._send(rank, ("module", self._module, self._shared))
        for rank, process in enumerate(self._processes, start=1):
            if process is None:
                self._start(rank)

    def _start(self, rank: int) -> None:
        name = f"rank {rank}"
        process = start_process(name, name, run_rank, (rank, self._threads))
        process.daemon = True
        self._come.discard(rank)
        try:
            process.send(("module", self._module, self._shared))
            if self._channels:
                process.send(("meet", self._hub.line_for(rank), self._channels))
        except BaseException:
            process.kill()
            raise
        self._processes[rank - 1] = process

    def _is_alive(self, rank: int) -> bool:
        process = self._processes[rank - 1]
        return process is not None and process.is_alive()

    def have_come(self, timeout: float | None = 0.0) -> bool:
        """Whether all ranks have started.

        Args:
            timeout: seconds to wait for each of them; None for as long as it takes.
        """
        return all(self._has_come(rank, timeout) for rank in range(1, len(self._processes) + 1))

    def _has_come(self, rank: int, timeout: float | None = 0.0) -> bool:
        """Whether it has started, or has ended instead: then its answer says so."""
        process = self._processes[rank - 1]
        if rank not in self._come and (process is None or process.poll(timeout)):
            self._come.add(rank)
        return rank in self._come

    def close(self) -> None:
        """End the other ranks."""
        known = [each for each in self._processes if each is not None]
        told = []
        for rank, process in enumerate(self._processes, start=1):
            if process is not None and self._has_come(rank):
                with contextlib.suppress(BrokenPipeError):
                    process.send(None)
                told.append(process)
        for process in told:
            with contextlib.suppress(TimeoutError, Exception):
                process.join(_END_S)
        for process in known:  # one that starts still has nothing to finish
            process.kill()
        self._processes = []
        self._hub.close()
        self._answered, self._state, self._outline = True, None, []

    # --- a step -----------------------------------------------------------------------------------

    def run(self, work: Work) -> Losses:
        """As every strategy."""
        if work.loss_fn is not self._checked:
            check_loss_function(work.loss_fn, self._module)
            self._checked = work.loss_fn
        shares = list(self._share_out(work))
        survey = Survey.of(self._module)
        self.start(survey)
        assert self._shared is not None
        copy_all(self._shared.published(), survey.buffers)
        self._tell_state(ModuleState(survey))
        if self._together is None or len(shares) == 1:
            error, losses = self._compute(shares, survey, None)
        else:
            before = [each.clone() for each in survey.buffers]
            self._hub.begin(range(1, len(shares)))
            error, losses = self._compute(shares, survey, self._together)
            if isinstance(error, OtherFailed):  # a rank has died, and nobody could go on
                self._undo(survey, before)
                return self.run(work)
        if error is not None:
            raise error
        return losses

    def _compute(
        self,
        shares: list[tuple[Work, float, range]],
        survey: Survey,
        together: Together | None,
    ) -> tuple[BaseException | None, Losses]:
        """All slices; the error that the others come from, if there is one."""
        self._answered, meets = False, together is not None
        others = list(enumerate(shares[1:], start=1))
        there = {rank for rank, _ in others if meets or self._has_come(rank)}
        for rank, (part, share, _) in others:
            if rank in there:
                self._send(rank, ("work", part, share, meets))
        own, losses = self._run_own(*shares[0], together)
        errors = [own] if own is not None else []
        for rank, (part, share, rows) in others:
            try:
                if rank in there:
                    answer = self._receive(rank, ("work", part, share, meets))
                    self._add(rank, answer, losses, survey.parameters)
                else:
                    add_losses(losses, self._stand_in(rank, part, share))
            except Exception as failed:
                annotate(failed, _where(rank, rows))
                errors.append(failed)
        self._answered = True
        return first_of(errors), losses

    @staticmethod
    def _undo(survey: Survey, buffers: list[torch.Tensor]) -> None:
        """Nothing of a step stays that is done again."""
        for each in survey.parameters:
            each.grad = None
        copy_all(survey.buffers, buffers)

    def _share_out(self, work: Work) -> Iterator[tuple[Work, float, range]]:
        """The slices, how much of the batch each is, and its rows."""
        sizes = [size for size in chunk_sizes(work.samples(), self.workers) if size] or [0]
        parts = work.cut(sizes)
        counts = sizes if work.weight is None else [part.count() for part in parts]
        whole, end = sum(counts) or 1.0, 0
        for part, count, size in zip(parts, counts, sizes, strict=True):
            yield part, count / whole, range(end, end + size)
            end += size

    def _run_own(
        self, work: Work, share: float, rows: range, together: Together | None
    ) -> tuple[BaseException | None, Losses]:
        try:
            with inner_threads(self._threads):
                return None, run_together(self._module, work, share, together)
        except Exception as error:
            annotate(error, _where(0, rows))
            return error, {}

    def _stand_in(self, rank: int, work: Work, share: float) -> Losses:
        """Do the rows of a rank that starts; its draws, and its buffers, have no other effect."""
        assert self._shared is not None
        buffers = Survey.of(self._module).buffers  # a forward pass may have made new ones
        kept = [each.clone() for each in buffers]
        try:
            copy_all(buffers, self._shared.published())
            with drawing_as(rank, work), inner_threads(self._threads):
                return run_slice(self._module, work, share)
        finally:
            copy_all(Survey.of(self._module).buffers, kept)

    def _tell_state(self, state: ModuleState) -> None:
        if state != self._state:
            for rank in range(1, self.workers):
                self._send(rank, ("state", state))
            self._state = state

    def _send(self, rank: int, message: tuple[Any, ...]) -> None:
        process = self._processes[rank - 1]
        assert process is not None
        # One that has ended is found when its answer is waited for
        with contextlib.suppress(BrokenPipeError):
            process.send(message)

    def _receive(self, rank: int, message: tuple[Any, ...]) -> tuple[Any, ...]:
        """The answer of a rank; one that dies is started anew, as often as is allowed.

        Raises:
            Exception: what the loss function has raised there.
            WorkerDied: it has died too often.
        """
        while True:
            process = self._processes[rank - 1]
            assert process is not None
            try:
                kind, *rest = process.recv()
            except EOFError as end:
                self._processes[rank - 1] = None
                if not self._retries or not isinstance(end.__cause__, WorkerDied):
                    raise (end.__cause__ or end) from None
                self._retries -= 1
                self._start(rank)
                self._send(rank, ("state", self._state))
                if message[-1]:  # alone it would wait for the others
                    raise OtherFailed(f"rank {rank} has died") from None
                self._send(rank, message)
                continue
            self._come.add(rank)
            if kind == "started":
                continue
            if kind == "failed":
                raise rebuild(rest[0])
            return tuple(rest)

    def update(self, apply: Callable[[], object]) -> None:
        """As every strategy: the other ranks need no core meanwhile."""
        numbers = sum(each.numel() for each in self._module.parameters())
        threads = self._all_threads if numbers >= _MANY_NUMBERS else self._threads
        with inner_threads(threads):
            apply()

    def _add(
        self, rank: int, answer: tuple[Any, ...], losses: Losses, parameters: list[torch.Tensor]
    ) -> None:
        found, seen, sparse = answer
        assert self._shared is not None
        began = perf_counter_ns()
        with inner_threads(self._all_threads), torch.no_grad():
            add_gradients(parameters, self._shared.gradients(rank), seen, sparse)
        note(current_ring(), COMPUTE, "reduce", began)
        add_losses(losses, found)


def add_losses(losses: Losses, more: Losses) -> None:
    """Those of another slice, into the first.

    Example:
        >>> losses = {"a": torch.tensor(1.0)}
        >>> add_losses(losses, {"a": torch.tensor(2.0), "b": torch.tensor(4.0)})
        >>> losses
        {'a': tensor(3.), 'b': tensor(4.)}
    """
    for name, loss in more.items():
        losses[name] = losses[name] + loss if name in losses else loss


def _where(rank: int, rows: range) -> str:
    return f"in rank {rank}, rows {rows.start} to {rows.stop - 1} of the batch"
