# SPDX-License-Identifier: BSD-3-Clause
"""One pass through the four steps: scatter, replicate, parallel_apply, gather.

::

    CPU, steps as they are here      a graph for each replica, which autograd/backward.py joins: see `cpu`
    accelerators, or a subclass      one graph through all replicas, as torch has it
    that replicates or applies in
    its own way
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from teamster.parallel.auto import StepKind, Trial
from teamster.parallel.calling import ModuleCall
from teamster.parallel.criterion import in_slices, run_with_loss, whole_loss
from teamster.parallel.gathering import gather, is_by_sample
from teamster.parallel.replicas import replicate
from teamster.parallel.runtime import Runtime
from teamster.parallel.scattering import Piece, as_pieces, batch_size_or_none
from teamster.parallel.stepping import LossFunction, backward_of_all, check_loss


def run_parallel(runtime: Runtime, call: ModuleCall, trial: Trial) -> Any:
    """A forward pass.

    Args:
        runtime: whose replicas run.
        call: of forward.
        trial: says how many replicas there are.

    Returns:
        The output for the whole batch, or its loss.
    """
    pieces = _scatter(runtime, call, trial)
    if trial.replicas == 1:
        output = call.of(pieces[0]).run(runtime.settings.module)
    elif len(pieces) == 1 and call.sliced is not None:
        output = call.of(pieces[0]).run(runtime.settings.module).to(call.output_device)
    else:
        outputs = _replicate_and_apply(runtime, call, pieces, trial)
        output = _gather(runtime, call, outputs)
    runtime.learn(pieces, trial, output)
    return output


def try_parallel(runtime: Runtime, call: ModuleCall, trial: Trial, kind: StepKind) -> Any:
    """The same with replicas that nobody has named: what they cannot do, the plain module does.

    Args:
        runtime: as above.
        call: as above.
        trial: as above.
        kind: of such passes, which are the plain module's from then on.

    Returns:
        As above.
    """
    given = call.inputs, call.kwargs
    samples = batch_size_or_none(given, call.dim)
    if trial.replicas > 1 and samples is not None:
        try:
            output = run_parallel(runtime, call, trial)
            if call.sliced is not None or runtime.comparing.agrees(given, output, samples, call.dim):
                return output
        except Exception:  # the plain module's own errors it raises again
            runtime.tidy(failed=True)
    trial.samples = samples or 1
    output = call.run(runtime.settings.module)
    runtime.comparing.keep(given, output)
    if trial.replicas == 1:
        trial.end(output)
    if trial.replicas > 1 or samples is None or (call.sliced is None and not is_by_sample(output, samples, call.dim)):
        runtime.choosing.rule_out(kind)
    runtime.tidy()
    return output


def run_alone(runtime: Runtime, call: ModuleCall) -> Any:
    """A forward pass of the plain module.

    Args:
        runtime: whose module it is.
        call: of forward.

    Returns:
        Its output, or the loss.
    """
    return _to_one(runtime, call).run(runtime.settings.module)


def step_parallel(runtime: Runtime, loss_fn: LossFunction, call: ModuleCall, trial: Trial) -> torch.Tensor:
    """Forward, loss and backward.

    Args:
        runtime: whose replicas run.
        loss_fn: takes a module and the slices, returns the slice's mean loss.
        call: of step.
        trial: says how many replicas there are.

    Returns:
        The whole batch's mean loss, without a graph.
    """
    pieces = _scatter(runtime, call, trial)
    if len(pieces) == 1 and not _by_methods(call):
        loss = _step(runtime, loss_fn, call.of(pieces[0]))
    elif _in_one_graph(runtime, call):
        runs = [partial(loss_fn, module) for module in _replicate(runtime, call, pieces)]
        loss = backward_of_all(_apply(runtime, call, runs, pieces), pieces)
    else:
        loss = runtime.cpu.step(loss_fn, pieces, runtime.lines(trial.replicas))
    runtime.learn(pieces, trial)
    return loss.detach()


def try_step(runtime: Runtime, loss_fn: LossFunction, call: ModuleCall, trial: Trial, kind: StepKind) -> torch.Tensor:
    """The same with replicas that nobody has named; see `try_parallel`.

    Args:
        runtime: as above.
        loss_fn: as above.
        call: as above.
        trial: as above.
        kind: as of `try_parallel`.

    Returns:
        As above.
    """
    try:
        if batch_size_or_none((call.inputs, call.kwargs), call.dim) is not None:
            return step_parallel(runtime, loss_fn, call, trial)
    except Exception:  # before a gradient was left
        if trial.replicas == 1:
            raise
        runtime.tidy(failed=True)
    loss = _step(runtime, loss_fn, call)
    runtime.choosing.rule_out(kind)
    return loss


def step_alone(runtime: Runtime, loss_fn: LossFunction, call: ModuleCall) -> torch.Tensor:
    """Forward, loss and backward of the plain module.

    Args:
        runtime: whose module it is.
        loss_fn: as of `step_parallel`.
        call: of step.

    Returns:
        The loss, without a graph.
    """
    return _step(runtime, loss_fn, _to_one(runtime, call))


def _step(runtime: Runtime, loss_fn: LossFunction, call: ModuleCall) -> torch.Tensor:
    loss = check_loss(loss_fn(runtime.settings.module, *call.inputs, **call.kwargs))
    if loss.requires_grad:
        loss.backward()
    return loss.detach()


# --- the four steps ------------------------------------------------------------------------------------------------------------


def _scatter(runtime: Runtime, call: ModuleCall, trial: Trial) -> list[Piece]:
    if "scatter" not in call.own:
        return runtime.scatter(call.inputs, call.kwargs, call.dim, trial)
    devices = runtime.settings.devices
    pieces = as_pieces(call.own["scatter"](call.inputs, call.kwargs, devices), devices, call.dim)
    runtime.timing.begin_step(len(pieces))
    return pieces


def _to_one(runtime: Runtime, call: ModuleCall) -> ModuleCall:
    """For the plain module, as a subclass scatters to one device."""
    if "scatter" not in call.own:
        return call
    devices = runtime.settings.devices[:1]
    return call.of(as_pieces(call.own["scatter"](call.inputs, call.kwargs, devices), devices, call.dim)[0])


def _by_methods(call: ModuleCall) -> bool:
    """Whether a subclass replicates or applies in its own way: with modules in whose graph the parameters are."""
    return "replicate" in call.own or "parallel_apply" in call.own


def _in_one_graph(runtime: Runtime, call: ModuleCall) -> bool:
    return not runtime.on_cpu or _by_methods(call)


def _replicate_and_apply(runtime: Runtime, call: ModuleCall, pieces: list[Piece], trial: Trial) -> list[Any]:
    """The outputs, as functions of the module's parameters and the inputs."""
    if len(pieces) == 1 and not _by_methods(call):
        return [call.of(pieces[0]).run(runtime.settings.module)]
    if not _in_one_graph(runtime, call):
        given = None if "scatter" in call.own else (call.inputs, call.kwargs)
        return runtime.cpu.apply(pieces, runtime.lines(trial.replicas), given, call.sliced)
    runs: list[Any] = _replicate(runtime, call, pieces)
    if call.sliced is not None:
        losses = [_loss_on(runtime, call, piece.device) for piece in pieces]
        runs = [partial(run_with_loss, module, loss) for module, loss in zip(runs, losses, strict=True)]
    return _apply(runtime, call, runs, pieces)


