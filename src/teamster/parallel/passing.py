# SPDX-License-Identifier: BSD-3-Clause
"""One pass through the four steps: scatter, replicate, parallel_apply, gather.

::

    cpu           steps 2 and 3 with a graph for each replica, which autograd/backward.py joins
    accelerators  with one graph through all, as torch has it; so, too, where a subclass
                  replicates or applies in its own way
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import Any

import torch

from teamster.parallel.auto import StepKind, Trial
from teamster.parallel.calling import LossFunction, ModuleCall
from teamster.parallel.criterion import check_loss, whole_loss
from teamster.parallel.gathering import gather, is_by_sample
from teamster.parallel.runtime import Runtime
from teamster.parallel.scattering import Chunk, as_chunks, batch_size_or_none


def run_parallel(runtime: Runtime, call: ModuleCall, trial: Trial) -> Any:
    """A forward pass.

    Args:
        runtime: it has the replicas.
        call: of forward.
        trial: says how many replicas there are.

    Returns:
        The output for the whole batch, or its loss.
    """
    chunks = _scatter(runtime, call, trial)
    if trial.replicas == 1:
        output = call.of(chunks[0]).run(runtime.settings.module)
    elif len(chunks) == 1 and call.sliced is not None:
        output = call.of(chunks[0]).run(runtime.settings.module).to(call.output_device)
    else:
        outputs = _replicate_and_apply(runtime, call, chunks, trial)
        output = _gather(runtime, call, outputs)
    runtime.learn(chunks, trial, output)
    return output


def try_parallel(runtime: Runtime, call: ModuleCall, trial: Trial, kind: StepKind) -> Any:
    """The same with replicas that were not asked for: what they cannot do, the module does.

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
            comparing = runtime.comparing
            if call.sliced is not None or comparing.agrees(given, output, samples, call.dim):
                return output
        except Exception:  # the plain module's own errors it raises again
            runtime.tidy(failed=True)
    trial.samples = samples or 1
    output = call.run(runtime.settings.module)
    runtime.comparing.keep(given, output)
    if trial.replicas == 1:
        trial.end(output)
    # In this order: replicas that have failed are ruled out whatever the output looks like
    if (
        trial.replicas > 1
        or samples is None
        or (call.sliced is None and not is_by_sample(output, samples, call.dim))
    ):
        runtime.choosing.rule_out(kind)
    runtime.tidy()
    return output


def run_alone(runtime: Runtime, call: ModuleCall) -> Any:
    """A forward pass of the plain module.

    Args:
        runtime: it has the module.
        call: of forward.

    Returns:
        Its output, or the loss.
    """
    return _to_one(runtime, call).run(runtime.settings.module)


def step_parallel(
    runtime: Runtime, loss_fn: LossFunction, call: ModuleCall, trial: Trial
) -> torch.Tensor:
    """Forward, loss and backward.

    Args:
        runtime: it has the replicas.
        loss_fn: takes a module and the slices, returns the slice's mean loss.
        call: of step.
        trial: says how many replicas there are.

    Returns:
        The whole batch's mean loss, without a graph.
    """
    chunks = _scatter(runtime, call, trial)
    if len(chunks) == 1 and not call.replicates:
        loss = _step(runtime, loss_fn, call.of(chunks[0]))
    elif _in_one_graph(runtime, call):
        loss = runtime.accelerators.step(loss_fn, chunks, call, runtime.apply)
    else:
        loss = runtime.cpu.step(loss_fn, chunks, runtime.lines(trial.replicas))
    runtime.learn(chunks, trial)
    return loss.detach()


def try_step(
    runtime: Runtime, loss_fn: LossFunction, call: ModuleCall, trial: Trial, kind: StepKind
) -> torch.Tensor:
    """The same with replicas that were not asked for; see `try_parallel`.

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
        runtime: it has the module.
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


# --- the four steps -------------------------------------------------------------------------------


def _scatter(runtime: Runtime, call: ModuleCall, trial: Trial) -> list[Chunk]:
    if "scatter" not in call.own:
        return runtime.scatter(call.inputs, call.kwargs, call.dim, trial)
    devices = runtime.settings.devices
    chunks = as_chunks(call.own["scatter"](call.inputs, call.kwargs, devices), devices, call.dim)
    runtime.timing.begin_step(len(chunks))
    return chunks


def _to_one(runtime: Runtime, call: ModuleCall) -> ModuleCall:
    """For the plain module, as a subclass scatters to one device."""
    if "scatter" not in call.own:
        return call
    devices = runtime.settings.devices[:1]
    scattered = call.own["scatter"](call.inputs, call.kwargs, devices)
    return call.of(as_chunks(scattered, devices, call.dim)[0])


def _in_one_graph(runtime: Runtime, call: ModuleCall) -> bool:
    return not runtime.on_cpu or call.replicates


def _replicate_and_apply(
    runtime: Runtime, call: ModuleCall, chunks: list[Chunk], trial: Trial
) -> list[Any]:
    """The outputs, as functions of the module's parameters and the inputs."""
    if len(chunks) == 1 and not call.replicates:
        return [call.of(chunks[0]).run(runtime.settings.module)]
    if _in_one_graph(runtime, call):
        return runtime.accelerators.apply(chunks, call, runtime.apply)
    given = None if "scatter" in call.own else (call.inputs, call.kwargs)
    return runtime.cpu.apply(chunks, runtime.lines(trial.replicas), given, call.sliced)


def _gather(runtime: Runtime, call: ModuleCall, outputs: list[Any]) -> Any:
    began = perf_counter_ns()
    if call.sliced is not None:
        output = whole_loss(call.criterion, outputs, call.output_device)
    else:
        output = call.own.get("gather", partial(gather, dim=call.dim))(outputs, call.output_device)
    runtime.timing.note_phase("gather", -1, began)
    return output
