# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel`: the class that a user holds; what it does stands in its neighbours.

::

    batch --> scattering --> applying: replicas, each in its thread --> gathering --> output
                                |                                        ^
                                +--> joining (CPU: a graph each) --------+          stepping: forward, loss, backward in one go
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel.applying import apply_all, inner_threads
from teamster.parallel.balance import warn_of_imbalance
from teamster.parallel.carried import is_hooked, is_transformed
from teamster.parallel.checking import check_placement, check_replicable
from teamster.parallel.choosing import Choosing, Kind, Lap
from teamster.parallel.comparing import Comparing
from teamster.parallel.criterion import in_slices, run_with_loss, whole_loss
from teamster.parallel.gathering import gather, is_by_sample
from teamster.parallel.joining import apply_joined
from teamster.parallel.recomputing import Recomputing, is_renormalised, looking
from teamster.parallel.replicas import Replicas, replicate
from teamster.parallel.scattering import Piece, batch_size, batch_size_or_none, slices
from teamster.parallel.stepping import LossFunction, check_loss, run_step
from teamster.parallel.threads import DeviceThreads, Turnstile
from teamster.parallel.timing import StepReport, Timing
from teamster.parallel.weighing import Weighing, Weights
from teamster.tensors.devices import DeviceLike, all_devices, as_device, as_devices
from teamster.tensors.nest import walk

_OWN = ("_choosing", "_comparing", "_recomputing", "_replicas", "_sliced", "_threads", "_timing", "_turnstile", "_weighing")