def _replicate(runtime: Runtime, call: ModuleCall, pieces: list[Piece]) -> list[nn.Module]:
    began = perf_counter_ns()
    step: Callable[..., Any] = call.own.get("replicate", partial(replicate, detach=not torch.is_grad_enabled()))
    modules: list[nn.Module] = step(runtime.settings.module, [piece.device for piece in pieces])
    runtime.timing.tell("replicate", -1, began)
    return modules


def _apply(runtime: Runtime, call: ModuleCall, runs: list[Any], pieces: list[Piece]) -> list[Any]:
    step: Callable[..., Any] = call.own.get("parallel_apply", partial(runtime.apply, devices=[piece.device for piece in pieces]))
    outputs: list[Any] = step(runs, [piece.inputs for piece in pieces], [piece.kwargs for piece in pieces])
    return outputs


def _gather(runtime: Runtime, call: ModuleCall, outputs: list[Any]) -> Any:
    began = perf_counter_ns()
    if call.sliced is not None:
        output = whole_loss(call.criterion, outputs, call.output_device)
    else:
        output = call.own.get("gather", partial(gather, dim=call.dim))(outputs, call.output_device)
    runtime.timing.tell("gather", -1, began)
    return output


def _loss_on(runtime: Runtime, call: ModuleCall, device: torch.device) -> Callable[..., Any]:
    """The criterion in slices, on a device."""
    moved = isinstance(call.criterion, nn.Module) and device != runtime.settings.devices[0]
    found = in_slices(replicate(call.criterion, [device])[0]) if moved else call.sliced
    assert found is not None
    return found
