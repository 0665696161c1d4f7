# SPDX-License-Identifier: BSD-3-Clause
"""`DataParallel`: the class that a user holds; what it does stands in its neighbours.

::

    batch --> scatter --> replicate --> parallel_apply, a thread each --> gather --> output

    settings, pickling, what torch calls it by    here
    one pass through the four steps               passing
    threads, replicas, measurements               runtime
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from teamster.errors import UsageError
from teamster.parallel.auto import StepKind
from teamster.parallel.balance import Weighing, Weights, warn_of_imbalance
from teamster.parallel.calling import LossFunction, ModuleCall, Steps
from teamster.parallel.criterion import in_slices
from teamster.parallel.gathering import gather
from teamster.parallel.passing import (
    run_alone,
    run_parallel,
    step_alone,
    step_parallel,
    try_parallel,
    try_step,
)
from teamster.parallel.replicas import replicate
from teamster.parallel.runtime import Runtime, Settings
from teamster.parallel.scattering import scatter_kwargs
from teamster.parallel.step_report import StepReport
from teamster.parallel.thread_state import is_traced, is_transformed
from teamster.parallel.validation import check_replicable
from teamster.tensors.devices import DeviceLike, all_devices, as_device, as_devices
from teamster.tensors.nest import walk

_OWN = ("_fixed", "_runtime")


class DataParallel(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Runs a module on several devices at once.

    Each gets a slice of the batch, gradients come together on the first. A drop-in for
    `torch.nn.DataParallel` on any devices, CPU replicas included: these share the module's
    parameters. A subclass may replace `scatter`, `replicate`, `parallel_apply` and `gather`.

    Args:
        module: what to run; its parameters are on the first device.
        device_ids: names of devices; a number n for n accelerators, or n replicas on the CPU; None
            for all accelerators, or, where there are none, for as many CPU replicas as the first
            steps show to pay.
        output_device: where outputs are gathered; None for the first device.
        dim: along which samples are counted.
        weights: for unequal devices: their speeds in any unit, or "measured".
        loss: a criterion: then the last positional argument is the target, each device computes the
            loss of its slice, and the result is the loss of the whole batch.

    Attributes:
        module, device_ids, output_device, dim, weights, loss: as above; what is set holds from the
            next call on.

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

    device_ids: list[torch.device]
    output_device: torch.device
    weights: Weights
    loss: Callable[..., torch.Tensor] | None

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
        self._runtime: Runtime | None = None
        self.module = module
        self.dim = dim
        self.device_ids = device_ids  # type: ignore[assignment]  # see __setattr__
        self.output_device = self.device_ids[0] if output_device is None else output_device
        self.weights = weights
        self.loss = loss
        warn_of_imbalance(self.device_ids)
        if len(self.device_ids) == 1:
            module.to(self.device_ids[0])
        self._current()  # before several threads ask for it at once

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "module" and isinstance(value, nn.Module):
            check_replicable(value)
        elif name == "device_ids":
            found = as_devices(all_devices() if value is None else value)
            self._fixed, value = value is not None, found
        elif name == "output_device":
            value = as_device(value)
        elif name == "weights":
            Weighing(len(self.device_ids), value)  # says what is wrong with them
        elif name == "loss":
            if value is not None:
                in_slices(value)  # the same
            object.__setattr__(self, name, value)  # no submodule: its weights are not the model's
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            module = self.__dict__.get("_modules", {}).get("module")
            if module is None or name in _OWN:
                raise
            return getattr(module, name)  # of the wrapped module, as if it were not wrapped

    @property
    def src_device_obj(self) -> torch.device:
        """Where the module is, by the name that torch has for it.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"]).src_device_obj
            device(type='cpu')
        """
        return self.device_ids[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_runtime": None}  # which is this process's, not the model's

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._current()

    def _replicate_for_data_parallel(self) -> DataParallel:
        made: DataParallel = super()._replicate_for_data_parallel()
        made._runtime = None  # inside of another: each copy has threads of its own
        return made

    def __prepare_scriptable__(self) -> nn.Module:
        return self.module  # for torch.jit.script, which knows no threads

    # --- the drop-in form -------------------------------------------------------------------------

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
        if is_traced():
            return self._call(inputs, kwargs, {}, self.loss).run(self.module)
        own = self._own_steps()
        if self.loss is None:
            return self._run(self._call(inputs, kwargs, own))
        # Anew each time: its settings may have changed
        sliced = None if own else in_slices(self.loss)
        if sliced is not None:
            return self._run(self._call(inputs, kwargs, own, self.loss, sliced))
        if not inputs:
            raise UsageError(
                "a DataParallel with a loss needs the target as its last positional argument"
            )
        target = walk(inputs[-1], lambda each: each.to(self.output_device))
        return self.loss(self._run(self._call(inputs[:-1], kwargs, own)), target)

    def _call(
        self,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any],
        own: Steps,
        *loss: Callable[..., Any] | None,
    ) -> ModuleCall:
        return ModuleCall(inputs, kwargs, self.dim, self.output_device, own, *loss)

    def _run(self, call: ModuleCall) -> Any:
        runtime = self._current(call.own)
        kind = self._kind(runtime, by_step=False)
        if kind is None:
            return run_alone(runtime, call)
        with runtime.step_lock.pass_through(runtime.threads):
            trial = runtime.choosing.begin(kind)
            if runtime.may_try:
                return try_parallel(runtime, call, trial, kind)
            return run_parallel(runtime, call, trial)

    def _kind(self, runtime: Runtime, *, by_step: bool) -> StepKind | None:
        """What the next step is like; None: it is the plain module's, on the CPU."""
        if runtime.on_cpu and (len(self.device_ids) == 1 or is_transformed()):
            return None
        return StepKind(by_step, torch.is_grad_enabled(), self.module.training)

    def _own_steps(self) -> Steps:
        """Those of the four that are a subclass's, or the object's own."""
        held, kind = self.__dict__, type(self)
        return {
            name: getattr(self, name)
            for name, step in _STEPS
            if name in held or getattr(kind, name) is not step
        }

    def _current(self, own: Steps | None = None) -> Runtime:
        """What is there for the module, the devices and the weights as they are now."""
        # Steps of a subclass's own are not tried out
        fixed = self._fixed or bool(self._own_steps() if own is None else own)
        runtime, module = self._runtime, self._modules["module"]
        devices, weights = self.device_ids, self.weights
        if runtime is None or not runtime.settings.are(module, devices, weights, fixed=fixed):
            if runtime is not None:
                runtime.close()
            runtime = self._runtime = Runtime(Settings(module, list(devices), weights, fixed))
        return runtime

    # --- the four steps: a subclass may have its own ----------------------------------------------

    def scatter(
        self,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        device_ids: Sequence[DeviceLike],
    ) -> Any:
        """Slice the arguments of a call.

        Args:
            inputs: positional arguments.
            kwargs: keyword arguments.
            device_ids: where to.

        Returns:
            Positional and keyword arguments of each device; as many as there is something for.

        Example:
            >>> model = DataParallel(nn.Identity(), ["cpu", "cpu"])
            >>> model.scatter((torch.arange(3),), {}, ["cpu", "cpu"])
            (((tensor([0, 1]),), (tensor([2]),)), ({}, {}))
        """
        whole = len(device_ids) == len(self.device_ids)
        weights = self._current().weighing.weights if whole else None
        return scatter_kwargs(inputs, kwargs, device_ids, self.dim, weights)

    def replicate(self, module: nn.Module, device_ids: Sequence[DeviceLike]) -> list[nn.Module]:
        """Copy a module to devices.

        Args:
            module: on the first of them.
            device_ids: where to.

        Returns:
            Modules in whose graph the module's own parameters are; without one where gradients are
            off.

        Example:
            >>> model = DataParallel(nn.Identity(), ["cpu", "cpu"])
            >>> len(model.replicate(nn.Linear(2, 2), ["cpu", "cpu"]))
            2
        """
        return replicate(module, device_ids, not torch.is_grad_enabled())

    def parallel_apply(
        self,
        replicas: Sequence[nn.Module],
        inputs: Sequence[Any],
        kwargs: Sequence[dict[str, Any]] | None,
    ) -> list[Any]:
        """Call each replica with its inputs, all at once.

        Args:
            replicas: one a device, of the first ones of `device_ids`.
            inputs: of each; a tuple, or a single one.
            kwargs: of each.

        Returns:
            Their outputs.

        Example:
            >>> model = DataParallel(nn.Identity(), ["cpu", "cpu"])
            >>> inputs = [(torch.ones(1),), (torch.zeros(1),)]
            >>> model.parallel_apply([model.module] * 2, inputs, [{}, {}])
            [tensor([1.]), tensor([0.])]
        """
        return self._current().apply(replicas, inputs, kwargs, self.device_ids[: len(replicas)])

    def gather(self, outputs: Sequence[Any], output_device: DeviceLike) -> Any:
        """Put the outputs of the devices together.

        Args:
            outputs: one a device.
            output_device: where the result is to be.

        Returns:
            One output.

        Example:
            >>> model = DataParallel(nn.Identity(), ["cpu", "cpu"])
            >>> model.gather([torch.ones(1), torch.zeros(1)], "cpu")
            tensor([1., 0.])
        """
        return gather(outputs, output_device, self.dim)

    # --- step mode --------------------------------------------------------------------------------

    def step(self, loss_fn: LossFunction, *batch: Any, **kwargs: Any) -> torch.Tensor:
        """Forward, loss and backward of the whole batch, each slice in one go.

        Leaves the gradients on the parameters.

        Args:
            loss_fn: called with a replica and its slice, ``loss_fn(module, *slice)``; returns the
                slice's mean loss.
            *batch: tensors in containers, of which each device gets a slice.
            **kwargs: sliced, too.

        Returns:
            The whole batch's mean loss, without a graph.

        Raises:
            UsageError: the batch cannot be scattered, or the loss is not one number.

        Example:
            >>> model = DataParallel(nn.Linear(2, 1), ["cpu", "cpu"])
            >>> def loss_fn(module, x, y):
            ...     return nn.functional.mse_loss(module(x), y)
            >>> loss = model.step(loss_fn, torch.ones(4, 2), torch.zeros(4, 1))
            >>> loss.ndim, model.module.weight.grad.shape
            (0, torch.Size([1, 2]))
        """
        call = self._call(batch, kwargs, self._own_steps())
        runtime = self._current(call.own)
        kind = self._kind(runtime, by_step=True)
        if kind is None:
            return step_alone(runtime, loss_fn, call)
        with runtime.step_lock.pass_through(runtime.threads):
            trial = runtime.choosing.begin(kind)
            if runtime.may_try:
                return try_step(runtime, loss_fn, call, trial, kind)
            return step_parallel(runtime, loss_fn, call, trial)

    # --- the rest ---------------------------------------------------------------------------------

    def report(self) -> StepReport:
        """What the steps so far have taken, phase by phase, with the module as it is now.

        Returns:
            Sums in seconds; ``print`` shows milliseconds a step.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"]).report().steps
            0
        """
        return self._current().timing.read()

    def close(self) -> None:
        """End the threads; a later call starts others. They end with the object, too.

        Example:
            >>> DataParallel(nn.Identity(), ["cpu", "cpu"]).close()
        """
        if self._runtime is not None:
            self._runtime.close()


_STEPS = [
    (name, vars(DataParallel)[name])
    for name in ("scatter", "replicate", "parallel_apply", "gather")
]