class DataParallel(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Runs a module on several devices at once: each gets a slice of the batch, gradients come together on the first.

    A drop-in for `torch.nn.DataParallel` on any devices, CPU replicas included: these share the module's parameters.

    Args:
        module: what to run; its parameters are on the first device.
        device_ids: names of devices; a number n for n accelerators, or n replicas on the CPU; None for all accelerators, or,
            where there are none, for as many CPU replicas as the first steps show to pay.
        output_device: where outputs are gathered; None for the first device.
        dim: along which samples are counted.
        weights: for unequal devices: their speeds in any unit, or "measured".
        loss: a criterion: then the last positional argument is the target, each device computes the loss of its slice, and the
            result is the loss of the whole batch.

    Raises:
        UsageError: a device does not exist, or the module cannot be replicated.

    Example:
        >>> model = DataParallel(nn.Linear(3, 2), device_ids=["cpu", "cpu"])
        >>> model(torch.ones(5, 3)).shape
        torch.Size([5, 2])
        >>> sorted(model.state_dict())
        ['module.bias', 'module.weight']
        >>> model.close()
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[DeviceLike] | int | None = None,
        output_device: DeviceLike | None = None,
        dim: int = 0,
        *,
        weights: Weights = None,
        loss: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_replicable(module)
        self.module = module
        self.dim = dim
        self.device_ids = as_devices(all_devices() if device_ids is None else device_ids)
        self.output_device = self.device_ids[0] if output_device is None else as_device(output_device)
        object.__setattr__(self, "loss", loss)  # no submodule: its weights are not the model's
        self._fixed = device_ids is not None
        self._weights = weights
        warn_of_imbalance(self.device_ids)
        if len(self.device_ids) == 1:
            module.to(self.device_ids[0])
        self._forget()

    def _forget(self) -> None:
        """What belongs to this process and not to the model: neither pickled nor copied."""
        self._on_cpu = self.device_ids[0].type == "cpu"
        self._threads: dict[int, DeviceThreads] = {}  # by the number of replicas
        self._replicas: Replicas | None = None
        self._timing = Timing()
        self._choosing = Choosing(len(self.device_ids), fixed=self._fixed, cpu=self._on_cpu)
        self._sliced = None if self.loss is None else in_slices(self.loss)  # None for a loss that is only known as a whole
        self._recomputing = Recomputing()
        self._comparing = Comparing()
        self._turnstile = Turnstile()
        self._weighing = Weighing(len(self.device_ids), self._weights)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _replicate_for_data_parallel(self) -> DataParallel:
        made: DataParallel = super()._replicate_for_data_parallel()
        made._forget()  # inside of another: each copy has threads of its own
        return made

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            module = self.__dict__.get("_modules", {}).get("module")
            if module is None or name in _OWN:
                raise
            return getattr(module, name)  # of the wrapped module, as if it were not wrapped

    # --- the drop-in form --------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Scatter, replicate, apply, gather.

        Args:
            *inputs: of the module; the target last where there is a `loss`.
            **kwargs: of the module.

        Returns:
            The module's output for the whole batch; with a `loss`, its value for the whole batch.

        Raises:
            UsageError: inputs cannot be scattered, or outputs cannot be gathered.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"])(torch.arange(3)).tolist()
            [0, 1, 2]
        """
        if self.loss is not None and self._sliced is None:
            if not inputs:
                raise UsageError("a DataParallel with a loss needs the target as its last positional argument")
            target = walk(inputs[-1], lambda each: each.to(self.output_device))
            return self.loss(self._forward(inputs[:-1], kwargs), target)
        return self._forward(inputs, kwargs)

    def _forward(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = self._kind(by_step=False)
        if kind is None:
            return self._run_alone(inputs, kwargs)
        with self._turnstile.pass_through(self._threads):
            lap = self._choosing.begin(kind)
            if self._fixed or not self._on_cpu:
                return self._run_parallel(inputs, kwargs, lap)
            return self._try_parallel(inputs, kwargs, lap, kind)

    def _kind(self, *, by_step: bool) -> Kind | None:
        """What the next step is like; None: it is the plain module's, on the CPU."""
        if self._on_cpu and (len(self.device_ids) == 1 or is_transformed()):
            return None
        return Kind(by_step, torch.is_grad_enabled(), self.module.training)

    def _try_parallel(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], lap: Lap, kind: Kind) -> Any:
        """With replicas that nobody has named: what they cannot do, the plain module does."""
        samples = batch_size_or_none((inputs, kwargs), self.dim)
        if lap.replicas > 1 and samples is not None:
            try:
                output = self._run_parallel(inputs, kwargs, lap)
                if self._sliced is not None or self._comparing.agrees((inputs, kwargs), output, samples, self.dim):
                    return output
            except Exception:  # the plain module's own errors it raises again
                self._tidy(failed=True)
        lap.samples = samples or 1
        output = self._run_alone(inputs, kwargs)
        self._comparing.keep((inputs, kwargs), output)
        if lap.replicas == 1:
            lap.end(output)
        if lap.replicas > 1 or samples is None or (self._sliced is None and not is_by_sample(output, samples, self.dim)):
            self._choosing.rule_out(kind)
        self._tidy()
        return output

    def _run_parallel(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], lap: Lap) -> Any:
        pieces = self._scatter(inputs, kwargs, lap)
        if lap.replicas == 1:
            output = self._run_alone(pieces[0].inputs, pieces[0].kwargs)
        elif len(pieces) == 1 and self._sliced is not None:
            output = self._run_alone(pieces[0].inputs, pieces[0].kwargs).to(self.output_device)
        else:
            given = inputs, kwargs
            outputs = [self._run_alone(pieces[0].inputs, pieces[0].kwargs)] if len(pieces) == 1 else self._apply(pieces, lap, given)
            began = perf_counter_ns()
            output = self._put_together(outputs)
            self._timing.tell("gather", -1, began)
        self._learn(pieces, lap, output)
        return output

    def _scatter(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], lap: Lap) -> list[Piece]:
        check_placement(self.module, self.device_ids[0])
        began = perf_counter_ns()
        count = batch_size((inputs, kwargs), self.dim) if lap.replicas > 1 else batch_size_or_none((inputs, kwargs), self.dim)
        lap.samples = count or 1
        lap.began_s = perf_counter()
        # Where nothing can be sliced all devices get all of it, as torch has it; or one, where there is nothing at all.
        whole = [1] * (lap.replicas if inputs or kwargs else 1)
        sizes = whole if count is None else self._weighing.sizes(count, lap.replicas)
        used = [index for index, size in enumerate(sizes) if size] or [0]
        sizes, devices = [sizes[index] for index in used], [self.device_ids[index] for index in used]
        rows = zip(slices((inputs, kwargs), sizes, devices, self.dim), sizes, devices, used, strict=True)
        pieces = [Piece(given, named, size, device, index) for (given, named), size, device, index in rows]
        self._timing.begin_step(len(pieces))
        self._timing.tell("scatter", -1, began)
        return pieces

    def _run_alone(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._sliced is None:
            return self.module(*inputs, **kwargs)
        assert self.loss is not None
        return self.loss(self.module(*inputs[:-1], **kwargs), inputs[-1])

    def _apply(self, pieces: list[Piece], lap: Lap, given: Any) -> list[Any]:
        """Outputs of the replicas, as functions of the module's parameters and the inputs."""
        if not self._on_cpu:
            began = perf_counter_ns()
            devices = [piece.device for piece in pieces]
            modules = replicate(self.module, devices, detach=not torch.is_grad_enabled())
            self._timing.tell("replicate", -1, began)
            return self._run(modules, pieces, lap=lap, in_turn=False)
        replicas, modules = self._fresh_replicas(len(pieces))
        if not torch.is_grad_enabled():
            return self._run(modules, pieces, lap=lap, in_turn=is_hooked() or is_renormalised(self.module))
        with self._recomputing.watch(self.module, replicas.built) as watch:
            self._timing.in_turn = watch.in_turn
            run = partial(self._run, modules, lap=lap, in_turn=watch.in_turn)
            threads, tell = self._lines(lap), self._timing.tell
            outputs = apply_joined(run, pieces, replicas, threads, tell, given=given, in_turn=watch.in_turn)
            watch.look()
            return outputs

    def _run(self, modules: list[nn.Module], pieces: list[Piece], *, lap: Lap, in_turn: bool) -> list[Any]:
        runs: list[Any] = modules
        if self._sliced is not None:
            runs = [
                partial(run_with_loss, module, self._loss_on(piece.device), piece.size)
                for module, piece in zip(modules, pieces, strict=True)
            ]
        return self._apply_to(runs, pieces, lap, in_turn=in_turn)

    def _apply_to(self, runs: list[Any], pieces: list[Piece], lap: Lap, *, in_turn: bool = False) -> list[Any]:
        inputs, kwargs, devices = zip(*((piece.inputs, piece.kwargs, piece.device) for piece in pieces), strict=True)
        return apply_all(runs, inputs, kwargs, list(devices), self._lines(lap), self._timing.tell, in_turn=in_turn)

    def _put_together(self, outputs: list[Any]) -> Any:
        if self._sliced is not None:
            return whole_loss(self.loss, outputs, self.output_device)
        return gather(outputs, self.output_device, self.dim)

    def _loss_on(self, device: torch.device) -> Callable[..., Any]:
        """The criterion for a slice on a device."""
        found = self._sliced
        if isinstance(self.loss, nn.Module) and device != self.device_ids[0]:
            found = in_slices(replicate(self.loss, [device])[0])  # anew each time: its weights may have changed
        assert found is not None
        return found

    def _lines(self, lap: Lap) -> DeviceThreads:
        """The threads for as many replicas; the fewer they are, the more inner threads each has."""
        if lap.replicas not in self._threads:
            devices = self.device_ids[: lap.replicas]
            self._threads[lap.replicas] = DeviceThreads(devices, inner_threads(devices))
        return self._threads[lap.replicas]

    def _fresh_replicas(self, count: int) -> tuple[Replicas, list[nn.Module]]:
        began = perf_counter_ns()
        if self._replicas is None:
            self._replicas = Replicas(self.module, len(self.device_ids) if self._fixed else 1)
        modules = self._replicas.fresh(count)
        self._timing.tell("replicate", -1, began)
        return self._replicas, modules

    def _learn(self, pieces: list[Piece], lap: Lap, output: Any = None) -> None:
        lap.end(output)
        self._tidy()
        if len(pieces) > 1:
            self._choosing.hint(self._timing.steps, self._timing.at_once)
            self._weighing.learn(pieces, self._timing.latest)

    def _tidy(self, *, failed: bool = False) -> None:
        """End the threads that a trial has left, and put back what a failed pass has set on the replicas."""
        if failed and self._replicas is not None:
            self._replicas.tidy()
        if not self._fixed and self._threads and (used := self._choosing.in_use()) is not None:
            for count in self._threads.keys() - used:
                self._threads.pop(count).close()

    # --- step mode ---------------------------------------------------------------------------------------------------------

    def step(self, loss_fn: LossFunction, *batch: Any, **kwargs: Any) -> torch.Tensor:
        """Forward, loss and backward of the whole batch, each slice in one go; leaves the gradients on the parameters.

        Args:
            loss_fn: called with a replica and its slice, ``loss_fn(module, *slice)``; returns the slice's mean loss.
            *batch: tensors in containers, of which each device gets a slice.
            **kwargs: sliced, too.

        Returns:
            The whole batch's mean loss, without a graph.

        Raises:
            UsageError: the batch cannot be scattered, or the loss is not one number.

        Example:
            >>> model = DataParallel(nn.Linear(2, 1), ["cpu", "cpu"])
            >>> loss = model.step(lambda module, x, y: nn.functional.mse_loss(module(x), y), torch.ones(4, 2), torch.zeros(4, 1))
            >>> loss.ndim, model.module.weight.grad.shape
            (0, torch.Size([1, 2]))
        """
        kind = self._kind(by_step=True)
        if kind is None:
            return self._step_alone(loss_fn, batch, kwargs)
        with self._turnstile.pass_through(self._threads):
            if self._fixed or not self._on_cpu:
                return self._step_parallel(loss_fn, batch, kwargs, self._choosing.begin(kind))
            if batch_size_or_none((batch, kwargs), self.dim) is None:
                return self._step_alone(loss_fn, batch, kwargs)
            lap = self._choosing.begin(kind)
            try:
                return self._step_parallel(loss_fn, batch, kwargs, lap)
            except Exception:  # before a gradient was left; see `_try_parallel`
                if lap.replicas == 1:
                    raise
            self._tidy(failed=True)
            loss = self._step_alone(loss_fn, batch, kwargs)
            self._choosing.rule_out(kind)
            return loss

    def _step_parallel(self, loss_fn: LossFunction, batch: tuple[Any, ...], kwargs: dict[str, Any], lap: Lap) -> torch.Tensor:
        pieces = self._scatter(batch, kwargs, lap)
        if len(pieces) == 1:
            loss = self._step_alone(loss_fn, pieces[0].inputs, pieces[0].kwargs)
        elif self._on_cpu:
            replicas, modules = self._fresh_replicas(len(pieces))
            with self._recomputing.watch(self.module, replicas.built) as watch:
                self._timing.in_turn = watch.in_turn
                told = looking(loss_fn, watch)
                loss = run_step(told, pieces, modules, replicas, self._lines(lap), self._timing.tell, in_turn=watch.in_turn)
        else:
            loss = self._step_on_accelerators(loss_fn, pieces, lap)
        self._learn(pieces, lap)
        return loss.detach()

    def _step_alone(self, loss_fn: LossFunction, batch: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        loss = check_loss(loss_fn(self.module, *batch, **kwargs))
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    def _step_on_accelerators(self, loss_fn: LossFunction, pieces: list[Piece], lap: Lap) -> torch.Tensor:
        """One graph: autograd has a thread for each device there."""
        devices = [piece.device for piece in pieces]
        modules = replicate(self.module, devices, detach=not torch.is_grad_enabled())
        losses = self._apply_to([partial(loss_fn, module) for module in modules], pieces, lap)
        samples = sum(piece.size for piece in pieces)
        shares = [check_loss(loss).to(devices[0]) * (piece.size / samples) for loss, piece in zip(losses, pieces, strict=True)]
        total = torch.stack(shares).sum()
        if total.requires_grad:
            total.backward()
        return total

    # --- the rest ----------------------------------------------------------------------------------------------------------

    def report(self) -> StepReport:
        """What the steps so far have taken, phase by phase.

        Returns:
            Sums in seconds; ``print`` shows milliseconds a step.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"]).report().steps
            0
        """
        return self._timing.read()

    def close(self) -> None:
        """End the threads; a later call starts others. They end with the object, too.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"]).close()
        """
        while self._threads:
            self._threads.popitem()[1].close()
